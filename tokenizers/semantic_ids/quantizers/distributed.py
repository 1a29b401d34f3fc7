"""What the ranks of a distributed training must agree on; with one process nothing happens here."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(value: Tensor) -> Tensor:
    """``value`` added up over all ranks, in place."""
    if _ranks() > 1:
        dist.all_reduce(value)
    return value


def all_rows(rows: Tensor) -> Tensor:
    """``(n_r, D)`` of every rank → all of them ``(Σ n_r, D)`` on every rank, in the order of ranks."""
    if _ranks() == 1:
        return rows
    counts = [torch.zeros((), dtype=torch.int64, device=rows.device) for _ in range(_ranks())]
    dist.all_gather(counts, torch.tensor(len(rows), device=rows.device))
    # Gathering wants equal shapes, which the last batch of a rank need not have.
    padded = rows.new_zeros(int(max(counts)), rows.shape[1])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return torch.cat([part[: int(count)] for part, count in zip(gathered, counts, strict=True)])


def from_first(value: Tensor) -> Tensor:
    """The first rank's ``value`` on every rank; shapes must agree."""
    if _ranks() > 1:
        dist.broadcast(value, src=0)
    return value
