"""Is a difference real? Paired tests over queries, corrected for how many were made."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

from recsys.evaluation.metrics import Scores
from recsys.evaluation.scores import QueryScores, check_comparable, mean_over_seeds

Name = TypeVar("Name", bound=Hashable)

ALPHA = 0.05
"""A difference counts as real where the adjusted p is below this."""


@dataclass(frozen=True)
class Comparison:
    """How far b is from a, on the same queries.

    Attributes:
        mean_a: mean score of a.
        mean_b: mean score of b.
        difference: ``mean_b - mean_a``, above 0 where b is better.
        low: lower end of the difference's confidence interval, for this comparison alone.
        high: its upper end.
        p_value: two-sided, over queries, of this comparison alone. It speaks of the trained models
            at hand: two of one method, trained from two seeds, often differ by it too.
        p_seeds: two-sided, over the means of seeds; None where there are fewer than two.
        p_adjusted: ``p_value`` corrected for its family; the same in a family of one.
        effect_size: Cohen's d_z, the mean over the standard deviation of the differences.
        n: number of queries.
    """

    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_seeds: float | None
    p_adjusted: float
    effect_size: float
    n: int

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
        )

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no evidence``: b against a, by the adjusted p and that over seeds.

        A difference must hold for users at large *and* for training at large.
        """
        if self.p_adjusted >= ALPHA or (self.p_seeds or 0.0) >= ALPHA:
            return "no evidence"
        return "better" if self.difference > 0 else "worse"


def mean_interval(values: Scores, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of ``values`` ``(Q,)``, Q ≥ 2: its lower and its upper end."""
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def paired_t_test(a: Scores, b: Scores, confidence: float = 0.95) -> Comparison:
    """Student's paired two-sided t-test of b against a, both ``(Q,)`` in the same order of queries.

    Where no query differs p is 1 and the interval is 0 … 0.

    Raises:
        ValueError: the shapes differ, or there are fewer than two queries.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(
            f"a paired test needs two score vectors of one length ≥ 2, not {a.shape} and {b.shape}"
        )
    differences = b - a
    mean, deviation = differences.mean(), differences.std(ddof=1)
    if deviation == 0:  # the statistic would be 0/0, or infinite
        p_value, effect_size = (1.0, 0.0) if mean == 0 else (0.0, np.copysign(np.inf, mean))
    else:
        p_value, effect_size = stats.ttest_rel(b, a).pvalue, mean / deviation
    low, high = mean_interval(differences, confidence)
    return Comparison(
        mean_a=float(a.mean()),
        mean_b=float(b.mean()),
        difference=float(mean),
        low=low,
        high=high,
        p_value=float(p_value),
        p_seeds=None,
        p_adjusted=float(p_value),
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
    """Welch's two-sided t-test over the means of seeds; None where a side has fewer than two."""
    if min(len(a), len(b)) < 2:
        return None
    if np.ptp(a) == 0 and np.ptp(b) == 0:  # nothing random in either; the statistic would be 0/0
        return float(a[0] == b[0])
    # From moments: given the values, scipy warns of lost precision where one side is constant.
    (mean_a, sd_a), (mean_b, sd_b) = ((np.mean(side), np.std(side, ddof=1)) for side in (a, b))
    test = stats.ttest_ind_from_stats(mean_a, sd_a, len(a), mean_b, sd_b, len(b), equal_var=False)
    return float(test.pvalue)


def compare_all(
    runs: Mapping[Name, Sequence[QueryScores]], metric: str, pairs: Sequence[tuple[Name, Name]]
) -> list[Comparison]:
    """Paired t-tests of a family of pairs, with p adjusted over the family by :func:`holm`.

    Args:
        runs: name → scores, one for each seed; a query's scores are averaged over seeds first.
        metric: which column to compare.
        pairs: ``(a, b)`` names; b is compared with a.

    Returns:
        One comparison for each pair, in their order.

    Raises:
        ValueError: the scores of a pair are not comparable, or lack the metric.
    """
    means = {name: mean_over_seeds(seeds) for name, seeds in runs.items()}
    of_seeds = {name: [float(s.values(metric).mean()) for s in seeds] for name, seeds in runs.items()}
    tests = []
    for a, b in pairs:
        check_comparable(means[a], means[b])
        test = paired_t_test(means[a].values(metric), means[b].values(metric))
        tests.append(replace(test, p_seeds=seed_test(of_seeds[a], of_seeds[b])))
    adjusted = holm([test.p_value for test in tests])
    return [replace(test, p_adjusted=float(p)) for test, p in zip(tests, adjusted, strict=True)]
