"""The plug-in point for retrievers: learn from examples, rank the whole catalogue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, Ranking
from semantic_ids.errors import ContractError
from semantic_ids.ids import SemanticIds
from semantic_ids.persistence import Persistent
from semantic_ids.randomness import float32_numbers
from semantic_ids.ranges import MAX_SEED, check_whole
from semantic_ids.types import Ints, OnStep


@dataclass(frozen=True)
class FitData:
    """What a retriever may learn from.

    Attributes:
        train: Examples to learn from.
        valid: Examples to choose by, for example the best step of a training; never to learn from.
        ids: The catalogue of N items, by their semantic IDs.
        texts: One text per item, as :func:`recsys.texts.item_texts.item_texts` writes them; empty unless the
            retriever's :attr:`~Retriever.uses_texts` is true.
    """

    train: Examples
    valid: Examples
    ids: SemanticIds
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class FitContext:
    """How a fit runs, apart from its data.

    Attributes:
        seed: Seed of everything random.
        on_step: Called with a step number and its metrics, for curves and progress.
        checkpoint: File from which a long fit resumes after it was interrupted.
    """

    seed: int = 0
    on_step: OnStep | None = None
    checkpoint: Path | None = None

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Pass the metrics of a step to :attr:`on_step`, if there is one."""
        if self.on_step:
            self.on_step(step, metrics)


class Retriever(Persistent, ABC):
    """Ranks the items of a catalogue for each query: a user's history, and in search the query's text.

    A subclass writes :meth:`learn` and :meth:`candidates`. Its constructor keeps to the convention of
    :class:`~semantic_ids.persistence.Persistent`, so that saving and loading need no code.
    :func:`~recsys.retrievers.testing.check_retriever` checks everything that a benchmark relies on.

    Attributes:
        ids: The catalogue by its semantic IDs, set by :meth:`fit`. It is saved with the model, so that a
            loaded retriever can answer on its own.
        uses_ids: Whether the codes matter. A retriever that ignores them is a baseline for all tokenizers.
        uses_texts: Whether it learns from the items' texts.
        needs_query_texts: Whether it can only answer queries that have a text.
        is_random: Whether another seed gives another retriever.
        scores_are_logits: Whether a softmax turns its scores into probabilities. If not, scores are at
            least 0 and are divided by their sum.
        takes_members: Whether it combines other retrievers; a benchmark then sets :attr:`members`.
        members: Fitted retrievers that this one combines, by name.
    """

    ids: SemanticIds
    uses_ids: ClassVar[bool] = True
    uses_texts: ClassVar[bool] = False
    needs_query_texts: ClassVar[bool] = False
    is_random: ClassVar[bool] = True
    scores_are_logits: ClassVar[bool] = True
    takes_members: ClassVar[bool] = False
    members: dict[str, Retriever]

    moved: ClassVar[Mapping[str, str]] = {
        "recsys.retrievers.fused:Fused": "recsys.retrievers.ensemble:Ensemble",
    }

    def fit(
        self,
        train: Examples,
        valid: Examples,
        ids: SemanticIds,
        *,
        texts: Sequence[str] = (),
        seed: int = 0,
        on_step: OnStep | None = None,
        checkpoint: str | Path | None = None,
    ) -> Self:
        """Check the data, learn from them, and return self.

        Args:
            train: Examples to learn from.
            valid: Examples to choose by, never to learn from.
            ids: The catalogue.
            texts: One text per item, for retrievers with :attr:`uses_texts`.
            seed: Seed of everything random.
            on_step: Called with a step number and its metrics, for curves.
            checkpoint: File from which a long fit resumes after it was interrupted.

        Raises:
            ValueError: If there is not one text per item although texts are used, if queries have no texts
                although they are needed, or if the retriever cannot learn from these data.
        """
        if self.uses_texts and len(texts) != ids.num_items:
            raise ValueError(f"one text an item is needed: {len(texts)} texts for {ids.num_items} items")
        check_whole(0, MAX_SEED, seed=seed)
        self._check_query_texts(train)
        self.ids = ids
        data = FitData(train, valid, ids, texts)
        with float32_numbers():
            self.learn(data, FitContext(seed, on_step, Path(checkpoint) if checkpoint else None))
        return self

    @abstractmethod
    def learn(self, data: FitData, context: FitContext) -> None:
        """Learn from ``data``; :attr:`ids` is already set.

        Args:
            data: Examples, catalogue and texts.
            context: Seed, callback and checkpoint.
        """

    def prepare(self) -> None:
        """Build what all queries share, such as an index; called once before :meth:`candidates`."""

    @abstractmethod
    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Return the best items for each query, items of its own history included.

        Args:
            queries: Q queries.
            width: Number of items per query.

        Returns:
            Rankings ``(Q, width)``; ``width`` is at most the number of items. Every item occurs once, scores
            fall, and item -1 with score -inf stands where there is no further item.
        """

    def checked_candidates(self, queries: Examples, width: int) -> Ranking:
        """Return what :meth:`candidates` returns, after checking that it is a ranking.

        Args:
            queries: Q queries.
            width: Number of items per query, at most as many as the catalogue has.

        Raises:
            ContractError: If it is none. The message names the class and says what to return.
        """
        with float32_numbers():
            ranking = self.candidates(queries, width)
        problem = _problem(ranking, len(queries), width, self.ids.num_items)
        if problem:
            raise ContractError(
                f"{type(self).__name__}.candidates returned {problem} for {len(queries)} queries, width "
                f"{width} and {self.ids.num_items} items; return int64 items and float32 scores of shape "
                f"{(len(queries), width)}: each item once, the best first, -1 with -inf where there is none"
            )
        return ranking

    def diagnostics(self, queries: Examples, width: int) -> dict[str, float | str]:
        """Return what this retriever reports about itself beside its scores; by default nothing.

        Args:
            queries: The evaluation set.
            width: Length of the rankings that are scored.
        """
        return {}

    def rank(
        self,
        queries: Examples,
        k: int,
        *,
        exclude_seen: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """Return the ``k`` best items of the full catalogue for each query.

        Args:
            queries: Q queries.
            k: Number of items per query.
            exclude_seen: Leave out items of the query's own history. The number of candidates depends on
                the query's own history only, so its answer does not depend on the other queries.
            on_progress: Called with the number of queries answered so far.

        Returns:
            Rankings ``(Q, k)``, padded with item -1 and score -inf where there are fewer candidates.

        Raises:
            ValueError: If ``k`` is below 1.
            ContractError: If the retriever returned something that is no ranking, such as NaN scores.
        """
        check_whole(k=k)
        self._check_query_texts(queries)
        items = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        num_seen = _rounded_history_sizes(queries) if exclude_seen else np.zeros(len(queries), dtype=np.int64)
        answered = 0
        with float32_numbers():
            self.prepare()
        for extra in np.unique(num_seen):
            alike = np.flatnonzero(num_seen == extra)
            for part in queries.history.select(alike).by_length(len(alike) // 1024):
                rows = alike[part]
                batch = queries.select(rows)
                ranking = self.checked_candidates(batch, min(k + int(extra), self.ids.num_items))
                if exclude_seen:
                    ranking = drop_seen(ranking, batch)
                width = min(k, ranking.items.shape[1])
                items[rows, :width] = ranking.items[:, :width]
                scores[rows, :width] = ranking.scores[:, :width]
                answered += len(rows)
                if on_progress:
                    on_progress(answered)
        return Ranking(items, scores)

    def validation_ndcg(self, valid: Examples, at_most: int = 2000) -> float:
        """Return the mean NDCG@10 on at most so many validation queries, evenly spaced."""
        sample = evenly_spaced(valid, at_most)
        return float(per_query_scores(self.rank(sample, 10), sample, [10])["ndcg_at_10"].mean())

    def facts(self) -> dict[str, Any]:
        """Return the facts of the subclass, and the catalogue's codebook sizes and generations."""
        own = {name: value for name, value in super().facts().items() if name != "ids"}
        of_ids = {"codebook_sizes": list(self.ids.codebook_sizes), "generations": list(self.ids.generations)}
        return {**own, **of_ids}

    def state(self) -> dict[str, Tensor]:
        """Return the catalogue's codes, and every attribute that is a tensor."""
        return {"ids.codes": torch.from_numpy(self.ids.codes), **super().state()}

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Set what :meth:`state` and :meth:`facts` returned."""
        self.ids = SemanticIds(
            state["ids.codes"].numpy(), tuple(facts["codebook_sizes"]), tuple(facts["generations"])
        )
        super().restore({k: v for k, v in state.items() if k != "ids.codes"}, facts)

    def _check_query_texts(self, queries: Examples) -> None:
        """Refuse queries without texts if this retriever needs them."""
        if self.needs_query_texts and queries.texts is None:
            raise ValueError(
                f"{type(self).__name__} answers queries in words, but these have none: leave it out where "
                "the next item is asked for"
            )


def _problem(ranking: Ranking, queries: int, width: int, num_items: int) -> str:
    """Return what is wrong with candidates, in words; empty if they rank items of the catalogue."""
    items, scores = np.asarray(ranking.items), np.asarray(ranking.scores)
    if items.shape != scores.shape or items.shape != (queries, width):
        return f"items of shape {items.shape} and scores of shape {scores.shape}"
    ordered = np.sort(items, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    problems = {
        f"{items.dtype} items and {scores.dtype} scores": items.dtype != np.int64
        or scores.dtype != np.float32,
        "scores that are NaN": np.isnan(scores).any(),
        f"items from {items.min(initial=num_items)} to {items.max(initial=-1)}": (
            (items < -1) | (items >= num_items)
        ).any(),
        f"an item twice in {int(twice.sum())} rankings": twice.any(),
        "scores that rise along a ranking": (scores[:, 1:] > scores[:, :-1]).any(),
        "item -1 and score -inf at different places": ((items < 0) != np.isneginf(scores)).any(),
    }
    return next((what for what, is_wrong in problems.items() if is_wrong), "")


def evenly_spaced(queries: Examples, at_most: int) -> Examples:
    """Return at most so many queries, evenly spaced among all.

    Raises:
        ValueError: If there are none.
    """
    if len(queries) == 0:
        raise ValueError(
            "there are no queries to rank: the validation or test examples are empty (of interactions, "
            "users need 3 to give one of each)"
        )
    return queries.select(np.linspace(0, len(queries) - 1, min(at_most, len(queries))).astype(np.int64))


def drop_seen(ranking: Ranking, queries: Examples) -> Ranking:
    """Return the ranking without items of each query's own history; later items move up."""
    drop = (ranking.items < 0) | is_seen(ranking.items, queries)
    order = np.argsort(drop, axis=1, kind="stable")
    items = np.where(drop, -1, ranking.items)
    scores = np.where(drop, -np.inf, ranking.scores).astype(np.float32)
    return Ranking(np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1))


def is_seen(items: Ints, queries: Examples) -> npt.NDArray[np.bool_]:
    """Return ``(Q, K)``: whether each of the item rows ``(Q, K)`` is in the history of its query."""
    size = max(int(items.max(initial=0)), int(queries.history.flat().max(initial=0))) + 1
    keys = np.arange(len(queries))[:, None] * size + items
    return (items >= 0) & np.isin(keys, _history_keys(queries, size))


def _rounded_history_sizes(queries: Examples) -> Ints:
    """Return ``(Q,)``: the number of distinct items in each history, rounded up to a power of two."""
    size = int(queries.history.flat().max(initial=0)) + 1
    distinct = np.bincount(_history_keys(queries, size) // size, minlength=len(queries))
    return np.where(distinct > 0, 2 ** np.ceil(np.log2(np.maximum(distinct, 1))), 0).astype(np.int64)


def _history_keys(queries: Examples, size: int) -> Ints:
    """Return each distinct item of each history once, as ``query * size + item``."""
    return np.unique(queries.history.row_ids() * size + queries.history.flat())
