"""Probes that run cheap baselines: what ids and the order give them, and how far apart they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recsys.audit.findings import SURE, Finding, graded, standard_error
from recsys.cuts import Cuts
from recsys.evaluation.metrics import Scores, per_query_scores
from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.base import Retriever, evenly_spaced
from recsys.retrievers.registry import RETRIEVERS
from recsys.splits import Sequences, Split, split_at
from semantic_ids.ids import SemanticIds
from semantic_ids.types import Ints

BASELINES = ("popularity", "item-knn", "transition-knn")
"""Retrievers that a probe fits in seconds. They need neither texts nor semantic IDs."""

VALID_QUERIES, TEST_QUERIES = 1500, 5000
"""Most validation and test queries that a probe ranks; evenly spaced among all."""

FACTORS = tuple(4.0**power for power in range(-4, 5))
"""Factors on the scores of items with a higher id than the last one, among which validation chooses."""

_CANDIDATES = 100
"""Number of a baseline's best items that the probe of ids puts in another order."""

_CUTOFF = 10

_DETECTED = 1.959964 + 0.841621
"""Standard errors between two means that a test at 5 % finds in 80 % of cases."""


@dataclass(frozen=True)
class Probed:
    """What one baseline ranked.

    Attributes:
        name: Its registered name.
        ndcg: ``(Q,)`` its NDCG@10 on each test query.
        by_ids: ``(Q,)`` the same where items with a higher id than the last one have another weight.
        factor: The factor on their scores that validation chose; 1 if ids do not help.
    """

    name: str
    ndcg: Scores
    by_ids: Scores
    factor: float


@dataclass(frozen=True)
class Bench:
    """Sequences with their split, on which probes run.

    Attributes:
        sequences: The sequences.
        cuts: Where they are split.
        num_items: Number of items of the catalogue.
        ranks: ``(N,)`` the rank of each item's id.
    """

    sequences: Sequences
    cuts: Cuts
    num_items: int
    ranks: Ints

    def split(self) -> Split:
        """Return the examples, with at most :data:`VALID_QUERIES` and :data:`TEST_QUERIES` queries."""
        return _sampled(split_at(self.sequences, self.cuts))

    def shuffled(self, seed: int = 0) -> Split:
        """Return the examples after the events of each user before the targets were shuffled.

        Training keeps its events, and each test query keeps its targets and the set of its history.
        """
        rng, items = np.random.default_rng(seed), self.sequences.items
        parts = []
        for stops in (self.cuts.train_stops, self.cuts.test_starts):
            places = Ragged(np.arange(len(items.values)), items.starts, stops)
            old = places.flat()
            new = old[np.lexsort((rng.random(len(old)), places.row_ids()))]
            values = items.values.copy()
            values[old] = items.values[new]
            parts.append(split_at(replace(self.sequences, items=replace(items, values=values)), self.cuts))
        return _sampled(replace(parts[1], train=parts[0].train))

    def fit(self, name: str, split: Split) -> Retriever:
        """Return a baseline that learned from the training examples of a split."""
        ids = SemanticIds(np.arange(self.num_items)[:, None], (self.num_items,))
        return RETRIEVERS.load(name)().fit(split.train, split.valid, ids)

    def probe(self, name: str, split: Split) -> Probed:
        """Fit a baseline, and return what it ranks with and without a preference for higher ids."""
        retriever = self.fit(name, split)
        chosen = self._ranked(retriever, split.valid)
        means = [float(_ndcg(self._by_ids(chosen, split.valid, f), split.valid).mean()) for f in FACTORS]
        unchanged = FACTORS.index(1.0)
        best = int(np.argmax(means))
        factor = FACTORS[best if means[best] > means[unchanged] else unchanged]
        ranking = self._ranked(retriever, split.test)
        by_ids = self._by_ids(ranking, split.test, factor)
        return Probed(name, _ndcg(ranking, split.test), _ndcg(by_ids, split.test), factor)

    def _ranked(self, retriever: Retriever, queries: Examples) -> Ranking:
        """Return the candidates of a retriever for queries."""
        return retriever.rank(queries, min(_CANDIDATES, max(_CUTOFF, self.num_items)))

    def _by_ids(self, ranking: Ranking, queries: Examples, factor: float) -> Ranking:
        """Multiply the scores of items with a higher id than the last of the history, and rank anew."""
        last = queries.history.values[queries.history.stops - 1]
        is_higher = (ranking.items >= 0) & (self.ranks[ranking.items] > self.ranks[last][:, None])
        scores = np.where(is_higher, ranking.scores * np.float32(factor), ranking.scores)
        order = np.argsort(-scores, axis=1, kind="stable")
        return Ranking(
            np.take_along_axis(ranking.items, order, axis=1), np.take_along_axis(scores, order, axis=1)
        )


def id_findings(bench: Bench, split: Split, probed: Sequence[Probed]) -> list[Finding]:
    """Return what a preference for ids above that of the last item gives each baseline.

    Args:
        bench: Sequences and split.
        split: The examples that were ranked.
        probed: What the baselines ranked.
    """
    findings = [_gain(one) for one in probed]
    best = max(probed, key=lambda one: one.ndcg.mean())
    last = split.test.history.values[split.test.history.stops - 1]
    first = split.test.targets.values[split.test.targets.starts]
    ascends, descends = bench.ranks[first] > bench.ranks[last], bench.ranks[first] < bench.ranks[last]
    name = f"{best.name} where the last pair ascends by id, less where it descends"
    if min(ascends.sum(), descends.sum()) < 2:
        return [*findings, Finding(name, None, "no such pairs", "ok", "All pairs go the same way.")]
    up, down = best.ndcg[ascends], best.ndcg[descends]
    difference = float(up.mean() - down.mean())
    error = np.hypot(standard_error(up), standard_error(down))
    is_large = abs(difference) > SURE * error and abs(difference) > 0.25 * best.ndcg.mean()
    findings.append(
        Finding(
            name,
            difference,
            f"NDCG@{_CUTOFF} {up.mean():.4f} where it ascends, {down.mean():.4f} where it descends",
            "warning" if is_large else "ok",
            "A method should be as good whichever way the ids go; if not, it may have learned the sorting.",
            "read the scores of both apart, and settle ties by data.ties if times are known"
            if is_large
            else "",
        )
    )
    return findings


def order_finding(bench: Bench, probed: Sequence[Probed]) -> Finding:
    """Return what the best baseline loses when histories are shuffled, in training and in the test."""
    best = max(probed, key=lambda one: one.ndcg.mean())
    split = bench.shuffled()
    ranking = bench.fit(best.name, split).rank(split.test, _CUTOFF)
    differences = best.ndcg - _ndcg(ranking, split.test)
    share = float(differences.mean() / max(best.ndcg.mean(), 1e-12))
    matters = share >= 0.02 and differences.mean() > 2 * standard_error(differences)
    return Finding(
        f"{best.name} loses when histories are shuffled",
        share,
        f"{share:.1%} of its NDCG@{_CUTOFF}",
        "ok" if matters else "note",
        "The order of events gives so much to the best baseline."
        if matters
        else "The order of events gives the best baseline next to nothing: a set would do as well.",
        "" if matters else "do not read a lead here as a lead in modelling sequences",
    )


def spread_findings(bench: Bench, probed: Sequence[Probed]) -> list[Finding]:
    """Return how far the baselines are apart, and which difference the number of test queries can show."""
    ordered = sorted(probed, key=lambda one: -one.ndcg.mean())
    best, second = ordered[:2]
    top = max(float(best.ndcg.mean()), 1e-12)
    queries = int((bench.cuts.test_stops > bench.cuts.test_starts).sum())
    scores = ", ".join(f"{one.name} {one.ndcg.mean():.4f}" for one in ordered)
    popular = next(one for one in probed if one.name == "popularity")
    lead = best.ndcg - popular.ndcg
    has_lead = best is not popular and lead.mean() > max(SURE * standard_error(lead), 0.1 * top)
    return [
        Finding(
            "lead of the best baseline over popularity",
            float(lead.mean()),
            f"NDCG@{_CUTOFF}: {scores}",
            "ok" if has_lead else "warning",
            "Histories help to predict what comes next."
            if has_lead
            else "No baseline is clearly better than one list for everyone: there may be nothing to learn.",
            "" if has_lead else "check ids and times of the file; compare methods on other data",
        ),
        _detectable(best, second, queries),
    ]


def _detectable(best: Probed, second: Probed, queries: int) -> Finding:
    """Return the difference that so many queries can show, between methods as unlike as two baselines."""
    name, top = "minimum detectable difference", max(float(best.ndcg.mean()), 1e-12)
    deviation = float((best.ndcg - second.ndcg).std(ddof=1))
    if deviation == 0:
        meaning = f"{best.name} and {second.name} are equally good on every query, so it cannot be estimated."
        return Finding(name, None, "not known", "note", meaning, "take more users")
    detectable = _DETECTED * deviation / np.sqrt(queries)
    severity = graded(detectable / top, 0.1, 0.25)
    return Finding(
        name,
        float(detectable),
        f"NDCG@{_CUTOFF} {detectable:.4f}, {detectable / top:.1%} of {best.name}, at {queries:,} queries",
        severity,
        f"Two methods as unlike as {best.name} and {second.name} must differ by so much to be told apart "
        "in 80 % of benchmarks, before any correction for several comparisons or trainings.",
        "" if severity == "ok" else "take more users, or do not expect small differences to be decided",
    )


def _gain(probed: Probed) -> Finding:
    """Return what a baseline gains from a preference for ids."""
    gains = probed.by_ids - probed.ndcg
    base = max(float(probed.ndcg.mean()), 1e-12)
    share = float(gains.mean() / base)
    is_clear = gains.mean() > SURE * standard_error(gains) and share >= 0.02
    way = "higher" if probed.factor >= 1 else "lower"
    return Finding(
        f"{probed.name} gains from ids",
        float(gains.mean()),
        f"NDCG@{_CUTOFF} {probed.ndcg.mean():.4f}, and {probed.by_ids.mean():.4f} ({share:+.1%}) where "
        f"ids {way} than the last item's count {max(probed.factor, 1 / probed.factor):g} times",
        "warning" if is_clear else "ok",
        f"Preferring {way} ids, as validation chose, is worth this much to a method that knows no more."
        if is_clear
        else "Preferring higher or lower ids, as validation chose, is worth nothing.",
        "settle ties by data.ties where times are known, and tell what of a lead is left" if is_clear else "",
    )


def _sampled(split: Split) -> Split:
    """Return a split with at most :data:`VALID_QUERIES` and :data:`TEST_QUERIES` queries."""
    return replace(
        split,
        valid=evenly_spaced(split.valid, VALID_QUERIES),
        test=evenly_spaced(split.test, TEST_QUERIES),
    )


def _ndcg(ranking: Ranking, queries: Examples) -> Scores:
    """Return the NDCG@10 of each query."""
    return per_query_scores(ranking, queries, [_CUTOFF], metrics=["ndcg"])[f"ndcg_at_{_CUTOFF}"]
