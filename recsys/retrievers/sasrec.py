"""SASRec, the baseline that item identities alone give: no semantic IDs, no texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.causal import CausalTransformer
from recsys.examples import Examples, Ranking
from recsys.histories import Histories, Prefixes
from recsys.retrievers.base import Retriever
from recsys.search import IndexName, build_index
from recsys.training import Batch, Training
from recsys.training import train as run_training
from semantic_ids.ids import SemanticIds
from semantic_ids.randomness import default_device, seeded
from semantic_ids.tokenizer import OnStep


class ItemTransformer(nn.Module):
    """A causal transformer over item embeddings that also are the output matrix.

    Args:
        items: how many there are.
        width: of item embeddings.
        reader: the other sizes, see :class:`~recsys.causal.CausalTransformer`.
    """

    def __init__(self, items: int, width: int, **reader: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(items, width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.reader = CausalTransformer(width, **reader)

    def queries(self, items: Tensor) -> Tensor:
        """Item rows ``(B, T)`` → ``(B, T + 1, width)``, at ``t`` what the first t items tell.

        Places behind the last item, marked by -1, may hold anything; no earlier place sees them.
        """
        return self.reader(self.embed(items.clamp(min=0)))

    def forward(self, items: Tensor, at: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy over the whole catalogue.

        Args:
            items: ``(B, T)`` item rows, -1 behind the last.
            at: ``(2, A)``, of each pair its row and how many items come before the target.
            targets: ``(A,)`` item rows.

        Returns:
            The mean over pairs, a scalar.
        """
        return F.cross_entropy(self.queries(items)[at[0], at[1]] @ self.embed.weight.T, targets)


class SasRec(Retriever):
    """Self-attentive sequential recommendation (Kang & McAuley 2018).

    Trained by cross-entropy over the whole catalogue at every place of a history, in place of one
    random negative: that is what lifts it to, and past, BERT4Rec (Klenitskiy & Vasilev, *Turning
    Dross Into Gold Loss*, 2023). Scores are logits.

    Args:
        width, layers, heads, feed_forward, dropout: see :class:`~recsys.causal.CausalTransformer`.
        max_history: how many of the latest items are read.
        index: see :func:`~recsys.search.build_index`.
        training: the budget; ``batch_size`` counts histories, each with all its places.
    """

    uses_ids = False

    def __init__(
        self,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 2,
        feed_forward: int = 256,
        dropout: float = 0.5,
        max_history: int = 20,
        index: IndexName = "Flat",
        training: Training | Mapping[str, Any] | None = None,
    ) -> None:
        if width % heads:
            raise ValueError(f"the width must be a multiple of the heads: {width} is none of {heads}")
        self.width, self.layers, self.heads = width, layers, heads
        self.feed_forward, self.dropout, self.max_history = feed_forward, dropout, max_history
        self.index = index
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
        """Train on every pair of history and target; the weights with the best validation NDCG@10 stay.

        Only the number of items is read from ``ids``.
        """
        self.ids = ids
        prefixes = Prefixes.of(train, self.max_history, default_device())

        def batches_of(rows: Tensor) -> list[tuple[float, Batch]]:
            batches = [prefixes.batch(part) for part in prefixes.histories.by_length(rows)]
            pairs = sum(len(targets) for _, _, targets in batches)
            return [(len(batch[2]) / pairs, batch) for batch in batches]

        with seeded(seed):
            self.build(self.facts())
            run_training(
                self.model,
                batches_of,
                len(prefixes),
                self.training,
                validate=lambda: self.validation_ndcg(valid),
                seed=seed,
                on_step=on_step,
                checkpoint=checkpoint,
            )
        return self

    def prepare(self) -> None:
        """Index the items' embeddings."""
        self._search = build_index(self.model.embed.weight.detach(), self.index)

    @torch.no_grad()
    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Search among all items by inner product."""
        device = self.model.embed.weight.device
        history = Histories.of(queries.history.last(self.max_history), device)
        vectors = torch.empty(len(queries), self.width, device=device)
        for rows in history.by_length(torch.arange(len(queries))):
            read = self.model.queries(history.padded(rows))
            vectors[rows] = read[torch.arange(len(rows)), history.lengths[rows]]
        return Ranking(*self._search(vectors, width))

    def build(self, facts: Mapping[str, Any]) -> None:
        """The model with fresh weights."""
        self.model = ItemTransformer(
            self.ids.num_items,
            self.width,
            max_history=self.max_history,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
        ).to(default_device())
