"""SASRec, a trained baseline that knows items by their identity only: no semantic IDs, no texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from recsys.examples import Examples, Ranking
from recsys.models.causal_transformer import CausalTransformer, check_transformer
from recsys.retrievers.trained import VectorRetriever
from recsys.retrievers.vector_index import IndexName, check_index
from recsys.training.batches import CausalPairs
from recsys.training.loop import Batch, BatchesOf, Training
from semantic_ids.randomness import default_device
from semantic_ids.types import Floats, Ints


class ItemTransformer(nn.Module):
    """A causal transformer over item embeddings, which are also its output matrix.

    Args:
        items: Number of items.
        width: Width of the item embeddings.
        **reader: The other sizes, see :class:`~recsys.models.causal_transformer.CausalTransformer`.
    """

    def __init__(self, items: int, width: int, **reader: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(items, width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.reader = CausalTransformer(width, **reader)

    def queries(self, items: Tensor) -> Tensor:
        """Return the user's vector after each number of items.

        Args:
            items: ``(B, T)`` item rows, filled up on the right with -1.

        Returns:
            ``(B, T + 1, width)``; position t depends on the first t items only. Vectors at positions after
            the last item have no meaning.
        """
        return self.reader(self.embed(items.clamp(min=0)))

    def forward(self, items: Tensor, at: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of the targets over the whole catalogue.

        Args:
            items: ``(B, T)`` item rows, filled up on the right with -1.
            at: ``(2, A)``, for each pair its row in ``items`` and the number of items before its target.
            targets: ``(A,)`` item rows.

        Returns:
            The mean over pairs, a scalar.
        """
        return F.cross_entropy(self.queries(items)[at[0], at[1]] @ self.embed.weight.T, targets)


class SasRec(VectorRetriever):
    """SASRec: self-attentive sequential recommendation (Kang & McAuley 2018).

    It is trained by cross-entropy over the whole catalogue at every position of a history, instead of with
    one random negative. With this loss it reaches and exceeds BERT4Rec (Klenitskiy & Vasilev, *Turning Dross
    Into Gold Loss*, 2023). Scores are logits. It reads only the number of items from the semantic IDs.

    Args:
        width: Width of item embeddings and of the transformer.
        layers: Number of transformer blocks.
        heads: Number of attention heads; must divide the width.
        feed_forward: Width inside the feed-forward sub-layers.
        dropout: Dropout probability.
        max_history: Number of latest items of a history that are read.
        index: Kind of index, see :func:`~recsys.retrievers.vector_index.build_index`.
        training: Settings of the training. ``batch_size`` counts histories, each with all its positions.

    Raises:
        ValueError: If an argument is outside its range.
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
        check_transformer(
            width=width,
            max_history=max_history,
            layers=layers,
            heads=heads,
            feed_forward=feed_forward,
            dropout=dropout,
        )
        check_index(index)
        self.width, self.layers, self.heads = width, layers, heads
        self.feed_forward, self.dropout, self.max_history = feed_forward, dropout, max_history
        self.index = index
        self.training = training if isinstance(training, Training) else Training(**(training or {}))

    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """Return batches of histories, each with all its pairs of prefix and next item."""
        pairs = CausalPairs.from_examples(train, self.max_history, default_device())

        def batches_of(rows: Tensor) -> Iterator[tuple[int, Batch]]:
            """Yield the histories in parts of similar length."""
            for part in pairs.histories.by_length(rows):
                items, at, numbers = pairs.batch(part)
                yield len(numbers), (items, at, pairs.targets[numbers])

        return batches_of, len(pairs)

    def vectors(self) -> Tensor:
        """Return the items' embeddings, ``(N, width)``."""
        return self.model.embed.weight

    def read(self, items: Tensor, at: Tensor, texts: Tensor | None) -> Tensor:
        """Return the vectors of queries, ``(A, width)``; texts are not read."""
        return self.model.queries(items)[at[0], at[1]]

    def found(self, rows: Ints, products: Floats, width: int) -> Ranking:
        """Return the ranking; rows of embeddings are items already."""
        return Ranking(rows, products)

    def build(self, facts: Mapping[str, Any]) -> None:
        """Create the model with new random weights."""
        self.model = ItemTransformer(
            self.ids.num_items,
            self.width,
            max_history=self.max_history,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
        ).to(default_device())
