"""Several retrievers as one: a mixture of what they hold likely, weighted by what validation says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, Floats, Ints, Ranking
from recsys.retrievers.composite import Composite
from semantic_ids.ids import SemanticIds
from semantic_ids.tokenizer import OnStep

_STEP = 0.05


class Fused(Composite):
    """Mixes members' probabilities over the same catalogue (Jelinek & Mercer's linear interpolation).

    Each member gives its best ``depth`` items. Their scores become probabilities among these: by
    softmax where scores are logits, else by dividing by their sum; an item that a member does not
    name has probability 0 with it. The weights are those of the best validation NDCG@10. Set
    ``members`` before :meth:`fit`; they are not fitted again.

    Args:
        depth: how many items each member is asked for, and more where the ranking is longer.
        exclude_seen: whether weights are chosen for rankings without items of a query's own history; a
            benchmark sets it as it evaluates.

    Attributes:
        weights: one a member, adding up to 1.
    """

    scores_are_logits = False
    weights: list[float]

    def __init__(self, *, depth: int = 200, exclude_seen: bool = False) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self.depth, self.exclude_seen = depth, exclude_seen

    def fit(
        self,
        train: Examples,
        valid: Examples,
        ids: SemanticIds,
        *,
        texts: Sequence[str] = (),
        seed: int = 0,
        on_step: OnStep | None = None,
        checkpoint: Path | None = None,
    ) -> Self:
        """Choose the weights; nothing is random, and nothing is read from ``train``.

        From equal weights on, each member's weight in turn is set to what is best while the others keep
        their proportions, in steps of .05, until no such change helps.

        Raises:
            ValueError: there are no members, or they are of another catalogue.
        """
        if not getattr(self, "members", None):
            raise ValueError("nothing to fuse: set members to a list of fitted retrievers before fit()")
        for member in self.members:
            if member.ids.num_items != ids.num_items:
                raise ValueError(
                    f"a member ranks {member.ids.num_items} items, but the catalogue has {ids.num_items}"
                )
        self.ids = ids
        rankings = [member.rank(valid, self.depth, exclude_seen=self.exclude_seen) for member in self.members]
        choice = _Choice(self._probabilities(rankings), valid)
        weights = np.full(len(self.members), 1 / len(self.members))
        best, before, step = choice.ndcg(weights), -1.0, 0
        while best > before:
            before, step = best, step + 1
            for number in range(len(weights)):
                for tried in _changes(weights, number):
                    value = choice.ndcg(tried)
                    if value > best:
                        best, weights = value, tried
            if on_step:
                on_step(step, {"valid": best})
        self.weights = weights.tolist()
        return self

    def prepare(self) -> None:
        """Let the members prepare."""
        for member in self.members:
            member.prepare()

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """The likeliest of what the members name; scores are probabilities."""
        depth = min(max(self.depth, width), self.ids.num_items)
        items, shares = self._probabilities([m.candidates(queries, depth) for m in self.members])
        scores = np.tensordot(np.array(self.weights), shares, 1)
        scores[items < 0] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        found = np.take_along_axis(scores, order, axis=1).astype(np.float32)
        return Ranking(np.take_along_axis(items, order, axis=1), found)

    def figures(self, queries: Examples) -> dict[str, float | str]:
        """The weights, and what the members tell."""
        told: dict[str, float | str] = {}
        for member in self.members:
            told |= member.figures(queries)
        return {**told, "weights": ", ".join(f"{weight:.2f}" for weight in self.weights)}

    def _probabilities(self, rankings: Sequence[Ranking]) -> tuple[Ints, Floats]:
        """All that members name, and what each holds of it.

        Returns:
            Item rows ``(Q, U)``, each at most once, -1 for none; and probabilities ``(members, Q, U)``.
        """
        named = np.concatenate([ranking.items for ranking in rankings], axis=1)
        order = np.argsort(named, axis=1, kind="stable")
        sorted_ = np.take_along_axis(named, order, axis=1)
        is_new = np.ones_like(sorted_, dtype=bool)
        is_new[:, 1:] = sorted_[:, 1:] != sorted_[:, :-1]
        place = np.empty_like(named)
        np.put_along_axis(place, order, is_new.cumsum(axis=1) - 1, axis=1)
        items = np.full((len(named), int(place.max(initial=-1)) + 1), -1)
        np.put_along_axis(items, place, named, axis=1)
        shares = np.zeros((len(rankings), *items.shape), dtype=np.float32)
        stops = np.cumsum([ranking.items.shape[1] for ranking in rankings])
        for share, member, ranking, stop in zip(shares, self.members, rankings, stops, strict=True):
            own = place[:, stop - ranking.items.shape[1] : stop]
            np.put_along_axis(share, own, _normalised(ranking, member.scores_are_logits), axis=1)
        return items, shares


class _Choice:
    """NDCG@10 of the mixture on queries with their targets, for any weights.

    Args:
        named: items and probabilities, as :meth:`Fused._probabilities` gives them.
        queries: whose they are.
    """

    def __init__(self, named: tuple[Ints, Floats], queries: Examples) -> None:
        self.items, self.shares = named
        self.queries = queries

    def ndcg(self, weights: npt.NDArray[np.float64]) -> float:
        """The mean over queries."""
        scores = np.tensordot(weights.astype(np.float32), self.shares, 1)
        scores[self.items < 0] = -np.inf
        width = min(10, scores.shape[1])
        best = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), 1, kind="stable"), 1)
        ranked = np.full((len(scores), 10), -1)
        ranked[:, :width] = np.take_along_axis(self.items, best, axis=1)
        ranking = Ranking(ranked, np.zeros(ranked.shape, dtype=np.float32))
        return float(per_query_scores(ranking, self.queries, [10])["ndcg_at_10"].mean())


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


def _normalised(ranking: Ranking, are_logits: bool) -> Floats:
    """Scores ``(Q, K)`` → probabilities; 0 where there is no item, or no score above 0."""
    scores = ranking.scores.astype(np.float64)
    if are_logits:
        highest = scores.max(axis=1, keepdims=True, initial=-np.inf)
        scores = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    scores = np.where(ranking.items < 0, 0.0, scores)
    total = scores.sum(axis=1, keepdims=True)
    return np.divide(scores, total, out=np.zeros_like(scores), where=total > 0).astype(np.float32)
