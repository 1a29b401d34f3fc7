"""Base classes of retrievers that train a model, and of those that search by a vector of the query."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from recsys.examples import Examples, Ranking
from recsys.retrievers.base import FitContext, FitData, Retriever
from recsys.retrievers.vector_index import IndexName, build_index
from recsys.training.batches import Histories, TextVectors
from recsys.training.checkpoint import Checkpoint
from recsys.training.loop import BatchesOf, Training
from recsys.training.loop import train as run_training
from semantic_ids.randomness import seeded
from semantic_ids.types import Floats, Ints


class TrainedRetriever(Retriever):
    """A retriever with a model that the training loop trains.

    A subclass writes :meth:`build <semantic_ids.persistence.Persistent.build>`, which creates the model, and
    :meth:`batches`.

    Attributes:
        model: The model.
        training: Settings of the training.
        uses_query_texts: Whether it reads the texts of queries.
        text_width: Width of the vectors of queries' texts; 0 if queries have no texts or texts are not read.
    """

    model: nn.Module
    training: Training
    uses_query_texts: ClassVar[bool] = False
    text_width: int = 0

    @abstractmethod
    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """Return what the training loop needs, see :func:`~recsys.training.loop.train`.

        Args:
            train: Training examples.

        Returns:
            The function from training rows to batches, and the number of training rows.
        """

    def learn(self, data: FitData, context: FitContext) -> None:
        """Train on every pair of query and target, and keep the weights with the best validation NDCG@10.

        Raises:
            ValueError: If there are no examples to train on or to choose by, if only the training or only
                the validation queries have texts, if their embeddings have different widths, or if the
                checkpoint belongs to another training.
        """
        self.text_width = _text_width(data.train) if self.uses_query_texts else 0
        self._check_text_width(data.valid)
        identity = {
            "class": type(self).__qualname__,
            "settings": self.params(),
            "data": _fingerprint(data.train, data.ids.codes),
            "valid": data.valid.digest(),
            "seed": context.seed,
        }
        with seeded(context.seed):
            self.build(self.facts())
            batches_of, count = self.batches(data.train)
            run_training(
                self.model,
                batches_of,
                count,
                self.training,
                validate=lambda: self.validation_ndcg(data.valid),
                seed=context.seed,
                on_step=context.on_step,
                checkpoint=Checkpoint(context.checkpoint, identity) if context.checkpoint else None,
            )

    def _check_text_width(self, queries: Examples) -> None:
        """Refuse queries whose texts have another width than those that it was fitted on."""
        text_width = _text_width(queries)
        if self.uses_query_texts and text_width != self.text_width:
            own, other = (
                f"texts of {width} numbers each" if width else "no texts"
                for width in (self.text_width, text_width)
            )
            raise ValueError(
                f"{type(self).__name__} is fitted on queries with {own}, but asked queries with {other}: "
                "give it queries of the kind that it learns from, or fit it anew"
            )


class VectorRetriever(TrainedRetriever):
    """A trained retriever that turns a query into a vector and searches for the largest inner products.

    A subclass also writes :meth:`vectors`, :meth:`read` and :meth:`found`.

    Attributes:
        index: Kind of index, see :func:`~recsys.retrievers.vector_index.build_index`.
        max_history: Number of latest items of a history that are read.
        width: Width of the vectors.
    """

    index: IndexName
    max_history: int
    width: int

    @abstractmethod
    def vectors(self) -> Tensor:
        """Return the vectors to search, ``(M, width)``: one per item or per leaf."""

    @abstractmethod
    def read(self, items: Tensor, at: Tensor, texts: Tensor | None) -> Tensor:
        """Return the vectors of A queries, ``(A, width)``.

        Args:
            items: ``(B, T)`` item rows of histories, filled up on the right with -1.
            at: ``(2, A)``, for each query its row in ``items`` and the number of items in its history.
            texts: ``(A, D)`` float32, the vectors of the queries' texts; None if they have none.
        """

    @abstractmethod
    def found(self, rows: Ints, products: Floats, width: int) -> Ranking:
        """Turn the vectors that the search found into a ranking of items.

        Args:
            rows: ``(Q, k)`` int64, rows of :meth:`vectors`, best first; -1 where there is none.
            products: ``(Q, k)`` float32, their inner products with the query.
            width: Number of items to return per query.
        """

    @torch.no_grad()
    def prepare(self) -> None:
        """Build the index of the vectors."""
        vectors = self.vectors()
        self._count = len(vectors)
        self._search = build_index(vectors, self.index)

    @torch.no_grad()
    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Return the best items for each query, found by the index.

        Raises:
            ValueError: If the queries' texts have another width than those that it was fitted on.
        """
        self._check_text_width(queries)
        device = next(self.model.parameters()).device
        history = Histories.from_ragged(queries.history.last(self.max_history), device)
        texts = TextVectors.from_examples(queries, device) if self.text_width else None
        vectors = torch.empty(len(queries), self.width, device=device)
        for rows in history.by_length(torch.arange(len(queries))):
            at = torch.stack([torch.arange(len(rows)), history.lengths[rows]]).to(device)
            vectors[rows] = self.read(history.padded(rows), at, texts[rows] if texts else None)
        return self.found(*self._search(vectors, min(width, self._count)), width)


def _fingerprint(examples: Examples, codes: Ints) -> str:
    """Return a digest of the training data and the codes, which decides whether a checkpoint fits."""
    sha = hashlib.sha256()
    for part in (examples.history, examples.targets):
        for values in (part.values, part.starts, part.stops):
            sha.update(values.tobytes())
    sha.update(codes.tobytes())
    if examples.texts is not None and examples.text_rows is not None:
        sha.update(examples.texts.vectors.tobytes())
        sha.update(examples.text_rows.tobytes())
    return sha.hexdigest()


def _text_width(examples: Examples) -> int:
    """Return the width of the vectors of the queries' texts; 0 if they have none."""
    return examples.texts.vectors.shape[1] if examples.texts else 0
