from __future__ import annotations

from itertools import product

import numpy as np
from scipy import stats

from recsys.evaluation.resampling import sign_flipped_sums


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


def test_randomness_is_that_of_the_seed() -> None:
    scores = np.random.default_rng(0).random((30, 2))
    assert sign_flipped_sums(scores, 9, seed=1).shape == (2, 9)
    assert np.array_equal(sign_flipped_sums(scores, 9, 1), sign_flipped_sums(scores, 9, 1))
    assert not np.array_equal(sign_flipped_sums(scores, 9, 1), sign_flipped_sums(scores, 9, 2))


def test_where_nothing_differs_sums_are_zero() -> None:
    assert not sign_flipped_sums(np.empty((0, 3)), 5).any()
