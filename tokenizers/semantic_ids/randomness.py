"""Helpers for reproducible training: device, random state, precision of numbers, and shuffled batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor


def is_distributed() -> bool:
    """Return whether this process is one of several that train together.

    It is one if it has joined a process group, or if ``torchrun`` or ``accelerate launch`` has started it
    with others. Variables such as ``WORLD_SIZE`` and ``RANK`` alone do not count: pods and batch systems set
    them also where no other process waits.
    """
    if not torch.distributed.is_available():
        return False
    launched = torch.distributed.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    return torch.distributed.is_initialized() or launched


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU.

    If there are several GPUs, each process of a distributed launch gets a different one (``LOCAL_RANK``).
    """
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if is_distributed() else 0)
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def float32_numbers() -> Iterator[None]:
    """Compute in float32 on the CPU where code names no other dtype or device, inside a ``with`` block.

    The process may have set another default dtype or device, or matrix products of lower precision
    (:func:`torch.set_float32_matmul_precision`). All three would change results without a word. They are
    restored after the block.
    """
    dtype, precision = torch.get_default_dtype(), _matmul_precision()
    with ExitStack() as stack:
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        if precision != "highest":
            torch.set_float32_matmul_precision("highest")
            stack.callback(torch.set_float32_matmul_precision, precision)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def _matmul_precision() -> str:
    """Return the precision of float32 matrix products, or ``highest`` if each backend has one of its own."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set by torch.backends.….fp32_precision, which torch cannot tell in one word
        return "highest"


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
