from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.across import bradley_terry, standings


def test_ranks_computed_by_hand() -> None:
    scores = np.array([[0.3, 0.2, 0.1], [0.5, 0.1, 0.5], [0.9, 0.8, 0.7]])
    # Ranks 1 2 3, then 1.5 3 1.5, then 1 2 3.
    assert [one.rank for one in standings(scores)] == pytest.approx([3.5 / 3, 7 / 3, 7.5 / 3])


def test_strengths_of_two_methods_are_the_odds_of_winning() -> None:
    # Seven wins to three, and half a win each beforehand: odds 7.5 : 3.5.
    log_odds = np.log(7.5 / 3.5)
    assert bradley_terry(np.array([[0.0, 7.0], [3.0, 0.0]])) == pytest.approx([log_odds / 2, -log_odds / 2])


def test_strengths_are_the_most_likely_ones() -> None:
    rng = np.random.default_rng(0)
    wins = rng.integers(0, 20, (4, 4)).astype(float)
    np.fill_diagonal(wins, 0)
    found = bradley_terry(wins)

    def likelihood(strengths: np.ndarray) -> float:
        apart = strengths[:, None] - strengths[None, :]
        off = ~np.eye(4, dtype=bool)
        return float(((wins + 0.5) * -np.log1p(np.exp(-apart)))[off].sum())

    assert found.sum() == pytest.approx(0, abs=1e-9)
    nearby = found + 0.05 * rng.normal(size=(200, 4))
    assert max(map(likelihood, nearby)) < likelihood(found)


def test_intervals_hold_what_benchmarks_agree_on_and_widen_where_they_do_not() -> None:
    rng = np.random.default_rng(1)
    clear = standings(np.array([0.3, 0.2, 0.1]) + 0.001 * rng.normal(size=(20, 3)))
    assert [one.rank_interval for one in clear] == [(1, 1), (2, 2), (3, 3)]
    chance = standings(0.2 + 0.1 * rng.normal(size=(20, 3)))
    for one in chance:
        low, high = one.rank_interval
        assert low < 2 < high or high - low > 0.5
        assert one.strength_interval[0] <= one.strength <= one.strength_interval[1]
    assert max(one.strength_interval[0] for one in chance) < min(one.strength_interval[1] for one in chance)


@pytest.mark.parametrize("shape", [(1, 3), (3, 1)])
def test_one_benchmark_or_method_is_no_comparison(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 2 benchmarks and 2 methods"):
        standings(np.ones(shape))
