"""How codewords and latents learn to meet, beside what the surrogate lets through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class GradientLearning:
    """VQ-VAE's two losses: codewords go to their latents, latents commit to their codewords.

    Both are means over batch and features, as the reconstruction loss is: summing one and
    averaging the other shifts their balance by the width, and has collapsed codebooks.

    Attributes:
        codebook_weight: of ``‖sg[residual] − codeword‖²``.
        commitment_weight: of ``‖residual − sg[codeword]‖²``, β.
    """

    codebook_weight: float = 1.0
    commitment_weight: float = 0.25

    def loss(self, residual: Tensor, codeword: Tensor) -> Tensor:
        """``(n, D), (n, D) →`` scalar, for one level."""
        to_code = F.mse_loss(codeword, residual.detach())
        to_latent = F.mse_loss(residual, codeword.detach())
        return self.codebook_weight * to_code + self.commitment_weight * to_latent


LEARNINGS: dict[str, Callable[..., GradientLearning]] = {"gradient": GradientLearning}
