"""Recall and NDCG of every single query, on the full catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recsys.examples import Examples, Ints, Ranking

Scores = npt.NDArray[np.float64]


def per_query_scores(
    ranking: Ranking, examples: Examples, cutoffs: Sequence[int], *, relevant_gain: float = 0.0
) -> dict[str, Scores]:
    r"""Recall@k and NDCG@k of every query, for every cutoff k.

    A hit is an *item* of the query's targets that is relevant: its gain is above 0 and at least
    ``relevant_gain``; padding (``-1``) never hits. With :math:`g_i` the gain of the item at rank *i*
    (0 if it is no target), :math:`r_i` 1 where that is relevant and 0 elsewhere, R the number of
    relevant targets and IDCG@k the DCG@k of the targets ranked by falling gain:

    .. math::
        Recall@k = \frac{1}{R} \sum_{i=1}^{k} r_i \qquad
        DCG@k = \sum_{i=1}^{k} \frac{g_i}{\log_2(i + 1)} \qquad
        NDCG@k = \frac{DCG@k}{IDCG@k}

    (Järvelin & Kekäläinen 2002, with linear gains.)

    Args:
        ranking: ``(Q, K)`` items, at least ``max(cutoffs)`` wide.
        examples: the Q queries with their targets and gains.
        cutoffs: the values of k.
        relevant_gain: from which gain on a target counts for Recall; NDCG sees the gains themselves.

    Returns:
        ``recall_at_<k>`` and ``ndcg_at_<k>``, each ``(Q,)`` float64 in 0 … 1.

    Raises:
        ValueError: the ranking repeats an item, is too narrow or is of other queries; or a query
            has a repeated target, a negative gain, or nothing relevant to find.

    Example:
        One query whose targets, items 7 and 3, stand at rank 2 and nowhere:

        >>> from recsys.examples import Ragged
        >>> examples = Examples(
        ...     query_ids=np.array(["u1"]),
        ...     history=Ragged.from_rows([[1]]),
        ...     targets=Ragged.from_rows([[7, 3]]),
        ...     gains=np.array([1, 1], dtype=np.float32),
        ... )
        >>> ranking = Ranking(items=np.array([[5, 7, 9]]), scores=np.zeros((1, 3), dtype=np.float32))
        >>> scores = per_query_scores(ranking, examples, cutoffs=[3])
        >>> {name: values.round(4).tolist() for name, values in scores.items()}
        {'recall_at_3': [0.5], 'ndcg_at_3': [0.3869]}
    """
    _check_examples(examples, relevant_gain)
    _check_ranking(ranking, examples, max(cutoffs))
    gains = _gains_at_ranks(ranking.items[:, : max(cutoffs)], examples)
    discounts = 1 / np.log2(np.arange(2, gains.shape[1] + 2))
    relevant = _relevant(examples, relevant_gain)
    hits = (gains > 0) & (gains >= np.float32(relevant_gain))
    scores = {}
    for k in cutoffs:
        scores[f"recall_at_{k}"] = hits[:, :k].sum(axis=1) / relevant
        scores[f"ndcg_at_{k}"] = gains[:, :k] @ discounts[:k] / _ideal_dcg(examples, k)
    return scores


def _gains_at_ranks(items: Ints, examples: Examples) -> Scores:
    """``(Q, K)`` float64: the gain of each ranked item, 0 where it is no target of its query."""
    targets = examples.targets.flat()
    size = max(int(items.max(initial=0)), int(targets.max(initial=0))) + 1
    target_keys = examples.targets.row_ids() * size + targets
    order = np.argsort(target_keys)
    target_keys, gains = target_keys[order], examples.gains[order].astype(np.float64)
    keys = np.arange(len(items))[:, None] * size + items
    at = np.searchsorted(target_keys, keys).clip(max=len(target_keys) - 1)
    # The key of a padded place is that of the row before's last item, hence the first condition.
    return np.where((items >= 0) & (target_keys[at] == keys), gains[at], 0.0)


def _ideal_dcg(examples: Examples, k: int) -> Scores:
    """``(Q,)`` float64: the DCG@k of the targets ranked by falling gain."""
    rows, lengths = examples.targets.row_ids(), examples.targets.lengths
    gains = examples.gains[np.lexsort((-examples.gains, rows))]
    ranks = np.arange(1, len(rows) + 1) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    discounted = np.where(ranks <= k, gains / np.log2(ranks + 1), 0.0)
    return np.bincount(rows, weights=discounted, minlength=len(examples)).astype(np.float64)


def _relevant(examples: Examples, relevant_gain: float) -> Scores:
    """``(Q,)``: how many relevant targets each query has."""
    # Gains are float32, and so must be what they are compared with: 0.1 is not what it seems.
    counted = (examples.gains > 0) & (examples.gains >= np.float32(relevant_gain))
    found = np.bincount(examples.targets.row_ids(), weights=counted, minlength=len(examples))
    return found.astype(np.float64)


def _check_examples(examples: Examples, relevant_gain: float) -> None:
    rows, targets = examples.targets.row_ids(), examples.targets.flat()
    if not (examples.gains >= 0).all():
        raise ValueError(f"gains must not be negative, but the smallest is {examples.gains.min()}")
    least = f"of {relevant_gain:g} at least" if relevant_gain else "above 0"
    none = _relevant(examples, relevant_gain) == 0
    _refuse(none, examples, f"have no target with a gain {least}; leave them out of the evaluation set")
    order = np.lexsort((targets, rows))
    repeated = np.flatnonzero((np.diff(rows[order]) == 0) & (np.diff(targets[order]) == 0))
    _refuse(np.bincount(rows[order][repeated], minlength=len(examples)) > 0, examples, "repeat a target")


def _check_ranking(ranking: Ranking, examples: Examples, width: int) -> None:
    items = ranking.items
    if len(items) != len(examples):
        raise ValueError(f"a ranking of {len(items)} queries does not answer {len(examples)} queries")
    if items.shape[1] < width:
        raise ValueError(f"a ranking of {items.shape[1]} items a query is too narrow for a cutoff of {width}")
    ordered = np.sort(items, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    _refuse(repeated.any(axis=1), examples, "have an item twice in their ranking")


def _refuse(bad: npt.NDArray[np.bool_], examples: Examples, what: str) -> None:
    """Raise a ValueError that counts the ``bad`` ``(Q,)`` queries and names the first."""
    if bad.any():
        first = examples.names()[np.flatnonzero(bad)[:3]].tolist()
        raise ValueError(f"{int(bad.sum())} of {len(examples)} queries {what}; first: {', '.join(first)}")
