"""T5 v1.0 over semantic IDs: TIGER's encoder–decoder, small enough to read from top to bottom.

Raffel et al., *Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer*
(2020), §2.1, with the initialisation of its Mesh-TensorFlow code. What sets it apart from the
transformer of textbooks: norms only scale, and stand before each sub-layer; nothing has a bias;
positions enter as a learned number for each bucket of distances, one table a stack, added to the
attention logits, which are not divided by √d; the output matrix is the embedding, tied and scaled.

Beside tokens a source may hold frozen vectors, such as the embedding of what a query says in words:
each enters as a few tokens whose embeddings a learned linear map makes of it.

Letters in shapes: Q queries, S source tokens, N rows of decoder input, T decoder tokens, D width,
H heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.dropout import Dropout

PAD = 0
"""The token that fills up short sources and starts every decoder input."""

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
    """

    width: int = 128
    layers: int = 4
    heads: int = 6
    head_width: int = 64
    feed_forward: int = 1024
    dropout: float = 0.1


@dataclass(frozen=True)
class Memory:
    """Q encoded sources, as decoders read them: computed once and shared by all hypotheses.

    Attributes:
        layers: Keys and values ``(Q, H, S, d)`` of each decoder layer's cross-attention.
        bias: ``(Q, 1, 1, S)``, 0 at tokens and −∞ at padding.
    """

    layers: list[KeysValues]
    bias: Tensor

    def select(self, sources: Tensor) -> Memory:
        """Return the memory of some sources.

        Args:
            sources: ``(q,)`` int64, row numbers of the sources.
        """
        return Memory([(keys[sources], values[sources]) for keys, values in self.layers], self.bias[sources])


class T5(nn.Module):
    """An encoder–decoder that reads token sequences and writes semantic IDs.

    Tokens are numbered in this order: :data:`PAD` (0), a block of tokens for the codes of each level, the
    ``others``, and the tokens of texts.

    Args:
        codebook_sizes: Number of codes of each level, ``(K_1, …, K_L)``; these are the sizes of the blocks.
        config: The other sizes of the model.
        others: Number of further tokens, which only sources may contain.
        over_catalogue: Whether the softmax of a level runs only over codes that lead to an item, so that
            the probabilities of the catalogue's IDs add up to 1. Otherwise it runs over all codes of the
            level.
        text_width: Width of a text's vector; 0 if sources hold no texts.
        text_tokens: Number of tokens that represent a text in a source.

    Attributes:
        blocks: For each level the slice of its tokens; code c of level l is token ``blocks[l].start + c``.
        first_text: The first token of texts; the j-th token of text r is
            ``first_text + r * text_tokens + j``.
        texts: ``(R, text_width)``, the vectors of all texts that sources refer to. Set them before the
            sources are encoded. They are not learned and not saved with the weights.
    """

    def __init__(
        self,
        codebook_sizes: tuple[int, ...],
        config: T5Config,
        others: int = 0,
        *,
        over_catalogue: bool = False,
        text_width: int = 0,
        text_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.over_catalogue = over_catalogue
        self.blocks = [
            slice(1 + stop - size, 1 + stop)
            for size, stop in zip(codebook_sizes, accumulate(codebook_sizes), strict=True)
        ]
        self.embedding = nn.Embedding(1 + sum(codebook_sizes) + others, config.width)
        self.encoder_bias = RelativeBias(config, causal=False)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.encoder_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.decoder_bias = RelativeBias(config, causal=True)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.decoder_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.dropout = Dropout(config.dropout)
        self.logit_scale = config.width**-0.5
        nn.init.normal_(self.embedding.weight, std=1.0)
        self.first_text, self.text_tokens = len(self.embedding.weight), text_tokens
        self.texts = torch.empty(0, text_width)
        self.project = nn.Linear(text_width, text_tokens * config.width, bias=False) if text_width else None
        if self.project:  # std 1 turns a vector of length 1 into numbers of the size of embeddings
            nn.init.normal_(self.project.weight, std=1.0)

    def forward(self, sources: Tensor, targets: Tensor, allowed: Sequence[Tensor] = ()) -> Tensor:
        """Return the cross-entropy of the target tokens, each among the tokens of its level.

        Args:
            sources: ``(Q, S)`` int64, as for :meth:`encode`.
            targets: ``(Q, L)`` int64, one token of each level.
            allowed: For each level ``(Q, K_l)`` bool, the codes in the softmax; by default all codes.

        Returns:
            The mean over sources and levels, a scalar.
        """
        shifted = F.pad(targets[:, :-1], (1, 0), value=PAD)
        hidden = self.decode(shifted, self.encode(sources))  # (Q, L, D)
        losses = []
        for level, block in enumerate(self.blocks):
            logits = self.logits(hidden[:, level], block)
            if allowed:
                logits = logits.masked_fill(~allowed[level], -math.inf)
            losses.append(F.cross_entropy(logits, targets[:, level] - block.start))
        return torch.stack(losses).mean()

    def encode(self, tokens: Tensor) -> Memory:
        """Encode Q sources.

        The first token is never masked, so an empty source is encoded as one :data:`PAD` token.

        Args:
            tokens: ``(Q, S)`` int64, padded on the right. The tokens of a text must be adjacent and in
                order.
        """
        padding = tokens == PAD
        padding[:, 0] = False
        x = self.dropout(self._embedded(tokens))  # (Q, S, D)
        padding_bias = torch.zeros_like(padding, dtype=x.dtype).masked_fill(padding, -math.inf)[:, None, None]
        bias = self.encoder_bias(tokens.shape[1], tokens.shape[1]) + padding_bias  # (Q, H, S, S)
        for layer in self.encoder:
            x = layer(x, bias)
        x = self.dropout(self.encoder_norm(x))
        return Memory([layer.cross_attention.keys_values(x) for layer in self.decoder], padding_bias)

    def decode(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Decode all T tokens of each hypothesis at once.

        Args:
            tokens: ``(N, T)`` int64. N is a multiple of Q, and rows ``i * N / Q … (i + 1) * N / Q - 1``
                belong to source i.
            memory: The Q encoded sources.

        Returns:
            Hidden states ``(N, T, D)``.
        """
        bias = self.decoder_bias(tokens.shape[1], tokens.shape[1])  # (1, H, T, T)
        x = self.dropout(self.embedding(tokens))  # (N, T, D)
        for layer, source in zip(self.decoder, memory.layers, strict=True):
            x = layer(x, bias, source, memory.bias)
        return self.dropout(self.decoder_norm(x))

    def step(
        self, tokens: Tensor, memory: Memory, past: Sequence[Steps], rows: Tensor
    ) -> tuple[Tensor, list[Steps]]:
        """Decode one more token of each hypothesis; only in eval mode and without gradients.

        It returns what :meth:`decode` returns at the last token.

        Args:
            tokens: ``(N,)`` int64, the new tokens; N is a multiple of Q as in :meth:`decode`.
            memory: The Q encoded sources.
            past: Keys and values that this method returned for the P earlier tokens; empty for the first.
            rows: ``(N,)`` int64, the row in ``past`` of the hypothesis that each new one continues.

        Returns:
            Hidden states ``(N, D)``, and for each layer the keys and values including this token.
        """
        length = 1 + (len(past[0][0]) if past else 0)
        bias = self.decoder_bias(1, length)[0, :, 0].T[:, None]  # (P + 1, 1, H)
        x = self.embedding(tokens)  # (N, D)
        present = []
        for index, layer in enumerate(self.decoder):
            own = past[index] if past else None
            added, steps = layer.self_attention.step(layer.self_norm(x), bias, own, rows)
            x = layer.read(x + added, memory.layers[index], memory.bias)
            present.append(steps)
        return self.decoder_norm(x), present

    def logits(self, hidden: Tensor, block: slice) -> Tensor:
        """Return the logits ``(…, block size)`` of one block's tokens for hidden states ``(…, D)``."""
        return F.linear(hidden * self.logit_scale, self.embedding.weight[block])

    def _embedded(self, tokens: Tensor) -> Tensor:
        """Return the embeddings ``(Q, S, D)`` of the tokens ``(Q, S)`` of sources."""
        if not self.project:
            return self.embedding(tokens)
        is_text = tokens >= self.first_text
        rows = (tokens[is_text][:: self.text_tokens] - self.first_text) // self.text_tokens
        text_embeddings = self.project(self.texts[rows].to(self.project.weight.dtype))
        x = self.embedding(tokens.masked_fill(is_text, PAD))
        return x.masked_scatter(is_text[:, :, None], text_embeddings.to(x.dtype))


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
