"""What retrievers that learn weights share: one way to be trained, one way to answer by a vector."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from recsys.checkpoint import Checkpoint
from recsys.examples import Examples, Floats, Ints, Ranking
from recsys.histories import Histories
from recsys.retrievers.base import Retriever
from recsys.search import IndexName, build_index
from recsys.training import BatchesOf, Training
from recsys.training import train as run_training
from semantic_ids.ids import SemanticIds
from semantic_ids.randomness import seeded
from semantic_ids.tokenizer import OnStep


class TrainedRetriever(Retriever):
    """Has a model that is trained by a budget.

    A subclass writes :meth:`build <semantic_ids.persistence.Persistent.build>`, which makes the model, and
    :meth:`batches`.

    Attributes:
        model: what is trained.
        training: the budget.
    """

    model: nn.Module
    training: Training

    @abstractmethod
    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """What the model learns from, and the number of training rows: see :func:`~recsys.training.train`."""

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
        """Train on every pair of history and target; the weights with the best validation NDCG@10 stay."""
        self.ids = ids
        about = {
            "class": type(self).__qualname__,
            "settings": self.params(),
            "data": _fingerprint(train, ids.codes),
            "seed": seed,
        }
        with seeded(seed):
            self.build(self.facts())
            batches_of, count = self.batches(train)
            run_training(
                self.model,
                batches_of,
                count,
                self.training,
                validate=lambda: self.validation_ndcg(valid),
                seed=seed,
                on_step=on_step,
                checkpoint=Checkpoint(Path(checkpoint), about) if checkpoint else None,
            )
        return self


class VectorRetriever(TrainedRetriever):
    """Reads a history into a vector, and searches for those whose inner product with it is large.

    Attributes:
        index: see :func:`~recsys.search.build_index`.
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
    def read(self, items: Tensor) -> Tensor:
        """Item rows ``(B, T)``, -1 behind the last → ``(B, T + 1, width)``, at t what the first t tell."""

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
        """Search by the vectors of the queries' histories."""
        device = next(self.model.parameters()).device
        history = Histories.of(queries.history.last(self.max_history), device)
        vectors = torch.empty(len(queries), self.width, device=device)
        for rows in history.by_length(torch.arange(len(queries))):
            read = self.read(history.padded(rows))
            vectors[rows] = read[torch.arange(len(rows)), history.lengths[rows]]
        return self.found(*self._search(vectors, min(width, self._count)), width)


def _fingerprint(examples: Examples, codes: Ints) -> str:
    sha = hashlib.sha256()
    for part in (examples.history, examples.targets):
        for values in (part.values, part.starts, part.stops):
            sha.update(values.tobytes())
    sha.update(codes.tobytes())
    return sha.hexdigest()
