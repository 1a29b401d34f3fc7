"""Tokenizers without gradient training: residual k-means, LSH, one ID an item, and IDs at random."""

from __future__ import annotations

import hashlib
from typing import Self

import numpy as np
import torch
from torch import Tensor

from semantic_ids.kmeans import kmeans
from semantic_ids.nearest import in_equal_batches, nearest, squared_distances
from semantic_ids.quantizers.residual import add_up, walk
from semantic_ids.randomness import default_device
from semantic_ids.tokenizer import OnStep, Tokenizer, check_sizes


class ResidualKMeans(Tokenizer):
    """k-means of the embeddings, then k-means of what is left, L times (RQ-KMeans).

    Args:
        levels: L.
        codebook_size: K of every level.
        iterations: Lloyd iterations of each k-means, at the most.
    """

    def __init__(self, levels: int = 4, codebook_size: int = 256, iterations: int = 50) -> None:
        check_sizes(levels, codebook_size)
        self.levels, self.codebook_size, self.iterations = levels, codebook_size, iterations
        self.codebook_sizes = (codebook_size,) * levels

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Fit level by level; ``on_step`` gets ``reconstruction``, the share of variance lost, a level."""
        residual = embeddings.to(default_device())
        generator = torch.Generator().manual_seed(seed)
        spread = (residual - residual.mean(dim=0)).square().mean().clamp(min=1e-12)
        books = []
        for level in range(self.levels):
            books.append(
                kmeans(residual, self.codebook_size, generator=generator, iterations=self.iterations)
            )
            residual = residual - books[-1][nearest(residual, books[-1])]
            if on_step:
                on_step(level + 1, {"reconstruction": float(residual.square().mean() / spread)})
        self.codebooks = torch.stack(books).cpu()
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → codes ``(N, L)``."""
        device = default_device()
        books = list(self.codebooks.to(device))
        return in_equal_batches(lambda rows: walk(books, rows)[0], embeddings, device)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(N, L)`` → the sum of their centres ``(N, D)``."""
        return add_up(list(self.codebooks), codes)

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → ``(N, K)`` float64: what L − 1 levels leave over, against the centres of the last."""
        device = default_device()
        *earlier, last = self.codebooks.to(device)
        return in_equal_batches(
            lambda rows: squared_distances(walk(earlier, rows)[1], last), embeddings, device
        )


class RandomHyperplanes(Tokenizer):
    """LSH: the sides of ``L·log2 K`` random hyperplanes, cut at the medians, read as L numbers.

    Args:
        levels: L.
        codebook_size: K of every level, a power of two.
    """

    def __init__(self, levels: int = 4, codebook_size: int = 256) -> None:
        check_sizes(levels, codebook_size)
        if codebook_size < 2 or codebook_size & (codebook_size - 1):
            raise ValueError(f"LSH needs a codebook size that is a power of two, not {codebook_size}")
        self.levels, self.codebook_size = levels, codebook_size
        self.codebook_sizes = (codebook_size,) * levels

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Draw the hyperplanes and move each to the median, so that it parts the items in halves."""
        bits = self.levels * (self.codebook_size.bit_length() - 1)
        self.normals = torch.randn(embeddings.shape[1], bits, generator=torch.Generator().manual_seed(seed))
        self.offsets = self._projected(embeddings).median(dim=0).values
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → codes ``(N, L)``; the first hyperplane of a level is its lowest bit."""
        per_level = self.codebook_size.bit_length() - 1

        def sides(rows: Tensor) -> Tensor:
            bits = (self._projected(rows) > self.offsets).long().view(len(rows), self.levels, per_level)
            return (bits << torch.arange(per_level)).sum(dim=2)

        return in_equal_batches(sides, embeddings, torch.device("cpu"))

    def _projected(self, rows: Tensor) -> Tensor:
        """Summed in float64: the medians are items, which rounding must not move across them."""
        return (rows.double() @ self.normals.double()).float()


class DenseIds(Tokenizer):
    """No semantics: one level with a code of its own for every distinct embedding.

    The atomic-ID baseline. Items whose texts are equal share a code, as they must for any
    tokenizer that sees texts only; an embedding that was not there to learn from gets the code
    of the nearest one that was.
    """

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Number the distinct embeddings; nothing is random."""
        self.rows = torch.unique(embeddings, dim=0)
        self.codebook_sizes = (len(self.rows),)
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → codes ``(N, 1)``."""
        known = {row.tobytes(): code for code, row in enumerate(self.rows.numpy())}
        codes = torch.tensor([known.get(row.tobytes(), -1) for row in embeddings.numpy()], dtype=torch.int64)
        new = codes < 0
        if new.any():
            codes[new] = in_equal_batches(
                lambda rows: nearest(rows, self.rows), embeddings[new], torch.device("cpu")
            )
        return codes[:, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(N, 1)`` → the embeddings they stand for ``(N, D)``."""
        return self.rows[codes[:, 0]]


class RandomIds(Tokenizer):
    """No semantics: codes drawn at random, of the same shape as all others have.

    The floor of every comparison, TIGER's Random ID (arXiv 2305.05065, §4.3): what a content tokenizer wins
    beyond it, content gave. Codes hang on the bits of an embedding and the seed alone, so that any number of
    items can be encoded, and items whose texts are equal share theirs.

    Args:
        levels: L.
        codebook_size: K of every level.
    """

    def __init__(self, levels: int = 4, codebook_size: int = 256) -> None:
        check_sizes(levels, codebook_size)
        self.levels, self.codebook_size = levels, codebook_size
        self.codebook_sizes = (codebook_size,) * levels

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Keep the seed."""
        self.key = torch.tensor([seed])
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → codes ``(N, L)``."""
        key = str(self.key.item()).encode()
        numbers = [
            np.frombuffer(hashlib.shake_128(key + row.tobytes()).digest(8 * self.levels), dtype="<u8")
            for row in embeddings.numpy()
        ]
        drawn = np.array(numbers, dtype=np.uint64).reshape(-1, self.levels) % np.uint64(self.codebook_size)
        return torch.from_numpy(drawn.astype(np.int64))
