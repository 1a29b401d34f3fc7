"""The GRIT-VQ paper's dual encoder: a history and an item meet as two vectors (appendix G.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.base import Retriever
from recsys.search import top_inner_products
from recsys.training import Training
from recsys.training import train as run_training
from semantic_ids.ids import SemanticIds
from semantic_ids.randomness import default_device, seeded
from semantic_ids.tokenizer import OnStep

# A CPU pays for padding, so it works on small parts of like length; a GPU pays for each call.
_TRAINING_PARTS = {"cpu": 6}


class Towers(nn.Module):
    """Two towers over one table of code embeddings.

    Args:
        codebook_sizes: ``(K_1, …, K_L)``; each level has rows of its own in the table.
        max_history: longest history, in items.
        width: of everything.
        layers, heads, feed_forward, dropout: of the query tower's transformer.
    """

    def __init__(
        self,
        codebook_sizes: tuple[int, ...],
        *,
        max_history: int,
        width: int,
        layers: int,
        heads: int,
        feed_forward: int,
        dropout: float,
    ) -> None:
        super().__init__()
        sizes = torch.tensor(codebook_sizes)
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
        self.embed = nn.Embedding(int(sizes.sum()), width)
        self.position = nn.Embedding(max_history + 1, width)
        self.start = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)
        self.join = nn.Linear(len(codebook_sizes) * width, width)
        block = nn.TransformerEncoderLayer(
            width, heads, feed_forward, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        self.to_item = nn.Linear(width, width)

    def queries(self, codes: Tensor) -> Tensor:
        """Codes ``(B, T, L)`` → unit vectors ``(B, T + 1, width)``, at ``t`` that of the first t items."""
        items = self.join(self.embed(codes + self.offsets).flatten(2))  # (B, T, width)
        x = torch.cat([self.start.expand(len(items), 1, -1), items], dim=1)
        length = x.shape[1]
        x = self.dropout(x + self.position.weight[:length])
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        return F.normalize(self.blocks(x, mask=causal, is_causal=True), dim=-1)

    def items(self, codes: Tensor) -> Tensor:
        """Codes ``(M, L)`` → unit vectors ``(M, width)``."""
        return F.normalize(self.to_item(self.embed(codes + self.offsets).mean(dim=1)), dim=-1)


class DualEncoder(Retriever):
    """Two-layer transformer over the history's codes against averaged code embeddings of the item.

    Trained by in-batch softmax over the distinct targets of a batch. Scores are inner products of
    unit vectors over a temperature; the paper's bare inner products learn far more slowly. The
    query tower is causal, so that all prefixes of one history are trained in one pass:
    ``training.batch_size`` counts histories, each with every prefix that shares its beginning.

    Args:
        width, layers, heads, feed_forward, dropout: of the towers.
        max_history: how many of the latest items the query tower sees.
        temperature: of the softmax.
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
        training: Training | Mapping[str, Any] | None = None,
    ) -> None:
        if width % heads:
            raise ValueError(f"the width must be a multiple of the heads: {width} is none of {heads}")
        self.width, self.layers, self.heads = width, layers, heads
        self.feed_forward, self.dropout, self.max_history = feed_forward, dropout, max_history
        self.temperature = temperature
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
        device = default_device()
        codes = torch.from_numpy(ids.codes).to(device)
        leaves = torch.from_numpy(ids.leaves).to(device)
        pairs = train.pairs()
        targets = torch.from_numpy(ids.leaf_of_item[pairs.targets.flat()])
        history = pairs.history.last(self.max_history)
        longest, members = share_prefixes(history)

        def loss_of(rows: Tensor) -> Tensor:
            batch, asked_of_batch = longest.select(rows.numpy()), members.select(rows.numpy())
            pairs_asked, vectors = [], []
            for part in batch.by_length(_TRAINING_PARTS.get(device.type, 1)):
                asked = asked_of_batch.select(part)
                pairs_asked.append(asked.flat())
                at = torch.from_numpy(np.stack([asked.row_ids(), history.lengths[pairs_asked[-1]]]))
                padded = torch.from_numpy(batch.select(part).padded(fill=0)).to(device)
                vectors.append(self.model.queries(codes[padded])[at[0].to(device), at[1].to(device)])
            own_leaf = targets[np.concatenate(pairs_asked)]
            distinct, own = torch.unique(own_leaf, return_inverse=True)
            scores = torch.cat(vectors) @ self.model.items(leaves[distinct.to(device)]).T
            return F.cross_entropy(scores / self.temperature, own.to(device))

        with seeded(seed):
            self.build(self.facts())
            run_training(
                self.model,
                loss_of,
                len(longest),
                self.training,
                validate=lambda: self.validation_ndcg(valid),
                seed=seed,
                on_step=on_step,
            )
        return self

    @torch.no_grad()
    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Exact search over the distinct IDs; items that share one stand together."""
        device = next(self.model.parameters()).device
        codes = torch.from_numpy(self.ids.codes).to(device)
        leaves = self.model.items(torch.from_numpy(self.ids.leaves).to(device))
        history = queries.history.last(self.max_history)
        vectors = torch.empty(len(queries), self.width, device=device)
        for rows in history.by_length(len(queries) // 512):
            part = history.select(rows)
            padded = torch.from_numpy(part.padded(fill=0)).to(device)
            last = torch.from_numpy(part.lengths).to(device)
            vectors[rows] = self.model.queries(codes[padded])[torch.arange(len(rows), device=device), last]
        found, scores = top_inner_products(vectors, leaves, min(width, len(leaves)))
        return Ranking(*self.ids.expand(found, scores, width))

    def build(self, facts: Mapping[str, Any]) -> None:
        """The towers with fresh weights."""
        self.model = Towers(
            self.ids.codebook_sizes,
            max_history=self.max_history,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
        ).to(default_device())


def share_prefixes(history: Ragged) -> tuple[Ragged, Ragged]:
    """Group histories that begin at the same place, so that one causal pass serves all of a group.

    Returns:
        The longest history of each group, and each group's rows of ``history``.
    """
    _, group = np.unique(history.starts, return_inverse=True)
    order = np.lexsort((history.stops, group))
    members = Ragged.from_lengths(order, np.bincount(group))
    return history.select(order[members.stops - 1]), members
