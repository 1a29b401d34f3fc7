"""Decide whether differences are real: all tests on all pairs, corrected for the number of comparisons."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recsys.evaluation.hypothesis_tests import MIN_QUERIES, TESTS, TOO_FEW, Family, TestResult
from recsys.evaluation.scores import QueryScores, check_comparable, mean_over_seeds

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Comparison:
    """How far b is from a on the same queries, and what every test says about it.

    Attributes:
        mean_a: Mean score of a.
        mean_b: Mean score of b.
        difference: ``mean_b - mean_a``, above 0 where b is better.
        low: Lower end of the difference's 95 % t interval over queries, for this comparison alone.
        high: Upper end of that interval.
        effect_size: Cohen's d_z, the mean over the standard deviation of the differences.
        n: Number of queries.
        tests: Name in :data:`~recsys.evaluation.hypothesis_tests.TESTS` to the test's result.
    """

    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    effect_size: float
    n: int
    tests: Mapping[str, TestResult]

    def reversed(self) -> Comparison:
        """Return the same comparison seen from the other side: a compared with b."""
        return replace(
            self,
            mean_a=self.mean_b,
            mean_b=self.mean_a,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            effect_size=-self.effect_size,
            tests={name: _reversed(result) for name, result in self.tests.items()},
        )

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no evidence``: what all tests that decide agree on.

        A difference must hold over queries *and*, where there are several seeds, over trainings. With fewer
        than :data:`~recsys.evaluation.hypothesis_tests.MIN_QUERIES` queries it is ``too few queries``.
        """
        if self.n < MIN_QUERIES:
            return TOO_FEW
        deciding = [self.tests[name] for name, test in TESTS.items() if test.decides and name in self.tests]
        applicable = [result for result in deciding if result.p is not None]
        if any(result.verdict == "no evidence" for result in applicable):
            return "no evidence"
        return self.tests["t_test"].verdict

    @property
    def dissent(self) -> list[str]:
        """The names of the tests over queries that answer otherwise than the t-test does."""
        if self.verdict == TOO_FEW:
            return []
        answer = self.tests["t_test"].verdict
        return [
            name
            for name, result in self.tests.items()
            if not TESTS[name].decides
            and result.verdict != answer
            and not (TESTS[name].only_confirms and answer == "no evidence")
        ]


def holm(p_values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Adjust p values so that a family's chance of any false claim stays below the level (Holm 1979).

    The smallest of m values is multiplied by m, the next by m - 1, and so on. No adjusted value is smaller
    than the one before it, and none is larger than 1.

    Example:
        >>> holm([0.04, 0.01, 0.03]).tolist()
        [0.06, 0.03, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def compare_all(
    runs: Mapping[Name, Sequence[QueryScores]], metric: str, pairs: Sequence[tuple[Name, Name]]
) -> list[Comparison]:
    """Run all tests on a family of pairs, with p adjusted over the family by :func:`holm`.

    Two calls with the same arguments give the same numbers.

    Args:
        runs: Name of each method to its scores, one for each seed. The scores of a query are averaged over
            seeds first.
        metric: Which column of the scores to compare.
        pairs: Pairs ``(a, b)`` of names; b is compared with a.

    Returns:
        One comparison for each pair, in their order.

    Raises:
        ValueError: If the scores are not comparable, or lack the metric.
    """
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if not names:
        return []
    means = {name: mean_over_seeds(runs[name]) for name in names}
    for name in names[1:]:
        check_comparable(means[names[0]], means[name])
    family = Family(
        scores=np.stack([means[name].values(metric) for name in names]),
        seed_means=[[float(s.values(metric).mean()) for s in runs[name]] for name in names],
        pairs=[(names.index(a), names.index(b)) for a, b in pairs],
    )
    results: dict[str, list[TestResult]] = {}
    for test_name, test in TESTS.items():
        found = test.function(family)
        if test.corrected and all(result.p is not None for result in found):
            adjusted = holm([result.p for result in found if result.p is not None]).tolist()
            found = [replace(result, p_adjusted=p) for result, p in zip(found, adjusted, strict=True)]
        results[test_name] = found
    return [
        Comparison(
            mean_a=paired.mean_a,
            mean_b=paired.mean_b,
            difference=paired.difference,
            low=paired.low,
            high=paired.high,
            effect_size=paired.effect_size,
            n=paired.n,
            tests={name: found[number] for name, found in results.items()},
        )
        for number, paired in enumerate(family.paired)
    ]


def _reversed(result: TestResult) -> TestResult:
    """Return a test's result for a compared with b."""
    low = None if result.high is None else -result.high
    high = None if result.low is None else -result.low
    return replace(result, effect=-result.effect, low=low, high=high)
