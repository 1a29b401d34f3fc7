"""Exact search against scoring every leaf, and against beams."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import recsys.decoding.exact_search
from recsys.decoding.beam_search import beam_search
from recsys.decoding.exact_search import exact_search
from recsys.decoding.trie import Trie
from recsys.models.t5 import PAD, T5
from recsys.models.t5_layers import T5Config
from semantic_ids.types import Ints


def make(
    sizes: tuple[int, ...], items: int, seed: int, sharpness: float, *, over_catalogue: bool = False
) -> tuple[T5, Ints, Tensor]:
    """A model that is the surer of itself the sharper, a catalogue, and 5 sources."""
    torch.manual_seed(seed)
    config = T5Config(width=12, layers=2, heads=2, head_width=6, feed_forward=16)
    model = T5(sizes, config, over_catalogue=over_catalogue).double().eval()
    model.logit_scale *= sharpness
    leaves = np.unique(np.random.default_rng(seed).integers(0, sizes, (items, len(sizes))), axis=0)
    sources = torch.randint(1, 1 + sum(sizes), (5, 3 * len(sizes)))
    sources[1, 2 * len(sizes) :] = PAD
    sources[2] = PAD
    return model, leaves, sources


def scores_of_all(model: T5, leaves: Ints, sources: Tensor) -> Tensor:
    """``(Q, M)``: of leaves, or of prefixes, by teacher forcing, each source repeated for all."""
    blocks = model.blocks[: leaves.shape[1]]
    targets = torch.from_numpy(leaves) + torch.tensor([block.start for block in blocks])
    inputs = F.pad(targets[:, :-1], (1, 0), value=PAD).repeat(len(sources), 1)
    hidden = model.decode(inputs, model.encode(sources.repeat_interleave(len(leaves), dim=0)))
    score = torch.zeros(len(inputs), dtype=torch.float64)
    for level, block in enumerate(blocks):
        logits = model.logits(hidden[:, level], block)
        if model.over_catalogue:
            logits = logits.where(
                codes_behind(leaves, level, logits.shape[1]).repeat(len(sources), 1), -math.inf
            )
        log_p = logits.log_softmax(dim=1)
        score += log_p.gather(1, targets[:, level : level + 1].repeat(len(sources), 1) - block.start)[:, 0]
    return score.view(len(sources), len(leaves))


def codes_behind(leaves: Ints, level: int, size: int) -> Tensor:
    """``(M, K)``: which codes some leaf has behind the prefix that it shares with each leaf."""
    same = (leaves[:, None, :level] == leaves[None, :, :level]).all(axis=2)
    return torch.from_numpy(same @ np.eye(size, dtype=bool)[leaves[:, level]])


def best_of_all(model: T5, leaves: Ints, sources: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k of all leaves, -1 and -∞ behind the last."""
    scores, order = scores_of_all(model, leaves, sources).sort(dim=1, descending=True, stable=True)
    missing = (0, max(0, k - len(leaves)))
    return F.pad(order[:, :k], missing, value=-1), F.pad(scores[:, :k], missing, value=-math.inf)


@st.composite
def searches(draw: st.DrawFn) -> tuple[T5, Ints, Tensor, tuple[int, ...], int, int]:
    sizes = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    items, seed = draw(st.integers(1, 80)), draw(st.integers(0, 10_000))
    sharpness, over_catalogue = draw(st.sampled_from([0.0, 1.0, 4.0, 20.0])), draw(st.booleans())
    model, leaves, sources = make(sizes, items, seed, sharpness, over_catalogue=over_catalogue)
    return model, leaves, sources, sizes, draw(st.integers(1, 12)), draw(st.integers(1, 12))


@settings(max_examples=60, deadline=None)
@given(searches(), st.sampled_from([1, 8, 512]))
@torch.no_grad()
def test_finds_the_best_of_all_leaves_and_is_sure_of_it(
    search: tuple[T5, Ints, Tensor, tuple[int, ...], int, int], rows: int
) -> None:
    model, leaves, sources, sizes, k, beam = search
    trie = Trie.build(leaves, sizes)
    with patch.object(recsys.decoding.exact_search, "_ROWS", rows):  # however the work is cut up
        found, scores, certified = exact_search(model, trie, sources, k, beam=beam)
    expected, expected_scores = best_of_all(model, leaves, sources, k)
    assert certified.tolist() == [True] * len(sources)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-10)
    if model.logit_scale > 0:  # otherwise all leaves are equal but for rounding, see the test of equals
        assert found.tolist() == expected.tolist()
        by_beam, beam_scores = beam_search(model, trie, sources, max(k, len(leaves)))
        assert found.tolist() == by_beam[:, :k].tolist()
        torch.testing.assert_close(scores, beam_scores[:, :k], rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_over_the_catalogue_probabilities_of_all_leaves_add_up_to_one(seed: int) -> None:
    model, leaves, sources = make((8, 8, 8), 40, seed, 1.0, over_catalogue=True)
    found, scores, certified = exact_search(model, Trie.build(leaves, (8, 8, 8)), sources, len(leaves))
    assert certified.all()
    assert (found >= 0).all()
    torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(5, dtype=torch.float64))


@torch.no_grad()
def test_finds_what_a_beam_loses() -> None:
    model, leaves, sources = make((8, 8, 8), 300, 0, 3.0)
    trie = Trie.build(leaves, (8, 8, 8))
    by_beam, _ = beam_search(model, trie, sources, 5)
    found, _, _ = exact_search(model, trie, sources, 5, beam=5)
    expected, _ = best_of_all(model, leaves, sources, 5)
    assert by_beam.tolist() != expected.tolist()
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("limit", [1, 2, 4, 6, 8, 16, 200])
@torch.no_grad()
def test_gives_up_exactly_the_queries_that_need_more_than_the_limit(limit: int) -> None:
    sizes, k = (8, 8, 8), 5
    model, leaves, sources = make(sizes, 300, 0, 3.0)
    trie = Trie.build(leaves, sizes)
    by_beam, beam_scores = beam_search(model, trie, sources, k)
    found, scores, certified = exact_search(model, trie, sources, k, beam=k, limit=limit)
    # What a query needs: the prefixes that score more than the k-th leaf of the beam, counted one by one.
    needs, doubtful = [], []
    for row, source in enumerate(sources):
        most, lossless = 0, True
        for level in (1, 2):
            prefixes = np.unique(leaves[:, :level], axis=0)
            above = (scores_of_all(model, prefixes, source[None])[0] > beam_scores[row, -1]).sum()
            most = max(most, int(above))
            lossless &= int(above) <= k
        needs.append(most)
        doubtful.append(not lossless)
    assert len(set(needs)) > 2
    # A query whose beam lost nothing above the bound needs no limit.
    assert certified.tolist() == [n <= limit or not d for n, d in zip(needs, doubtful, strict=True)]
    expected, expected_scores = best_of_all(model, leaves, sources, k)
    assert found[certified].tolist() == expected[certified].tolist()
    torch.testing.assert_close(scores[certified], expected_scores[certified], rtol=0, atol=1e-10)
    assert found[~certified].tolist() == by_beam[~certified].tolist()
    assert scores[~certified].tolist() == beam_scores[~certified].tolist()


@torch.no_grad()
def test_equal_scores_go_to_the_smaller_leaf() -> None:
    model, leaves, sources = make((6, 5, 4), 90, 0, 1.0)
    torch.nn.init.zeros_(model.embedding.weight)  # every code of a level is now equally likely
    found, _, certified = exact_search(model, Trie.build(leaves, (6, 5, 4)), sources, 7, beam=7)
    assert found.tolist() == [list(range(7))] * 5
    assert certified.all()


@torch.no_grad()
def test_float32_is_certain_too_and_bfloat16_is_refused() -> None:
    model, leaves, sources = make((8, 8, 8), 300, 0, 3.0)
    trie = Trie.build(leaves, (8, 8, 8))
    found, scores, certified = exact_search(model.float(), trie, sources, 5)
    assert scores.dtype == torch.float32
    assert certified.all()
    assert found.tolist() == best_of_all(model.double(), leaves, sources, 5)[0].tolist()
    with pytest.raises(ValueError, match="float32 or float64"):
        exact_search(model.bfloat16(), trie, sources, 5)
