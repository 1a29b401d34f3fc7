"""The floor: the same most popular items for everyone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from recsys.examples import Examples, Ranking
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
        checkpoint: str | Path | None = None,
    ) -> Self:
        """Count each user's whole training sequence once; only the number of items is read from ``ids``."""
        self.ids = ids
        self.counts = torch.from_numpy(np.bincount(train.sequences().flat(), minlength=ids.num_items))
        return self

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """The same ``width`` items for each query; scores are counts."""
        counts = self.counts.numpy()
        best = np.argsort(-counts, kind="stable")[:width]
        shape = (len(queries), len(best))
        return Ranking(np.broadcast_to(best, shape), np.broadcast_to(counts[best].astype(np.float32), shape))
