"""Set up Hugging Face's Accelerate so that nothing in the environment changes a training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from semantic_ids.randomness import is_distributed

if TYPE_CHECKING:
    from accelerate import Accelerator

_SETTINGS = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "FP8_", "FORK_LAUNCHED")
"""Beginnings of the names of variables from which Accelerate takes settings that change a training."""

_BATCH_SYSTEM = ("PMI_", "OMPI_", "MV2_")
"""Beginnings of the names of variables of MPI, from which Accelerate concludes that other processes wait."""

_LAUNCHER = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "RANK", "WORLD_SIZE")
"""Variables of ``torchrun`` and ``accelerate launch``, which pods and batch systems set too."""


def make_accelerator(*, precision: str, backend: str, cpu: bool) -> Accelerator:
    """Return an accelerator whose settings do not depend on the environment.

    Several processes train together only under ``torchrun`` or ``accelerate launch``, see
    :func:`~semantic_ids.randomness.is_distributed`. Accelerate's own settings, ``ACCELERATE_*`` variables for
    example, have no effect.

    Args:
        precision: ``no``, ``bf16`` or ``fp16``.
        backend: Compiler of the model: ``no`` or ``inductor``.
        cpu: Whether to train on the CPU although there may be a GPU.
    """
    # Imported here, because it takes seconds and ranking does not need it.
    from accelerate import Accelerator  # noqa: PLC0415
    from accelerate.state import AcceleratorState, GradientState  # noqa: PLC0415

    distributed = is_distributed()
    # Accelerate keeps the settings of a process's first accelerator for all later ones.
    AcceleratorState._reset_state(reset_partial_state=not distributed)
    GradientState._reset_state()
    allow_tf32 = torch.backends.cuda.matmul.allow_tf32
    hidden = _SETTINGS + _BATCH_SYSTEM + (() if distributed else _LAUNCHER)
    with _without_variables(hidden):
        accelerator = Accelerator(mixed_precision=precision, dynamo_backend=backend, cpu=cpu)
    if torch.backends.cuda.matmul.allow_tf32 != allow_tf32:  # Accelerate allows TF32 where it compiles
        torch.backends.cuda.matmul.allow_tf32 = allow_tf32
    return accelerator


@contextmanager
def _without_variables(beginnings: tuple[str, ...]) -> Iterator[None]:
    """Hide environment variables whose names begin like this, inside a ``with`` block."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(beginnings)}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
