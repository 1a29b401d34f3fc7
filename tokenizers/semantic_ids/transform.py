"""Integrated transforms: codewords ``C = f(E)`` that share parameters, so that unused ones move too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """``C = E``: every codeword for itself.

    Args:
        size: number of codewords K.
        dim: their width D.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()

    def forward(self, table: Tensor) -> Tensor:
        """``(K, D) → (K, D)``."""
        return table

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """Change ``table`` in place so that the codewords ``rows`` become ``targets`` ``(r, D)``."""
        table[rows] = targets


class LowRank(nn.Module):
    """GRIT-VQ's linear transform ``C = M E W`` with ``M = I + A Bᵀ`` (arXiv 2602.01140, §4.2).

    The paper's ``M = A Bᵀ`` alone confines the codebook to ``rank`` dimensions. The identity term
    with ``A = 0`` and ``W = I`` at the start keeps k-means seeds exactly, and lifts that limit.

    Args:
        size: number of codewords K.
        dim: their width D.
        rank: columns of A and B.
    """

    def __init__(self, size: int, dim: int, rank: int = 16) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(size, rank))
        self.b = nn.Parameter(torch.randn(size, rank) / size**0.5)
        self.w = nn.Parameter(torch.eye(dim))

    def forward(self, table: Tensor) -> Tensor:
        """``(K, D) → (K, D)``."""
        rotated = table @ self.w
        return rotated + self.a @ (self.b.T @ rotated)

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """Change ``table`` and ``A`` in place so that the codewords ``rows`` become ``targets`` ``(r, D)``.

        ``A``'s rows become zero and the table's ``target W⁻¹``, which puts these codewords where
        they should be; the others move a little, through ``B``, as they do in every step.
        """
        self.a[rows] = 0
        table[rows] = torch.linalg.solve(self.w.T, targets.T).T


TRANSFORMS: dict[str, Callable[..., Plain | LowRank]] = {"plain": Plain, "low-rank": LowRank}
