"""The simplest baseline: the same most popular items for everyone."""

from __future__ import annotations

import numpy as np
import torch

from recsys.examples import Examples, Ranking
from recsys.retrievers.base import FitContext, FitData, Retriever


class Popularity(Retriever):
    """Ranks items by how often they occur in training; equally frequent items are in the order of the items.

    It reads only the number of items from the semantic IDs.
    """

    uses_ids = False
    is_random = False
    scores_are_logits = False

    def learn(self, data: FitData, context: FitContext) -> None:
        """Count each user's training sequence once."""
        sequences = data.train.sequences()
        self.counts = torch.from_numpy(np.bincount(sequences.flat(), minlength=data.ids.num_items))

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Return the same ``width`` items for each query; scores are counts."""
        counts = self.counts.numpy()
        best = np.argsort(-counts, kind="stable")[:width]
        shape = (len(queries), len(best))
        return Ranking(np.broadcast_to(best, shape), np.broadcast_to(counts[best].astype(np.float32), shape))
