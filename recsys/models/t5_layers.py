"""The layers of :mod:`recsys.models.t5`: encoder and decoder layers, attention, and relative positions.

Letters in shapes are those of :mod:`recsys.models.t5`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.dropout import MAX_DROPOUT, Dropout
from semantic_ids.ranges import MAX_LAYERS, MAX_SIZE, check_numbers, check_whole

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention layer, ``(N, H, S, d)`` each."""

Steps = tuple[Tensor, Tensor]
"""Keys and values of the P tokens that each hypothesis has so far, ``(P, N, H, d)`` each, oldest first."""

_BUCKETS, _FARTHEST = 32, 128


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5; the defaults are TIGER's.

    Attributes:
        width: Width of the residual stream, D.
        layers: Number of encoder layers, and also of decoder layers.
        heads: Number of heads of every attention, H.
        head_width: Width of queries, keys and values in a head, d; ``heads * head_width`` need not equal the
            width.
        feed_forward: Width inside the feed-forward sub-layers.
        dropout: Dropout probability. It applies to attention weights, inside feed-forward sub-layers, to the
            output of every sub-layer, and to the input and output of both stacks.

    Raises:
        ValueError: If a size is out of range. The message names it.
    """

    width: int = 128
    layers: int = 4
    heads: int = 6
    head_width: int = 64
    feed_forward: int = 1024
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_whole(1, MAX_SIZE, width=self.width, heads=self.heads, head_width=self.head_width)
        check_whole(1, MAX_SIZE, feed_forward=self.feed_forward)
        check_whole(1, MAX_LAYERS, layers=self.layers)
        check_numbers(0, MAX_DROPOUT, dropout=self.dropout)


class EncoderLayer(nn.Module):
    """A layer of self-attention and feed-forward; each reads the norm of the stream and adds to it."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.self_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.self_attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Return the stream ``(Q, S, D)`` after this layer; ``bias`` is ``(Q, H, S, S)``."""
        h = self.self_norm(x)
        x = x + self.dropout(self.self_attention(h, self.self_attention.keys_values(h), bias))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class DecoderLayer(nn.Module):
    """A layer of self-attention, attention to the source, and feed-forward."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.self_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.self_attention = Attention(config)
        self.cross_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.cross_attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor, source: KeysValues, source_bias: Tensor) -> Tensor:
        """Return the stream ``(N, T, D)`` after this layer.

        Args:
            x: ``(N, T, D)``.
            bias: ``(1, H, T, T)`` or ``(N, H, T, T)``, added to the logits of self-attention.
            source: Keys and values of the Q sources.
            source_bias: ``(Q, 1, 1, S)``, added to the logits of cross-attention.
        """
        h = self.self_norm(x)
        x = x + self.dropout(self.self_attention(h, self.self_attention.keys_values(h), bias))
        return self.read(x, source, source_bias)

    def read(self, x: Tensor, source: KeysValues, source_bias: Tensor) -> Tensor:
        """Apply the sub-layers after self-attention; the shape ``(N, …, D)`` stays."""
        # All N / Q hypotheses of a source become queries of one attention: (N, T, D) → (Q, N/Q·T, D). The
        # keys and values of the source need not be copied for each hypothesis.
        h = self.cross_norm(x).view(len(source_bias), -1, x.shape[-1])
        x = x + self.dropout(self.cross_attention(h, source, source_bias)).view_as(x)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Attention(nn.Module):
    """Attention with H heads, without biases and without scaling of the logits."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key = nn.Linear(config.width, inner, bias=False)
        self.value = nn.Linear(config.width, inner, bias=False)
        self.output = nn.Linear(inner, config.width, bias=False)
        self.dropout = Dropout(config.dropout)
        # Small queries make up for the missing division of the logits by √d.
        nn.init.normal_(self.query.weight, std=(config.width * config.head_width) ** -0.5)
        nn.init.normal_(self.key.weight, std=config.width**-0.5)
        nn.init.normal_(self.value.weight, std=config.width**-0.5)
        nn.init.normal_(self.output.weight, std=inner**-0.5)

    def keys_values(self, source: Tensor) -> KeysValues:
        """Return the keys and values of a sequence ``(N, S, D)``."""
        return self._split(self.key(source)), self._split(self.value(source))

    def forward(self, x: Tensor, source: KeysValues, bias: Tensor) -> Tensor:
        """Attend from ``x`` to a source, and return ``(N, T, D)``.

        Args:
            x: ``(N, T, D)``, from which queries are computed.
            source: Keys and values of the source, see :meth:`keys_values`.
            bias: Added to the logits ``(N, H, T, S)``; any shape that broadcasts to it.
        """
        queries = self._split(self.query(x))
        if x.device.type == "cpu" and (self.training or x.dtype == torch.bfloat16):
            # On a CPU the fused kernel supports neither gradients of the bias nor dropout, and in bfloat16
            # it takes twice as long.
            mixed = self.dropout((queries @ source[0].mT + bias).softmax(dim=-1)) @ source[1]
        else:
            mixed = F.scaled_dot_product_attention(
                queries,
                *source,
                attn_mask=bias,
                dropout_p=self.dropout.probability if self.training else 0.0,
                scale=1.0,
            )  # (N, H, T, d)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def step(self, x: Tensor, bias: Tensor, past: Steps | None, rows: Tensor) -> tuple[Tensor, Steps]:
        """Attend from one new token of each row to itself and to the earlier ones, see :meth:`T5.step`.

        With so few keys, element-wise products and sums are much faster than matrix products of one row.

        Args:
            x: ``(N, D)``, the new tokens.
            bias: ``(P + 1, 1, H)``, added to the logits.
            past: Keys and values of the P earlier tokens; None for the first token.
            rows: ``(N,)`` int64, the row in ``past`` that each new token continues.

        Returns:
            ``(N, D)``, and the keys and values including the new token.
        """
        query, key, value = (
            linear(x).unflatten(1, (self.heads, -1)) for linear in (self.query, self.key, self.value)
        )  # (N, H, d)
        keys, values = (key[None], value[None])
        if past:
            keys, values = _appended(past[0], rows, key), _appended(past[1], rows, value)
        weights = ((query * keys).sum(dim=3) + bias).softmax(dim=0)  # (P + 1, N, H)
        mixed = (weights[..., None] * values).sum(dim=0)
        return self.output(mixed.flatten(1)), (keys, values)

    def _split(self, x: Tensor) -> Tensor:
        """Split the last dimension into heads: ``(N, T, H·d) → (N, H, T, d)``."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def _appended(past: Tensor, rows: Tensor, last: Tensor) -> Tensor:
    """Select rows of ``(P, R, H, d)`` and append ``(N, H, d)``; the result is ``(P + 1, N, H, d)``.

    Both happen in one new tensor, so that numbers are copied only once.
    """
    result = last.new_empty(len(past) + 1, *last.shape)
    torch.index_select(past, 1, rows, out=result[:-1])
    result[-1] = last
    return result


class FeedForward(nn.Module):
    """A feed-forward sub-layer: two matrices with a ReLU between them."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.inner = nn.Linear(config.width, config.feed_forward, bias=False)
        self.outer = nn.Linear(config.feed_forward, config.width, bias=False)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.inner.weight, std=config.width**-0.5)
        nn.init.normal_(self.outer.weight, std=config.feed_forward**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both matrices to ``(N, T, D)``; the shape stays."""
        return self.outer(self.dropout(self.inner(x).relu_()))


class RelativeBias(nn.Module):
    """Relative positions: a learned number for each head and each bucket of ``key − query`` distances.

    Each short distance has a bucket of its own. Longer ones share buckets that widen logarithmically up to
    128 tokens. A causal bias is −∞ where the key comes after the query.
    """

    def __init__(self, config: T5Config, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.buckets = nn.Embedding(_BUCKETS, config.heads)
        nn.init.normal_(self.buckets.weight, std=config.width**-0.5)

    def forward(self, queries: int, keys: int) -> Tensor:
        """Return the bias ``(1, H, queries, keys)`` of queries at the last positions of the keys."""
        position = torch.arange(keys, device=self.buckets.weight.device)
        distance = position - position[keys - queries :, None]  # (queries, keys)
        bias = self.buckets(self._bucket(distance)).permute(2, 0, 1)[None]
        return bias.masked_fill(distance > 0, -math.inf) if self.causal else bias

    def _bucket(self, distance: Tensor) -> Tensor:
        """Return the bucket of each distance ``key position − query position``."""
        count = _BUCKETS if self.causal else _BUCKETS // 2  # otherwise one half for each direction
        exact = count // 2
        far = distance.abs().clamp(min=exact) / exact
        widening = exact + (torch.log(far) / math.log(_FARTHEST / exact) * (count - exact)).long()
        bucket = torch.where(distance.abs() < exact, distance.abs(), widening.clamp(max=count - 1))
        return bucket if self.causal else bucket + count * (distance > 0)
