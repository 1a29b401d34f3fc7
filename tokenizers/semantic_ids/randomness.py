"""Seeded work that leaves the caller's random state alone, its batches, and the device it runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU; of several GPUs each process of a launch has its own."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Everything random in torch inside the block follows from ``seed``; outside nothing changes."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows ``(batch_size,)`` int64 without end: a new shuffle of ``0 … count-1`` each epoch.

    The incomplete batch at an epoch's end is left out, except where it is the only one.
    """
    while True:
        order = torch.randperm(count, generator=generator)
        usable = max(count - count % batch_size, min(count, batch_size))
        yield from order[:usable].split(batch_size)
