"""Collective operations that keep the ranks of a distributed training equal; no-ops with one process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def _ranks() -> int:
    """Return the number of processes in the training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(value: Tensor) -> Tensor:
    """Sum ``value`` over all ranks, in place, and return it."""
    if _ranks() > 1:
        dist.all_reduce(value)
    return value


def all_rows(rows: Tensor) -> Tensor:
    """Gather the rows of all ranks on every rank.

    Args:
        rows: ``(n_r, D)``; n_r may differ between ranks.

    Returns:
        ``(Σ n_r, D)``, in the order of the ranks.
    """
    if _ranks() == 1:
        return rows
    counts = [torch.zeros((), dtype=torch.int64, device=rows.device) for _ in range(_ranks())]
    dist.all_gather(counts, torch.tensor(len(rows), device=rows.device))
    # all_gather needs equal shapes, but the last batch of a rank may be shorter.
    padded = rows.new_zeros(int(max(counts)), rows.shape[1])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return torch.cat([part[: int(count)] for part, count in zip(gathered, counts, strict=True)])


def from_first(value: Tensor) -> Tensor:
    """Overwrite ``value`` on every rank with the first rank's, and return it; shapes must be equal."""
    if _ranks() > 1:
        dist.broadcast(value, src=0)
    return value
