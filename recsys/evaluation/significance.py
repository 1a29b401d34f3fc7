"""Decide whether differences are real: all tests on all pairs, corrected for the number of comparisons."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recsys.evaluation.hypothesis_tests import (
    ALPHA,
    MIN_QUERIES,
    TESTS,
    TOO_FEW,
    UNDECIDED,
    Family,
    TestResult,
)
from recsys.evaluation.scores import QueryScores, check_comparable, mean_over_seeds
from recsys.evaluation.uncertainty import Trainings, Uncertainty

Name = TypeVar("Name", bound=Hashable)

EQUIVALENCE = 0.01
"""Methods are equivalent where their scores differ by at most this share of the reference's."""

EQUIVALENT = "equivalent"
"""Verdict where the whole interval of a difference lies within the region of equivalence."""


@dataclass(frozen=True)
class Outlook:
    """What a comparison can find, and what would decide it.

    Attributes:
        detectable: The smallest true difference that is found in 80 % of repetitions, at the level corrected
            for the whole family. With one seed it is that of many seeds, for users alone.
        more_seeds: Number of further seeds that decide an undecided comparison, if the difference stays as
            it is; None if no reasonable number does, and where a verdict is given.
        more_users: Likewise the number of further users.
        has_one_seed: Whether a random method has one seed only, so that nothing is claimed.
    """

    detectable: float
    more_seeds: int | None = None
    more_users: int | None = None
    has_one_seed: bool = False


@dataclass(frozen=True)
class Comparison:
    """How far b is from a on the same queries, and what every test says about it.

    Attributes:
        mean_a: Mean score of a.
        mean_b: Mean score of b.
        difference: ``mean_b - mean_a``, above 0 where b is better.
        low: Lower end of the difference's interval over users and trainings, for this comparison alone; with
            one seed over users alone. Its confidence is ``1 - level``: 95 %, unless results are looked at
            several times.
        high: Upper end of that interval.
        effect_size: Cohen's d_z, the mean over the standard deviation of the differences.
        n: Number of queries.
        tests: Name in :data:`~recsys.evaluation.hypothesis_tests.TESTS` to the test's result.
        outlook: What this comparison can find, and what would decide it.
        equivalence: Share of ``mean_a`` within which a difference does not matter.
        level: Probability with which the whole family may claim any difference that is not there.
    """

    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    effect_size: float
    n: int
    tests: Mapping[str, TestResult]
    outlook: Outlook
    equivalence: float = EQUIVALENCE
    level: float = ALPHA

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
            tests={name: replace(result, effect=-result.effect) for name, result in self.tests.items()},
        )

    @property
    def region(self) -> float:
        """The largest difference that does not matter."""
        return self.equivalence * abs(self.mean_a)

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``equivalent`` or ``undecided``, over users and trainings.

        An interval within the region of equivalence goes before p: a difference that is certain but does
        not matter is none. With fewer than :data:`~recsys.evaluation.hypothesis_tests.MIN_QUERIES` queries
        it is ``too few queries``.
        """
        if self.n < MIN_QUERIES:
            return TOO_FEW
        if self.outlook.has_one_seed:
            return UNDECIDED
        if -self.region <= self.low and self.high <= self.region:
            return EQUIVALENT
        p = self.p
        if p is None or p >= self.level:
            return UNDECIDED
        return "better" if self.difference > 0 else "worse"

    @property
    def p(self) -> float | None:
        """The p by which the verdict goes, adjusted over the family; None with one seed."""
        return self.tests["t_test"].p_adjusted

    @property
    def dissent(self) -> list[str]:
        """The names of the tests that assume less and answer otherwise than the verdict.

        They are about users alone. So where users tell the methods apart and only trainings do not, they
        have nothing to say.
        """
        answer = self.verdict
        by_users = self.tests["users"].verdict
        if answer in (TOO_FEW, EQUIVALENT) or (answer == UNDECIDED and by_users != UNDECIDED):
            return []
        return [
            name
            for name, result in self.tests.items()
            if name not in ("t_test", "users") and result.is_answer and result.verdict != answer
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
    runs: Mapping[Name, Sequence[QueryScores]],
    metric: str,
    pairs: Sequence[tuple[Name, Name]],
    *,
    fixed: Collection[Name] | None = None,
    pools: Mapping[Name, Hashable] | None = None,
    equivalence: float = EQUIVALENCE,
    level: float = ALPHA,
) -> list[Comparison]:
    """Run all tests on a family of pairs, with p adjusted over the family by :func:`holm`.

    Two calls with the same arguments give the same numbers.

    Args:
        runs: Name of each method to its scores, one for each seed. The scores of a query are averaged over
            seeds first.
        metric: Which column of the scores to compare.
        pairs: Pairs ``(a, b)`` of names; b is compared with a.
        fixed: Methods that are known to be deterministic, so that one run tells everything. If not given,
            these are the methods with a single run, provided that any method has several. Methods whose runs
            are all alike are deterministic too. Of any other method with a single run nothing is claimed.
        pools: Name to what its variance over trainings is shared with, see :func:`~recsys.evaluation.
            uncertainty.uncertainties`; if not given, all methods share theirs.
        equivalence: Share of the mean of a within which a difference does not matter.
        level: Probability with which any difference may be claimed that is not there.

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
    scores = {name: np.stack([run.values(metric) for run in runs[name]]) for name in names}
    if fixed is None:
        single = [name for name in names if len(runs[name]) == 1]
        fixed = single if len(single) < len(names) else ()
    family = Family(
        scores=np.stack([means[name].values(metric) for name in names]),
        pairs=[(names.index(a), names.index(b)) for a, b in pairs],
        trainings=[
            Trainings.of(scores[name], fixed=name in fixed, pool=pools[name] if pools else None)
            for name in names
        ],
        is_binary=all(np.isin(each, (0, 1)).all() for each in scores.values()),
    )
    results = {name: _adjusted(test.function(family)) for name, test in TESTS.items()}
    tested = sum(uncertainty.is_known for uncertainty in family.uncertainties)
    comparisons = []
    for number, (paired, uncertainty) in enumerate(zip(family.paired, family.uncertainties, strict=True)):
        half = uncertainty.half_width(level)
        found = Comparison(
            mean_a=paired.mean_a,
            mean_b=paired.mean_b,
            difference=paired.difference,
            low=paired.difference - half,
            high=paired.difference + half,
            effect_size=paired.effect_size,
            n=paired.n,
            tests={name: of_pairs[number] for name, of_pairs in results.items()},
            outlook=Outlook(
                uncertainty.detectable(level / max(1, tested)), has_one_seed=not uncertainty.is_known
            ),
            equivalence=equivalence,
            level=level,
        )
        comparisons.append(_with_outlook(found, uncertainty, tested))
    return comparisons


def _adjusted(results: list[TestResult]) -> list[TestResult]:
    """Return results with every p adjusted for the others; results without a p are no part of the family."""
    with_p = [number for number, result in enumerate(results) if result.p is not None]
    changed = list(results)
    for number, p in zip(with_p, holm([results[n].p or 0.0 for n in with_p]).tolist(), strict=True):
        changed[number] = replace(results[number], p_adjusted=p)
    return changed


def _with_outlook(comparison: Comparison, uncertainty: Uncertainty, tested: int) -> Comparison:
    """Return an undecided comparison with what would decide it, where its variance is known."""
    is_constant = uncertainty.users + uncertainty.trainings == 0
    if comparison.verdict != UNDECIDED or comparison.outlook.has_one_seed or is_constant:
        return comparison
    level = comparison.level
    asked = (comparison.difference, level / tested, level, comparison.region)
    seeds, users = uncertainty.more_seeds(*asked), uncertainty.more_users(*asked)
    return replace(comparison, outlook=replace(comparison.outlook, more_seeds=seeds, more_users=users))
