"""TIGER: a T5 that reads the semantic IDs of a history and writes that of the next item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from recsys.beam import beam_search
from recsys.examples import Examples, Ranking
from recsys.histories import Histories
from recsys.retrievers.base import Retriever
from recsys.t5 import PAD, T5, T5Config
from recsys.training import Batch, Training
from recsys.training import train as run_training
from recsys.trie import Trie
from semantic_ids.ids import SemanticIds
from semantic_ids.randomness import default_device, seeded
from semantic_ids.tokenizer import OnStep

_QUERIES_AT_ONCE = {"cpu": 32}


class Tiger(Retriever):
    """Generative retrieval (Rajput et al. 2023), without its user token and its learned collision digit.

    The source is the codes of the latest items, oldest first, L tokens an item. The model writes the
    L codes of a leaf, by constrained beam search; items that share a leaf share its score, and stand
    in the order of their collision digits. An empty history is read as a single padding token.

    Args:
        width, layers, heads, head_width, feed_forward, dropout: see :class:`~recsys.t5.T5Config`.
        max_history: how many of the latest items are read.
        beam: width of the search; as wide as the ranking where that is longer.
        training: the budget.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        layers: int = 4,
        heads: int = 6,
        head_width: int = 64,
        feed_forward: int = 1024,
        dropout: float = 0.1,
        max_history: int = 20,
        beam: int = 50,
        training: Training | Mapping[str, Any] | None = None,
    ) -> None:
        self.width, self.layers, self.heads, self.head_width = width, layers, heads, head_width
        self.feed_forward, self.dropout = feed_forward, dropout
        self.max_history, self.beam = max_history, beam
        self.training = training if isinstance(training, Training) else Training(**(training or {}))

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
        """Train on every pair of history and target; the weights with the best validation NDCG@10 stay."""
        self.ids = ids
        pairs = train.pairs()
        with seeded(seed):
            self.build(self.facts())
            histories = Histories.of(pairs.history.last(self.max_history), self._device)
            targets = torch.from_numpy(pairs.targets.flat()).to(self._device)

            def batches_of(rows: Tensor) -> list[tuple[float, Batch]]:
                return [
                    (
                        len(part) / len(rows),
                        (self._sources(histories.padded(part)), self._tokens(targets[part])),
                    )
                    for part in histories.by_length(rows)
                ]

            run_training(
                self.model,
                batches_of,
                len(pairs),
                self.training,
                validate=lambda: self.validation_ndcg(valid),
                seed=seed,
                on_step=on_step,
                checkpoint=checkpoint,
            )
        return self

    @torch.no_grad()
    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Beam search for leaves; scores are log-probabilities of leaves."""
        histories = Histories.of(queries.history.last(self.max_history), self._device)
        beam = max(self.beam, width)
        leaves = np.empty((len(queries), beam), dtype=np.int64)
        scores = np.empty((len(queries), beam), dtype=np.float32)
        for rows in queries.history.by_length(len(queries) // _QUERIES_AT_ONCE.get(self._device.type, 512)):
            sources = self._sources(histories.padded(torch.from_numpy(rows)))
            found, found_scores = beam_search(self.model, self._trie, sources, beam)
            leaves[rows], scores[rows] = found.cpu().numpy(), found_scores.cpu().numpy()
        return Ranking(*self.ids.expand(leaves, scores, width))

    def build(self, facts: Mapping[str, Any]) -> None:
        """The model with fresh weights, and the trie of the catalogue."""
        config = T5Config(
            self.width, self.layers, self.heads, self.head_width, self.feed_forward, self.dropout
        )
        device = default_device()
        self.model = T5(self.ids.codebook_sizes, config).to(device)
        self._trie = Trie.build(self.ids.leaves, self.ids.codebook_sizes, device)
        blocks = np.array([block.start for block in self.model.blocks])
        padding = np.full((1, self.ids.num_levels), PAD)
        self._table = torch.from_numpy(np.concatenate([self.ids.codes + blocks, padding])).to(device)

    @property
    def _device(self) -> torch.device:
        return self._table.device

    def _sources(self, items: Tensor) -> Tensor:
        """Item rows ``(Q, T)``, -1 behind the last → ``(Q, T·L)`` int64 tokens."""
        return self._tokens(items).flatten(1)

    def _tokens(self, items: Tensor) -> Tensor:
        """Item rows, -1 for padding → their tokens, one axis of L more."""
        return self._table[items]
