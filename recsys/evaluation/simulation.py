"""Simulate benchmarks, to see how often the test of users and trainings errs, and what it finds.

``python -m tests.benchmarks.calibration`` prints the tables of docs/statistics.md, in minutes on one core.
Benchmarks are drawn as the statistics that the test looks at: differences between means, and variances over
trainings. :func:`sparse_benchmark` draws the scores of users instead, and takes the test's whole way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from recsys.evaluation.hypothesis_tests import ALPHA, TESTS, Family
from recsys.evaluation.metrics import Scores
from recsys.evaluation.significance import holm
from recsys.evaluation.uncertainty import Trainings, half_width, pooled_variance

Doubles = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

USERS = 20_000
"""Number of users of a benchmark whose statistics are drawn."""


@dataclass(frozen=True)
class World:
    """How benchmarks come about. The unit is the standard error over users of a difference, with one seed.

    Attributes:
        methods: Number of methods that are compared with each other.
        seeds: Number of trainings of each.
        noise: Standard deviation of a difference over trainings, apart from the residual.
        residual: Share of the variance over users that other trainings would change.
        factors: Variance over trainings of each method, as a multiple of that of the last ones, which have 1.
        lead: By how much the first method is better than the others.
    """

    methods: int
    seeds: int
    noise: float
    residual: float = 1 / 3
    factors: Sequence[float] = ()
    lead: float = 0.0

    @property
    def pairs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The places of the first and of the second method of all pairs."""
        first, second = np.array([*combinations(range(self.methods), 2)]).T
        return first, second


@dataclass(frozen=True)
class Drawn:
    """The statistics of B benchmarks of M methods and P pairs.

    Attributes:
        world: How they came about.
        differences: ``(B, P)``.
        variances: ``(B, M)`` variance over trainings of each method's mean; 0 with one seed.
    """

    world: World
    differences: Doubles
    variances: Doubles

    @property
    def lasting(self) -> float:
        """Variance of a difference over users that trainings do not change."""
        return 1 - self.world.residual

    @property
    def residual(self) -> float:
        """The residual's part of the variance over trainings of a method."""
        return self.world.residual / 2

    @property
    def df(self) -> Doubles:
        """``(M,)`` degrees of freedom of the variances."""
        return np.full(self.world.methods, self.world.seeds - 1.0)


Rule = Callable[[Drawn, float], Booleans]
"""Tells, ``(B, P)``, which differences are claimed at a level that is corrected for the number of pairs."""


def draw(world: World, benchmarks: int, rng: np.random.Generator) -> list[Drawn]:
    """Return the statistics of benchmarks as they are with one seed, with two, and so on up to all."""
    factors = np.ones(world.methods)
    factors[: len(world.factors)] = world.factors
    spread = np.sqrt((world.noise**2 * factors + world.residual) / 2)
    users = rng.normal(0, np.sqrt((1 - world.residual) / 2), (benchmarks, world.methods))
    users[:, 0] += world.lead
    trainings = rng.normal(0, 1, (world.seeds, benchmarks, world.methods)) * spread
    first, second = world.pairs
    drawn = []
    for seeds in range(1, world.seeds + 1):
        means = users + trainings[:seeds].mean(axis=0)
        variances = trainings[:seeds].var(axis=0, ddof=1) if seeds > 1 else np.zeros(means.shape)
        drawn.append(Drawn(replace(world, seeds=seeds), means[:, second] - means[:, first], variances))
    return drawn


def _claims(drawn: Drawn, level: float, variances: Doubles, df: npt.ArrayLike) -> Booleans:
    """Return which differences leave their intervals, given the variances that are assumed of methods."""
    if drawn.world.seeds == 1:
        return np.zeros(drawn.differences.shape, dtype=bool)
    first, second = drawn.world.pairs
    assumed = np.maximum(variances, drawn.residual)
    trainings = (assumed[..., first] + assumed[..., second]) / drawn.world.seeds
    return np.abs(drawn.differences) > half_width(level, drawn.lasting, USERS - 1, trainings, df)


def default(drawn: Drawn, level: float) -> Booleans:
    """Apply the rule of :mod:`recsys.evaluation.uncertainty`: own variances, but not below the mean's."""
    if drawn.world.seeds == 1:
        return np.zeros(drawn.differences.shape, dtype=bool)
    mean, df = pooled_variance(drawn.variances, drawn.df)
    return _claims(drawn, level, np.maximum(drawn.variances, mean[:, None]), df[:, None])


def pooled(drawn: Drawn, level: float) -> Booleans:
    """Take every method's variance over trainings for the mean of all."""
    mean = np.broadcast_to(drawn.variances.mean(axis=1, keepdims=True), drawn.variances.shape)
    return _claims(drawn, level, mean, drawn.df.sum())


def satterthwaite(drawn: Drawn, level: float) -> Booleans:
    """Pool likewise, with a single t quantile with Satterthwaite's degrees of freedom."""
    from scipy import special  # noqa: PLC0415 — imports slowly

    if drawn.world.seeds == 1:
        return np.zeros(drawn.differences.shape, dtype=bool)
    trainings = (
        np.maximum(drawn.variances.mean(axis=1, keepdims=True), drawn.residual) * 2 / drawn.world.seeds
    )
    above_residual = trainings - 2 * drawn.residual / drawn.world.seeds
    variance = drawn.lasting + trainings
    df = np.where(above_residual > 0, variance**2 / (trainings**2 / drawn.df.sum()), USERS)
    return np.abs(drawn.differences) > -special.stdtrit(np.minimum(df, USERS), level / 2) * np.sqrt(variance)


def larger_of_pair(drawn: Drawn, level: float) -> Booleans:
    """Take the mean of all or the mean of the pair, whichever is larger."""
    if drawn.world.seeds == 1:
        return np.zeros(drawn.differences.shape, dtype=bool)
    first, second = drawn.world.pairs
    own = (drawn.variances[:, first] + drawn.variances[:, second]) / 2
    larger = np.maximum(np.maximum(own, drawn.variances.mean(axis=1, keepdims=True)), drawn.residual)
    trainings = larger * 2 / drawn.world.seeds
    return np.abs(drawn.differences) > half_width(level, drawn.lasting, USERS - 1, trainings, drawn.df.sum())


def own(drawn: Drawn, level: float) -> Booleans:
    """Take every method's own variance, with its own degrees of freedom."""
    return _claims(drawn, level, drawn.variances, max(1, drawn.world.seeds - 1))


def moderated(drawn: Drawn, level: float) -> Booleans:
    """Shrink variances towards a common one as far as their spread allows (Smyth 2004, as in limma)."""
    from scipy import special  # noqa: PLC0415 — imports slowly

    if drawn.world.seeds == 1:
        return np.zeros(drawn.differences.shape, dtype=bool)
    df = drawn.world.seeds - 1
    logs = np.log(drawn.variances) - special.digamma(df / 2) + np.log(df / 2)
    excess = logs.var(axis=1, ddof=1, keepdims=True) - special.polygamma(1, df / 2)
    grid = np.geomspace(1e-2, 1e4, 2000)  # prior degrees of freedom; their trigamma falls
    prior = np.interp(-excess, -special.polygamma(1, grid / 2), grid)
    common = np.exp(logs.mean(axis=1, keepdims=True) + special.digamma(prior / 2) - np.log(prior / 2))
    shrunk = (prior * common + df * drawn.variances) / (prior + df)
    return _claims(drawn, level, shrunk, np.minimum(prior + 2 * df, drawn.df.sum()))


def two_tests(drawn: Drawn, level: float) -> Booleans:
    """Apply the rule of earlier versions: Holm over users, and Welch's test over seeds without correction."""
    from scipy import special, stats  # noqa: PLC0415 — imports slowly

    users = drawn.lasting + 2 * drawn.residual / drawn.world.seeds
    over_users = np.abs(drawn.differences) > -special.ndtri(level / 2) * np.sqrt(users)
    if drawn.world.seeds == 1:
        return np.asarray(over_users)
    first, second = drawn.world.pairs
    a, b = (drawn.variances[:, place] / drawn.world.seeds for place in (first, second))
    df = (drawn.world.seeds - 1) * (a + b) ** 2 / (a**2 + b**2)
    over_seeds = 2 * stats.t.sf(np.abs(drawn.differences) / np.sqrt(a + b), df) < ALPHA
    return np.asarray(over_users & over_seeds)


RULES: dict[str, Rule] = {
    "default": default,
    "A pooled": pooled,
    "A' pooled, Satterthwaite": satterthwaite,
    "B larger of pooled and pair": larger_of_pair,
    "C own": own,
    "D moderated": moderated,
    "earlier: two tests": two_tests,
}
"""Rules by name."""


def false_claims(world: World, rule: Rule, benchmarks: int, seed: int = 0) -> float:
    """Return the share of benchmarks without any difference in which a rule claims one.

    Holm's method claims something just where Bonferroni's does.
    """
    drawn = draw(world, benchmarks, np.random.default_rng(seed))[-1]
    return float(rule(drawn, ALPHA / drawn.differences.shape[1]).any(axis=1).mean())


def power(world: World, rule: Rule, benchmarks: int, seed: int = 0) -> float:
    """Return the share of the first method's comparisons in which its lead is claimed.

    Levels are corrected by Bonferroni's method; Holm's finds a little more.
    """
    drawn = draw(world, benchmarks, np.random.default_rng(seed))[-1]
    claims = rule(drawn, ALPHA / drawn.differences.shape[1])
    return float(claims[:, world.pairs[0] == 0].mean())


def claims_while_looking(
    world: World, benchmarks: int, *, corrected: bool = True, first: int = 2, seed: int = 0
) -> tuple[float, float]:
    """Look after every seed, from the ``first`` to the last, and stop at the first claim about any pair.

    Args:
        world: How benchmarks come about.
        benchmarks: Number of benchmarks.
        corrected: Whether the level is divided by the number of looks, as ``--until-decided`` does.
        first: Number of seeds at the first look.
        seed: Seed of the simulation.

    Returns:
        The share of benchmarks with a claim, and the mean number of seeds.
    """
    looks = draw(world, benchmarks, np.random.default_rng(seed))[first - 1 :]
    pairs = looks[0].differences.shape[1]
    level = ALPHA / pairs / (len(looks) if corrected else 1)
    claimed = np.array([default(drawn, level).any(axis=1) for drawn in looks])
    stops = np.where(claimed.any(axis=0), claimed.argmax(axis=0), len(looks) - 1) + first
    return float(claimed.any(axis=0).mean()), float(stops.mean())


def sparse_benchmark(world: World, users: int, rng: np.random.Generator) -> list[Scores]:
    """Return scores ``(S, Q)`` of each method, as NDCG@10 has them: most are 0, hits are at few ranks.

    A user's chance of a hit varies around 6 %. Every method has users that it suits better and worse, and
    every training raises or lowers all chances of its method.
    """
    gains = 1 / np.log2(np.arange(1, 11) + 1)
    ease = rng.normal(-3.2, 1.0, users)
    # A step of 1 on this scale changes the mean by about .026, and the standard error is about .16 / √users.
    step = world.noise * 0.16 / np.sqrt(users) / 0.026 / np.sqrt(2)
    factors = np.ones(world.methods)
    factors[: len(world.factors)] = world.factors
    methods = []
    for factor in factors:
        suits = ease + rng.normal(0, 0.8, users)
        luck = rng.normal(0, step * np.sqrt(factor), (world.seeds, 1))
        hits = rng.random((world.seeds, users)) < 1 / (1 + np.exp(-suits - luck))
        methods.append(hits * gains[rng.integers(10, size=hits.shape)])
    return methods


def false_claims_of_users(world: World, users: int, benchmarks: int, seed: int = 0) -> float:
    """Return what :func:`false_claims` does, from the scores of users, by the test itself."""
    rng = np.random.default_rng(seed)
    pairs = [*combinations(range(world.methods), 2)]
    claims = 0
    for _ in range(benchmarks):
        scores = sparse_benchmark(world, users, rng)
        means = np.stack([each.mean(axis=0) for each in scores])
        family = Family(means, pairs, [Trainings.of(each) for each in scores])
        p_values = [result.p for result in TESTS["t_test"].function(family)]
        claims += bool(holm([1.0 if p is None else p for p in p_values]).min() < ALPHA)
    return claims / benchmarks
