"""Surrogates: how gradients pass the choice of a codeword, which has none.

Each takes latents ``z`` and what they are quantized to ``q``, both ``(n, D)``, and returns ``z_q``
``(n, D)`` that goes on to the decoder in training. Written with ``d = q − z``, ``δ = ‖d‖``, ``s = d/δ``
and ``g`` for the gradient that comes back.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import Choice, build
from semantic_ids.quantizers.radii import RADII

_ZERO = 1e-12


class Surrogate(nn.Module):
    """``(z, q) → z_q``.

    Args:
        dim: width of the latents D.

    Attributes:
        teaches_codewords: a gradient reaches ``q``.
    """

    teaches_codewords = True

    def __init__(self, dim: int) -> None:
        super().__init__()


class Direct(Surrogate):
    """``z_q = q``: for assignments that carry the gradient to the latent themselves."""

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """∂q = g, and what ``q`` has of ``z``."""
        return q


class StraightThrough(Surrogate):
    """VQ-VAE's estimator (van den Oord 2017): the latent gets the whole gradient, the codeword none."""

    teaches_codewords = False

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Value ``q``; ∂z = g, ∂q = 0."""
        return z + (q - z).detach()


class Rotation(Surrogate):
    """The rotation trick (Fifty 2025, arXiv 2410.06424): ``q`` as a fixed rotation and scaling of ``z``.

    ``R = I − 2wwᵀ + 2q̄z̄ᵀ`` with ``w`` along ``z̄ + q̄``. The gain ``‖q‖/‖z‖`` explodes where a latent is
    near zero, as residuals are; so it acts on the total of all levels, and below a length of 1e-12
    it is the straight-through estimator.
    """

    teaches_codewords = False

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Value ``q``; ∂z = (‖q‖/‖z‖) Rᵀ g, ∂q = 0."""
        with torch.no_grad():
            length = z.norm(dim=-1, keepdim=True)
            from_, to = F.normalize(z, dim=-1, eps=_ZERO), F.normalize(q, dim=-1, eps=_ZERO)
            mirror = F.normalize(from_ + to, dim=-1, eps=_ZERO)
            gain = q.norm(dim=-1, keepdim=True) / length.clamp(min=_ZERO)
        turned = (
            z - 2 * mirror * (mirror * z).sum(-1, keepdim=True) + 2 * to * (from_ * z).sum(-1, keepdim=True)
        )
        rotated = gain * turned
        # Rounding aside this adds nothing, but codes must decode to the very value seen in training.
        rotated = rotated + (q - rotated).detach()
        return torch.where(length > _ZERO, rotated, z + (q - z).detach())


class NoiseSubstitution(Surrogate):
    """NSVQ (Vali & Bäckström 2022): an error of the right length in a random direction.

    In training the value is not ``q`` but a random point as far from ``z``.
    """

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """``z + δ v̂`` with v ~ N(0, I); ∂z = g − s(v̂·g), ∂q = s(v̂·g)."""
        return z + (q - z).norm(dim=-1, keepdim=True) * F.normalize(torch.randn_like(z), dim=-1)


class DiVeQ(Surrogate):
    """Differentiable vector quantization by directional noise (eq. 8 of the DiVeQ paper).

    Args:
        dim: width of the latents D.
        variance: σ² of the noise, in units of the latents' own; 0 is DiVeQ-detach, with value ``q``.
    """

    def __init__(self, dim: int, variance: float = 1e-3) -> None:
        super().__init__(dim)
        if variance < 0:
            raise ValueError(f"DiVeQ needs a variance of at least 0, not {variance}")
        self.deviation = variance**0.5

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """``z + δ·sg[v_d/‖v_d‖]``, v_d = d + ε; ∂z = g − s(v̂_d·g), ∂q = s(v̂_d·g)."""
        gap = q - z
        direction = gap.detach()
        if self.deviation:
            direction = direction + self.deviation * torch.randn_like(direction)
        return z + gap.norm(dim=-1, keepdim=True) * F.normalize(direction, dim=-1, eps=_ZERO)


class GritRadius(Surrogate):
    """GRIT-VQ's radius surrogate: the gradient along the gap is shared between latent and codeword.

    Args:
        dim: width of the latents D.
        radius: a family of :data:`~semantic_ids.quantizers.radii.RADII`.
    """

    def __init__(self, dim: int, radius: Choice = "power") -> None:
        super().__init__(dim)
        self.radius = build("radius", RADII, radius, dim=dim)

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Value ``q``; ∂z = g − w(v·g), ∂q = w(v·g) with the family's (v, w)."""
        gap = q - z
        fixed = gap.detach()
        if self.training:
            self.radius.observe(fixed)
        v, w = self.radius.pull(fixed)
        along = (w * gap).sum(dim=-1, keepdim=True)
        shared = z + fixed + v * (along - along.detach())
        return shared + self.radius.phantom(fixed) if self.radius.learnable else shared


SURROGATES: dict[str, type[Surrogate]] = {
    "straight-through": StraightThrough,
    "rotation": Rotation,
    "nsvq": NoiseSubstitution,
    "diveq": DiVeQ,
    "grit": GritRadius,
    "direct": Direct,
}
