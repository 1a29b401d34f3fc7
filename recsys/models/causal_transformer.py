"""The transformer that reads a history of items from left to right, and tells a user by a vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.models.dropout import Dropout


class CausalTransformer(nn.Module):
    """What is known of a user after each item of a history, all in one pass.

    Pre-norm blocks with GELU, learned positions, and a learned vector before the first item that
    stands for the empty history.

    Args:
        width: of item vectors and of what comes out.
        max_history: longest history, in items.
        layers, heads, feed_forward, dropout: of the blocks.

    Raises:
        ValueError: the width is no multiple of the heads.
    """

    def __init__(
        self, width: int, *, max_history: int, layers: int, heads: int, feed_forward: int, dropout: float
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        self.position = nn.Embedding(max_history + 1, width)
        self.start = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.position.weight, std=0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, feed_forward, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        # In place of torch's, which takes a fifth of a step on a CPU; that of attention weights stays.
        for layer in self.blocks.layers:
            layer.dropout, layer.dropout1, layer.dropout2 = (Dropout(dropout) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(self, items: Tensor) -> Tensor:
        """Item vectors ``(B, T, width)`` → ``(B, T + 1, width)``, at ``t`` what the first t items tell."""
        x = torch.cat([self.start.expand(len(items), 1, -1), items], dim=1)
        length = x.shape[1]
        x = self.dropout(x + self.position.weight[:length])
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        return self.blocks(x, mask=causal, is_causal=True)


def check_heads(width: int, heads: int) -> None:
    """Refuse heads that the width cannot be shared by, with a :class:`ValueError`."""
    if width % heads:
        raise ValueError(f"the width must be a multiple of the heads: {width} is none of {heads}")
