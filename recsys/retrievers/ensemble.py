"""An ensemble of retrievers: a weighted sum of their probabilities, with weights chosen on validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, Ranking
from recsys.retrievers.base import FitContext, FitData, Retriever, evenly_spaced, is_seen
from recsys.retrievers.top_k import best_columns
from semantic_ids.ranges import check_whole
from semantic_ids.types import Floats, Ints

_STEP = 0.05
"""Step between the values of a weight that are tried."""


class Ensemble(Retriever):
    """Ranks items by a weighted sum of its members' probabilities (Jelinek & Mercer's linear interpolation).

    Each member ranks its best items. The scores of its first ``depth`` items become probabilities: by a
    softmax if scores are logits, otherwise by division by their sum. All other items have probability 0 for
    this member. The weights are those with the best NDCG@10 on validation queries. Equal scores are in the
    order of the members' rankings: first the best item of each member, then the second of each, and so on.

    Set ``members`` before :meth:`fit`. They must be fitted already, and are not fitted again.

    Args:
        depth: Number of each member's best items that get a probability. Longer rankings are filled up in
            the order of the members' rankings.
        queries: Number of validation queries, evenly spaced, on which weights are chosen; all if there are
            fewer.
        exclude_seen: Whether weights are chosen for rankings without items of a query's own history. A
            benchmark sets it to the value of its evaluation.

    Attributes:
        members: Fitted retrievers over one catalogue, by name; they are saved with the ensemble.
        weights: Weight of each member; they add up to 1.

    Raises:
        ValueError: If ``depth`` or ``queries`` is below 1.
    """

    scores_are_logits = False
    takes_members = True
    weights: list[float]

    def __init__(self, *, depth: int = 100, queries: int = 25_000, exclude_seen: bool = False) -> None:
        check_whole(depth=depth, queries=queries)
        self.depth, self.queries, self.exclude_seen = depth, queries, exclude_seen

    def learn(self, data: FitData, context: FitContext) -> None:
        """Choose the weights by validation NDCG@10; nothing is random, and ``data.train`` is not read.

        Start from equal weights. Set each member's weight in turn to the best value in steps of .05, while
        the other weights keep their proportions. Stop when no such change helps.

        Raises:
            ValueError: If there are no members, if they rank another catalogue, or if there are no
                validation queries.
        """
        if not getattr(self, "members", None):
            raise ValueError("nothing to combine: set members to fitted retrievers, by name, before fit()")
        for name, member in self.members.items():
            if member.ids.num_items != data.ids.num_items:
                raise ValueError(
                    f"{name!r} ranks {member.ids.num_items} items, but the catalogue has {data.ids.num_items}"
                )
        sample = evenly_spaced(data.valid, self.queries)
        self.prepare()
        items, probabilities = self._member_probabilities(sample, self.depth)
        if self.exclude_seen:
            items[is_seen(items, sample)] = -1

        def ndcg(weights: npt.NDArray[np.float64]) -> float:
            """Return the NDCG@10 of the ensemble with these weights on the sample."""
            padded = np.full((len(sample), 10), -1)
            best, _ = _best_by_weighted_sum(items, probabilities, weights.tolist(), 10)
            padded[:, : best.shape[1]] = best
            ranking = Ranking(padded, np.zeros(padded.shape, dtype=np.float32))
            return float(per_query_scores(ranking, sample, [10])["ndcg_at_10"].mean())

        weights = np.full(len(self.members), 1 / len(self.members))
        best, previous, turn = ndcg(weights), -1.0, 0
        while best > previous:
            previous, turn = best, turn + 1
            for number in range(len(weights)):
                for candidate in _with_other_weight(weights, number):
                    value = ndcg(candidate)
                    if value > best:
                        best, weights = value, candidate
            context.report(turn, {"valid": best})
        self.weights = weights.tolist()

    def prepare(self) -> None:
        """Prepare all members."""
        for member in self.members.values():
            member.prepare()

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Return the items with the largest weighted sum of probabilities; scores are these sums."""
        items, probabilities = self._member_probabilities(queries, width)
        best, scores = _best_by_weighted_sum(items, probabilities, self.weights, width)
        missing = ((0, 0), (0, width - best.shape[1]))  # members may have ranked fewer items
        return Ranking(
            np.pad(best, missing, constant_values=-1), np.pad(scores, missing, constant_values=-np.inf)
        )

    def diagnostics(self, queries: Examples, width: int) -> dict[str, float | str]:
        """Return the weight of each member, as text."""
        weights = zip(self.members, self.weights, strict=True)
        return {"weights": ", ".join(f"{name} {weight:.2f}" for name, weight in weights)}

    def _member_probabilities(self, queries: Examples, width: int) -> tuple[Ints, Floats]:
        """Return all items that members rank, and the probability of each for each member.

        Args:
            queries: Q queries.
            width: Number of items that the ensemble is to rank; members rank at least ``depth`` items.

        Returns:
            Item rows ``(Q, U)``, each item once, -1 for no item, in the order of the members' rankings; and
            probabilities ``(members, Q, U)``.
        """
        member_width = min(max(self.depth, width), self.ids.num_items)
        rankings = [member.checked_candidates(queries, member_width) for member in self.members.values()]
        widths = [ranking.items.shape[1] for ranking in rankings]
        # First the best item of each member, then the second of each, and so on.
        in_turn = np.argsort(np.concatenate([np.arange(width) for width in widths]), kind="stable")
        member_of_column = np.repeat(np.arange(len(rankings)), widths)[in_turn]
        ranked = np.concatenate([ranking.items for ranking in rankings], axis=1)[:, in_turn]
        position = _positions_by_first_appearance(ranked)
        items = np.full((len(ranked), int(position.max(initial=-1)) + 1), -1)
        np.put_along_axis(items, position, ranked, axis=1)
        probabilities = np.zeros((len(rankings), *items.shape), dtype=np.float32)
        for number, (member, ranking) in enumerate(zip(self.members.values(), rankings, strict=True)):
            own = _probabilities(ranking, self.depth, are_logits=member.scores_are_logits)
            np.put_along_axis(probabilities[number], position[:, member_of_column == number], own, axis=1)
        return items, probabilities

    def facts(self) -> dict[str, Any]:
        """Return the ensemble's own facts, and the description of each member."""
        own = {name: value for name, value in super().facts().items() if name != "members"}
        return {**own, "members": {name: member.description() for name, member in self.members.items()}}

    def state(self) -> dict[str, Tensor]:
        """Return the catalogue's codes, and the tensors of all members."""
        of_members = {
            f"members.{number}.{name}": value
            for number, member in enumerate(self.members.values())
            for name, value in member.state().items()
        }
        return {**super().state(), **of_members}

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Set what :meth:`state` and :meth:`facts` returned."""
        own = {name: value for name, value in state.items() if not name.startswith("members.")}
        super().restore(own, {name: value for name, value in facts.items() if name != "members"})
        self.members = {}
        for number, (name, description) in enumerate(facts["members"].items()):
            prefix = f"members.{number}."
            of_member = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            self.members[name] = Retriever.rebuilt(description, of_member, f"member {name!r}")


def _best_by_weighted_sum(
    items: Ints, probabilities: Floats, weights: Sequence[float], width: int
) -> tuple[Ints, Floats]:
    """Return the items with the largest weighted sums of probabilities, and these sums.

    Args:
        items: ``(Q, U)`` item rows, -1 for no item.
        probabilities: ``(members, Q, U)``.
        weights: Weight of each member.
        width: Number of items to return per query.

    Returns:
        Items and sums, ``(Q, min(width, U))`` each, best first.
    """
    scores = np.tensordot(np.array(weights, dtype=np.float32), probabilities, 1)
    best = best_columns(np.where(items < 0, np.float32(-1), scores), min(width, items.shape[1]))
    ranked, scores = np.take_along_axis(items, best, axis=1), np.take_along_axis(scores, best, axis=1)
    return ranked, np.where(ranked < 0, -np.inf, scores).astype(np.float32)


def _positions_by_first_appearance(items: Ints) -> Ints:
    """Return the number of each item if the distinct items of its row are numbered by first appearance.

    Args:
        items: ``(Q, N)``. For example, the row 7 5 7 9 gives 0 1 0 2.

    Returns:
        ``(Q, N)`` int64, from 0.
    """
    order = np.argsort(items, axis=1, kind="stable")
    sorted_items = np.take_along_axis(items, order, axis=1)
    is_new = np.ones_like(sorted_items, dtype=bool)
    is_new[:, 1:] = sorted_items[:, 1:] != sorted_items[:, :-1]
    # The sort is stable, so among equal items the one that appears first comes first.
    first = np.maximum.accumulate(np.where(is_new, np.arange(items.shape[1]), 0), axis=1)
    first_column = np.take_along_axis(order, first, axis=1)
    is_first = np.zeros_like(items)
    np.put_along_axis(is_first, first_column, 1, axis=1)
    numbers = np.take_along_axis(is_first.cumsum(axis=1) - 1, first_column, axis=1)
    result = np.empty_like(items)
    np.put_along_axis(result, order, numbers, axis=1)
    return result


def _with_other_weight(weights: npt.NDArray[np.float64], member: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield weights with each possible weight of one member; the others keep their proportions."""
    others = weights.copy()
    others[member] = 0.0
    sum_of_others = others.sum()
    for weight in np.arange(0.0, 1.0 + _STEP / 2, _STEP):
        if sum_of_others > 0:
            changed = others * ((1 - weight) / sum_of_others)
            changed[member] = weight
            yield changed


def _probabilities(ranking: Ranking, depth: int, *, are_logits: bool) -> Floats:
    """Turn the scores of the first ``depth`` items into probabilities; later ranks and missing items get 0.

    Later ranks only fill up longer rankings. They get no probability, so that the weighted sum is the one for
    which the weights were chosen.

    Args:
        ranking: Rankings ``(Q, K)`` of a member.
        depth: Number of items that get a probability.
        are_logits: Whether the scores are logits.

    Returns:
        ``(Q, K)`` float32; each row adds up to 1, or to 0 if it has no items or no score above 0.
    """
    scores = ranking.scores.astype(np.float64)
    if are_logits:
        highest = scores.max(axis=1, keepdims=True, initial=-np.inf)
        scores = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    scores = np.where(ranking.items < 0, 0.0, scores)
    scores[:, depth:] = 0.0
    total = scores.sum(axis=1, keepdims=True)
    return np.divide(scores, total, out=np.zeros_like(scores), where=total > 0).astype(np.float32)
