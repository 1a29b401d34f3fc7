"""The radius: a rule by which latent and codeword share the gradient along the gap between them.

GRIT-VQ (arXiv 2602.01140, eq. 2) replaces the codeword by ``z_q = z + r(d)·sg[d / r(d)]`` with
``d = q − z``. For every r > 0 its value is ``q`` and its Jacobians are

    ∂z_q/∂z = I − v wᵀ        ∂z_q/∂q = v wᵀ        v = d / r(d),  w = ∇_d r(d).

So the pair (v, w) defines a radius, up to a factor that may belong to either of the two. For
``r = ρ(δ)``, ``δ = ‖d‖``, ``s = d/δ`` it is ``v wᵀ = κ s sᵀ``, in one of two readings of the paper:

    literal   κ = δρ'(δ)/ρ(δ): the gradient of eq. 2 as it is written;
    hybrid    κ = ρ'(δ): the gradient that the paper derives. It belongs to
              z + sg[d] + (ρ − sg ρ)·sg[s], which has the value q too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

_ZERO_GAP = 1e-12


def _length(gap: Tensor) -> Tensor:
    """Return ``‖d‖``, ``(n, D) → (n, 1)``."""
    return torch.linalg.vector_norm(gap, dim=-1, keepdim=True)


def away_from_zero(gap: Tensor) -> tuple[Tensor, Tensor]:
    """Replace gaps of zero length by ones, so that formulas may divide by the length.

    Args:
        gap: ``(n, D)``.

    Returns:
        The gaps ``(n, D)`` in float32 or better, all ones in rows with ``‖d‖ ≤ 1e-12``; and ``(n, 1)``
        bool, False in these rows.
    """
    gap = gap.to(torch.promote_types(gap.dtype, torch.float32))
    nonzero = _length(gap) > _ZERO_GAP
    return gap.where(nonzero, 1.0), nonzero


class Radius(nn.Module, ABC):
    """A family of radii; a subclass implements :meth:`formula` and :meth:`factors`.

    All methods take gaps ``d`` ``(n, D)`` and compute in float32 or better. If ``‖d‖ ≤ 1e-12``, there
    is no direction along which to share a gradient; there all results are zero.

    Args:
        dim: Width of the gaps D.

    Attributes:
        hybrid: True if :meth:`factors` follows the hybrid reading, False if it follows the literal one.
    """

    hybrid: ClassVar[bool] = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def formula(self, gap: Tensor) -> Tensor:
        """Return ``r(d)`` of gaps that are not zero: ``(n, 1)``, positive and differentiable."""

    @abstractmethod
    def factors(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(v, w)`` of gaps that are not zero, each ``(n, D)``."""

    @property
    def learnable(self) -> bool:
        """Whether the radius has learned hyper-parameters, whose gradient comes from :meth:`phantom`."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def forward(self, gap: Tensor) -> Tensor:
        """Compute ``r(d)`` ``(n, 1)``, differentiable in the gap and in learned hyper-parameters."""
        with torch.autocast(gap.device.type, enabled=False):
            gap, nonzero = away_from_zero(gap)
            return self.formula(gap).where(nonzero, 0.0)

    @torch.no_grad()
    def pull(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(v, w)`` of ``∂z_q/∂z = I − v wᵀ`` and ``∂z_q/∂q = v wᵀ``, without gradient.

        Args:
            gap: ``(n, D)``.

        Returns:
            v and w, each ``(n, D)``.

        Example:
            The codeword of a power radius gets the share α of the gradient along the gap:

            >>> from semantic_ids.quantizers.radii import Power
            >>> v, w = Power(dim=2, alpha=0.5).pull(torch.tensor([[3.0, 4.0]]))
            >>> round(float((v * w).sum()), 6)
            0.5
        """
        with torch.autocast(gap.device.type, enabled=False):
            gap, nonzero = away_from_zero(gap)
            v, w = self.factors(gap)
            return v.where(nonzero, 0.0), w.where(nonzero, 0.0)

    def phantom(self, gap: Tensor) -> Tensor:
        """Return zeros ``(n, D)`` that carry the gradient of ``z_q`` for learned hyper-parameters ψ.

        The gap gets no gradient. The gradient is ``(d/r)·∂r/∂ψ`` for a literal family and ``s·∂ρ/∂ψ`` for
        a hybrid one. The value of ``z_q`` does not depend on ψ, so this is not the gradient of any loss.
        The paper learns hyper-parameters this way ("Practical remarks" of Appendix A). By default they
        are fixed.
        """
        with torch.autocast(gap.device.type, enabled=False):
            gap, nonzero = away_from_zero(gap.detach())
            r = self.formula(gap)
            fixed_r = r.detach()
            direction = gap / (_length(gap) if self.hybrid else fixed_r)
            return (direction * (r - fixed_r)).where(nonzero, 0.0)

    def observe(self, gap: Tensor) -> None:
        """Update running statistics with the gaps of a training step; do nothing by default."""


class Radial(Radius):
    """A radius that depends on the length only, ``r = ρ(δ)`` with δ = ‖d‖: v = κ s, w = s.

    A subclass implements :meth:`rho` and :meth:`kappa`. The codeword gets the share κ of the gradient
    along s, and the latent keeps 1 − κ.
    """

    @abstractmethod
    def rho(self, length: Tensor) -> Tensor:
        """Return ``ρ(δ)`` of lengths ``(n, 1)`` above zero."""

    @abstractmethod
    def kappa(self, length: Tensor) -> Tensor:
        """Return κ ``(n, 1)`` of lengths ``(n, 1)`` above zero: ``δρ'/ρ``, or ``ρ'`` if hybrid."""

    def formula(self, gap: Tensor) -> Tensor:
        """Return ``ρ(‖d‖)``."""
        return self.rho(_length(gap))

    def factors(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(κ s, s)``."""
        length = _length(gap)
        unit = gap / length
        return self.kappa(length) * unit, unit
