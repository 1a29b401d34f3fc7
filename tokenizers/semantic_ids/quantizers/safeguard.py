"""Safety checks while a quantizer trains: thresholds on its health, and what is done beyond them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from semantic_ids.quantizers.quantizer import Quantizer

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Safeguards:
    """When to intervene (GRIT-VQ, appendix D.4); what is clipped or reset is refreshed in the cache too.

    Every figure is one of :meth:`Quantizer.health <semantic_ids.quantizers.quantizer.Quantizer.health>`,
    and its worst level counts. 0 switches a check off.

    Attributes:
        min_utilization: below it dead codes are placed anew at once, whatever the schedule says.
        max_spectral_norm: above it W's singular values are clipped to it, and its inverse.
        max_row_norm: of a codeword; longer ones are shortened to it.
    """

    min_utilization: float = 0.0
    max_spectral_norm: float = 0.0
    max_row_norm: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_utilization <= 1:
            raise ValueError(f"min_utilization is a share in [0, 1], not {self.min_utilization}")
        if self.max_spectral_norm != 0 and self.max_spectral_norm < 1:
            raise ValueError(f"max_spectral_norm is 0, for none, or at least 1, not {self.max_spectral_norm}")
        if self.max_row_norm < 0:
            raise ValueError(f"max_row_norm is 0, for none, or above, not {self.max_row_norm}")

    def check(
        self, quantizer: Quantizer, health: dict[str, float], z: Tensor, generator: torch.Generator
    ) -> list[str]:
        """Do what is needed, say so in the log, and return what was said.

        Args:
            quantizer: what is looked after.
            health: its figures.
            z: recent latents ``(n, D)``, for codes placed anew.
            generator: on the CPU, for the same.
        """
        said = []

        def worst(figure: str, best_first: Callable[..., float]) -> float | None:
            found = [value for name, value in health.items() if name.rpartition("_")[0] == figure]
            return best_first(found) if found else None

        utilization = worst("utilization", min)
        if self.min_utilization and utilization is not None and utilization < self.min_utilization:
            moved = quantizer.replace_dead_codes(z, generator)
            quantizer.clear_usage()
            said.append(f"utilization {utilization:.0%} < {self.min_utilization:.0%}: {moved} codes reset")
        for figure, limit, clip, done in (
            ("spectral_norm", self.max_spectral_norm, quantizer.clip_spectra, "singular values clipped"),
            ("row_norm_max", self.max_row_norm, quantizer.clip_codewords, "codewords shortened"),
        ):
            found = worst(figure, max)
            if limit and found is not None and found > limit:
                clip(limit)
                said.append(f"{figure} {found:.3g} > {limit:.3g}: {done}")
        for line in said:
            LOG.warning(line)
        return said
