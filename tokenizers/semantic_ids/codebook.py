"""One level's codewords."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semantic_ids.choices import Choice, build
from semantic_ids.transform import TRANSFORMS


class Codebook(nn.Module):
    """K codewords of width D: a table ``E`` seen through a transform, ``C = f(E)``.

    Looking up, assigning and decoding all go through :meth:`codewords`, in training as at
    inference, so that there is only one codebook.

    Args:
        size: K.
        dim: D.
        transform: a choice of :data:`~semantic_ids.transform.TRANSFORMS`.
        frozen: keep ``E`` as it is seeded and learn the transform only (GRIT-VQ's protocol A).
    """

    def __init__(self, size: int, dim: int, transform: Choice = "plain", frozen: bool = False) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(size, dim), requires_grad=not frozen)
        self.transform = build("transform", TRANSFORMS, transform, size=size, dim=dim)

    @property
    def size(self) -> int:
        """K."""
        return len(self.table)

    def codewords(self) -> Tensor:
        """``(K, D)``, with gradient."""
        return self.transform(self.table)

    @torch.no_grad()
    def place(self, rows: Tensor, targets: Tensor) -> None:
        """Make codewords ``rows`` ``(r,)`` equal to ``targets`` ``(r, D)``."""
        self.transform.place(self.table, rows, targets)
