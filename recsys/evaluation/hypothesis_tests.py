"""The significance tests: each looks at all pairs of a family of methods at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsys.evaluation.metrics import Scores
from recsys.evaluation.resampling import bootstrap_sums, sign_flipped_sums

ALPHA = 0.05
"""Significance level: a difference counts as real where p is below it."""

FLIPS = RESAMPLES = 10_000
"""Number of random sign flips of a permutation test, and of resamples of a bootstrap."""

MIN_QUERIES = 10
"""Smallest number of queries from which anything is claimed.

Below 6 queries no permutation test can reach p < .05: all signs are alike by chance in 2 of 2⁵ cases. The
t-test can, but only because it takes differences for normally distributed, which scores of queries are not.
"""

TOO_FEW = "too few queries"
"""Verdict on fewer than :data:`MIN_QUERIES` queries."""

ROUNDING = 1e-12
"""Smaller differences of scores are rounding: means of the same seeds in another order differ by it."""

_FLIPS_PER_PAIR = 40  # the smallest possible p then stays below ALPHA even after Holm's correction


@dataclass(frozen=True)
class Family:
    """The scores of N methods on the same Q queries, and the pairs of methods that are compared.

    Attributes:
        scores: ``(N, Q)`` scores of each method on each query, averaged over its seeds.
        seed_means: For each method the mean score of each of its seeds.
        pairs: Pairs ``(a, b)`` of rows of ``scores``; b is compared with a.
    """

    scores: Scores
    seed_means: Sequence[Sequence[float]]
    pairs: Sequence[tuple[int, int]]

    @cached_property
    def paired(self) -> list[PairedTTest]:
        """The paired t-test of each pair."""
        return [paired_t_test(self.scores[a], self.scores[b]) for a, b in self.pairs]

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
        low: Lower end of the test's 95 % interval of the difference; None if it gives none.
        high: Upper end of that interval.
        p_adjusted: ``p`` corrected for the family; None if the test's p is not corrected.
    """

    __test__ = False  # not a class of tests for pytest

    p: float | None
    effect: float
    low: float | None = None
    high: float | None = None
    p_adjusted: float | None = None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no evidence``, by the adjusted p, else by p, else by the interval."""
        p = self.p if self.p_adjusted is None else self.p_adjusted
        if p is not None:
            is_real = p < ALPHA
        else:
            is_real = self.low is not None and self.high is not None and not self.low <= 0 <= self.high
        if not is_real:
            return "no evidence"
        return "better" if self.effect > 0 else "worse"


@dataclass(frozen=True)
class SignificanceTest:
    """A test as reports, records and verdicts know it.

    Attributes:
        label: Name in sentences.
        function: Returns one result for each pair of a family.
        columns: Header of a table's column to the attribute of :class:`TestResult` that it shows:
            ``p``, ``p_adjusted`` or ``interval``.
        corrected: Whether p is corrected for the family by Holm's method.
        decides: Whether a verdict of better or worse needs this test's consent.
        only_confirms: Whether its disagreement counts only where a difference was found.
    """

    label: str
    function: Callable[[Family], list[TestResult]]
    columns: Mapping[str, str]
    corrected: bool = True
    decides: bool = False
    only_confirms: bool = False

    def record(self, result: TestResult) -> dict[str, float | None]:
        """Return what a record of a comparison keeps of a result, by short names."""
        kept: dict[str, float | None] = {}
        if "interval" in self.columns.values():
            kept |= {"low": result.low, "high": result.high}
        else:
            kept |= {"p": result.p} | ({"p_holm": result.p_adjusted} if self.corrected else {})
        return kept | {"effect": result.effect}


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


def seed_test(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the two-sided p of a t-test over the means of seeds; None where neither side has two seeds.

    Welch's test, where both sides vary. A side with one run, or with runs that are all alike, is a fixed
    value with which the seeds of the other side are compared (one-sample t-test). In a benchmark all random
    methods have the same seeds, so a single run belongs to a deterministic method. Where neither side
    varies, p is 1 if they are equal, else 0.

    Args:
        a: Mean score of each seed of a.
        b: Mean score of each seed of b.
    """
    from scipy import stats  # noqa: PLC0415 — imports slowly

    if max(len(a), len(b)) < 2:
        return None
    fixed, varied = sorted((a, b), key=np.ptp)
    if np.ptp(varied) <= ROUNDING:  # nothing is random in either; the statistic would be 0/0
        return float(abs(a[0] - b[0]) <= ROUNDING)
    if np.ptp(fixed) <= ROUNDING:
        return float(stats.ttest_1samp(varied, fixed[0]).pvalue)
    return float(stats.ttest_ind(a, b, equal_var=False).pvalue)


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
    return [TestResult(test.p_value, test.difference, test.low, test.high) for test in family.paired]


def _seed_tests(family: Family) -> list[TestResult]:
    return [
        TestResult(
            seed_test(family.seed_means[a], family.seed_means[b]),
            float(np.mean(family.seed_means[b]) - np.mean(family.seed_means[a])),
        )
        for a, b in family.pairs
    ]


def _wilcoxon_tests(family: Family) -> list[TestResult]:
    return [TestResult(*wilcoxon(differences)) for differences in family.differences]


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


def _bootstrap_intervals(family: Family) -> list[TestResult]:
    count = family.scores.shape[1]
    drawn = bootstrap_sums(family.from_first, RESAMPLES, total=count) / count
    results = []
    for differences, (a, b) in zip(family.differences, family.pairs, strict=True):
        low, high = np.quantile(drawn[b] - drawn[a], [0.025, 0.975]).tolist()
        results.append(TestResult(None, float(differences.mean()), low, high))
    return results


TESTS: dict[str, SignificanceTest] = {
    "t_test": SignificanceTest(
        "t-test", _t_tests, {"p (queries)": "p", "p (Holm)": "p_adjusted"}, decides=True
    ),
    "seeds": SignificanceTest("seeds", _seed_tests, {"p (seeds)": "p"}, corrected=False, decides=True),
    "wilcoxon": SignificanceTest("Wilcoxon", _wilcoxon_tests, {"p (Wilcoxon)": "p_adjusted"}),
    "permutation": SignificanceTest("permutation", _permutation_tests, {"p (permutation)": "p_adjusted"}),
    "bootstrap": SignificanceTest(
        "bootstrap", _bootstrap_intervals, {"bootstrap interval": "interval"}, only_confirms=True
    ),
}
"""All tests by name. To add one, write a function of a :class:`Family` and add a row."""
