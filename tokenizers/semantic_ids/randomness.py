"""Helpers for seeded training: the device, the random state, and shuffled batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU.

    If there are several GPUs, each process of a distributed launch gets a different one (``LOCAL_RANK``).
    """
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random numbers inside a ``with`` block, and restore the random state after it.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(3)
        >>> with seeded(0):
        ...     second = torch.rand(3)
        >>> torch.equal(first, second)
        True
    """
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of row numbers without end, in a new random order each epoch.

    The incomplete batch at the end of an epoch is left out, unless it is the only one.

    Args:
        count: Number of rows; they are numbered ``0 … count − 1``.
        batch_size: Number of rows in a batch.
        generator: Random generator on the CPU.

    Yields:
        ``(batch_size,)`` int64, or ``(count,)`` if there are fewer rows than ``batch_size``.
    """
    while True:
        order = torch.randperm(count, generator=generator)
        usable = max(count - count % batch_size, min(count, batch_size))
        yield from order[:usable].split(batch_size)
