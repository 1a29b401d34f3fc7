"""The floor: the same most popular items for everyone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from recsys.examples import Examples, Ints, Ranking
from recsys.retrievers.base import Retriever
from semantic_ids.ids import SemanticIds
from semantic_ids.tokenizer import OnStep


class Popularity(Retriever):
    """Ranks items by how often users took them in training; of equally popular ones the first row leads."""

    uses_ids = False
    is_random = False
    scores_are_logits = False

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
        """Count each user's whole training sequence once; only the number of items is read from ``ids``."""
        self.ids = ids
        _, items = training_interactions(train)
        self.counts = torch.from_numpy(np.bincount(items, minlength=ids.num_items))
        return self

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """The same ``width`` items for each query; scores are counts."""
        counts = self.counts.numpy()
        best = np.argsort(-counts, kind="stable")[:width]
        shape = (len(queries), len(best))
        return Ranking(np.broadcast_to(best, shape), np.broadcast_to(counts[best].astype(np.float32), shape))


def training_interactions(train: Examples) -> tuple[Ints, Ints]:
    """Who took what, each user's whole training sequence once, out of examples that repeat its beginnings.

    Args:
        train: the examples of one user stand together, the one with the longest history last.

    Returns:
        Numbers of users, from 0, and beside them item rows, ``(M,)`` each, in no order.

    Raises:
        ValueError: there are no examples.
    """
    if len(train) == 0:
        raise ValueError("there are no training examples; users need 4 interactions to give one")
    last = np.append(train.query_ids[1:] != train.query_ids[:-1], True).nonzero()[0]
    whole = train.select(last)
    users = np.concatenate([whole.history.row_ids(), whole.targets.row_ids()])
    return users, np.concatenate([whole.history.flat(), whole.targets.flat()])
