"""Tokenizers without gradient training: residual k-means, LSH, one ID per item, and random IDs."""

from __future__ import annotations

import hashlib
from typing import Self

import numpy as np
import torch
from torch import Tensor

from semantic_ids.kmeans import kmeans
from semantic_ids.nearest import in_equal_batches, nearest, squared_distances
from semantic_ids.quantizers.residual import residual_decode, residual_encode
from semantic_ids.randomness import default_device
from semantic_ids.ranges import check_sizes, check_whole
from semantic_ids.tokenizer import Tokenizer
from semantic_ids.types import OnStep


class ResidualKMeans(Tokenizer):
    """Residual k-means (RQ-KMeans): each level is a k-means of the residuals of the level before.

    The first level is a k-means of the embeddings.

    Args:
        levels: Number of levels L.
        codebook_size: Number of codes K of every level.
        iterations: Largest number of Lloyd iterations in each k-means.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> embeddings = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
        >>> tokenizer = ResidualKMeans(levels=2, codebook_size=2).fit(embeddings)
        >>> tokenizer.decode(tokenizer.encode(embeddings)).tolist()
        [[0.0], [1.0], [10.0], [11.0]]
    """

    def __init__(self, levels: int = 4, codebook_size: int = 256, iterations: int = 50) -> None:
        check_sizes(levels, codebook_size)
        check_whole(iterations=iterations)
        self.levels, self.codebook_size, self.iterations = levels, codebook_size, iterations
        self.codebook_sizes = (codebook_size,) * levels

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Fit the codebooks level by level.

        Args:
            embeddings: ``(N, D)`` float32.
            seed: Seed of k-means.
            on_step: Function that gets, after every level, its number from 1 and ``reconstruction``, the
                share of the embeddings' variance that is lost.
        """
        residual = embeddings.to(default_device())
        generator = torch.Generator().manual_seed(seed)
        spread = (residual - residual.mean(dim=0)).square().mean().clamp(min=1e-12)
        codebooks = []
        for level in range(self.levels):
            codewords = kmeans(residual, self.codebook_size, generator=generator, iterations=self.iterations)
            codebooks.append(codewords)
            residual = residual - codewords[nearest(residual, codewords)]
            if on_step:
                on_step(level + 1, {"reconstruction": float(residual.square().mean() / spread)})
        self.codebooks = torch.stack(codebooks).cpu()
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """Return the codes of embeddings, ``(N, D)`` → ``(N, L)`` int64."""
        device = default_device()
        codebooks = list(self.codebooks.to(device))
        return in_equal_batches(lambda rows: residual_encode(codebooks, rows)[0], embeddings, device)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the sums of the codewords of codes, ``(N, L)`` → ``(N, D)``."""
        return residual_decode(list(self.codebooks), codes)

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        """Return squared distances from the last level's residuals to its codewords.

        Args:
            embeddings: ``(N, D)`` float32.

        Returns:
            ``(N, K)`` float64.
        """
        device = default_device()
        *earlier, last = self.codebooks.to(device)
        return in_equal_batches(
            lambda rows: squared_distances(residual_encode(earlier, rows)[1], last), embeddings, device
        )


class RandomHyperplanes(Tokenizer):
    """Locality-sensitive hashing (LSH) with ``L·log2 K`` random hyperplanes.

    Each bit says on which side of a hyperplane the embedding is. Each hyperplane goes through the median
    of the items, so half of them are on each side. ``log2 K`` bits make the code of a level.

    Args:
        levels: Number of levels L.
        codebook_size: Number of codes K of every level, a power of two.

    Raises:
        ValueError: If there is no level, or if K is not a power of two from 2.
    """

    def __init__(self, levels: int = 4, codebook_size: int = 256) -> None:
        check_sizes(levels, codebook_size)
        if codebook_size & (codebook_size - 1):
            raise ValueError(f"codebook_size must be a power of two for LSH, not {codebook_size}")
        self.levels, self.codebook_size = levels, codebook_size
        self.codebook_sizes = (codebook_size,) * levels

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Draw the hyperplanes' directions, and move each hyperplane to the median of the embeddings."""
        bits = self.levels * (self.codebook_size.bit_length() - 1)
        self.normals = torch.randn(embeddings.shape[1], bits, generator=torch.Generator().manual_seed(seed))
        self.offsets = self._projected(embeddings).median(dim=0).values
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """Return the codes of embeddings, ``(N, D)`` → ``(N, L)`` int64.

        The first hyperplane of a level gives the lowest bit of its code.
        """
        per_level = self.codebook_size.bit_length() - 1

        def encode_rows(rows: Tensor) -> Tensor:
            bits = (self._projected(rows) > self.offsets).long().view(len(rows), self.levels, per_level)
            return (bits << torch.arange(per_level)).sum(dim=2)

        return in_equal_batches(encode_rows, embeddings, torch.device("cpu"))

    def _projected(self, rows: Tensor) -> Tensor:
        """Return the projections on the hyperplanes' normals, ``(n, D)`` → ``(n, L·log2 K)`` float32.

        The medians are projections of items. Sums in float64 keep rounding from moving these items to the
        other side.
        """
        return (rows.double() @ self.normals.double()).float()


class DenseIds(Tokenizer):
    """IDs without semantics: one level, with a different code for every distinct embedding.

    This is the atomic-ID baseline. Items with equal texts share a code, as with every tokenizer that sees
    only texts. An embedding that was not in ``fit`` gets the code of the nearest one that was.
    """

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Give each distinct embedding a code, in lexicographic order; ``seed`` has no effect."""
        self.rows = torch.unique(embeddings, dim=0)
        self.codebook_sizes = (len(self.rows),)
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """Return the codes of embeddings, ``(N, D)`` → ``(N, 1)`` int64."""
        row_codes = {row.tobytes(): code for code, row in enumerate(self.rows.numpy())}
        codes = torch.tensor(
            [row_codes.get(row.tobytes(), -1) for row in embeddings.numpy()], dtype=torch.int64
        )
        unknown = codes < 0
        if unknown.any():
            codes[unknown] = in_equal_batches(
                lambda rows: nearest(rows, self.rows), embeddings[unknown], torch.device("cpu")
            )
        return codes[:, None]

    def decode(self, codes: Tensor) -> Tensor:
        """Return the fitted embeddings with these codes, ``(N, 1)`` → ``(N, D)``."""
        return self.rows[codes[:, 0]]


class RandomIds(Tokenizer):
    """IDs without semantics: random codes, in the same shape as those of other tokenizers.

    This is the baseline of every comparison, TIGER's Random ID (arXiv 2305.05065, §4.3). The gain of
    another tokenizer over it is due to the content of the items. Codes depend only on the bits of an
    embedding and on the seed. So any number of items can be encoded, and items with equal texts share
    their codes.

    Args:
        levels: Number of levels L.
        codebook_size: Number of codes K of every level.

    Raises:
        ValueError: If an argument is outside its range.
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
        """Return the codes of embeddings, ``(N, D)`` → ``(N, L)`` int64."""
        key = str(self.key.item()).encode()
        numbers = [
            np.frombuffer(hashlib.shake_128(key + row.tobytes()).digest(8 * self.levels), dtype="<u8")
            for row in embeddings.numpy()
        ]
        codes = np.array(numbers, dtype=np.uint64).reshape(-1, self.levels) % np.uint64(self.codebook_size)
        return torch.from_numpy(codes.astype(np.int64))
