"""A causal transformer that turns a history of item vectors into one vector per position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.models.dropout import MAX_DROPOUT, Dropout
from semantic_ids.ranges import MAX_LAYERS, MAX_SIZE, check_numbers, check_whole


class CausalTransformer(nn.Module):
    """A transformer that represents a user by a vector after each item of their history, in one pass.

    It consists of pre-norm blocks with GELU and learned positions. A learned vector before the first item
    represents the empty history.

    Args:
        width: Width of the item vectors and of the output vectors.
        max_history: Largest number of items in a history.
        layers: Number of blocks.
        heads: Number of attention heads of each block; must divide the width.
        feed_forward: Width inside the feed-forward sub-layers.
        dropout: Dropout probability, on the input, on attention weights and in each sub-layer.

    Raises:
        ValueError: If a size is out of range, or if the width is not a multiple of the number of heads.
    """

    def __init__(
        self, width: int, *, max_history: int, layers: int, heads: int, feed_forward: int, dropout: float
    ) -> None:
        super().__init__()
        check_transformer(
            width=width,
            max_history=max_history,
            layers=layers,
            heads=heads,
            feed_forward=feed_forward,
            dropout=dropout,
        )
        self.position = nn.Embedding(max_history + 1, width)
        self.start = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.position.weight, std=0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, feed_forward, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        # Here torch's own dropout takes a fifth of a training step on a CPU. The dropout of attention
        # weights stays torch's, because it is not a module.
        for layer in self.blocks.layers:
            layer.dropout, layer.dropout1, layer.dropout2 = (Dropout(dropout) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(self, items: Tensor) -> Tensor:
        """Return the user's vector after each number of items.

        Args:
            items: ``(B, T, width)`` item vectors, oldest first.

        Returns:
            ``(B, T + 1, width)``; position t depends on the first t items only.
        """
        x = torch.cat([self.start.expand(len(items), 1, -1), items], dim=1)
        length = x.shape[1]
        x = self.dropout(x + self.position.weight[:length])
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        return self.blocks(x, mask=causal, is_causal=True)


def check_transformer(
    *, width: int, max_history: int, layers: int, heads: int, feed_forward: int, dropout: float
) -> None:
    """Check the sizes of a :class:`CausalTransformer`, before there are data to build one for.

    Raises:
        ValueError: If a size is out of range, or if the width is not a multiple of the number of heads. The
            message names it.
    """
    check_whole(1, MAX_SIZE, width=width, max_history=max_history, feed_forward=feed_forward)
    check_whole(1, MAX_LAYERS, layers=layers)
    check_whole(1, width, heads=heads)
    check_numbers(0, MAX_DROPOUT, dropout=dropout)
    if width % heads:
        raise ValueError(f"the width must be a multiple of the number of heads: {width} is none of {heads}")
