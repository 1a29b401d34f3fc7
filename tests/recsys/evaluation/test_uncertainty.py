from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from recsys.evaluation.scores import QueryScores
from recsys.evaluation.significance import compare_all
from recsys.evaluation.uncertainty import Trainings, Uncertainty, half_width, p_value, pooled_variance


def runs_of(
    users: np.ndarray, shifts: list[float], rng: np.random.Generator, n: int = 400
) -> list[QueryScores]:
    """One run for each shift: the users' scores, shifted, and a little noise."""
    names = np.array([f"q{i:05}" for i in range(n)])
    return [QueryScores(names, {"ndcg_at_10": users + s + rng.normal(0, 0.02, n)}, "d") for s in shifts]


def benchmark(**shifts: list[float]) -> dict[str, list[QueryScores]]:
    rng = np.random.default_rng(3)
    users = rng.uniform(0.2, 0.4, 400)
    return {name: runs_of(users + rng.normal(0, 0.02, 400), of, rng) for name, of in shifts.items()}


def test_variances_over_trainings_computed_by_hand() -> None:
    # Two queries, two trainings: means .3 and .5, so their variance is .02; the second training is better
    # by .1 for one query and by .3 for the other, so .05 in each cell is neither the query's nor its own.
    found = Trainings.of(np.array([[0.2, 0.4], [0.3, 0.7]]))
    assert found.variance == pytest.approx(0.02)
    assert found.residual == pytest.approx(4 * 0.05**2 / ((2 - 1) * (2 - 1)) / 2)
    assert not found.fixed
    same = Trainings.of(np.array([[0.2, 0.4], [0.2, 0.4 + 1e-16]]))
    assert (same.variance, same.residual, same.fixed) == (0, 0, True)
    assert (Trainings.of(np.ones((1, 5))).fixed, Trainings.of(np.ones((1, 5)), fixed=True).fixed) == (
        False,
        True,
    )


def test_each_part_of_the_variance_has_its_own_quantile() -> None:
    # t of 97.5 %: 2.0 with 60 degrees, 4.303 with 2.
    assert half_width(0.05, 4.0, 60, 1.0, 2) ** 2 == pytest.approx(2.0003**2 * 4 + 4.3027**2, rel=1e-4)
    assert half_width(0.05, 4.0, 60, 0.0, 2) == pytest.approx(2 * 2.0003, rel=1e-4)


def test_p_is_the_level_at_which_the_interval_touches_zero() -> None:
    for level in (0.3, 0.01, 1e-9):
        width = half_width(level, 1.0, 100, 0.5, 4)
        assert p_value(np.array([width, -width]), 1.0, 100, 0.5, 4) == pytest.approx(level)
    assert p_value(np.array(0.0), 1.0, 100, 0.5, 4) == 1
    assert p_value(np.array(2.5), 1.0, 30, 0.0, 1) == pytest.approx(2 * stats.t.sf(2.5, 30))


def test_alike_variances_keep_all_degrees_of_freedom_and_an_outlier_takes_them() -> None:
    df = np.full(5, 2.0)
    mean, freedom = pooled_variance(np.ones(5), df)
    assert (mean, freedom) == (1, 10)
    mean, freedom = pooled_variance(np.array([1000.0, 1, 1, 1, 1]), df)
    assert mean == pytest.approx(1004 / 5)
    assert freedom == pytest.approx(2, abs=0.05)  # those of the one that is the sum
    # Weights 1 and 3: the mean is (1 · 4 + 3 · 2) / 4.
    assert pooled_variance(np.array([4.0, 2.0]), np.array([1.0, 3.0]))[0] == 2.5


def test_the_whole_test_computed_by_hand() -> None:
    # Two methods with two seeds each, whose seeds shift all users alike.
    runs = benchmark(a=[0.0, 0.010], b=[0.03, 0.034])
    (found,) = compare_all(runs, "ndcg_at_10", [("a", "b")])
    values = {name: np.stack([run.values("ndcg_at_10") for run in of]) for name, of in runs.items()}
    difference = values["b"].mean(axis=0) - values["a"].mean(axis=0)
    seeds = {name: of.mean(axis=1).var(ddof=1) for name, of in values.items()}
    residual = {name: (np.diff(of, axis=0)[0]).var(ddof=1) / 2 / 400 for name, of in values.items()}
    mean = (seeds["a"] + seeds["b"]) / 2
    freedom = np.clip(3 * sum(seeds.values()) ** 2 / sum(v**2 for v in seeds.values()) - 2, 1, 2)
    trainings = (max(seeds["a"], mean) + max(seeds["b"], mean)) / 2
    users = difference.var(ddof=1) / 400 - (residual["a"] + residual["b"]) / 2
    half = np.sqrt(stats.t.ppf(0.975, 399) ** 2 * users + stats.t.ppf(0.975, freedom) ** 2 * trainings)
    assert (found.low, found.high) == pytest.approx((difference.mean() - half, difference.mean() + half))
    assert found.tests["users"].p < 1e-9
    assert found.p > 0.05  # four trainings tell too little
    assert found.verdict == "undecided"
    assert found.dissent == []  # tests over users have nothing to say about trainings


def test_a_lead_must_hold_over_trainings() -> None:
    lucky = benchmark(a=[0.0, 0.002, 0.001], b=[0.0, 0.001, 0.05])
    steady = benchmark(a=[0.0, 0.002, 0.001], b=[0.05, 0.051, 0.052])
    for runs, verdicts in ((lucky, ("undecided", "undecided")), (steady, ("better", "worse"))):
        (found,) = compare_all(runs, "ndcg_at_10", [("a", "b")])
        assert found.tests["users"].p_adjusted < 1e-6
        assert (found.verdict, found.reversed().verdict) == verdicts


def test_one_seed_claims_nothing_unless_the_method_is_deterministic() -> None:
    runs = benchmark(a=[0.0], b=[0.05])
    (unknown,) = compare_all(runs, "ndcg_at_10", [("a", "b")])
    assert (unknown.verdict, unknown.p, unknown.dissent) == ("undecided", None, [])
    assert unknown.outlook.has_one_seed
    values = [runs[name][0].values("ndcg_at_10") for name in "ba"]
    over_users = stats.ttest_rel(*values).confidence_interval(0.95)
    assert (unknown.low, unknown.high) == pytest.approx(tuple(over_users))
    (half,) = compare_all(runs, "ndcg_at_10", [("a", "b")], fixed=["a"])
    assert half.verdict == "undecided"
    (known,) = compare_all(runs, "ndcg_at_10", [("a", "b")], fixed=["a", "b"])
    assert (known.verdict, known.outlook.has_one_seed) == ("better", False)


def test_a_single_run_beside_several_is_that_of_a_deterministic_method() -> None:
    runs = benchmark(counts=[0.0], trained=[0.05, 0.052, 0.051])
    (inferred,) = compare_all(runs, "ndcg_at_10", [("counts", "trained")])
    (told,) = compare_all(runs, "ndcg_at_10", [("counts", "trained")], fixed=["counts"])
    assert inferred == told
    assert told.verdict == "better"
    (random,) = compare_all(runs, "ndcg_at_10", [("counts", "trained")], fixed=[])
    assert random.verdict == "undecided"  # its other seeds may have failed
    again = runs | {"counts": runs["counts"] * 3}
    (alike,) = compare_all(again, "ndcg_at_10", [("counts", "trained")], fixed=[])
    assert alike.p == pytest.approx(told.p)


def test_untested_pairs_are_no_part_of_the_family() -> None:
    runs = benchmark(a=[0.0, 0.001], b=[0.03, 0.031], c=[0.01])
    alone = compare_all(runs, "ndcg_at_10", [("a", "b")], fixed=[])
    both = compare_all(runs, "ndcg_at_10", [("a", "b"), ("a", "c")], fixed=[])
    assert both[0].p == alone[0].p
    assert both[1].p is None


def test_variances_are_shared_within_pools_alone() -> None:
    runs = benchmark(a=[0.0, 0.001], b=[0.03, 0.031], wild=[0.0, 0.2], other=[0.1, 0.3])
    pairs = [("a", "b"), ("wild", "other")]
    pools = {"a": "steady", "b": "steady", "wild": "wild", "other": "wild"}
    (apart, _), (together, _) = (compare_all(runs, "ndcg_at_10", pairs, pools=p) for p in (pools, None))
    (alone,) = compare_all(runs, "ndcg_at_10", pairs[:1])
    assert (apart.low, apart.high) == pytest.approx((alone.low, alone.high))
    assert together.high - together.low > 10 * (apart.high - apart.low)
    # A pair from two pools shares with the methods of both.
    (across,) = compare_all(runs, "ndcg_at_10", [("a", "wild")], pools=pools)
    (same,) = compare_all(runs, "ndcg_at_10", [("a", "wild")])
    assert across.low == same.low


SIDE = Trainings(3, variance=0.3, residual=0.06)
DOUBTFUL = Uncertainty(1.0, 999, (SIDE, SIDE), trainings_df=4.0)


def test_more_seeds_and_users_make_differences_smaller_that_can_be_found() -> None:
    # Five seeds: .3 / 5 · 2, and twice the degrees of freedom.
    assert DOUBTFUL.with_seeds(2) == replace(
        DOUBTFUL, sides=[replace(SIDE, seeds=5)] * 2, trainings_df=pytest.approx(8.0)
    )
    # Twice the users halve all but what trainings have in common for all users.
    doubled = DOUBTFUL.with_users(2)
    assert (doubled.users, doubled.users_df) == (0.5, 1999)
    assert doubled.sides[0].variance == pytest.approx(0.3 - 0.06 / 2)
    power = DOUBTFUL.detectable(0.05)
    assert power == pytest.approx(DOUBTFUL.half_width(0.05) + 0.8416 * np.sqrt(1 + 0.2), rel=1e-4)
    assert DOUBTFUL.with_seeds(2).detectable(0.05) < power


def test_the_number_of_seeds_is_the_smallest_that_decides() -> None:
    more = DOUBTFUL.more_seeds(2.1, 0.05, 0.05, region=0.0)
    assert more is not None
    assert DOUBTFUL.with_seeds(more).half_width(0.05) < 2.1 <= DOUBTFUL.with_seeds(more - 1).half_width(0.05)
    assert DOUBTFUL.more_seeds(1.0, 0.05, 0.05, region=0.0) is None  # users alone leave ±1.96
    assert Uncertainty(1.0, 999).more_seeds(1.9, 0.05, 0.05, region=0.0) is None
    # In a wide region of equivalence certainty decides, not the difference.
    assert DOUBTFUL.more_seeds(0.0, 0.05, 0.05, region=2.1) == more


def test_the_number_of_users_is_the_smallest_that_decides() -> None:
    more = DOUBTFUL.more_users(2.0, 0.05, 0.05, region=0.0)
    assert more is not None
    enough, less = (DOUBTFUL.with_users(1 + count / 1000) for count in (more, more - 2))
    assert enough.half_width(0.05) < 2.0 < less.half_width(0.05)
    # Trainings alone leave ± t(4) · √(2 · .24 / 3) = 1.11.
    assert DOUBTFUL.more_users(1.0, 0.05, 0.05, region=0.0) is None


def test_an_undecided_comparison_tells_what_would_decide_it() -> None:
    runs = benchmark(a=[0.0, 0.004, 0.002], b=[0.008, 0.004, 0.006])
    (found,) = compare_all(runs, "ndcg_at_10", [("a", "b")], equivalence=0)
    assert found.verdict == "undecided"
    assert found.outlook.more_seeds > 1
    assert found.outlook.detectable > abs(found.difference)
    better = benchmark(a=[0.0, 0.004, 0.002], b=[0.058, 0.054, 0.056])
    (decided,) = compare_all(better, "ndcg_at_10", [("a", "b")], equivalence=0)
    assert (decided.verdict, decided.outlook.more_seeds, decided.outlook.more_users) == ("better", None, None)
    # All pairs of a family pay for it.
    runs["c"] = runs["a"]
    in_family = compare_all(runs, "ndcg_at_10", [("a", "b"), ("a", "c"), ("b", "c")], equivalence=0)[0]
    assert in_family.outlook.detectable > found.outlook.detectable
