"""Shared by many tests; pytest puts the folder of this file on the path."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Float64 draws from the standard normal distribution, the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flip(path: Path, bit: int) -> None:
    """Change one bit of a file; bit -1 is the highest one of its last byte."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
