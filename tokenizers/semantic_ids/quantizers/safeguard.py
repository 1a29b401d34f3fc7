"""Safeguards during a quantizer's training: limits on its health, and repairs if they are exceeded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from semantic_ids.quantizers.quantizer import Quantizer
from semantic_ids.ranges import check_numbers

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Safeguards:
    """Limits on a quantizer's health, beyond which :meth:`check` intervenes (GRIT-VQ, appendix D.4).

    The figures come from :meth:`Quantizer.health <semantic_ids.quantizers.quantizer.Quantizer.health>`;
    the worst level is compared with the limit. After clipping or resetting, cached codewords are
    refreshed too. A limit of 0 switches its check off.

    Attributes:
        min_utilization: If utilization is below this share, dead codes are replaced at once, also
            outside the schedule of replacements.
        max_spectral_norm: If the spectral norm of W is above this limit c, the singular values of W are
            clipped to [1/c, c].
        max_row_norm: If a codeword is longer than this, it is shortened to this length.

    Raises:
        ValueError: If a limit is out of range.
    """

    min_utilization: float = 0.0
    max_spectral_norm: float = 0.0
    max_row_norm: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(0, 1, min_utilization=self.min_utilization)
        check_numbers(max_spectral_norm=self.max_spectral_norm, max_row_norm=self.max_row_norm)
        if 0 < self.max_spectral_norm < 1:
            raise ValueError(f"max_spectral_norm is 0, for none, or at least 1, not {self.max_spectral_norm}")

    def check(
        self, quantizer: Quantizer, health: dict[str, float], z: Tensor, generator: torch.Generator
    ) -> list[str]:
        """Compare the health with the limits, repair the quantizer if needed, and log every repair.

        Args:
            quantizer: The quantizer to repair.
            health: The quantizer's current health.
            z: Recent latents ``(n, D)``, from which dead codes are replaced.
            generator: Random generator on the CPU, for replacing dead codes.

        Returns:
            The logged messages, one for each repair.
        """
        messages = []

        def worst(figure: str, worst_of: Callable[..., float]) -> float | None:
            values = [value for name, value in health.items() if name.rpartition("_")[0] == figure]
            return worst_of(values) if values else None

        utilization = worst("utilization", min)
        if self.min_utilization and utilization is not None and utilization < self.min_utilization:
            moved = quantizer.replace_dead_codes(z, generator)
            quantizer.clear_usage()
            messages.append(
                f"utilization {utilization:.0%} < {self.min_utilization:.0%}: {moved} codes reset"
            )
        for figure, limit, clip, repair in (
            ("spectral_norm", self.max_spectral_norm, quantizer.clip_spectra, "singular values clipped"),
            ("row_norm_max", self.max_row_norm, quantizer.clip_codewords, "codewords shortened"),
        ):
            value = worst(figure, max)
            if limit and value is not None and value > limit:
                clip(limit)
                messages.append(f"{figure} {value:.3g} > {limit:.3g}: {repair}")
        for message in messages:
            LOG.warning(message)
        return messages
