"""The significance tests: each looks at all pairs of a family of methods at once.

The first test decides. It takes both reasons into account for which scores vary: users and trainings. The
others are about these trained models only, and assume less about the distribution of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsys.evaluation.metrics import Scores
from recsys.evaluation.resampling import sign_flipped_sums
from recsys.evaluation.uncertainty import ROUNDING, Trainings, Uncertainty, uncertainties

ALPHA = 0.05
"""Significance level: a difference counts as real where p is below it."""

FLIPS = 10_000
"""Number of random sign flips of a permutation test."""

MIN_QUERIES = 10
"""Smallest number of queries from which anything is claimed.

Below 6 queries no permutation test can reach p < .05: all signs are alike by chance in 2 of 2⁵ cases. The
t-test can, but only because it takes differences for normally distributed, which scores of queries are not.
"""

TOO_FEW = "too few queries"
"""Verdict on fewer than :data:`MIN_QUERIES` queries."""

UNDECIDED = "undecided"
"""Answer of a test that finds no difference."""

_FLIPS_PER_PAIR = 40  # the smallest possible p then stays below ALPHA even after Holm's correction


@dataclass(frozen=True)
class Family:
    """The scores of N methods on the same Q queries, and the pairs of methods that are compared.

    Attributes:
        scores: ``(N, Q)`` scores of each method on each query, averaged over its seeds.
        pairs: Pairs ``(a, b)`` of rows of ``scores``; b is compared with a.
        trainings: What the seeds of each method tell of its luck in training.
        is_binary: Whether every score of every run is 0 or 1.
    """

    scores: Scores
    pairs: Sequence[tuple[int, int]]
    trainings: Sequence[Trainings] = ()
    is_binary: bool = False

    @cached_property
    def paired(self) -> list[PairedTTest]:
        """The paired t-test of each pair."""
        return [paired_t_test(self.scores[a], self.scores[b]) for a, b in self.pairs]

    @cached_property
    def uncertainties(self) -> list[Uncertainty]:
        """How uncertain the difference of each pair is, over users and trainings."""
        queries = self.scores.shape[1]
        variances = [float(differences.var(ddof=1)) / queries for differences in self.differences]
        return uncertainties(variances, queries, self.trainings, self.pairs)

    @cached_property
    def differences(self) -> list[Scores]:
        """``(Q,)`` for each pair: b minus a, and 0 where that is rounding."""
        return [differences_of(self.scores[a], self.scores[b]) for a, b in self.pairs]

    @cached_property
    def from_first(self) -> Scores:
        """``(Q', N)``: each method minus the first one, without queries on which all score the same.

        Sums over queries of random signs or draws need no more than these, often a small part of all.
        """
        apart = differences_of(self.scores[0], self.scores).T
        return apart[apart.any(axis=1)]


@dataclass(frozen=True)
class TestResult:
    """What one test found for one pair.

    Attributes:
        p: Two-sided p of this comparison alone; None if the test gives none or does not apply.
        effect: What the test measures; above 0 where b is better.
        p_adjusted: ``p`` corrected for the family; None if there is no p.
    """

    __test__ = False  # not a class of tests for pytest

    p: float | None
    effect: float
    p_adjusted: float | None = None

    @property
    def is_answer(self) -> bool:
        """Whether the test applies, and so has a p."""
        return self.p is not None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``undecided``, by the adjusted p, else by p."""
        p = self.p if self.p_adjusted is None else self.p_adjusted
        if p is None or p >= ALPHA:
            return UNDECIDED
        return "better" if self.effect > 0 else "worse"


@dataclass(frozen=True)
class SignificanceTest:
    """A test as reports, records and verdicts know it.

    Attributes:
        label: Name in sentences.
        function: Returns one result for each pair of a family.
        column: Header of the column of a report's table that shows its adjusted p; none if empty.
    """

    label: str
    function: Callable[[Family], list[TestResult]]
    column: str = ""


@dataclass(frozen=True)
class PairedTTest:
    """How far b is from a on the same queries.

    Attributes:
        mean_a: Mean score of a.
        mean_b: Mean score of b.
        difference: ``mean_b - mean_a``, above 0 where b is better.
        low: Lower end of the difference's confidence interval.
        high: Upper end of that interval.
        p_value: Two-sided p over queries. It is about these trained models only: two models of one method,
            trained from two seeds, often differ by it too.
        effect_size: Cohen's d_z, the mean over the standard deviation of the differences.
        n: Number of queries.
    """

    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float
    effect_size: float
    n: int


def differences_of(a: Scores, b: Scores) -> Scores:
    """Return b minus a, and 0 where that is rounding."""
    differences = b - a
    return np.where(np.abs(differences) > ROUNDING, differences, 0.0)


def mean_interval(values: Scores, confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's t interval of the mean of at least two values ``(Q,)``: its lower and upper end."""
    from scipy import stats  # noqa: PLC0415 — imports slowly

    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def paired_t_test(a: Scores, b: Scores, confidence: float = 0.95) -> PairedTTest:
    """Compare b with a by Student's paired two-sided t-test.

    Where no query differs but for rounding, p is 1 and the interval is 0 … 0. Where all queries differ by
    the same amount, the test is undefined, because nothing tells how much differences vary: p is 1 too.

    Args:
        a: ``(Q,)`` scores, at least two.
        b: ``(Q,)`` scores on the same queries in the same order.
        confidence: Confidence level of the interval.

    Raises:
        ValueError: If the shapes differ, or if there are fewer than two queries.

    Example:
        >>> test = paired_t_test(np.array([0.0, 1, 1, 0]), np.array([1.0, 3, 4, 2]))
        >>> test.difference, round(test.p_value, 4)
        (2.0, 0.0163)
    """
    from scipy import stats  # noqa: PLC0415 — imports slowly

    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"a paired test needs two score vectors of one length ≥ 2, not {a.shape} and {b.shape}"
        )
    differences = differences_of(a, b)
    mean = differences.mean()
    if np.ptp(differences) <= ROUNDING:  # the statistic would be 0/0, or infinite
        p_value, effect_size = 1.0, 0.0 if mean == 0 else np.copysign(np.inf, mean)
    else:
        p_value, effect_size = stats.ttest_1samp(differences, 0).pvalue, mean / differences.std(ddof=1)
    low, high = mean_interval(differences, confidence)
    return PairedTTest(
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        difference=float(mean),
        low=low,
        high=high,
        p_value=float(p_value),
        effect_size=float(effect_size),
        n=len(a),
    )


def wilcoxon(differences: Scores) -> tuple[float, float]:
    """Compare by Wilcoxon's two-sided signed-rank test (1945); queries without a difference are left out.

    A large difference counts by its rank only.

    Args:
        differences: ``(Q,)``, b minus a.

    Returns:
        p, and the rank-biserial correlation from -1 to 1 (Kerby 2014): the ranks of queries on which b is
        better minus those on which a is better, over all ranks. 1 and 0 where no query differs.
    """
    from scipy import stats  # noqa: PLC0415 — imports slowly

    apart = differences.round(12)  # what is the same but for rounding is a tie
    apart = apart[apart != 0]
    if len(apart) == 0:
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(apart))
    return float(stats.wilcoxon(apart).pvalue), float(ranks @ np.sign(apart) / ranks.sum())


def mcnemar(differences: Scores) -> TestResult:
    """Compare hits by McNemar's exact two-sided test (1947) on the queries on which two methods differ.

    Args:
        differences: ``(Q,)``, the hits of b minus those of a.

    Returns:
        p, and as effect the share of these queries that b wins minus the share that a wins; 1 and 0 where no
        query differs.
    """
    from scipy import stats  # noqa: PLC0415 — imports slowly

    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if wins + losses == 0:
        return TestResult(1.0, 0.0)
    return TestResult(float(stats.binomtest(wins, wins + losses).pvalue), (wins - losses) / (wins + losses))


def permutation_p(differences: Scores, flipped: Scores, rounding: float) -> float:
    """Return the two-sided p of a permutation test that flips the signs of differences at random.

    It counts the data themselves, so it is never 0 (Phipson & Smyth 2010).

    Args:
        differences: ``(Q,)``, b minus a.
        flipped: ``(R,)`` sums of the differences after random flips of their signs.
        rounding: How far two sums may lie apart and still be a tie.
    """
    as_far = np.abs(flipped) >= np.abs(differences.sum()) - rounding
    return float((1 + as_far.sum()) / (1 + len(flipped)))


def _t_tests(family: Family) -> list[TestResult]:
    """Compare means over users and trainings; without a p where one seed tells nothing of trainings."""
    results = []
    for differences, uncertainty in zip(family.differences, family.uncertainties, strict=True):
        mean = float(differences.mean())
        p = None
        if uncertainty.is_known:  # where all queries differ by the same, nothing tells how much they vary
            p = 1.0 if np.ptp(differences) <= ROUNDING else uncertainty.p(mean)
        results.append(TestResult(p, mean))
    return results


def _tests_over_users(family: Family) -> list[TestResult]:
    return [TestResult(test.p_value, test.difference) for test in family.paired]


def _wilcoxon_tests(family: Family) -> list[TestResult]:
    return [TestResult(*wilcoxon(differences)) for differences in family.differences]


def _mcnemar_tests(family: Family) -> list[TestResult]:
    """Compare the numbers of queries that only one method of a pair hits, or hits with more of its seeds."""
    return [
        mcnemar(differences) if family.is_binary else TestResult(None, float(differences.mean()))
        for differences in family.differences
    ]


def _permutation_tests(family: Family) -> list[TestResult]:
    flipped = sign_flipped_sums(family.from_first, max(FLIPS, _FLIPS_PER_PAIR * len(family.pairs)))
    # The sum of a pair is as imprecise as the two sums it is the difference of, however small it is.
    rounding = ROUNDING * np.abs(family.from_first).sum(axis=0)
    return [
        TestResult(
            permutation_p(differences, flipped[b] - flipped[a], rounding[a] + rounding[b]),
            float(differences.mean()),
        )
        for differences, (a, b) in zip(family.differences, family.pairs, strict=True)
    ]


TESTS: dict[str, SignificanceTest] = {
    "t_test": SignificanceTest("t-test", _t_tests, "p"),
    "users": SignificanceTest("t-test over users alone", _tests_over_users),
    "wilcoxon": SignificanceTest("Wilcoxon", _wilcoxon_tests, "p (Wilcoxon)"),
    "permutation": SignificanceTest("permutation", _permutation_tests, "p (permutation)"),
    "mcnemar": SignificanceTest("McNemar", _mcnemar_tests, "p (McNemar)"),
}
"""All tests by name. The first decides. To add one, write a function of a :class:`Family` and add a row."""
