"""Is a difference real? Paired tests over queries, corrected for how many were made."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

from recsys.evaluation.metrics import Scores
from recsys.evaluation.resampling import bootstrap_sums, sign_flipped_sums
from recsys.evaluation.scores import QueryScores, check_comparable, mean_over_seeds

Name = TypeVar("Name", bound=Hashable)

ALPHA = 0.05
"""A difference counts as real where the adjusted p is below this."""


FLIPS = RESAMPLES = 10_000
"""Of a permutation test, and of a bootstrap."""

_FLIPS_PER_PAIR = 40  # the least p there can be then stays below ALPHA even after Holm's correction

_NOISE = 1e-12
"""What is smaller is no difference of scores: means of the same seeds in another order differ so much."""


@dataclass(frozen=True)
class PairedTTest:
    """How far b is from a, on the same queries.

    Attributes:
        mean_a: mean score of a.
        mean_b: mean score of b.
        difference: ``mean_b - mean_a``, above 0 where b is better.
        low: lower end of the difference's confidence interval, for this comparison alone.
        high: its upper end.
        p_value: two-sided, over queries, of this comparison alone. It speaks of the trained models
            at hand: two of one method, trained from two seeds, often differ by it too.
        effect_size: Cohen's d_z, the mean over the standard deviation of the differences.
        n: number of queries.
    """

    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float
    effect_size: float
    n: int


@dataclass(frozen=True)
class Comparison(PairedTTest):
    """A t-test within its family, and beside it three tests that assume less.

    All p are two-sided; of these, all over queries are corrected for the family by :func:`holm`, the
    same in a family of one.

    Attributes:
        p_seeds: over the means of seeds, see :func:`seed_test`; None where neither side has two. Not
            corrected.
        p_adjusted: ``p_value``, corrected.
        p_wilcoxon: of Wilcoxon's signed-rank test, corrected. Queries without a difference are left
            out, and a large one counts by its rank only.
        rank_effect: rank-biserial correlation, what that test sees: the ranks of queries on which b
            is better less those on which a is, over all ranks; -1 … 1.
        p_permutation: of a permutation test that flips the signs of differences at random, corrected.
        boot_low: lower end of the difference's 95 % bootstrap percentile interval, for this
            comparison alone.
        boot_high: its upper end.
    """

    p_seeds: float | None
    p_adjusted: float
    p_wilcoxon: float
    rank_effect: float
    p_permutation: float
    boot_low: float
    boot_high: float

    def reversed(self) -> Comparison:
        """The same comparison, of a with b."""
        return replace(
            self,
            mean_a=self.mean_b,
            mean_b=self.mean_a,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            effect_size=-self.effect_size,
            rank_effect=-self.rank_effect,
            boot_low=-self.boot_high,
            boot_high=-self.boot_low,
        )

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no evidence``: b against a, by the adjusted p and that over seeds.

        A difference must hold for users at large *and* for training at large, the latter where either
        side has several seeds.
        """
        if (self.p_seeds or 0.0) >= ALPHA:
            return "no evidence"
        return _verdict(self.p_adjusted, self.difference)

    @property
    def dissent(self) -> list[Literal["Wilcoxon", "permutation", "bootstrap"]]:
        """The tests over queries that answer otherwise than the t-test does.

        The bootstrap's interval is not corrected for the family: it can fail to confirm a difference,
        but not claim one.
        """
        found = _verdict(self.p_adjusted, self.difference)
        dissent: list[Literal["Wilcoxon", "permutation", "bootstrap"]] = []
        if _verdict(self.p_wilcoxon, self.rank_effect) != found:
            dissent.append("Wilcoxon")
        if _verdict(self.p_permutation, self.difference) != found:
            dissent.append("permutation")
        if found != "no evidence" and self.boot_low <= 0 <= self.boot_high:
            dissent.append("bootstrap")
        return dissent


def _verdict(p: float, difference: float) -> str:
    if p >= ALPHA:
        return "no evidence"
    return "better" if difference > 0 else "worse"


def _differences(a: Scores, b: Scores) -> Scores:
    """b less a, and 0 where that is rounding: what every test over queries is made of."""
    differences = b - a
    return np.where(np.abs(differences) > _NOISE, differences, 0.0)


def mean_interval(values: Scores, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of ``values`` ``(Q,)``, Q ≥ 2: its lower and its upper end."""
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def paired_t_test(a: Scores, b: Scores, confidence: float = 0.95) -> PairedTTest:
    """Student's paired two-sided t-test of b against a, both ``(Q,)`` in the same order of queries.

    Where no query differs, but for rounding, p is 1 and the interval is 0 … 0. Where all differ by
    the same p is 0.

    Raises:
        ValueError: the shapes differ, or there are fewer than two queries.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"a paired test needs two score vectors of one length ≥ 2, not {a.shape} and {b.shape}"
        )
    differences = _differences(a, b)
    mean = differences.mean()
    if np.ptp(differences) <= _NOISE:  # the statistic would be 0/0, or infinite
        p_value, effect_size = (1.0, 0.0) if mean == 0 else (0.0, np.copysign(np.inf, mean))
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


def holm(p_values: Sequence[float]) -> npt.NDArray[np.float64]:
    """p values adjusted so that a family's chance of any false claim stays below the level (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, …; none becomes smaller than the one
    before, nor larger than 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def seed_test(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of a t-test over the means of seeds; None where neither side has two.

    Welch's, where both sides vary. A side of one run, or of runs all alike, is a fixed value to which
    the seeds of the other are compared (one-sample t-test): in a benchmark all random methods have
    the same seeds, so one run against several is that of a deterministic method. Where neither side
    varies p is 1 if they are the same, else 0.
    """
    if max(len(a), len(b)) < 2:
        return None
    fixed, varied = sorted((a, b), key=np.ptp)
    if np.ptp(varied) <= _NOISE:  # nothing random in either; the statistic would be 0/0
        return float(abs(a[0] - b[0]) <= _NOISE)
    if np.ptp(fixed) <= _NOISE:
        return float(stats.ttest_1samp(varied, fixed[0]).pvalue)
    return float(stats.ttest_ind(a, b, equal_var=False).pvalue)


def wilcoxon(differences: Scores) -> tuple[float, float]:
    """Wilcoxon's two-sided signed-rank test (1945) of ``(Q,)`` differences, zeros left out.

    Returns:
        p, and the rank-biserial correlation (Kerby 2014); 1 and 0 where no query differs.
    """
    apart = differences.round(12)  # what is the same but for rounding is a tie
    apart = apart[apart != 0]
    if len(apart) == 0:
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(apart))
    return float(stats.wilcoxon(apart).pvalue), float(ranks @ np.sign(apart) / ranks.sum())


def permutation_p(differences: Scores, flipped: Scores, rounding: float) -> float:
    """Two-sided p of a permutation test; it counts the data at hand, so it is never 0 (Phipson & Smyth 2010).

    Args:
        differences: ``(Q,)``.
        flipped: ``(R,)``, their sums after random flips of their signs.
        rounding: how far two sums may lie apart and still be a tie.
    """
    as_far = np.abs(flipped) >= np.abs(differences.sum()) - rounding
    return float((1 + as_far.sum()) / (1 + len(flipped)))


def compare_all(
    runs: Mapping[Name, Sequence[QueryScores]], metric: str, pairs: Sequence[tuple[Name, Name]]
) -> list[Comparison]:
    """All tests of a family of pairs, with p adjusted over the family by :func:`holm`.

    Two calls with the same arguments give the same numbers.

    Args:
        runs: name → scores, one for each seed; a query's scores are averaged over seeds first.
        metric: which column to compare.
        pairs: ``(a, b)`` names; b is compared with a.

    Returns:
        One comparison for each pair, in their order.

    Raises:
        ValueError: the scores are not comparable, or lack the metric.
    """
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if not names:
        return []
    means = {name: mean_over_seeds(runs[name]) for name in names}
    for name in names[1:]:
        check_comparable(means[names[0]], means[name])
    of_seeds = {name: [float(s.values(metric).mean()) for s in runs[name]] for name in names}
    scores = np.stack([means[name].values(metric) for name in names])  # (N, Q)
    columns = [(names.index(a), names.index(b)) for a, b in pairs]

    # Random sums need no query on which all methods score the same; often that is most of them.
    apart = _differences(scores[0], scores).T
    apart = apart[apart.any(axis=1)]
    flipped = sign_flipped_sums(apart, max(FLIPS, _FLIPS_PER_PAIR * len(pairs)))
    drawn = bootstrap_sums(apart, RESAMPLES, total=scores.shape[1]) / scores.shape[1]

    # A pair's sums are as imprecise as the two they are the difference of, however little it differs.
    rounding = _NOISE * np.abs(apart).sum(axis=0)

    differences = [_differences(scores[i], scores[j]) for i, j in columns]
    t_tests = [paired_t_test(scores[i], scores[j]) for i, j in columns]
    ranked = [wilcoxon(of_pair) for of_pair in differences]
    permuted = [
        permutation_p(of_pair, flipped[j] - flipped[i], rounding[i] + rounding[j])
        for of_pair, (i, j) in zip(differences, columns, strict=True)
    ]
    intervals = [np.quantile(drawn[j] - drawn[i], [0.025, 0.975]).tolist() for i, j in columns]
    p_adjusted = holm([test.p_value for test in t_tests]).tolist()
    p_wilcoxon = holm([p for p, _ in ranked]).tolist()
    p_permutation = holm(permuted).tolist()
    return [
        Comparison(
            **vars(t_tests[number]),
            p_seeds=seed_test(of_seeds[a], of_seeds[b]),
            p_adjusted=p_adjusted[number],
            p_wilcoxon=p_wilcoxon[number],
            rank_effect=ranked[number][1],
            p_permutation=p_permutation[number],
            boot_low=intervals[number][0],
            boot_high=intervals[number][1],
        )
        for number, (a, b) in enumerate(pairs)
    ]
