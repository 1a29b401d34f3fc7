"""Handling of collisions against scipy's assignment and catalogues small enough to see."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from semantic_ids.collisions import sinkhorn, with_digit
from semantic_ids.fitted import RandomHyperplanes, ResidualKMeans
from semantic_ids.ids import SemanticIds
from semantic_ids.types import Doubles


def dealt(codes: list[list[int]], sizes: tuple[int, ...], cost: Doubles) -> SemanticIds:
    return sinkhorn(SemanticIds(np.array(codes), sizes), lambda items: cost[items])


def clustered(seed: int, items: int, codewords: int) -> Doubles:
    """Squared distances of points, many of them close together, to codewords on a plane."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(items, 2)) * rng.choice([0.01, 1], size=(items, 1))
    difference = points[:, None] - rng.normal(size=(codewords, 2))
    return np.square(difference).sum(axis=2)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=25))
def test_the_digit_makes_ids_one_to_one_and_keeps_the_codes(rows: list[tuple[int, int]]) -> None:
    shared = SemanticIds(np.array(rows), (3, 2))
    ids = with_digit(shared)
    assert ids.codes[:, :2].tolist() == shared.codes.tolist()
    assert ids.codes[:, 2].tolist() == shared.collision_digits.tolist()
    assert ids.codebook_sizes == (3, 2, shared.leaf_sizes.max())
    assert (ids.leaf_sizes == 1).all()


def test_a_catalogue_with_digits_grows_without_changing_ids() -> None:
    shared = SemanticIds(np.array([[0], [1], [0]]), (2,))
    grown = with_digit(shared.extended(np.array([[0], [1], [0]])))
    assert grown.codes[:3].tolist() == with_digit(shared).codes.tolist()
    assert grown.codebook_sizes == (2, 4)
    assert grown.generations == (3, 3)


@pytest.mark.parametrize(("items", "codewords"), [(2, 8), (5, 8), (8, 8), (12, 16)])
def test_items_that_collide_get_the_codes_of_the_least_total_distance(items: int, codewords: int) -> None:
    for seed in range(10):
        cost = clustered(seed, items, codewords)
        ids = dealt([[3, 0]] * items, (4, codewords), cost)
        assert (ids.leaf_sizes == 1).all()
        least = cost[linear_sum_assignment(cost)].sum()
        assert cost[np.arange(items), ids.codes[:, 1]].sum() <= 1.001 * least
        assert (ids.codes[:, 0] == 3).all()


def test_items_alone_keep_their_codes_and_nobody_joins_them() -> None:
    # All three under prefix 0 are nearest to codeword 0 or 1; the third holds 1 and is alone there.
    cost = np.array([[0.0, 1.0, 9.0], [0.1, 1.0, 9.0], [5.0, 0.0, 5.0], [0.0, 1.0, 9.0]])
    ids = dealt([[0, 0], [0, 0], [0, 1], [1, 0]], (2, 3), cost)
    assert sorted(ids.codes[:2, 1].tolist()) == [0, 2]
    assert ids.codes[2:].tolist() == [[0, 1], [1, 0]]


def test_two_leaves_under_one_prefix_are_dealt_out_together() -> None:
    cost = np.array([[0.0, 2.0, 1.0, 8.0], [0.0, 2.0, 8.0, 8.0], [2.0, 0.0, 1.5, 8.0], [2.0, 0.0, 8.0, 3.0]])
    ids = dealt([[0, 0], [0, 0], [0, 1], [0, 1]], (1, 4), cost)
    rows, columns = linear_sum_assignment(cost)
    assert ids.codes[rows, 1].tolist() == columns.tolist() == [2, 0, 1, 3]


def test_more_items_than_codewords_are_spread_evenly() -> None:
    cost = clustered(1, 30, 5)
    ids = dealt([[0]] * 30, (5,), cost)
    assert np.bincount(ids.codes[:, 0], minlength=5).tolist() == pytest.approx([6] * 5, abs=1)


def test_items_that_nothing_tells_apart_go_on_sharing() -> None:
    ids = dealt([[0, 1], [0, 1], [0, 1]], (1, 4), np.array([[2.0, 1, 3, 4], [2, 1, 3, 4], [2, 1.5, 3, 4]]))
    assert ids.codes[0].tolist() == ids.codes[1].tolist() != ids.codes[2].tolist()


def test_without_a_free_codeword_items_stay_where_they_are() -> None:
    codes = [[0, 0], [0, 0], [1, 0]]
    assert dealt(codes, (2, 1), np.ones((3, 1))).codes.tolist() == codes


@given(st.integers(0, 100), st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_only_last_codes_of_colliding_items_change(seed: int, items: int) -> None:
    rng = np.random.default_rng(seed)
    before = SemanticIds(rng.integers(0, 3, size=(items, 3)), (3, 3, 3), (1, items - 1))
    cost = clustered(seed, items, 3)
    after = sinkhorn(before, lambda rows: cost[rows])
    alone = before.leaf_sizes[before.leaf_of_item] == 1
    assert after.codes[:, :2].tolist() == before.codes[:, :2].tolist()
    assert after.codes[alone].tolist() == before.codes[alone].tolist()
    assert len(after.leaves) >= len(before.leaves)
    assert (after.codebook_sizes, after.generations) == (before.codebook_sizes, before.generations)


def test_items_of_earlier_generations_keep_their_codewords() -> None:
    # The first two share a leaf, and go on so; the third is new, next to nobody's codeword but theirs.
    cost = np.array([[0.0, 1.0, 2.0, 9.0], [0.0, 1.0, 2.0, 9.0], [0.0, 1.0, 2.0, 9.0], [8.0, 0.0, 8.0, 7.0]])
    ids = SemanticIds(np.array([[0], [0]]), (4,)).extended(np.array([[0], [1]]))
    assert sinkhorn(ids, lambda items: cost[items]).codes.tolist() == [[0], [0], [2], [1]]


@given(st.integers(0, 100), st.integers(1, 8), st.lists(st.integers(0, 8), min_size=1, max_size=2))
@settings(deadline=None, max_examples=50)
def test_a_dealt_catalogue_grows_without_changing_ids(seed: int, first: int, later: list[int]) -> None:
    ends = np.cumsum([first, *later])
    cost = clustered(seed, ends[-1], 5)
    prefix = np.random.default_rng(seed).integers(0, 2, size=ends[-1])
    nearest = np.column_stack([prefix, cost.argmin(axis=1)])
    ids = sinkhorn(SemanticIds(nearest[:first], (2, 5)), lambda items: cost[items])
    for start, end in pairwise(ends):
        extended = ids.extended(nearest[start:end])
        grown = sinkhorn(extended, lambda items: cost[items])
        assert grown.full_codes[:start].tolist() == ids.full_codes.tolist()
        assert grown.generations == extended.generations
        assert len(grown.leaves) >= len(extended.leaves)
        ids = grown


def test_residual_kmeans_keeps_near_duplicates_near_their_codes() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=generator).repeat(5, 1)
    x[60:] += 1e-4 * torch.randn(240, 8, generator=generator)
    tokenizer = ResidualKMeans(levels=2, codebook_size=16).fit(x)
    codes = tokenizer.encode(x)
    before = SemanticIds(codes.numpy(), (16, 16))
    assert (before.leaf_sizes > 1).mean() > 0.5
    after = sinkhorn(before, lambda items: tokenizer.last_level_distances(x[items]).numpy())
    # Under a prefix there may be more items than codewords; else each gets one of its own.
    crowded = np.bincount(after.codes[:, 0], minlength=16) > 16
    leaf_sizes = after.leaf_sizes[after.leaf_of_item]
    assert (leaf_sizes[~crowded[after.codes[:, 0]]] == 1).all()


def test_residual_kmeans_measures_to_the_codewords_of_its_last_level() -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    tokenizer = ResidualKMeans(levels=3, codebook_size=8).fit(x)
    distances = tokenizer.last_level_distances(x)
    codes = tokenizer.encode(x)
    assert distances.dtype == torch.float64
    assert torch.equal(distances.argmin(dim=1), codes[:, -1])
    left = x - tokenizer.codebooks[0][codes[:, 0]] - tokenizer.codebooks[1][codes[:, 1]]
    expected = (left[:, None] - tokenizer.codebooks[2]).square().sum(dim=2)
    torch.testing.assert_close(distances, expected.double(), rtol=1e-5, atol=1e-6)


def test_a_tokenizer_without_a_last_level_says_so() -> None:
    with pytest.raises(NotImplementedError, match="RandomHyperplanes has no last level"):
        RandomHyperplanes().last_level_distances(torch.zeros(1, 4))
