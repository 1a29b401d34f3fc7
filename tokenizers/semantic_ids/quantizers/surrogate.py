"""Surrogates: rules for the gradient of choosing a codeword, because the choice itself has none.

Each surrogate takes latents ``z`` and quantized latents ``q``, both ``(n, D)``. It returns ``z_q``, also
``(n, D)``, which is the decoder's input in training. The formulas below use ``d = q − z``, ``δ = ‖d‖``,
``s = d/δ`` and the gradient ``g`` of the loss for ``z_q``. ∂z and ∂q are the gradients for ``z`` and ``q``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import Choice, build
from semantic_ids.quantizers.radii import RADII
from semantic_ids.ranges import check_numbers

_ZERO_LENGTH = 1e-12


class Surrogate(nn.Module):
    """The base of all surrogates, modules that map ``(z, q)`` to ``z_q``.

    Args:
        dim: Width of the latents D.

    Attributes:
        teaches_codewords: True if ``q`` gets a gradient.
    """

    teaches_codewords = True

    def __init__(self, dim: int) -> None:
        super().__init__()


class Direct(Surrogate):
    """``z_q = q``, for assignments that have a gradient for the latents themselves."""

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Return ``q``; ∂q = g, and ∂z comes through ``q``."""
        return q


class StraightThrough(Surrogate):
    """VQ-VAE's estimator (van den Oord 2017): the latent gets the whole gradient, the codeword none.

    Example:
        >>> z, q = torch.tensor([[0.4]], requires_grad=True), torch.tensor([[1.0]])
        >>> z_q = StraightThrough(dim=1)(z, q)
        >>> z_q.backward(torch.tensor([[5.0]]))
        >>> z_q.tolist(), z.grad.tolist()
        ([[1.0]], [[5.0]])
    """

    teaches_codewords = False

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Return the value ``q``; ∂z = g, ∂q = 0."""
        return z + (q - z).detach()


class Rotation(Surrogate):
    """The rotation trick (Fifty 2025, arXiv 2410.06424): ``q`` as a fixed rotation and scaling of ``z``.

    The rotation is ``R = I − 2wwᵀ + 2q̄z̄ᵀ`` with ``z̄`` and ``q̄`` the normalised vectors and ``w`` the unit
    vector along ``z̄ + q̄``. The gain ``‖q‖/‖z‖`` explodes for latents near zero, and residuals are near zero.
    So apply this surrogate to the total of all levels. For latents shorter than 1e-12 it is the
    straight-through estimator.

    Example:
        ``q`` is ``z`` turned by a right angle and doubled, so the gradient is turned back and doubled:

        >>> z, q = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 2.0]])
        >>> z_q = Rotation(dim=2)(z, q)
        >>> z_q.backward(torch.tensor([[0.0, 3.0]]))
        >>> z_q.tolist(), z.grad.round().tolist()
        ([[0.0, 2.0]], [[6.0, 0.0]])
    """

    teaches_codewords = False

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Return the value ``q``; ∂z = (‖q‖/‖z‖) Rᵀ g, ∂q = 0."""
        with torch.no_grad():
            length = z.norm(dim=-1, keepdim=True)
            unit_z = F.normalize(z, dim=-1, eps=_ZERO_LENGTH)
            unit_q = F.normalize(q, dim=-1, eps=_ZERO_LENGTH)
            w = F.normalize(unit_z + unit_q, dim=-1, eps=_ZERO_LENGTH)
            gain = q.norm(dim=-1, keepdim=True) / length.clamp(min=_ZERO_LENGTH)
        rotated = z - 2 * w * (w * z).sum(-1, keepdim=True) + 2 * unit_q * (unit_z * z).sum(-1, keepdim=True)
        scaled = gain * rotated
        # This only removes rounding errors: the value in training must equal the decoded codes exactly.
        scaled = scaled + (q - scaled).detach()
        return torch.where(length > _ZERO_LENGTH, scaled, z + (q - z).detach())


class NoiseSubstitution(Surrogate):
    """NSVQ (Vali & Bäckström 2022): the quantization error is replaced by noise of the same length.

    In training the value is not ``q`` but a random point at the same distance from ``z``.
    """

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Return ``z + δ v̂`` with v ~ N(0, I); ∂z = g − s(v̂·g), ∂q = s(v̂·g)."""
        return z + (q - z).norm(dim=-1, keepdim=True) * F.normalize(torch.randn_like(z), dim=-1)


class DiVeQ(Surrogate):
    """Differentiable vector quantization with noise on the direction (eq. 8 of the DiVeQ paper).

    Args:
        dim: Width of the latents D.
        variance: Variance σ² of the noise in every feature, in the squared unit of the latents. 0 gives
            DiVeQ-detach, whose value is ``q``.

    Raises:
        ValueError: If the variance is negative.
    """

    def __init__(self, dim: int, variance: float = 1e-3) -> None:
        super().__init__(dim)
        check_numbers(variance=variance)
        self.deviation = variance**0.5

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Return ``z + δ·sg[v̂_d]`` with v_d = d + ε and v̂_d = v_d/‖v_d‖; ∂z = g − s(v̂_d·g), ∂q = s(v̂_d·g)."""
        gap = q - z
        direction = gap.detach()
        if self.deviation:
            direction = direction + self.deviation * torch.randn_like(direction)
        return z + gap.norm(dim=-1, keepdim=True) * F.normalize(direction, dim=-1, eps=_ZERO_LENGTH)


class GritRadius(Surrogate):
    """GRIT-VQ's radius surrogate: latent and codeword share the gradient along the gap.

    Args:
        dim: Width of the latents D.
        radius: A choice of :data:`~semantic_ids.quantizers.radii.RADII`.

    Example:
        With a power radius of α = ¼ the codeword gets a quarter of the gradient:

        >>> z, q = torch.tensor([[0.0]], requires_grad=True), torch.tensor([[2.0]], requires_grad=True)
        >>> z_q = GritRadius(dim=1, radius={"name": "power", "alpha": 0.25})(z, q)
        >>> z_q.backward(torch.tensor([[4.0]]))
        >>> z_q.tolist(), z.grad.tolist(), q.grad.tolist()
        ([[2.0]], [[3.0]], [[1.0]])
    """

    def __init__(self, dim: int, radius: Choice = "power") -> None:
        super().__init__(dim)
        self.radius = build("radius", RADII, radius, dim=dim)

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Return the value ``q``; ∂z = g − w(v·g) and ∂q = w(v·g) with the family's (v, w)."""
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
"""Surrogates by the names that configurations use."""
