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
from recsys.models.t5_layers import DecoderLayer, EncoderLayer, KeysValues, RelativeBias, Steps, T5Config

PAD = 0
"""The token that fills up short sources and starts every decoder input."""


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
