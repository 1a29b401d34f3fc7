"""Residual spherical k-means: a tokenizer that is a package of its own. Copy the folder to begin yours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semantic_ids import Tokenizer
from semantic_ids.kmeans import kmeans
from semantic_ids.nearest import in_equal_batches, nearest
from semantic_ids.types import OnStep


class SphericalKMeans(Tokenizer):
    """k-means of directions, then of the directions of what is left, L times.

    Each level takes the part along its direction away, as matching pursuit does (Mallat 1993), so
    that lengths matter to no level: texts are told apart by what they are about, not how strongly.

    Args:
        levels: L.
        codebook_size: K of every level.
    """

    def __init__(self, levels: int = 4, codebook_size: int = 256) -> None:
        self.levels, self.codebook_size = levels, codebook_size
        self.codebook_sizes = (codebook_size,) * levels

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> SphericalKMeans:
        """Fit level by level; ``on_step`` gets the share of the squared length that is left."""
        generator = torch.Generator().manual_seed(seed)
        residual, books = embeddings, []
        for level in range(self.levels):
            centres = kmeans(F.normalize(residual), self.codebook_size, generator=generator)
            books.append(F.normalize(centres))
            residual = _step(residual, books[-1])[1]
            if on_step:
                left = residual.square().sum() / embeddings.square().sum().clamp(min=1e-12)
                on_step(level + 1, {"left": left.item()})
        self.codebooks = torch.stack(books)
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` → codes ``(N, L)``."""
        return in_equal_batches(self._encode, embeddings, torch.device("cpu"))

    def _encode(self, residual: Tensor) -> Tensor:
        codes = []
        for book in self.codebooks:
            code, residual = _step(residual, book)
            codes.append(code)
        return torch.stack(codes, dim=1)


def _step(residual: Tensor, book: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest direction of each residual ``(n, D)``, and what is left beside it."""
    code = nearest(F.normalize(residual), book)
    along = (residual * book[code]).sum(dim=1, keepdim=True)
    return code, residual - along * book[code]
