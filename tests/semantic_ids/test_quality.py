"""Quality figures worked out by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semantic_ids.ids import SemanticIds
from semantic_ids.quality import entropy, gini, perplexity, purity, quality

EMBEDDINGS = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]], dtype=np.float32)
COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any).map(np.array)


@pytest.mark.parametrize("size", [1, 2, 7, 256])
def test_perplexity_of_even_use_is_the_number_of_codes(size: int) -> None:
    assert perplexity(np.full(size, 3)) == pytest.approx(size)
    assert perplexity(np.concatenate([np.full(size, 3), np.zeros(5, dtype=int)])) == pytest.approx(size)


def test_entropy_and_perplexity_of_uneven_use() -> None:
    counts = np.array([2, 1, 0, 1])  # shares ½, ¼, ¼
    assert entropy(counts) == pytest.approx(1.5)
    assert perplexity(counts) == pytest.approx(2**1.5)
    assert (entropy(np.array([0, 9, 0])), perplexity(np.array([0, 9, 0]))) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([5, 5, 5], 0.0),
        ([0, 9, 0, 0], 3 / 4),
        ([1, 3], 1 / 4),
        ([3, 0, 1], 1 / 2),  # the pairs differ by 3, 2, 1: 2 · 6 / (2 · 3² · mean 4/3)
    ],
)
def test_gini_by_hand(counts: list[int], expected: float) -> None:
    assert gini(np.array(counts)) == pytest.approx(expected)


@given(COUNTS)
def test_gini_is_half_the_relative_mean_difference(counts: np.ndarray) -> None:
    differences = np.abs(counts[:, None] - counts[None, :]).mean()
    assert gini(counts) == pytest.approx(differences / (2 * counts.mean()))


def test_purity_by_hand() -> None:
    groups = np.array([0, 0, 0, 1, 1, 2])
    categories = np.array([4, 4, 1, 1, 0, 0])  # 2 of 3, 1 of 2, 1 of 1
    assert purity(groups, categories) == 4 / 6


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30))
def test_purity_is_the_share_of_the_commonest_of_each_group(pairs: list[tuple[int, int]]) -> None:
    groups, categories = np.array(pairs).T
    commonest = (
        Counter(c for g, c in pairs if g == group).most_common(1)[0][1] for group in {g for g, _ in pairs}
    )
    assert purity(groups, categories) == sum(commonest) / len(pairs)


def test_levels() -> None:
    ids = SemanticIds(np.array([[0, 2], [1, 2], [0, 2], [3, 2]]), (5, 3))
    first, second = quality(ids, EMBEDDINGS).levels
    assert (first.utilization, first.dead_codes) == (3 / 5, 2)
    assert (first.entropy, first.perplexity) == pytest.approx((1.5, 2**1.5))
    assert first.gini == pytest.approx(0.5)  # uses 0 0 1 1 2, weights −4 −2 0 2 4: 10 / (5 · 4)
    assert (second.utilization, second.dead_codes, second.entropy, second.perplexity) == (1 / 3, 2, 0.0, 1.0)
    assert second.gini == pytest.approx(2 / 3)


def test_prefixes_tell_categories_the_better_the_longer_they_are() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 1], [1, 0], [1, 0], [1, 3]])
    categories = np.array([0, 1, 1, 1, 1, -1])
    first, second = quality(
        SemanticIds(codes, (2, 4)), np.zeros((6, 2), np.float32), categories=categories
    ).prefixes
    assert first.purity == 4 / 5  # without the item of no category: 0 holds 0 1 1, 1 holds 1 1
    assert second.purity == 1.0


def test_purity_by_chance_is_that_of_codes_that_know_nothing() -> None:
    rng = np.random.default_rng(1)
    categories = rng.integers(0, 4, 4000)
    none = rng.integers(0, 8, (4000, 1))
    embeddings = np.zeros((4000, 2), np.float32)
    (blind,) = quality(SemanticIds(none, (8,)), embeddings, categories=categories).prefixes
    (seeing,) = quality(SemanticIds(categories[:, None], (8,)), embeddings, categories=categories).prefixes
    (unique,) = quality(
        SemanticIds(np.arange(4000)[:, None], (4000,)), embeddings, categories=categories
    ).prefixes
    assert blind.purity == pytest.approx(blind.chance_purity, abs=0.02)
    assert 0.25 < blind.chance_purity < 0.32
    assert (seeing.purity, unique.purity, unique.chance_purity) == (1.0, 1.0, 1.0)
    assert seeing.chance_purity < 0.3


def test_purity_by_chance_is_the_expected_one() -> None:
    # Two codes of two items each; of the three ways to pair A A B B, one is pure and two are half.
    ids = SemanticIds(np.array([[0], [0], [1], [1]]), (2,))
    several = [quality(ids, categories=np.array(c)).prefixes[0] for c in ([0, 0, 1, 1], [0, 1, 1, 0])]
    assert [figures.chance_purity for figures in several] == pytest.approx([2 / 3] * 2, abs=0.15)
    assert [figures.purity for figures in several] == [1.0, 0.5]


@pytest.mark.parametrize("categories", [None, np.full(4, -1)])
def test_without_categories_there_is_no_purity(categories: np.ndarray | None) -> None:
    ids = SemanticIds(np.array([[0], [1], [2], [3]]), (4,))
    assert quality(ids, EMBEDDINGS, categories=categories).prefixes == ()


def test_collisions() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 0], [1, 0], [1, 1], [2, 0], [2, 0], [3, 3]])
    figures = quality(SemanticIds(codes, (4, 4)), np.zeros((8, 2), dtype=np.float32))
    assert figures.collision_rate == 5 / 8
    assert figures.unique_id_rate == 5 / 8  # 00, 10, 11, 20, 33
    assert figures.largest_leaf == 3


def test_without_collisions() -> None:
    figures = quality(SemanticIds(np.array([[0], [1], [2], [3]]), (4,)), EMBEDDINGS)
    assert (figures.collision_rate, figures.unique_id_rate, figures.largest_leaf) == (0.0, 1.0, 1)


def test_reconstruction_is_the_share_of_variance_lost() -> None:
    ids = SemanticIds(np.array([[0], [1], [2], [3]]), (4,))
    mean = np.ones((4, 2), dtype=np.float32)
    assert quality(ids, EMBEDDINGS, mean).reconstruction_error == 1.0
    assert quality(ids, EMBEDDINGS, EMBEDDINGS).reconstruction_error == 0.0
    assert quality(ids).reconstruction_error is None
    # each of the 8 numbers is 1 from its mean: 8 in all; one is missed by 2, squared 4
    off = EMBEDDINGS + np.array([[2, 0], [0, 0], [0, 0], [0, 0]], dtype=np.float32)
    assert quality(ids, EMBEDDINGS, off).reconstruction_error == 0.5


def test_distortion_is_counted_per_bit_of_all_levels() -> None:
    mean = np.ones((4, 2), dtype=np.float32)
    ids = SemanticIds(np.array([[0, 0], [0, 1], [1, 0], [2, 1]]), (4, 2))  # 1.5 bits and 1 bit
    assert quality(ids, EMBEDDINGS, mean).distortion_per_bit == pytest.approx(1 / 2.5)
    assert quality(ids, EMBEDDINGS).distortion_per_bit is None
    one_code = SemanticIds(np.zeros((4, 2), dtype=np.int64), (4, 2))
    assert quality(one_code, EMBEDDINGS, mean).distortion_per_bit is None


def test_metrics_are_flat() -> None:
    ids = SemanticIds(np.array([[0, 1], [0, 1], [1, 0], [1, 1]]), (2, 4))
    bits = -0.25 * math.log2(0.25) - 0.75 * math.log2(0.75)
    metrics = quality(ids, EMBEDDINGS).as_metrics()
    assert metrics == {
        "collision_rate": 0.5,
        "unique_id_rate": 0.75,
        "largest_leaf": 2.0,
        "utilization": 0.75,
        "utilization_1": 1.0,
        "utilization_2": 0.5,
        "dead_codes": 2.0,
        "dead_codes_1": 0.0,
        "dead_codes_2": 2.0,
        "entropy_1": pytest.approx(1.0),
        "entropy_2": pytest.approx(bits),
        "perplexity": pytest.approx((2 + 2**bits) / 2),
        "perplexity_1": pytest.approx(2.0),
        "perplexity_2": pytest.approx(2**bits),
        "gini": pytest.approx(0.3125),
        "gini_1": 0.0,
        "gini_2": pytest.approx(0.625),  # uses 0 0 1 3, weights −3 −1 1 3: 10 / (4 · 4)
    }
    decoded = {"reconstruction_error": 0.0, "distortion_per_bit": 0.0}
    assert quality(ids, EMBEDDINGS, EMBEDDINGS).as_metrics() == {**metrics, **decoded}
    told = quality(ids, EMBEDDINGS, categories=np.array([3, 3, 5, 5])).as_metrics()
    assert {name: told[name] for name in ("purity_1", "purity_2")} == {"purity_1": 1.0, "purity_2": 1.0}
    assert told.keys() - metrics.keys() == {"purity_1", "purity_2", "chance_purity_1", "chance_purity_2"}
