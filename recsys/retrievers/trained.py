"""What retrievers that learn weights share: one way to be trained, one way to answer by a vector."""

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
    """Has a model that is trained by a budget.

    A subclass writes :meth:`build <semantic_ids.persistence.Persistent.build>`, which makes the model, and
    :meth:`batches`.

    Attributes:
        model: what is trained.
        training: the budget.
        uses_query_texts: whether it reads what queries say in words.
        text_width: numbers in the vector of a query's text; 0 if queries have none, or none that is read.
    """

    model: nn.Module
    training: Training
    uses_query_texts: ClassVar[bool] = False
    text_width: int = 0

    @abstractmethod
    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """What the model learns from, and the number of training rows: see :func:`~recsys.training.loop.train`."""

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
        """Refuse queries whose texts are not like those that it was fitted on, with a ValueError."""
        asked = _text_width(queries)
        if self.uses_query_texts and asked != self.text_width:
            own, other = (
                f"texts of {width} numbers each" if width else "no texts"
                for width in (self.text_width, asked)
            )
            raise ValueError(
                f"{type(self).__name__} is fitted on queries with {own}, but asked queries with {other}: "
                "give it queries of the kind that it learns from, or fit it anew"
            )


class VectorRetriever(TrainedRetriever):
    """Reads a query into a vector, and searches for those whose inner product with it is large.

    Attributes:
        index: see :func:`~recsys.retrievers.vector_index.build_index`.
        max_history: how many of the latest items are read.
        width: of vectors.
    """

    index: IndexName
    max_history: int
    width: int

    @abstractmethod
    def vectors(self) -> Tensor:
        """What is searched, ``(M, width)``."""

    @abstractmethod
    def read(self, items: Tensor, at: Tensor, texts: Tensor | None) -> Tensor:
        """What A queries are, ``(A, width)``.

        Args:
            items: ``(B, T)`` item rows, -1 behind the last.
            at: ``(2, A)``, of each query its row and how many of the items it has behind it.
            texts: ``(A, D)`` float32, what it says in words; None if there are none.
        """

    @abstractmethod
    def found(self, rows: Ints, products: Floats, width: int) -> Ranking:
        """Rows of the vectors and inner products, ``(Q, k)``, best first → the ``width`` best items."""

    @torch.no_grad()
    def prepare(self) -> None:
        """Index the vectors."""
        vectors = self.vectors()
        self._count = len(vectors)
        self._search = build_index(vectors, self.index)

    @torch.no_grad()
    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Search by the vectors of the queries."""
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
    """D of the texts' vectors; 0 if there are none."""
    return examples.texts.vectors.shape[1] if examples.texts else 0
