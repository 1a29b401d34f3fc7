"""TIGER: a T5 that reads the semantic IDs of a history and writes that of the next item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.beam import beam_search
from recsys.examples import Examples, Ints, Ragged, Ranking
from recsys.retrievers.base import Retriever
from recsys.t5 import PAD, T5, T5Config
from recsys.training import Training
from recsys.training import train as run_training
from recsys.trie import Trie
from semantic_ids.ids import SemanticIds
from semantic_ids.randomness import default_device, seeded
from semantic_ids.tokenizer import OnStep

# A CPU pays for padding, so it works on small parts of like length; a GPU pays for each call.
_TRAINING_PARTS = {"cpu": 8}
_QUERIES_AT_ONCE = {"cpu": 32}


class Tiger(Retriever):
    """Generative retrieval (Rajput et al. 2023), without its user token and its learned collision digit.

    The source is the codes of the latest items, oldest first, L tokens an item. The model writes the
    L codes of a leaf, by constrained beam search; items that share a leaf share its score, and stand
    in the order of their collision digits. An empty history is read as a single padding token.

    Args:
        width, layers, heads, head_width, feed_forward, dropout: see :class:`~recsys.t5.T5Config`.
        max_history: how many of the latest items are read.
        beam: width of the search, whatever is asked for: a ranking ends where its leaves do.
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
        seed: int = 0,
        on_step: OnStep | None = None,
    ) -> Self:
        """Train on every pair of history and target; the weights with the best validation NDCG@10 stay."""
        self.ids = ids
        pairs = train.pairs()
        targets = pairs.targets.flat()
        with seeded(seed):
            self.build(self.facts())
            parts = _TRAINING_PARTS.get(self._device.type, 1)
            run_training(
                self.model,
                lambda rows: self.loss(pairs.history.select(rows.numpy()), targets[rows.numpy()], parts),
                len(pairs),
                self.training,
                validate=lambda: self.validation_ndcg(valid),
                seed=seed,
                on_step=on_step,
            )
        return self

    def loss(self, history: Ragged, targets: Ints, parts: int = 1) -> Tensor:
        """Cross-entropy of each code of the targets among the codes of its level.

        Args:
            history: of B pairs.
            targets: ``(B,)`` int64 item rows.
            parts: into how many parts of like history length the pairs are split, each padded to
                its own longest history only. The result does not depend on it.

        Returns:
            The mean over pairs and levels, a scalar.
        """
        sums = [self._summed_loss(history.select(rows), targets[rows]) for rows in history.by_length(parts)]
        return torch.stack(sums).sum() / (len(targets) * self.ids.num_levels)

    @torch.no_grad()
    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Beam search for leaves; scores are log-probabilities of leaves."""
        history = queries.history
        leaves = np.empty((len(queries), self.beam), dtype=np.int64)
        scores = np.empty((len(queries), self.beam), dtype=np.float32)
        for rows in history.by_length(len(queries) // _QUERIES_AT_ONCE.get(self._device.type, 512)):
            sources = self._sources(history.select(rows))
            found, found_scores = beam_search(self.model, self.trie, sources, self.beam)
            leaves[rows], scores[rows] = found.cpu().numpy(), found_scores.cpu().numpy()
        return Ranking(*self.ids.expand(leaves, scores, width))

    def build(self, facts: Mapping[str, Any]) -> None:
        """The model with fresh weights, and the trie of the catalogue."""
        config = T5Config(
            self.width, self.layers, self.heads, self.head_width, self.feed_forward, self.dropout
        )
        self.model = T5(self.ids.codebook_sizes, config).to(default_device())
        self.trie = Trie.build(self.ids.leaves, self.ids.codebook_sizes, self._device)

    @property
    def _device(self) -> torch.device:
        return self.model.embedding.weight.device

    def _summed_loss(self, history: Ragged, targets: Ints) -> Tensor:
        tokens = self._tokens(targets)  # (B, L)
        shifted = F.pad(tokens[:, :-1], (1, 0), value=PAD)
        hidden, _ = self.model.decode(shifted, self.model.encode(self._sources(history)))  # (B, L, D)
        return torch.stack(
            [
                F.cross_entropy(
                    self.model.logits(hidden[:, level], block),
                    tokens[:, level] - block.start,
                    reduction="sum",
                )
                for level, block in enumerate(self.model.blocks)
            ]
        ).sum()

    def _sources(self, history: Ragged) -> Tensor:
        """``(Q, S)`` int64 tokens of the latest items, padding behind them, S a multiple of L, at least L."""
        items = history.last(self.max_history).padded()
        if items.shape[1] == 0:
            items = np.full((len(items), 1), -1)
        return self._tokens(items).flatten(1)

    def _tokens(self, items: Ints) -> Tensor:
        """Item rows, −1 for padding → their tokens, one axis of L more."""
        tokens = self.ids.codes[items] + [block.start for block in self.model.blocks]
        return torch.from_numpy(np.where(items[..., None] < 0, PAD, tokens)).to(self._device)
