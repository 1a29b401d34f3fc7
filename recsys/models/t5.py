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
"""The token that fills up short sources, and that every decoder input starts with."""

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention, ``(N, H, S, d)`` each."""

Steps = tuple[Tensor, Tensor]
"""Keys and values of hypotheses' own tokens, ``(P, N, H, d)`` each: a new step stands behind the others."""

_BUCKETS, _FARTHEST = 32, 128


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5; the defaults are TIGER's.

    Attributes:
        width: of the residual stream, D.
        layers: of the encoder, and as many of the decoder.
        heads: of every attention, H.
        head_width: of queries, keys and values, d; ``heads * head_width`` need not be the width.
        feed_forward: width inside the feed-forward sub-layers.
        dropout: on attention weights, inside feed-forwards, on what sub-layers add, and on the
            input and output of both stacks.
    """

    width: int = 128
    layers: int = 4
    heads: int = 6
    head_width: int = 64
    feed_forward: int = 1024
    dropout: float = 0.1


@dataclass(frozen=True)
class Memory:
    """What decoders read of Q sources: computed once, shared by whatever number of hypotheses.

    Attributes:
        layers: keys and values of each decoder layer's cross-attention, ``(Q, H, S, d)``.
        bias: ``(Q, 1, 1, S)``, 0 at tokens and −∞ at padding.
    """

    layers: list[KeysValues]
    bias: Tensor

    def select(self, sources: Tensor) -> Memory:
        """That of some sources, ``(q,)`` int64."""
        return Memory([(keys[sources], values[sources]) for keys, values in self.layers], self.bias[sources])


class T5(nn.Module):
    """Reads token sequences and writes semantic IDs.

    Token 0 is :data:`PAD`; behind it each level has a block of tokens of its own. Tokens of texts have
    the numbers behind all others.

    Args:
        codebook_sizes: ``(K_1, …, K_L)``, the sizes of the blocks.
        others: how many tokens there are behind the blocks, for sources only.
        config: the other sizes.
        over_catalogue: whether the codes of a level compete only with those that lead to an item, too,
            so that the probabilities of the catalogue's IDs add up to 1; else with all of their level.
        text_width: numbers in the vector of a text; 0 if sources hold none.
        text_tokens: how many tokens a text is read as.

    Attributes:
        blocks: for each level the slice of its tokens: code c of level l is token
            ``blocks[l].start + c``.
        first_text: the j-th token of text r is ``first_text + r * text_tokens + j``.
        texts: ``(R, text_width)``, the vectors of the texts that sources speak of; set before they are
            read. They are neither learned nor kept with the weights.
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
        if self.project:  # a vector of length 1 becomes as large as embeddings are
            nn.init.normal_(self.project.weight, std=1.0)

    def forward(self, sources: Tensor, targets: Tensor, allowed: Sequence[Tensor] = ()) -> Tensor:
        """Cross-entropy of each token of the targets among those of its level.

        Args:
            sources: ``(Q, S)`` int64, as :meth:`encode` takes them.
            targets: ``(Q, L)`` int64, a token of each level.
            allowed: for each level ``(Q, K_l)`` bool, the codes that it competes with; none if with all.

        Returns:
            The mean over sources and levels, a scalar.
        """
        shifted = F.pad(targets[:, :-1], (1, 0), value=PAD)
        hidden = self.decode(shifted, self.encode(sources))  # (Q, L, D)
        of_levels = []
        for level, block in enumerate(self.blocks):
            logits = self.logits(hidden[:, level], block)
            if allowed:
                logits = logits.masked_fill(~allowed[level], -math.inf)
            of_levels.append(F.cross_entropy(logits, targets[:, level] - block.start))
        return torch.stack(of_levels).mean()

    def encode(self, tokens: Tensor) -> Memory:
        """Read Q sources, ``(Q, S)`` int64 with padding behind the tokens.

        The first place always counts, so that a source of padding alone is one that says nothing. The
        tokens of a text stand together and in order.
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
        """Read hypotheses from their beginning, all T tokens at once.

        Args:
            tokens: ``(N, T)`` int64, N a multiple of Q: rows ``i * N / Q …`` belong to source i.
            memory: of the Q sources.

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
        """What :meth:`decode` says at one more token of each hypothesis; without gradients, in eval mode.

        Args:
            tokens: ``(N,)`` int64, N a multiple of Q as in :meth:`decode`.
            memory: of the Q sources.
            past: what this method returned for the P tokens before; empty for the first.
            rows: ``(N,)`` int64, the row in ``past`` of the hypothesis that each goes on from.

        Returns:
            Hidden states ``(N, D)``, and the keys and values of each layer with this step.
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
        """Hidden states ``(…, D)`` → logits of a block's tokens only, ``(…, block size)``."""
        return F.linear(hidden * self.logit_scale, self.embedding.weight[block])

    def _embedded(self, tokens: Tensor) -> Tensor:
        """``(Q, S)`` → ``(Q, S, D)``."""
        if not self.project:
            return self.embedding(tokens)
        is_text = tokens >= self.first_text
        rows = (tokens[is_text][:: self.text_tokens] - self.first_text) // self.text_tokens
        of_texts = self.project(self.texts[rows].to(self.project.weight.dtype))
        x = self.embedding(tokens.masked_fill(is_text, PAD))
        return x.masked_scatter(is_text[:, :, None], of_texts.to(x.dtype))


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each added to what it reads the norm of."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.self_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.self_attention = Attention(config)
        self.feed_forward_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """``(Q, S, D)`` → ``(Q, S, D)``; ``bias`` is ``(Q, H, S, S)``."""
        h = self.self_norm(x)
        x = x + self.dropout(self.self_attention(h, self.self_attention.keys_values(h), bias))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, then feed-forward."""

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
        """``(N, T, D)`` → ``(N, T, D)``."""
        h = self.self_norm(x)
        x = x + self.dropout(self.self_attention(h, self.self_attention.keys_values(h), bias))
        return self.read(x, source, source_bias)

    def read(self, x: Tensor, source: KeysValues, source_bias: Tensor) -> Tensor:
        """What stands behind the self-attention, ``(N, …, D)`` → the same."""
        # All N / Q hypotheses of a source line up as queries of one attention: (N, T, D) → (Q, N/Q·T, D).
        # The source's keys and values are then never copied for each of them.
        h = self.cross_norm(x).view(len(source_bias), -1, x.shape[-1])
        x = x + self.dropout(self.cross_attention(h, source, source_bias)).view_as(x)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Attention(nn.Module):
    """H heads, without biases and without scaling."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key = nn.Linear(config.width, inner, bias=False)
        self.value = nn.Linear(config.width, inner, bias=False)
        self.output = nn.Linear(inner, config.width, bias=False)
        self.dropout = Dropout(config.dropout)
        # The missing division of the logits by √d is made up for by small queries.
        nn.init.normal_(self.query.weight, std=(config.width * config.head_width) ** -0.5)
        nn.init.normal_(self.key.weight, std=config.width**-0.5)
        nn.init.normal_(self.value.weight, std=config.width**-0.5)
        nn.init.normal_(self.output.weight, std=inner**-0.5)

    def keys_values(self, source: Tensor) -> KeysValues:
        """``(N, S, D)`` → what can be attended to in it."""
        return self._split(self.key(source)), self._split(self.value(source))

    def forward(self, x: Tensor, source: KeysValues, bias: Tensor) -> Tensor:
        """``(N, T, D)`` → ``(N, T, D)``; ``bias`` adds to the logits ``(N, H, T, S)``."""
        queries = self._split(self.query(x))
        if x.device.type == "cpu" and (self.training or x.dtype == torch.bfloat16):
            # There no fused kernel learns a bias or drops weights, and in bfloat16 it takes twice as long.
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
        """``(N, D)`` → ``(N, D)``: one token a row looks at those before and itself; see :meth:`T5.step`.

        For so few keys sums of products are much faster than matrix products of one row.
        """
        query, key, value = (
            linear(x).unflatten(1, (self.heads, -1)) for linear in (self.query, self.key, self.value)
        )  # (N, H, d)
        keys, values = (key[None], value[None])
        if past:
            keys, values = _grown(past[0], rows, key), _grown(past[1], rows, value)
        weights = ((query * keys).sum(dim=3) + bias).softmax(dim=0)  # (P + 1, N, H)
        mixed = (weights[..., None] * values).sum(dim=0)
        return self.output(mixed.flatten(1)), (keys, values)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, T, H·d) → (N, H, T, d)


def _grown(past: Tensor, rows: Tensor, last: Tensor) -> Tensor:
    """The rows of ``(P, R, H, d)`` with ``(N, H, d)`` behind them, ``(P + 1, N, H, d)``: moved only once."""
    grown = last.new_empty(len(past) + 1, *last.shape)
    torch.index_select(past, 1, rows, out=grown[:-1])
    grown[-1] = last
    return grown


class FeedForward(nn.Module):
    """Two matrices with a ReLU between them."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.inner = nn.Linear(config.width, config.feed_forward, bias=False)
        self.outer = nn.Linear(config.feed_forward, config.width, bias=False)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.inner.weight, std=config.width**-0.5)
        nn.init.normal_(self.outer.weight, std=config.feed_forward**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, D)`` → ``(N, T, D)``."""
        return self.outer(self.dropout(self.inner(x).relu_()))


class RelativeBias(nn.Module):
    """A learned number for each head and each bucket of ``key position − query position``.

    Short distances have a bucket each; longer ones share buckets that widen logarithmically up to
    128 tokens. A causal bias is −∞ where the key comes after the query.
    """

    def __init__(self, config: T5Config, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.buckets = nn.Embedding(_BUCKETS, config.heads)
        nn.init.normal_(self.buckets.weight, std=config.width**-0.5)

    def forward(self, queries: int, keys: int) -> Tensor:
        """``(1, H, queries, keys)``, for queries that stand at the last places of the keys."""
        position = torch.arange(keys, device=self.buckets.weight.device)
        distance = position - position[keys - queries :, None]  # (queries, keys)
        bias = self.buckets(self._bucket(distance)).permute(2, 0, 1)[None]
        return bias.masked_fill(distance > 0, -math.inf) if self.causal else bias

    def _bucket(self, distance: Tensor) -> Tensor:
        count = _BUCKETS if self.causal else _BUCKETS // 2  # otherwise one half for each direction
        exact = count // 2
        far = distance.abs().clamp(min=exact) / exact
        widening = exact + (torch.log(far) / math.log(_FARTHEST / exact) * (count - exact)).long()
        bucket = torch.where(distance.abs() < exact, distance.abs(), widening.clamp(max=count - 1))
        return bucket if self.causal else bucket + count * (distance > 0)
