"""SASRec, the baseline that item identities alone give: no semantic IDs, no texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from recsys.examples import Examples, Ranking
from recsys.models.causal_transformer import CausalTransformer, check_heads
from recsys.retrievers.trained import VectorRetriever
from recsys.retrievers.vector_index import IndexName, check_index
from recsys.training.batches import CausalPairs
from recsys.training.loop import Batch, BatchesOf, Training
from semantic_ids.randomness import default_device
from semantic_ids.types import Floats, Ints


class ItemTransformer(nn.Module):
    """A causal transformer over item embeddings that also are the output matrix.

    Args:
        items: how many there are.
        width: of item embeddings.
        reader: the other sizes, see :class:`~recsys.models.causal_transformer.CausalTransformer`.
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


class SasRec(VectorRetriever):
    """Self-attentive sequential recommendation (Kang & McAuley 2018).

    Trained by cross-entropy over the whole catalogue at every place of a history, in place of one
    random negative: that is what lifts it to, and past, BERT4Rec (Klenitskiy & Vasilev, *Turning
    Dross Into Gold Loss*, 2023). Scores are logits. Only the number of items is read from the IDs.

    Args:
        width, layers, heads, feed_forward, dropout: see :class:`~recsys.models.causal_transformer.CausalTransformer`.
        max_history: how many of the latest items are read.
        index: see :func:`~recsys.retrievers.vector_index.build_index`.
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
        check_heads(width, heads)
        check_index(index)
        self.width, self.layers, self.heads = width, layers, heads
        self.feed_forward, self.dropout, self.max_history = feed_forward, dropout, max_history
        self.index = index
        self.training = training if isinstance(training, Training) else Training(**(training or {}))

    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """Histories with all their pairs."""
        pairs = CausalPairs.from_examples(train, self.max_history, default_device())

        def batches_of(rows: Tensor) -> Iterator[tuple[int, Batch]]:
            for part in pairs.histories.by_length(rows):
                items, at, numbers = pairs.batch(part)
                yield len(numbers), (items, at, pairs.targets[numbers])

        return batches_of, len(pairs)

    def vectors(self) -> Tensor:
        """The items' embeddings."""
        return self.model.embed.weight

    def read(self, items: Tensor, at: Tensor, texts: Tensor | None) -> Tensor:
        """What the model makes of the items; texts are not read."""
        return self.model.queries(items)[at[0], at[1]]

    def found(self, rows: Ints, products: Floats, width: int) -> Ranking:
        """Rows of embeddings are items."""
        return Ranking(rows, products)

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
