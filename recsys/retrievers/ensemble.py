"""Several retrievers as one: a mixture of what they hold likely, weighted by what validation says."""

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
from semantic_ids.types import Floats, Ints

_STEP = 0.05


class Ensemble(Retriever):
    """Mixes members' probabilities over the same catalogue (Jelinek & Mercer's linear interpolation).

    Each member names its best items. Their scores become probabilities among its best ``depth``: by
    softmax where scores are logits, else by dividing by their sum; an item that a member does not
    name has probability 0 with it. The weights are those of the best NDCG@10 on validation queries. Equal
    scores stand in the order in which members name them. Set ``members`` before :meth:`fit`; they are
    not fitted again.

    Args:
        depth: how many of each member's items count; longer rankings are filled up in members' order.
        queries: on how many validation queries weights are chosen, evenly spaced, if there are more.
        exclude_seen: whether weights are chosen for rankings without items of a query's own history; a
            benchmark sets it as it evaluates.

    Attributes:
        members: fitted retrievers over one catalogue, each under a name; saved with this one.
        weights: one a member, adding up to 1.
    """

    scores_are_logits = False
    takes_members = True
    weights: list[float]

    def __init__(self, *, depth: int = 100, queries: int = 25_000, exclude_seen: bool = False) -> None:
        for name, value in (("depth", depth), ("queries", queries)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
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
        some = evenly_spaced(data.valid, self.queries)
        self.prepare()
        items, shares = self._shares(some, self.depth)
        if self.exclude_seen:
            items[is_seen(items, some)] = -1

        def ndcg(weights: npt.NDArray[np.float64]) -> float:
            ranked = np.full((len(some), 10), -1)
            best, _ = _mixed(items, shares, weights.tolist(), 10)
            ranked[:, : best.shape[1]] = best
            ranking = Ranking(ranked, np.zeros(ranked.shape, dtype=np.float32))
            return float(per_query_scores(ranking, some, [10])["ndcg_at_10"].mean())

        weights = np.full(len(self.members), 1 / len(self.members))
        best, before, turn = ndcg(weights), -1.0, 0
        while best > before:
            before, turn = best, turn + 1
            for number in range(len(weights)):
                for tried in _changes(weights, number):
                    value = ndcg(tried)
                    if value > best:
                        best, weights = value, tried
            context.report(turn, {"valid": best})
        self.weights = weights.tolist()

    def prepare(self) -> None:
        """Let the members prepare."""
        for member in self.members.values():
            member.prepare()

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """The likeliest of what the members name; scores are probabilities."""
        items, shares = self._shares(queries, width)
        return Ranking(*_mixed(items, shares, self.weights, width))

    def diagnostics(self, queries: Examples, width: int) -> dict[str, float | str]:
        """What each member weighs."""
        named = zip(self.members, self.weights, strict=True)
        return {"weights": ", ".join(f"{name} {weight:.2f}" for name, weight in named)}

    def _shares(self, queries: Examples, width: int) -> tuple[Ints, Floats]:
        """All that members name, and what each holds of it.

        Returns:
            Item rows ``(Q, U)``, each at most once, -1 for none, those that members name first on the
            left; and probabilities ``(members, Q, U)``.
        """
        asked = min(max(self.depth, width), self.ids.num_items)
        rankings = [member.candidates(queries, asked) for member in self.members.values()]
        widths = [ranking.items.shape[1] for ranking in rankings]
        # First the best of each member, then the second of each, and so on.
        in_turn = np.argsort(np.concatenate([np.arange(width) for width in widths]), kind="stable")
        members = np.repeat(np.arange(len(rankings)), widths)[in_turn]
        named = np.concatenate([ranking.items for ranking in rankings], axis=1)[:, in_turn]
        place = _first_places(named)
        items = np.full((len(named), int(place.max(initial=-1)) + 1), -1)
        np.put_along_axis(items, place, named, axis=1)
        shares = np.zeros((len(rankings), *items.shape), dtype=np.float32)
        for number, (member, ranking) in enumerate(zip(self.members.values(), rankings, strict=True)):
            own = _probabilities(ranking, self.depth, are_logits=member.scores_are_logits)
            np.put_along_axis(shares[number], place[:, members == number], own, axis=1)
        return items, shares

    def facts(self) -> dict[str, Any]:
        """Those of its own, and all that its members are made of."""
        own = {name: value for name, value in super().facts().items() if name != "members"}
        return {**own, "members": {name: member.description() for name, member in self.members.items()}}

    def state(self) -> dict[str, Tensor]:
        """The catalogue's codes and the members' tensors."""
        of_members = {
            f"members.{number}.{name}": value
            for number, member in enumerate(self.members.values())
            for name, value in member.state().items()
        }
        return {**super().state(), **of_members}

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` and :meth:`facts` gave."""
        own = {name: value for name, value in state.items() if not name.startswith("members.")}
        super().restore(own, {name: value for name, value in facts.items() if name != "members"})
        self.members = {}
        for number, (name, about) in enumerate(facts["members"].items()):
            prefix = f"members.{number}."
            of_member = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            self.members[name] = Retriever.rebuilt(about, of_member, f"member {name!r}")


def _mixed(items: Ints, shares: Floats, weights: Sequence[float], width: int) -> tuple[Ints, Floats]:
    """The likeliest items by a mixture, and their probabilities, ``(Q, at most width)`` each."""
    scores = np.tensordot(np.array(weights, dtype=np.float32), shares, 1)
    best = best_columns(np.where(items < 0, np.float32(-1), scores), min(width, items.shape[1]))
    ranked, scores = np.take_along_axis(items, best, axis=1), np.take_along_axis(scores, best, axis=1)
    return ranked, np.where(ranked < 0, -np.inf, scores).astype(np.float32)


def _first_places(named: Ints) -> Ints:
    """Items ``(Q, N)`` → of each its place among the distinct ones of its row, by first appearance."""
    order = np.argsort(named, axis=1, kind="stable")
    sorted_ = np.take_along_axis(named, order, axis=1)
    is_new = np.ones_like(sorted_, dtype=bool)
    is_new[:, 1:] = sorted_[:, 1:] != sorted_[:, :-1]
    # Where each item stands first; the sort is stable, so that is the first of its equals.
    first = np.maximum.accumulate(np.where(is_new, np.arange(named.shape[1]), 0), axis=1)
    first = np.take_along_axis(order, first, axis=1)
    appears = np.zeros_like(named)
    np.put_along_axis(appears, first, 1, axis=1)
    place = np.empty_like(named)
    np.put_along_axis(place, order, np.take_along_axis(appears.cumsum(axis=1) - 1, first, axis=1), axis=1)
    return place


def _changes(weights: npt.NDArray[np.float64], member: int) -> Iterator[npt.NDArray[np.float64]]:
    """Weights with another share for one member, the rest in their proportions."""
    others = weights.copy()
    others[member] = 0.0
    rest = others.sum()
    for share in np.arange(0.0, 1.0 + _STEP / 2, _STEP):
        if rest > 0:
            changed = others * ((1 - share) / rest)
            changed[member] = share
            yield changed


def _probabilities(ranking: Ranking, depth: int, *, are_logits: bool) -> Floats:
    """Scores ``(Q, K)`` → probabilities among the first ``depth``; 0 behind, and where there is no item.

    What stands behind only fills up longer rankings: the mixture stays the one that was chosen.
    """
    scores = ranking.scores.astype(np.float64)
    if are_logits:
        highest = scores.max(axis=1, keepdims=True, initial=-np.inf)
        scores = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    scores = np.where(ranking.items < 0, 0.0, scores)
    scores[:, depth:] = 0.0
    total = scores.sum(axis=1, keepdims=True)
    return np.divide(scores, total, out=np.zeros_like(scores), where=total > 0).astype(np.float32)
