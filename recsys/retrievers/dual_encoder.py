"""The GRIT-VQ paper's dual encoder: a history and an item meet as two vectors (appendix G.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.causal import CausalTransformer, check_heads
from recsys.examples import Examples, Floats, Ints, Ranking
from recsys.histories import CausalPairs
from recsys.retrievers.trained import VectorRetriever
from recsys.search import IndexName, check_index
from recsys.training import Batch, BatchesOf, Training
from semantic_ids.randomness import default_device


class Towers(nn.Module):
    """Two towers over one table of code embeddings.

    Args:
        codebook_sizes: ``(K_1, …, K_L)``; each level has rows of its own in the table.
        width: of everything.
        temperature: of the softmax.
        query_tower: the other sizes, see :class:`~recsys.causal.CausalTransformer`.
    """

    def __init__(
        self, codebook_sizes: tuple[int, ...], width: int, temperature: float, **query_tower: Any
    ) -> None:
        super().__init__()
        sizes = torch.tensor(codebook_sizes)
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
        self.temperature = temperature
        self.embed = nn.Embedding(int(sizes.sum()), width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.join = nn.Linear(len(codebook_sizes) * width, width)
        self.reader = CausalTransformer(width, **query_tower)
        self.to_item = nn.Linear(width, width)

    def queries(self, codes: Tensor) -> Tensor:
        """Codes ``(B, T, L)`` → unit vectors ``(B, T + 1, width)``, at ``t`` that of the first t items."""
        items = self.join(self.embed(codes + self.offsets).flatten(2))  # (B, T, width)
        return F.normalize(self.reader(items), dim=-1)

    def items(self, codes: Tensor) -> Tensor:
        """Codes ``(M, L)`` → unit vectors ``(M, width)``."""
        return F.normalize(self.to_item(self.embed(codes + self.offsets).mean(dim=1)), dim=-1)

    def forward(
        self, parts: list[tuple[Tensor, Tensor]], leaves: Tensor, own: Tensor, offsets: Tensor
    ) -> Tensor:
        """Softmax loss of P pairs of history and leaf over the D leaves of a batch.

        Args:
            parts: of histories: their codes ``(B, T, L)``, and of some of the P pairs, in their order, row in
                the part and length ``(2, A)``.
            leaves: ``(D, L)`` codes.
            own: ``(P,)``, each pair's leaf.
            offsets: ``(P, D)`` or ``(1, D)``, added to the logits.

        Returns:
            The mean over pairs, a scalar.
        """
        vectors = torch.cat([self.queries(codes)[at[0], at[1]] for codes, at in parts])
        return F.cross_entropy(vectors @ self.items(leaves).T / self.temperature + offsets, own)


class DualEncoder(VectorRetriever):
    """Two-layer transformer over the history's codes against averaged code embeddings of the item.

    Trained by in-batch softmax over the distinct targets of a batch. Scores are inner products of
    unit vectors over a temperature; the paper's bare inner products learn far more slowly. The
    query tower is causal, so that all prefixes of one history are trained in one pass:
    ``training.batch_size`` counts histories, each with every prefix that shares its beginning.

    Args:
        width, layers, heads, feed_forward, dropout: of the towers.
        max_history: how many of the latest items the query tower sees.
        temperature: of the softmax.
        log_q: the strength of the correction for frequent items being negatives more often: this
            times the logarithm of a leaf's share of the training targets is taken off its logit. 1
            is the correction of Yi et al., *Sampling-Bias-Corrected Neural Modeling* (2019, §3), where
            a negative that is drawn twice counts twice; here it counts once, so less may be enough.
        mask_hits: whether the other targets of a history are left out of its negatives.
        index: see :func:`~recsys.search.build_index`.
        training: the budget.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        feed_forward: int = 512,
        dropout: float = 0.1,
        max_history: int = 20,
        temperature: float = 0.07,
        log_q: float = 0.0,
        mask_hits: bool = False,
        index: IndexName = "Flat",
        training: Training | Mapping[str, Any] | None = None,
    ) -> None:
        check_heads(width, heads)
        check_index(index)
        self.width, self.layers, self.heads = width, layers, heads
        self.feed_forward, self.dropout, self.max_history = feed_forward, dropout, max_history
        self.temperature, self.log_q, self.mask_hits, self.index = temperature, log_q, mask_hits, index
        self.training = training if isinstance(training, Training) else Training(**(training or {}))

    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """Histories with all their pairs; a step is one batch."""
        device = self._codes.device
        pairs = CausalPairs.of(train, self.max_history, device)
        leaf_of_item = torch.from_numpy(self.ids.leaf_of_item).to(device)
        shares = leaf_of_item[pairs.targets].bincount(minlength=len(self._leaves)) / len(pairs.targets)
        correction = -self.log_q * shares.clamp(min=1e-12).log()

        def batches_of(rows: Tensor) -> Iterator[tuple[int, Batch]]:
            """The whole step at once, for its targets are each other's negatives."""
            parts = [pairs.batch(part) for part in pairs.histories.by_length(rows)]
            own_leaf = leaf_of_item[torch.cat([targets for _, _, targets in parts])]
            distinct, own = own_leaf.unique(return_inverse=True)
            offsets = correction[distinct][None]
            if self.mask_hits:
                before = np.cumsum([0] + [len(items) for items, _, _ in parts])
                row = torch.cat([at[0] + int(b) for (_, at, _), b in zip(parts, before, strict=False)])
                offsets = offsets + other_targets(row, own, len(rows), len(distinct))
            histories = [(self._codes[items], at) for items, at, _ in parts]
            yield len(own), (histories, self._leaves[distinct], own, offsets)

        return batches_of, len(pairs)

    def vectors(self) -> Tensor:
        """Those of the distinct IDs."""
        return self.model.items(self._leaves)

    def read(self, items: Tensor) -> Tensor:
        """What the query tower makes of the items' codes."""
        return self.model.queries(self._codes[items])

    def found(self, rows: Ints, products: Floats, width: int) -> Ranking:
        """Items that share an ID stand together; scores are logits."""
        return Ranking(*self.ids.expand(rows, products / self.temperature, width))

    def build(self, facts: Mapping[str, Any]) -> None:
        """The towers with fresh weights, and the catalogue on their device."""
        device = default_device()
        self.model = Towers(
            self.ids.codebook_sizes,
            self.width,
            self.temperature,
            max_history=self.max_history,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
        ).to(device)
        self._codes = torch.from_numpy(self.ids.codes).to(device)
        self._leaves = torch.from_numpy(self.ids.leaves).to(device)


def other_targets(row: Tensor, own: Tensor, rows: int, leaves: int) -> Tensor:
    """``(P, leaves)``: -inf at the targets of other pairs of the same row, 0 elsewhere.

    Args:
        row: ``(P,)``, each pair's row.
        own: ``(P,)``, each pair's target among the leaves.
        rows, leaves: how many there are.
    """
    hit = torch.zeros(rows, leaves, dtype=torch.bool, device=own.device)
    hit[row, own] = True
    others = hit[row].scatter(1, own[:, None], False)
    return torch.zeros(others.shape, device=own.device).masked_fill(others, -torch.inf)
