"""What a retriever is: fitted on examples over semantic IDs, it ranks the whole catalogue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, Ints, Ranking
from semantic_ids.ids import SemanticIds
from semantic_ids.persistence import Persistent
from semantic_ids.tokenizer import OnStep


class Retriever(Persistent, ABC):
    """Ranks catalogue items for what is known of a query: its history, and in search its words.

    A subclass writes :meth:`fit`, which sets ``ids``, and :meth:`candidates`. Its constructor
    keeps to the convention of :class:`~semantic_ids.persistence.Persistent`.

    Attributes:
        ids: the catalogue, by its semantic IDs; kept with the model, so that a saved retriever
            can answer alone.
        uses_ids: whether the codes matter; a retriever to which they do not is a floor under all
            tokenizers.
        uses_texts: whether it learns from the items' texts.
        needs_query_texts: whether it can only answer queries in words.
        is_random: whether another seed gives another retriever.
        scores_are_logits: whether a softmax makes probabilities of its scores; else they are at least 0
            and their shares of the sum do.
    """

    ids: SemanticIds
    uses_ids: ClassVar[bool] = True
    uses_texts: ClassVar[bool] = False
    needs_query_texts: ClassVar[bool] = False
    is_random: ClassVar[bool] = True
    scores_are_logits: ClassVar[bool] = True

    @abstractmethod
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
        """Learn from ``train``; ``valid`` serves to choose, never to learn from. Returns self.

        Args:
            train, valid: the examples.
            ids: the catalogue.
            texts: one an item, as :func:`recsys.texts.item_texts.item_texts` makes them; empty for a retriever
                that does not use them.
            seed: of everything random.
            on_step: gets step and metrics, for curves.
            checkpoint: a file from which a long fit goes on after it was cut short.
        """

    def prepare(self) -> None:
        """Called once before the candidates of a ranking: the place to build what all queries share."""

    @abstractmethod
    def candidates(self, queries: Examples, width: int) -> Ranking:
        """The ``width`` best items for each query, seen ones included; asked for after :meth:`prepare`.

        Returns:
            ``(Q, width)``, or fewer columns where the catalogue has no more items.
        """

    def figures(self, queries: Examples, width: int) -> dict[str, float | str]:
        """What is to be told of it beside its scores on rankings of so many items; nothing by default."""
        return {}

    def rank(
        self,
        queries: Examples,
        k: int,
        *,
        exclude_seen: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Ranking:
        """The ``k`` best items of the full catalogue for each query, ``(Q, k)``.

        With ``exclude_seen`` items of the query's own history are left out. How wide a query is searched
        follows from its own history alone, so that its answer does not depend on who else asks.
        ``on_progress`` gets the number of queries answered.
        """
        items = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        seen = _room_for_seen(queries) if exclude_seen else np.zeros(len(queries), dtype=np.int64)
        answered = 0
        self.prepare()
        for room in np.unique(seen):
            alike = np.flatnonzero(seen == room)
            for part in queries.history.select(alike).by_length(len(alike) // 1024):
                rows = alike[part]
                asked = queries.select(rows)
                found = self.candidates(asked, min(k + int(room), self.ids.num_items))
                if exclude_seen:
                    found = drop_seen(found, asked)
                width = min(k, found.items.shape[1])
                items[rows, :width] = found.items[:, :width]
                scores[rows, :width] = found.scores[:, :width]
                answered += len(rows)
                if on_progress:
                    on_progress(answered)
        return Ranking(items, scores)

    def validation_ndcg(self, valid: Examples, at_most: int = 2000) -> float:
        """NDCG@10 on evenly spaced validation queries: what model choice goes by."""
        some = evenly_spaced(valid, at_most)
        return float(per_query_scores(self.rank(some, 10), some, [10])["ndcg_at_10"].mean())

    def facts(self) -> dict[str, Any]:
        """Its own, the codebook sizes of the catalogue's IDs, and which of its items came together."""
        own = {name: value for name, value in super().facts().items() if name != "ids"}
        of_ids = {"codebook_sizes": list(self.ids.codebook_sizes), "generations": list(self.ids.generations)}
        return {**own, **of_ids}

    def state(self) -> dict[str, Tensor]:
        """The catalogue's codes, and every attribute that is a tensor."""
        return {"ids.codes": torch.from_numpy(self.ids.codes), **super().state()}

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` and :meth:`facts` gave."""
        self.ids = SemanticIds(
            state["ids.codes"].numpy(), tuple(facts["codebook_sizes"]), tuple(facts["generations"])
        )
        super().restore({k: v for k, v in state.items() if k != "ids.codes"}, facts)


def evenly_spaced(queries: Examples, at_most: int) -> Examples:
    """So many queries at the most, spread over all.

    Raises:
        ValueError: there are none.
    """
    if len(queries) == 0:
        raise ValueError(
            "there are no queries to rank: the validation or test examples are empty (of interactions, "
            "users need 3 to give one of each)"
        )
    return queries.select(np.linspace(0, len(queries) - 1, min(at_most, len(queries))).astype(np.int64))


def _room_for_seen(queries: Examples) -> Ints:
    """``(Q,)``: for each query the number of distinct items in its history, up to a power of two."""
    size = int(queries.history.flat().max(initial=0)) + 1
    distinct = np.bincount(_seen(queries, size) // size, minlength=len(queries))
    return np.where(distinct > 0, 2 ** np.ceil(np.log2(np.maximum(distinct, 1))), 0).astype(np.int64)


def drop_seen(ranking: Ranking, queries: Examples) -> Ranking:
    """The ranking without items of each query's own history; what follows moves up."""
    drop = (ranking.items < 0) | is_seen(ranking.items, queries)
    order = np.argsort(drop, axis=1, kind="stable")
    items = np.where(drop, -1, ranking.items)
    scores = np.where(drop, -np.inf, ranking.scores).astype(np.float32)
    return Ranking(np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1))


def is_seen(items: Ints, queries: Examples) -> npt.NDArray[np.bool_]:
    """``(Q, K)``: which of the item rows ``(Q, K)`` stand in the history of their query."""
    size = max(int(items.max(initial=0)), int(queries.history.flat().max(initial=0))) + 1
    return (items >= 0) & np.isin(np.arange(len(queries))[:, None] * size + items, _seen(queries, size))


def _seen(queries: Examples, size: int) -> Ints:
    """Each distinct item of each history once, as ``query * size + item``."""
    return np.unique(queries.history.row_ids() * size + queries.history.flat())
