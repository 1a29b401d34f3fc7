"""Recall, NDCG and other metrics of every single query, on the full catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.examples import Examples, Ranking
from semantic_ids.plugins import Registry
from semantic_ids.types import Doubles, Ints

Scores = Doubles


@dataclass(frozen=True, eq=False)
class JudgedRanking:
    """Rankings of Q queries, K items long, with what each item is worth to its query.

    Attributes:
        items: ``(Q, K)`` int64 item rows, best first, -1 where there is no item.
        gains: ``(Q, K)`` float64, the gain of each item; 0 where it is no target of the query.
        hits: ``(Q, K)`` bool, whether the item is a relevant target.
        num_relevant: ``(Q,)`` float64, the number of relevant targets of each query, at least 1.
        examples: The queries with their histories, targets and gains.
    """

    items: Ints
    gains: Scores
    hits: npt.NDArray[np.bool_]
    num_relevant: Scores
    examples: Examples

    def ideal_dcg(self, k: int) -> Scores:
        """Return ``(Q,)``: the DCG@k of each query's targets, ranked by falling gain."""
        rows, lengths = self.examples.targets.row_ids(), self.examples.targets.lengths
        gains = self.examples.gains[np.lexsort((-self.examples.gains, rows))]
        ranks = np.arange(1, len(rows) + 1) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        discounted = np.where(ranks <= k, gains / np.log2(ranks + 1), 0.0)
        return np.bincount(rows, weights=discounted, minlength=len(self.examples)).astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A metric of single queries, of which a benchmark reports the mean.

    Attributes:
        name: Name in benchmark files and, with ``_at_<k>``, in scores and MLflow; lower case, with
            underscores.
        label: Name in tables, such as ``NDCG``.
        function: Returns the values ``(Q,)`` at cutoff k; higher is better. It sees the whole ranking and
            must look at the first k items only.
    """

    name: str
    label: str
    function: Callable[[JudgedRanking, int], npt.NDArray[Any]]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name) or "_at_" in self.name:
            raise ValueError(
                f"metric name {self.name!r} must be lower-case letters, digits and underscores, without _at_"
            )

    def column(self, k: int) -> str:
        """Return the name of its values at cutoff k, such as ``ndcg_at_10``."""
        return f"{self.name}_at_{k}"

    def values(self, judged: JudgedRanking, k: int) -> Scores:
        """Return its values ``(Q,)`` at cutoff k.

        Raises:
            ValueError: If the function returns something other than one finite number per query.
        """
        values = np.asarray(self.function(judged, k), dtype=np.float64)
        if values.shape != (len(judged.items),):
            raise ValueError(
                f"metric {self.name!r} returned an array of shape {values.shape} for {len(judged.items)} "
                "queries; return one number for each"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"metric {self.name!r} returned NaN or infinite values")
        return values


def recall(judged: JudgedRanking, k: int) -> Scores:
    """Return the share of each query's relevant targets that are among its first k items."""
    return np.divide(judged.hits[:, :k].sum(axis=1), judged.num_relevant)


def ndcg(judged: JudgedRanking, k: int) -> Scores:
    """Return the discounted cumulative gain of the first k items over the best possible one."""
    discounts = 1 / np.log2(np.arange(2, judged.gains.shape[1] + 2))
    return np.divide(judged.gains[:, :k] @ discounts[:k], judged.ideal_dcg(k))


def reciprocal_rank(judged: JudgedRanking, k: int) -> Scores:
    """Return 1 over the rank of the first hit; 0 if there is none among the first k items."""
    hits = judged.hits[:, :k]
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)


def average_precision(judged: JudgedRanking, k: int) -> Scores:
    """Return the mean precision at the ranks of all hits; targets that cannot be in k items do not count."""
    hits = judged.hits[:, :k]
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.divide((precision * hits).sum(axis=1), np.minimum(judged.num_relevant, k))


def hit_rate(judged: JudgedRanking, k: int) -> Scores:
    """Return 1 where any relevant target is among the first k items, else 0."""
    return np.asarray(judged.hits[:, :k].any(axis=1), dtype=np.float64)


def _accept(found: Any) -> Metric:
    if not isinstance(found, Metric):
        raise ValueError(f"it is not a {Metric.__module__}.Metric")
    return found


METRICS: Registry[Metric] = Registry(
    "metric",
    "recsys.metrics",
    {
        metric.name: metric
        for metric in (
            Metric("recall", "Recall", recall),
            Metric("ndcg", "NDCG", ndcg),
            Metric("mrr", "MRR", reciprocal_rank),
            Metric("map", "MAP", average_precision),
            Metric("hit_rate", "Hit rate", hit_rate),
        )
    },
    _accept,
)
"""Metrics by name, plug-ins of installed packages included; also ``module:attribute``."""


def per_query_scores(
    ranking: Ranking,
    examples: Examples,
    cutoffs: Sequence[int],
    *,
    relevant_gain: float = 0.0,
    metrics: Sequence[str] = ("recall", "ndcg"),
) -> dict[str, Scores]:
    r"""Return the values of all metrics at all cutoffs, for every query.

    A hit is an *item* of the query's targets that is relevant: its gain is above 0 and at least
    ``relevant_gain``; padding (-1) is never a hit. Let :math:`g_i` be the gain of the item at rank *i* (0 if
    it is no target), :math:`r_i` 1 where that item is a hit and 0 elsewhere, R the number of relevant
    targets, and IDCG@k the DCG@k of the targets ranked by falling gain:

    .. math::
        Recall@k = \frac{1}{R} \sum_{i=1}^{k} r_i \qquad
        DCG@k = \sum_{i=1}^{k} \frac{g_i}{\log_2(i + 1)} \qquad
        NDCG@k = \frac{DCG@k}{IDCG@k}

    (Järvelin & Kekäläinen 2002, with linear gains.) With :math:`P_i` the share of hits among the first i
    items, :math:`MAP@k = \frac{1}{\min(R, k)} \sum_{i=1}^{k} r_i P_i`, and MRR@k is the mean of 1 over the
    rank of the first hit.

    Args:
        ranking: ``(Q, K)`` items, at least ``max(cutoffs)`` wide.
        examples: The Q queries with their targets and gains.
        cutoffs: The values of k.
        relevant_gain: Smallest gain with which a target is relevant. NDCG uses the gains themselves.
        metrics: Names in :data:`METRICS`, or ``module:attribute``.

    Returns:
        ``<metric>_at_<k>`` to values ``(Q,)`` float64.

    Raises:
        ValueError: If the ranking repeats an item, is too narrow or belongs to other queries; if a query
            has a repeated target, a negative gain, or no relevant target; or if a metric is unknown.

    Example:
        One query with targets 7 and 3, of which 7 is found at rank 2:

        >>> from recsys.examples import Ragged
        >>> examples = Examples(
        ...     query_ids=np.array(["u1"]),
        ...     history=Ragged.from_rows([[1]]),
        ...     targets=Ragged.from_rows([[7, 3]]),
        ...     gains=np.array([1, 1], dtype=np.float32),
        ... )
        >>> ranking = Ranking(items=np.array([[5, 7, 9]]), scores=np.zeros((1, 3), dtype=np.float32))
        >>> scores = per_query_scores(ranking, examples, cutoffs=[3], metrics=["recall", "ndcg", "mrr"])
        >>> {name: values.round(4).tolist() for name, values in scores.items()}
        {'recall_at_3': [0.5], 'ndcg_at_3': [0.3869], 'mrr_at_3': [0.5]}
    """
    chosen = [METRICS.load(name) for name in metrics]
    judged = judge(ranking, examples, max(cutoffs), relevant_gain)
    return {metric.column(k): metric.values(judged, k) for k in cutoffs for metric in chosen}


def judge(ranking: Ranking, examples: Examples, width: int, relevant_gain: float = 0.0) -> JudgedRanking:
    """Look up what the first ``width`` items of each ranking are worth to its query.

    Args:
        ranking: ``(Q, K)`` items, K at least ``width``.
        examples: The Q queries with their targets and gains.
        width: Number of items that are judged.
        relevant_gain: Smallest gain with which a target is relevant.

    Raises:
        ValueError: As :func:`per_query_scores`.
    """
    _check_examples(examples, relevant_gain)
    _check_ranking(ranking, examples, width)
    items = ranking.items[:, :width]
    gains = _gains_at_ranks(items, examples)
    hits = (gains > 0) & (gains >= np.float32(relevant_gain))
    return JudgedRanking(items, gains, hits, _num_relevant(examples, relevant_gain), examples)


def _gains_at_ranks(items: Ints, examples: Examples) -> Scores:
    """Return ``(Q, K)`` float64: the gain of each ranked item, 0 where it is no target of its query."""
    targets = examples.targets.flat()
    size = max(int(items.max(initial=0)), int(targets.max(initial=0))) + 1
    target_keys = examples.targets.row_ids() * size + targets
    order = np.argsort(target_keys)
    target_keys, gains = target_keys[order], examples.gains[order].astype(np.float64)
    keys = np.arange(len(items))[:, None] * size + items
    at = np.searchsorted(target_keys, keys).clip(max=len(target_keys) - 1)
    # A padded place has the key of the last item of the row before, hence the first condition.
    return np.where((items >= 0) & (target_keys[at] == keys), gains[at], 0.0)


def _num_relevant(examples: Examples, relevant_gain: float) -> Scores:
    """Return ``(Q,)`` float64: the number of relevant targets of each query."""
    # Gains are float32. Without the conversion a gain of 0.1 would not reach a threshold of 0.1.
    counted = (examples.gains > 0) & (examples.gains >= np.float32(relevant_gain))
    found = np.bincount(examples.targets.row_ids(), weights=counted, minlength=len(examples))
    return found.astype(np.float64)


def _check_examples(examples: Examples, relevant_gain: float) -> None:
    """Refuse negative gains, queries without a relevant target, and repeated targets."""
    rows, targets = examples.targets.row_ids(), examples.targets.flat()
    if not (examples.gains >= 0).all():
        raise ValueError(f"gains must not be negative, but the smallest is {examples.gains.min()}")
    least = f"of at least {relevant_gain:g}" if relevant_gain else "above 0"
    none = _num_relevant(examples, relevant_gain) == 0
    _require_none(none, examples, f"have no target with a gain {least}; leave them out of the evaluation set")
    order = np.lexsort((targets, rows))
    repeated = np.flatnonzero((np.diff(rows[order]) == 0) & (np.diff(targets[order]) == 0))
    _require_none(
        np.bincount(rows[order][repeated], minlength=len(examples)) > 0, examples, "repeat a target"
    )


def _check_ranking(ranking: Ranking, examples: Examples, width: int) -> None:
    """Refuse rankings of other queries, narrow ones, and repeated items."""
    items = ranking.items
    if len(items) != len(examples):
        raise ValueError(f"a ranking of {len(items)} queries does not answer {len(examples)} queries")
    if items.shape[1] < width:
        raise ValueError(f"a ranking of {items.shape[1]} items a query is too narrow for a cutoff of {width}")
    ordered = np.sort(items, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    _require_none(repeated.any(axis=1), examples, "have an item twice in their ranking")


def _require_none(bad: npt.NDArray[np.bool_], examples: Examples, what: str) -> None:
    """Raise a ValueError that counts the ``bad`` queries, ``(Q,)`` bool, and names the first three."""
    if bad.any():
        first = examples.names()[np.flatnonzero(bad)[:3]].tolist()
        raise ValueError(f"{int(bad.sum())} of {len(examples)} queries {what}; first: {', '.join(first)}")
