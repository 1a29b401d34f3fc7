from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recsys.evaluation.simulation import (
    World,
    claims_while_looking,
    default,
    draw,
    false_claims,
    false_claims_of_users,
    pooled,
    power,
    sparse_benchmark,
    two_tests,
)

BENCHMARKS = 3000
MOST = stats.binom.ppf(0.999, BENCHMARKS, 0.05) / BENCHMARKS  # 6.3 %


def test_statistics_are_drawn_with_the_variances_that_the_world_has() -> None:
    world = World(3, 4, noise=2.0, residual=0.25, factors=(4,), lead=1.5)
    drawn = draw(world, 40_000, np.random.default_rng(0))[-1]
    # Over users 1 with one seed, of which a quarter falls with seeds; over trainings 2² / 2 for each method.
    trainings = np.array([4 * 2.0, 2.0, 2.0]) + 0.25 / 2
    assert drawn.variances.mean(axis=0) == pytest.approx(trainings, rel=0.03)
    expected = [0.75 + (trainings[a] + trainings[b]) / 4 for a, b in ((0, 1), (0, 2), (1, 2))]
    assert drawn.differences.var(axis=0) == pytest.approx(expected, rel=0.03)
    assert drawn.differences.mean(axis=0) == pytest.approx([-1.5, -1.5, 0], abs=0.04)


@pytest.mark.parametrize("methods", [2, 5, 10])
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_a_difference_that_is_not_there_is_seldom_claimed(methods: int, seeds: int) -> None:
    for noise in (0.0, 0.1, 0.5, 1.0, 2.0, 10.0):
        assert false_claims(World(methods, seeds, noise), default, BENCHMARKS) <= (MOST if seeds > 1 else 0)


@pytest.mark.parametrize("factors", [(4,), (4, 4), (10,), (10, 10)])
def test_nor_where_some_methods_vary_more_over_trainings(factors: tuple[float, ...]) -> None:
    for seeds in (2, 3, 5):
        assert false_claims(World(10, seeds, 10.0, factors=factors), default, BENCHMARKS) <= MOST
    assert false_claims(World(10, 5, 10.0, factors=(10, 10)), pooled, BENCHMARKS) > MOST


def test_the_rule_of_earlier_versions_claimed_too_much() -> None:
    assert false_claims(World(5, 1, 1.8), two_tests, BENCHMARKS) > 0.5
    assert false_claims(World(10, 3, 1.8), two_tests, BENCHMARKS) > 0.3


def test_large_leads_are_found_and_more_seeds_find_more() -> None:
    found = [power(World(5, seeds, 1.8, lead=5), default, 1000) for seeds in (2, 3, 5, 8)]
    assert found == sorted(found)
    assert found[-1] > 0.8
    assert power(World(5, 3, 0.0, lead=10), default, 1000) == 1


def test_looking_several_times_needs_a_smaller_level() -> None:
    corrected, seeds = claims_while_looking(World(2, 8, 1.8), BENCHMARKS)
    assert corrected <= 0.05
    assert 7.5 < seeds <= 8
    careless, _ = claims_while_looking(World(2, 8, 1.8), BENCHMARKS, corrected=False)
    assert careless > MOST
    found, seeds = claims_while_looking(World(2, 8, 1.8, lead=8), BENCHMARKS)
    assert found > 0.95
    assert seeds < 6


def test_scores_of_users_are_sparse_and_trainings_are_as_noisy_as_asked() -> None:
    rng = np.random.default_rng(0)
    world = World(2, 3, noise=2.0)
    drawn = [sparse_benchmark(world, 500, rng) for _ in range(300)]
    scores = np.array(drawn)  # benchmarks × methods × seeds × users
    assert 0.8 < (scores == 0).mean() < 0.97
    over_users = np.mean([(a[0] - b[0]).var() / 500 for a, b in drawn])
    within = scores.mean(axis=3).var(axis=2, ddof=1).mean()  # seeds of a method: their noise and the residual
    assert np.sqrt(2 * within / over_users) == pytest.approx(np.hypot(2.0, 0.85), rel=0.2)


@pytest.mark.slow
def test_the_statistics_stand_for_the_scores_of_users() -> None:
    for methods, seeds, noise in ((2, 3, 0.5), (2, 5, 2.0), (3, 3, 2.0)):
        world = World(methods, seeds, noise, residual=0.72)
        by_users = false_claims_of_users(world, 500, 400)
        assert by_users <= stats.binom.ppf(0.999, 400, 0.05) / 400
        assert by_users == pytest.approx(false_claims(world, default, BENCHMARKS), abs=0.02)
