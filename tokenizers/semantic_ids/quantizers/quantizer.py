"""What a quantizer is: latents → codes, and gradients back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from semantic_ids.quantizers.schedule import HyperParameter


@dataclass(frozen=True)
class Quantized:
    """What a quantizer makes of latents ``(..., D)``.

    Attributes:
        codes: ``(..., L)`` int64.
        latents: ``(..., D)``, the value of ``decode(codes)`` with the surrogate's gradient; in training
            some surrogates put noise on it.
        loss: scalar, to be added to the loss of the reconstruction.
    """

    codes: Tensor
    latents: Tensor
    loss: Tensor


class Quantizer(nn.Module, ABC):
    """Turns latents of any leading shape ``(..., D)`` into L codes each.

    A subclass sets both attributes in its constructor and writes :meth:`forward`, :meth:`encode`
    and :meth:`decode`. The other methods are called while an autoencoder trains and do nothing
    unless written.

    Attributes:
        codebook_sizes: ``(K_1, …, K_L)``.
        dim: width of the latents D.
    """

    codebook_sizes: tuple[int, ...]
    dim: int

    @abstractmethod
    def forward(self, z: Tensor) -> Quantized:
        """Latents ``(..., D)`` → their codes, quantized latents and loss, in training and evaluation."""

    @abstractmethod
    def encode(self, z: Tensor) -> Tensor:
        """Latents ``(..., D)`` → codes ``(..., L)`` int64, ``0 <= codes[..., l] < codebook_sizes[l]``.

        Deterministic and without gradient.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(..., L)`` int64 → quantized latents ``(..., D)``, without gradient."""

    def seed(self, z: Tensor, generator: torch.Generator) -> None:
        """Place the codewords, given latents ``(..., D)`` from before quantization starts.

        Args:
            z: latents.
            generator: on the CPU; the only source of randomness.
        """

    def settle(self) -> None:
        """Apply what the last training step left pending; training's forward and ``eval()`` call it."""

    def replace_dead_codes(self, z: Tensor, generator: torch.Generator) -> int:
        """Move codewords that went unused to where the latents ``z`` ``(..., D)`` are; returns how many."""
        return 0

    def clear_usage(self) -> None:
        """Begin a new count of which codes are used."""

    def health(self) -> dict[str, float]:
        """Figures to watch over the training, levels counted from 1, such as ``utilization_1``."""
        return {}

    def clip_spectra(self, limit: float) -> None:
        """Bring the singular values of what codewords share into ``[1/limit, limit]``."""

    def clip_codewords(self, limit: float) -> None:
        """Shorten codewords that are longer than ``limit``."""

    def last_level_distances(self, z: Tensor) -> Tensor:
        """``(n, D)`` → ``(n, K_L)`` float64: squared distances of what L − 1 levels leave to codewords L.

        Raises:
            NotImplementedError: the quantizer has no codewords.
        """
        raise NotImplementedError(f"{type(self).__name__} has no codewords to measure distances to")

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; what is pending is applied first."""
        self.settle()
        return super().train(mode)

    def set_progress(self, progress: float) -> None:
        """Move all schedules to ``progress``, the share of the training that is done, in [0, 1]."""
        for module in self.modules():
            if isinstance(module, HyperParameter):
                module.set_progress(progress)
