from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys.evaluation.hypothesis_tests import (
    mcnemar,
    mean_interval,
    paired_t_test,
    permutation_p,
    wilcoxon,
)
from recsys.evaluation.scores import QueryScores
from recsys.evaluation.significance import Comparison, compare_all, holm


def scores_of(values: np.ndarray, digest: str = "d") -> QueryScores:
    return QueryScores(np.array([f"q{i:05}" for i in range(len(values))]), {"ndcg_at_10": values}, digest)


def noisy(seed: int, shift: float = 0.0, n: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3 + shift, 0.1, n)


def compare(a: np.ndarray, b: np.ndarray) -> Comparison:
    """b with a, as a family of one."""
    (test,) = compare_fixed({"a": [scores_of(a)], "b": [scores_of(b)]}, [("a", "b")])
    return test


def compare_fixed(
    runs: dict[str, list[QueryScores]], pairs: list[tuple[str, str]], **others: float
) -> list[Comparison]:
    """Deterministic methods, so that all uncertainty is that of users."""
    return compare_all(runs, "ndcg_at_10", pairs, fixed=[*runs], **others)


def test_a_comparison_computed_by_hand() -> None:
    # Differences 1, 2, 3, 2: mean 2, standard deviation sqrt(2/3), t = 2 / (.8165 / 2) = 4.899.
    result = paired_t_test(np.array([0.0, 1, 1, 0]), np.array([1.0, 3, 4, 2]))
    assert (result.mean_a, result.mean_b, result.difference, result.n) == (0.5, 2.5, 2.0, 4)
    assert result.effect_size == pytest.approx(2 / np.sqrt(2 / 3))
    assert result.p_value == pytest.approx(0.01628, abs=1e-5)  # two-sided t of 4.899 with 3 degrees
    half = 3.182446 * np.sqrt(2 / 3) / 2  # the tables' t for 3 degrees at 97.5 %
    assert (result.low, result.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    many = [np.tile(values, 3) for values in ([0.0, 1, 1, 0], [1.0, 3, 4, 2])]
    assert compare(*many).verdict == "better"
    assert compare(*many[::-1]).verdict == "worse"


@pytest.mark.parametrize(
    ("queries", "verdict"), [(2, "too few queries"), (9, "too few queries"), (10, "better")]
)
def test_nothing_is_claimed_of_too_few_queries(queries: int, verdict: str) -> None:
    gains = 0.5 + 0.01 * (np.arange(queries) % 2)
    found = compare(np.zeros(queries), gains)
    assert found.tests["t_test"].p < 0.05
    assert (found.verdict, found.dissent) == (verdict, [])
    assert found.reversed().verdict == verdict.replace("better", "worse")


@pytest.mark.parametrize(("queries", "verdict"), [(2, "too few queries"), (400, "undecided")])
def test_nothing_is_claimed_of_equal_differences(queries: int, verdict: str) -> None:
    found = compare(np.zeros(queries), np.ones(queries))
    assert (found.difference, found.tests["t_test"].p, found.verdict) == (1, 1, verdict)


def test_p_is_that_of_scipy_on_the_saved_files(tmp_path: Path) -> None:
    for name, values in (("a", noisy(1)), ("b", noisy(2, shift=0.01))):
        scores_of(values).write(tmp_path / f"{name}.parquet")
    saved = [pq.read_table(tmp_path / f"{n}.parquet")["ndcg_at_10"].to_numpy() for n in "ab"]
    read = {n: QueryScores.read(tmp_path / f"{n}.parquet") for n in "ab"}
    (result,) = compare_fixed({n: [scores] for n, scores in read.items()}, [("a", "b")])
    expected = stats.ttest_rel(saved[1], saved[0])
    assert result.tests["users"].p == expected.pvalue
    assert result.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-12)
    narrow = paired_t_test(*saved, confidence=0.8)
    assert (narrow.low, narrow.high) == pytest.approx(tuple(expected.confidence_interval(0.8)), rel=1e-12)


def test_identical_scores_are_no_difference() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compare(noisy(1), noisy(1))
    assert (result.difference, result.low, result.high, result.effect_size) == (0, 0, 0, 0)
    assert result.tests["wilcoxon"].effect == 0
    assert (
        result.tests["t_test"].p,
        result.tests["t_test"].p_adjusted,
        result.tests["wilcoxon"].p_adjusted,
        result.tests["permutation"].p_adjusted,
    ) == (1, 1, 1, 1)
    assert (result.verdict, result.dissent) == ("equivalent", [])


def test_the_same_difference_on_every_query() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compare(np.ones(5), np.zeros(5))
    assert (result.difference, result.low, result.high, result.tests["t_test"].p) == (-1, -1, -1, 1)
    assert (result.effect_size, result.tests["wilcoxon"].effect) == (-np.inf, -1)
    # Five signs are all alike in 2 of 32 cases, however large the difference.
    assert (result.tests["wilcoxon"].p_adjusted, result.tests["permutation"].p_adjusted) == pytest.approx(
        (2 / 32, 2 / 32), abs=0.01
    )
    assert (result.verdict, result.dissent) == ("too few queries", [])


def test_p_values_without_a_difference_are_uniform() -> None:
    rng = np.random.default_rng(0)
    users = rng.random(200)  # what the two share: how easy each query is
    runs = [users + rng.normal(0, 0.2, (2, 200)) for _ in range(500)]
    p_values = [paired_t_test(a, b).p_value for a, b in runs]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.08


def test_pairing_finds_what_the_spread_between_queries_would_hide() -> None:
    rng = np.random.default_rng(0)
    users = rng.random(500)
    a, b = users, users + rng.normal(0.01, 0.05, 500)
    assert stats.ttest_ind(a, b).pvalue > 0.3
    assert paired_t_test(a, b).p_value < 0.01


def test_the_interval_of_a_mean() -> None:
    expected = stats.ttest_1samp(noisy(3), 0).confidence_interval(0.95)
    assert mean_interval(noisy(3)) == pytest.approx(tuple(expected))
    assert mean_interval(np.full(4, 0.5)) == (0.5, 0.5)


@pytest.mark.parametrize(("a", "b"), [(np.zeros(3), np.zeros(4)), (np.zeros(1), np.ones(1))])
def test_what_cannot_be_paired_is_refused(a: np.ndarray, b: np.ndarray) -> None:
    with pytest.raises(ValueError, match="two score vectors of one length"):
        paired_t_test(a, b)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.03], [0.03]),
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),  # .01·3, .03·2, then .04·1 lifted to .06
        ([0.01, 0.01, 0.01], [0.03, 0.03, 0.03]),
        ([0.5, 0.9, 0.001], [1.0, 1.0, 0.003]),
        ([], []),
    ],
)
def test_holm_computed_by_hand(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    ordered, m = np.sort(p_values), len(p_values)
    passed = ordered * np.arange(m, 0, -1) < 0.05  # walk up from the smallest, stop at the first failure
    rejections = m if passed.all() else int(np.argmin(passed))
    assert (adjusted < 0.05).sum() == rejections
    assert (adjusted >= p_values).all()


def test_a_family_is_adjusted_as_one_and_keeps_its_order() -> None:
    scores = {
        name: scores_of(noisy(i, shift))
        for i, (name, shift) in enumerate({"reference": 0.0, "slightly": 0.01, "clearly": 0.05}.items())
    }
    pairs = [("reference", "slightly"), ("reference", "clearly")]
    slight, clear = compare_fixed({name: [s] for name, s in scores.items()}, pairs)
    assert slight.mean_b == scores["slightly"].mean()["ndcg_at_10"]
    assert slight.tests["t_test"].p_adjusted == max(slight.tests["t_test"].p, 2 * clear.tests["t_test"].p)
    assert clear.tests["t_test"].p_adjusted == 2 * clear.tests["t_test"].p
    assert clear.verdict == "better"


def test_the_verdict_follows_the_adjusted_p() -> None:
    a, b = noisy(1), noisy(2)
    b = b - b.mean() + a.mean() + 2.2 * np.std(b - a, ddof=1) / np.sqrt(len(a))  # t = 2.2, p = .03
    scores = {"a": [scores_of(a)], "b": [scores_of(b)]}
    (alone,) = compare_fixed(scores, [("a", "b")])
    in_family = compare_fixed(scores, [("a", "b"), ("a", "a")])[0]
    assert alone.tests["t_test"].p == in_family.tests["t_test"].p == pytest.approx(0.028, abs=0.001)
    assert (alone.verdict, in_family.verdict) == ("better", "undecided")


def test_other_evaluation_sets_are_refused() -> None:
    scores = {"a": [scores_of(noisy(1), "one")], "b": [scores_of(noisy(2), "two")]}
    with pytest.raises(ValueError, match="different evaluation sets"):
        compare_fixed(scores, [("a", "b")])


@pytest.mark.parametrize("n", [6, 60, 600])
def test_every_test_over_queries_is_that_of_scipy(n: int) -> None:
    a = np.random.default_rng(n).choice([0, 0, 0.5, 1], n)
    b = np.where(np.random.default_rng(1).random(n) < 0.3, np.roll(a, 1) + 0.2, a)
    found, differences = compare(a, b), b - a
    assert found.tests["wilcoxon"].p_adjusted == pytest.approx(stats.wilcoxon(differences.round(12)).pvalue)
    permuted = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0
    )
    assert found.tests["permutation"].p_adjusted == pytest.approx(
        permuted.pvalue, abs=4 * np.sqrt(0.25 / 10_000)
    )


def test_two_queries_are_enough_for_every_test() -> None:
    # Four pairs of signs, two of which sum to as much as is seen.
    found = compare(np.array([0.0, 0.0]), np.array([0.2, 0.6]))
    assert found.tests["wilcoxon"].p_adjusted == stats.wilcoxon([0.2, 0.6]).pvalue == 0.5
    assert found.tests["permutation"].p_adjusted == pytest.approx(0.5, abs=0.02)


def test_flips_that_reach_what_is_seen_are_counted_and_the_data_too() -> None:
    differences = np.array([0.1, 0.2, 0.3])
    flipped = np.array([0.6, -0.6, 0.1 + 0.2 - 0.3, 0.2])
    assert permutation_p(differences, flipped, 1e-12) == (1 + 2) / (1 + 4)
    # .3 + .2 + .1 falls short of .1 + .2 + .3 by a rounding error, and is a tie all the same.
    assert sum(differences) != 0.3 + 0.2 + 0.1
    assert permutation_p(differences, np.array([0.3 + 0.2 + 0.1]), 1e-12) == 1
    assert permutation_p(differences, np.array([0.3 + 0.2 + 0.1]), 0) == 0.5
    assert permutation_p(differences, np.zeros(99), 1e-12) == 0.01


def test_ties_are_counted_however_far_another_method_of_the_family_is() -> None:
    # a and b differ on 7 queries, by the same: of the 2^7 choices of signs 2 reach what is seen.
    rng = np.random.default_rng(2)
    a, far = rng.random(5000), 1 + rng.random(5000)
    b = a.copy()
    b[rng.choice(len(b), 7, replace=False)] += 1e-3
    runs = {name: [scores_of(values)] for name, values in (("far", far), ("a", a), ("b", b))}
    _, test = compare_fixed(runs, [("far", "a"), ("a", "b")])  # Holm leaves the larger p alone
    p = 2 / 2**7
    assert test.tests["permutation"].p_adjusted == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 10_000))


def test_ranks_of_differences_by_hand() -> None:
    # The zero is left out; |.1|, |.1|, |.3|, |.4| have the ranks 1.5, 1.5, 3 and 4.
    p, effect = wilcoxon(np.array([0.0, 0.1, -0.1, 0.3, 0.4]))
    assert effect == (1.5 - 1.5 + 3 + 4) / 10
    assert p == stats.wilcoxon([0.1, -0.1, 0.3, 0.4]).pvalue
    assert wilcoxon(np.zeros(9)) == (1, 0)


def test_rounding_is_no_difference_and_breaks_no_tie() -> None:
    # Means over three seeds that came in another order.
    noise = (0.1 + 0.2 + 0.3) / 3 - (0.3 + 0.2 + 0.1) / 3
    assert noise != 0
    assert wilcoxon(np.full(20, noise)) == (1, 0)
    clean = np.array([0.5, 0.5, -0.5, 0.25, -0.25, 0.25, 0.75])
    assert wilcoxon(clean + noise * np.arange(7)) == wilcoxon(clean)
    same = compare(np.full(9, 0.2), np.full(9, 0.2) + noise)
    assert (
        same.tests["wilcoxon"].p_adjusted,
        same.tests["permutation"].p_adjusted,
    ) == (1, 1)
    assert (
        same.tests["t_test"].p,
        same.tests["t_test"].p_adjusted,
        same.difference,
        same.low,
        same.high,
    ) == (1, 1, 0, 0, 0)
    assert (same.effect_size, same.verdict, same.dissent) == (0, "too few queries", [])
    # A shift of every query by .1 is the same for all, though rounding makes it vary.
    shifted = compare(noisy(1), noisy(1) + 0.1)
    assert (shifted.tests["t_test"].p, shifted.effect_size) == (1, np.inf)


def test_rounding_is_no_difference_beside_a_method_that_is_far() -> None:
    runs = {
        "far": [scores_of(noisy(2, 0.5))],
        "a": [scores_of(noisy(1))],
        "b": [scores_of(noisy(1) + 5.6e-17)],
    }
    assert (runs["a"][0].columns["ndcg_at_10"] != runs["b"][0].columns["ndcg_at_10"]).any()
    _, same = compare_fixed(runs, [("far", "a"), ("a", "b")])
    assert (
        same.tests["t_test"].p_adjusted,
        same.tests["wilcoxon"].p_adjusted,
        same.tests["permutation"].p_adjusted,
        same.verdict,
    ) == (1, 1, 1, "equivalent")


def test_every_p_over_queries_is_adjusted_over_the_family() -> None:
    rng = np.random.default_rng(3)
    runs = {name: [scores_of(noisy(1) + rng.normal(0.004, 0.04, 400))] for name in "abc"}
    runs["a"] = [scores_of(noisy(1))]
    alone = [compare_fixed(runs, [pair])[0] for pair in (("a", "b"), ("a", "c"))]
    family = compare_fixed(runs, [("a", "b"), ("a", "c")])
    expected = holm([test.tests["wilcoxon"].p_adjusted for test in alone])
    assert [test.tests["wilcoxon"].p_adjusted for test in family] == pytest.approx(expected)
    assert alone[0].tests["wilcoxon"].p_adjusted != pytest.approx(expected[0])
    expected = holm([test.tests["permutation"].p_adjusted for test in alone])
    assert [test.tests["permutation"].p_adjusted for test in family] == pytest.approx(expected, abs=0.02)


def test_a_pair_is_tested_alike_in_whatever_family_it_stands() -> None:
    runs = {name: [scores_of(noisy(1) + 0.1 * noisy(seed))] for seed, name in enumerate("abcd", start=2)}
    pairs = [("a", "b"), ("a", "c"), ("d", "b")]
    for pair, test in zip(pairs, compare_fixed(runs, pairs), strict=True):
        alone = compare_fixed(runs, [pair])[0]
        assert (test.mean_a, test.difference, test.tests["wilcoxon"].effect) == (
            alone.mean_a,
            alone.difference,
            alone.tests["wilcoxon"].effect,
        )


@pytest.mark.slow
def test_a_permutation_test_can_show_a_difference_in_the_largest_family() -> None:
    # After Holm's correction of 600 pairs the least p of 10,000 flips would be .06.
    runs = {"a": [scores_of(noisy(1))], "b": [scores_of(noisy(2, shift=0.05))]}
    tests = compare_fixed(runs, [("a", "b")] * 600)
    assert {test.tests["permutation"].p_adjusted < 0.05 for test in tests} == {True}


def test_the_same_call_gives_the_same_numbers() -> None:
    assert compare(noisy(1), noisy(2)) == compare(noisy(1), noisy(2))
    turned = compare(noisy(2), noisy(1)).reversed()
    found = compare(noisy(1), noisy(2))
    assert turned.verdict == found.verdict
    assert turned.tests["wilcoxon"].effect == found.tests["wilcoxon"].effect
    assert turned.tests["permutation"].p_adjusted == found.tests["permutation"].p_adjusted
    assert (turned.low, turned.high) == (found.low, found.high)


def test_a_mean_that_few_queries_make_is_not_confirmed_by_ranks() -> None:
    # Of 400 users 280 lose a little, 120 gain much: better on average, worse for most.
    losses, gains = np.full(280, -0.01), np.linspace(0.2, 0.8, 120)
    found = compare(np.full(400, 0.5), 0.5 + np.concatenate([losses, gains]))
    assert found.verdict == "better"
    assert found.tests["wilcoxon"].p_adjusted > 0.05  # the highest ranks make up for their number
    assert found.dissent == ["wilcoxon"]
    few = compare(np.full(400, 0.5), 0.5 + np.concatenate([np.full(380, -0.01), np.full(20, 0.8)]))
    assert few.verdict == "better"
    assert few.tests["wilcoxon"].effect < 0
    assert few.tests["wilcoxon"].p_adjusted < 0.05  # it finds a difference, but the other way round
    assert few.dissent == ["wilcoxon"]


def test_what_is_certain_but_does_not_matter_is_equivalent() -> None:
    # A lead of .0005 on .3 is found beyond doubt, and lies within 1 % of .3 with its whole interval.
    a = noisy(1)
    b = a + 0.0005 + noisy(2) * 1e-4 - 3e-5
    slight = compare(a, b)
    assert slight.p < 1e-6
    assert (slight.verdict, slight.reversed().verdict, slight.dissent) == ("equivalent", "equivalent", [])
    runs = {"a": [scores_of(a)], "b": [scores_of(b)]}
    (strict,) = compare_fixed(runs, [("a", "b")], equivalence=0.001)
    assert strict.verdict == "better"
    assert strict.region == pytest.approx(0.001 * a.mean())
    # An interval that reaches out of the region is not enough, whatever the difference.
    wide = compare(a, a + noisy(5) * 0.3 - 0.09)
    assert abs(wide.difference) < wide.region < max(abs(wide.low), abs(wide.high))
    assert wide.verdict == "undecided"


def test_a_smaller_level_asks_for_more() -> None:
    a, b = noisy(1), noisy(2)
    b = b - b.mean() + a.mean() + 2.2 * np.std(b - a, ddof=1) / np.sqrt(len(a))  # p = .028
    runs = {"a": [scores_of(a)], "b": [scores_of(b)]}
    (usual,), (seven) = compare_fixed(runs, [("a", "b")]), compare_fixed(runs, [("a", "b")], level=0.05 / 7)
    assert (usual.verdict, seven[0].verdict) == ("better", "undecided")
    expected = stats.ttest_rel(b, a).confidence_interval(1 - 0.05 / 7)
    assert (seven[0].low, seven[0].high) == pytest.approx(tuple(expected), rel=1e-9)


def test_hits_are_compared_by_mcnemar() -> None:
    # b alone hits 9 users, a alone 2: as a fair coin shows 9 heads or more, or 2 or fewer, of 11.
    differences = np.concatenate([np.ones(9), -np.ones(2), np.zeros(50)])
    tail = sum(stats.binom.pmf(k, 11, 0.5) for k in (0, 1, 2))
    assert (mcnemar(differences).p, mcnemar(differences).effect) == pytest.approx((2 * tail, 7 / 11))
    assert (mcnemar(np.zeros(5)).p, mcnemar(np.zeros(5)).effect) == (1, 0)
    hits = (noisy(1) > 0.35).astype(float)
    other = (noisy(2) > 0.35).astype(float)
    assert compare(hits, other).tests["mcnemar"].p == mcnemar(other - hits).p
    assert compare(hits, other * 0.5).tests["mcnemar"].p is None
    assert not compare(hits, other * 0.5).tests["mcnemar"].is_answer
