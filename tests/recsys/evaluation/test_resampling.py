from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from recsys.evaluation.resampling import bootstrap_sums, sign_flipped_sums


def test_every_choice_of_signs_is_as_likely_as_any_other() -> None:
    # Powers of two: each sum tells all the signs.
    sums = sign_flipped_sums(np.array([[1.0], [2.0], [4.0]]), 8001)[0]
    values, counts = np.unique(sums, return_counts=True)
    assert values.tolist() == sorted(sum(signs) for signs in product((-1, 1), (-2, 2), (-4, 4)))
    assert stats.chisquare(counts).pvalue > 0.001


def test_all_methods_of_a_query_are_flipped_together() -> None:
    scores = np.random.default_rng(0).random((150, 1))
    first, same, opposite, twice = sign_flipped_sums(scores * [1, 1, -1, 2], 50)
    assert np.allclose([same, -opposite, twice / 2], first)
    assert np.unique(first.round(9)).size == 50


def test_flips_of_many_queries_are_fair_and_independent() -> None:
    scores = np.random.default_rng(0).random((1000, 1))  # more than are flipped at once
    sums = sign_flipped_sums(scores, 5000)[0]
    assert stats.kstest(sums / np.sqrt((scores**2).sum()), "norm").pvalue > 0.001


def test_queries_are_drawn_with_replacement() -> None:
    # Two of two: twice the first, both, or twice the second, 1 : 2 : 1.
    sums = bootstrap_sums(np.array([[1.0], [10.0]]), 8000, total=2)[0]
    values, counts = np.unique(sums, return_counts=True)
    assert values.tolist() == [2, 11, 20]
    assert stats.chisquare(counts, [2000, 4000, 2000]).pvalue > 0.001


def test_queries_left_out_because_they_are_zero_are_drawn_all_the_same() -> None:
    scores = np.array([[1.0], [10.0], [0.0], [0.0], [0.0]])
    drawn = (bootstrap_sums(kept, 20_000, total=5)[0] for kept in (scores, scores[:2]))
    whole, short = (np.unique(sums, return_counts=True) for sums in drawn)
    common = np.isin(whole[0], short[0]) & (whole[1] > 20)
    expected = whole[1][common]
    found = short[1][np.isin(short[0], whole[0][common])]
    assert common.sum() > 10
    assert stats.chi2_contingency([expected, found]).pvalue > 0.001


def test_a_bootstrap_keeps_the_pairing_of_methods() -> None:
    scores = np.random.default_rng(0).random((2000, 1))  # in several parts
    first, shifted, twice = bootstrap_sums(scores * [1, 1, 2] + [0, 0.5, 0], 700, total=2000)
    assert shifted - first == pytest.approx(np.full(700, 1000), rel=1e-4)
    assert twice == pytest.approx(2 * first, rel=1e-4)
    assert stats.kstest((first - scores.sum()) / (scores.std() * 2000**0.5), "norm").pvalue > 0.001


def test_randomness_is_that_of_the_seed() -> None:
    scores = np.random.default_rng(0).random((30, 2))
    for sums in (sign_flipped_sums(scores, 9, seed=1), bootstrap_sums(scores, 9, total=30, seed=1)):
        assert sums.shape == (2, 9)
    for sample in (
        lambda seed: sign_flipped_sums(scores, 9, seed),
        lambda seed: bootstrap_sums(scores, 9, total=30, seed=seed),
    ):
        assert np.array_equal(sample(1), sample(1))
        assert not np.array_equal(sample(1), sample(2))


def test_where_nothing_differs_sums_are_zero() -> None:
    nothing = np.empty((0, 3))
    assert not sign_flipped_sums(nothing, 5).any()
    assert bootstrap_sums(nothing, 5, total=10).tolist() == [[0.0] * 5] * 3
