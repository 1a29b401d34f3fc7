"""Beam search against scoring every leaf. (Against transformers' generate: test_t5.py.)"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.decoding.beam_search import beam_search, search_encoded
from recsys.decoding.trie import Trie
from recsys.models.t5 import PAD, T5
from recsys.models.t5_layers import T5Config
from semantic_ids.types import Ints

CATALOGUES = {
    "three uneven levels": ((4, 9, 3), 60),
    "nearly full": ((3, 3), 40),
    "levels of one code": ((1, 6, 1, 5), 12),
    "a single level": ((40,), 25),
    "one leaf": ((5, 5), 1),
}


def make(sizes: tuple[int, ...], items: int, seed: int) -> tuple[T5, Ints, Tensor]:
    torch.manual_seed(seed)
    model = T5(sizes, T5Config(width=12, layers=2, heads=2, head_width=6, feed_forward=16)).double().eval()
    leaves = np.unique(np.random.default_rng(seed).integers(0, sizes, (items, len(sizes))), axis=0)
    sources = torch.randint(1, 1 + sum(sizes), (3, 4 * len(sizes)))
    sources[1, 2 * len(sizes) :] = PAD
    sources[2] = PAD
    return model, leaves, sources


def scores_of_all(model: T5, leaves: Ints, sources: Tensor) -> Tensor:
    """``(Q, M)``: of leaves, or of prefixes, by teacher forcing, each source repeated for all."""
    blocks = model.blocks[: leaves.shape[1]]
    targets = torch.from_numpy(leaves) + torch.tensor([block.start for block in blocks])
    inputs = F.pad(targets[:, :-1], (1, 0), value=PAD)
    rows = []
    for source in sources:
        hidden = model.decode(inputs, model.encode(source.expand(len(leaves), -1)))
        logits = hidden @ model.embedding.weight.T * model.embedding.weight.shape[1] ** -0.5  # (M, L, V)
        score = torch.zeros(len(leaves), dtype=torch.float64)
        for level, block in enumerate(blocks):
            log_p = logits[:, level].gather(1, targets[:, level : level + 1])[:, 0]
            score += log_p - logits[:, level, block].logsumexp(dim=1)
        rows.append(score)
    return torch.stack(rows)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", CATALOGUES)
@torch.no_grad()
def test_a_beam_as_wide_as_the_catalogue_is_exhaustive(name: str, seed: int) -> None:
    model, leaves, sources = make(*CATALOGUES[name], seed)
    found, scores = beam_search(model, Trie.build(leaves, CATALOGUES[name][0]), sources, len(leaves))
    expected = scores_of_all(model, leaves, sources).sort(dim=1, descending=True)
    assert found.tolist() == expected.indices.tolist()
    torch.testing.assert_close(scores, expected.values, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_a_narrow_beam_is_the_textbook_search(seed: int) -> None:
    sizes, width = (4, 9, 3), 3
    model, leaves, sources = make(sizes, 60, seed)
    found, scores = beam_search(model, Trie.build(leaves, sizes), sources, width)
    for row, source in enumerate(sources):
        beam: dict[tuple[int, ...], float] = {(): 0.0}
        for level, block in enumerate(model.blocks):
            longer = {}
            for prefix, score in beam.items():
                inputs = [PAD, *(model.blocks[i].start + code for i, code in enumerate(prefix))]
                hidden = model.decode(torch.tensor([inputs]), model.encode(source[None]))
                log_p = model.logits(hidden[0, -1], block).log_softmax(dim=0)
                for code in {leaf[level] for leaf in leaves.tolist() if tuple(leaf[:level]) == prefix}:
                    longer[(*prefix, code)] = score + float(log_p[code])
            beam = dict(sorted(longer.items(), key=lambda path: -path[1])[:width])
        assert [tuple(leaf) for leaf in leaves[found[row]].tolist()] == list(beam)
        assert scores[row].tolist() == pytest.approx(list(beam.values()), abs=1e-10)


@torch.no_grad()
def test_behind_the_last_leaf_stand_minus_one_and_minus_infinity() -> None:
    model, leaves, sources = make((3, 3), 4, 0)
    trie, count = Trie.build(leaves, (3, 3)), len(leaves)
    found, scores = beam_search(model, trie, sources, count + 3)
    exact, exact_scores = beam_search(model, trie, sources, count)
    assert found[:, :count].tolist() == exact.tolist()
    assert scores[:, :count].tolist() == exact_scores.tolist()
    assert found[:, count:].tolist() == [[-1] * 3] * 3
    assert scores[:, count:].tolist() == [[-math.inf] * 3] * 3


@torch.no_grad()
def test_equal_scores_go_to_the_smaller_leaf() -> None:
    model, leaves, sources = make((6, 5, 4), 90, 0)
    torch.nn.init.zeros_(model.embedding.weight)  # every code of a level is now equally likely
    found, scores = beam_search(model, Trie.build(leaves, (6, 5, 4)), sources, 7)
    # The first 7 prefixes of each level hold the first 7 leaves, if no level narrows them.
    assert found.tolist() == [list(range(7))] * 3
    assert scores.flatten().tolist() == pytest.approx([-math.log(6 * 5 * 4)] * 21)


@torch.no_grad()
def test_codes_off_the_catalogue_keep_their_probability() -> None:
    model, leaves, sources = make((4, 9, 3), 5, 0)
    _, scores = beam_search(model, Trie.build(leaves, (4, 9, 3)), sources, len(leaves))
    _, of_full = beam_search(model, Trie.build(np.array(list(np.ndindex(4, 9, 3))), (4, 9, 3)), sources, 108)
    torch.testing.assert_close(of_full.exp().sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert (scores.exp().sum(dim=1) < 0.5).all()


@pytest.mark.parametrize("width", [1, 3, 20, 1000])
@torch.no_grad()
def test_every_query_gets_as_many_distinct_leaves_as_there_are(width: int) -> None:
    model, leaves, sources = make((3, 9, 4), 70, 1)
    found, scores = beam_search(model, Trie.build(leaves, (3, 9, 4)), sources, width)
    count = min(width, len(leaves))
    assert found.shape == scores.shape == (3, width)
    for row in found[:, :count].tolist():
        assert len(set(row)) == count
        assert set(row) <= set(range(len(leaves)))
    assert scores[:, :count].isfinite().all()
    assert (scores[:, :count].diff(dim=1) <= 0).all()


@pytest.mark.parametrize("width", [1, 2, 4, 8, 30, 60])
@torch.no_grad()
def test_returns_the_best_score_of_what_it_dropped(width: int) -> None:
    sizes = (4, 9, 3)
    model, leaves, sources = make(sizes, 60, 2)
    trie = Trie.build(leaves, sizes)
    _, best_dropped = search_encoded(model, trie, model.encode(sources), width)
    expected = torch.full((3,), -math.inf, dtype=torch.float64)
    kept = [{()} for _ in sources]
    for level in (1, 2):
        prefixes = np.unique(leaves[:, :level], axis=0)
        scores = scores_of_all(model, prefixes, sources)
        for row in range(len(sources)):
            open_ = [i for i, prefix in enumerate(prefixes.tolist()) if tuple(prefix[:-1]) in kept[row]]
            open_.sort(key=lambda i: -float(scores[row, i]))
            kept[row] = {tuple(prefixes[i].tolist()) for i in open_[:width]}
            if open_[width:]:
                expected[row] = expected[row].maximum(scores[row, open_[width]])
    torch.testing.assert_close(best_dropped, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("over_catalogue", [False, True])
@torch.no_grad()
def test_bfloat16_ranks_almost_as_float32_and_scores_are_sums_in_float32(over_catalogue: bool) -> None:
    model, leaves, sources = make((16, 16, 16), 500, 0)
    model.over_catalogue = over_catalogue
    trie = Trie.build(leaves, (16, 16, 16))
    found, scores = beam_search(model.float(), trie, sources, 20)
    coarse, coarse_scores = beam_search(model.bfloat16(), trie, sources, 20)
    assert coarse_scores.dtype == torch.float32
    overlap = [len({*a} & {*b}) / 20 for a, b in zip(found.tolist(), coarse.tolist(), strict=True)]
    assert min(overlap) >= 0.7
    torch.testing.assert_close(coarse_scores, scores, rtol=0, atol=0.05)


@pytest.mark.parametrize("over_catalogue", [False, True])
@torch.no_grad()
def test_log_probabilities_of_a_bfloat16_model_are_no_coarser_than_float32(over_catalogue: bool) -> None:
    model, leaves, sources = make((40,), 25, 0)
    model.over_catalogue = over_catalogue
    _, scores = beam_search(model.bfloat16(), Trie.build(leaves, (40,)), sources, len(leaves))
    assert (scores != scores.bfloat16().float()).float().mean() > 0.9
