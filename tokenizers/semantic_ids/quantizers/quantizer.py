"""The interface of all quantizers: they turn latents into codes and pass gradients back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from semantic_ids.quantizers.schedule import HyperParameter


@dataclass(frozen=True)
class Quantized:
    """A quantizer's output for latents ``(..., D)``.

    Attributes:
        codes: ``(..., L)`` int64.
        latents: The quantized latents ``(..., D)``: the value of ``decode(codes)`` with the gradient of
            the surrogate. In training some surrogates add noise to the value.
        loss: Scalar to be added to the reconstruction loss.
    """

    codes: Tensor
    latents: Tensor
    loss: Tensor


class Quantizer(nn.Module, ABC):
    """A module that turns latents of any leading shape ``(..., D)`` into L codes each.

    A subclass sets both attributes in its constructor and implements :meth:`forward`, :meth:`encode`
    and :meth:`decode`. An autoencoder calls the other methods while it trains; by default they do nothing.

    Attributes:
        codebook_sizes: Number of codes of every level, ``(K_1, …, K_L)``.
        dim: Width of the latents D.
    """

    codebook_sizes: tuple[int, ...]
    dim: int

    @abstractmethod
    def forward(self, z: Tensor) -> Quantized:
        """Quantize latents ``(..., D)``, in training and in evaluation."""

    @abstractmethod
    def encode(self, z: Tensor) -> Tensor:
        """Return the codes of latents, deterministically and without gradient.

        Args:
            z: Latents ``(..., D)``.

        Returns:
            Codes ``(..., L)`` int64 with ``0 <= codes[..., l] < codebook_sizes[l]``.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the quantized latents of codes, without gradient.

        Args:
            codes: ``(..., L)`` int64.

        Returns:
            Quantized latents ``(..., D)``.
        """

    def seed(self, z: Tensor, generator: torch.Generator) -> None:
        """Place the codewords by latents from the time before quantization starts.

        Args:
            z: Latents ``(..., D)``.
            generator: Random generator on the CPU; the only source of randomness.
        """

    def settle(self) -> None:
        """Apply updates that the last training step left pending.

        In training, ``forward`` calls this first; so does ``eval()``.
        """

    def replace_dead_codes(self, z: Tensor, generator: torch.Generator) -> int:
        """Move unused codewords to places near the latents, and return how many were moved.

        Args:
            z: Latents ``(..., D)``.
            generator: Random generator on the CPU; the only source of randomness.
        """
        return 0

    def clear_usage(self) -> None:
        """Reset the counts of how often each code is used."""

    def health(self) -> dict[str, float]:
        """Return figures to watch during training, for example ``utilization_1``; levels count from 1."""
        return {}

    def clip_spectra(self, limit: float) -> None:
        """Force the singular values of the codewords' shared maps into ``[1/limit, limit]``."""

    def clip_codewords(self, limit: float) -> None:
        """Shorten codewords that are longer than ``limit`` to that length."""

    def last_level_distances(self, z: Tensor) -> Tensor:
        """Return squared distances from the last level's residuals to its codewords.

        Args:
            z: Latents ``(n, D)``. The residual is what the first L − 1 levels leave over.

        Returns:
            ``(n, K_L)`` float64.

        Raises:
            NotImplementedError: If the quantizer has no codewords.
        """
        raise NotImplementedError(f"{type(self).__name__} has no codewords to measure distances to")

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, after applying pending updates."""
        self.settle()
        return super().train(mode)

    def set_progress(self, progress: float) -> None:
        """Move all schedules to ``progress``, the completed share of the training in [0, 1]."""
        for module in self.modules():
            if isinstance(module, HyperParameter):
                module.set_progress(progress)
