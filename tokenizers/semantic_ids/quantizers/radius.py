"""What a radius is: a rule by which latent and codeword share a gradient along the gap between them.

GRIT-VQ (arXiv 2602.01140, eq. 2) replaces the codeword by ``z_q = z + r(d)·sg[d / r(d)]`` with
``d = q − z``. For every r > 0 its value is ``q`` and its Jacobians are

    ∂z_q/∂z = I − v wᵀ        ∂z_q/∂q = v wᵀ        v = d / r(d),  w = ∇_d r(d).

A radius therefore is nothing but the pair (v, w), up to a factor that may stand with either. For
``r = ρ(δ)``, ``δ = ‖d‖``, ``s = d/δ`` it is ``v wᵀ = κ s sᵀ``, in one of two readings of the paper:

    literal   κ = δρ'(δ)/ρ(δ), of eq. 2 as it is written;
    hybrid    κ = ρ'(δ), as the paper derives, of z + sg[d] + (ρ − sg ρ)·sg[s], whose value is q too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

_ZERO_GAP = 1e-12


def _length(gap: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gap, dim=-1, keepdim=True)


def away_from_zero(gap: Tensor) -> tuple[Tensor, Tensor]:
    """Gaps in float32 or better, all ones where there is none; and ``(n, 1)``, whether there is one."""
    gap = gap.to(torch.promote_types(gap.dtype, torch.float32))
    far = _length(gap) > _ZERO_GAP
    return gap.where(far, 1.0), far


class Radius(nn.Module, ABC):
    """A family of radii; a subclass writes :meth:`formula` and :meth:`factors`.

    All methods take gaps ``d`` ``(n, D)`` and compute in float32 or better. Where ``‖d‖ ≤ 1e-12``
    there is no direction to share a gradient along: everything is zero there.

    Args:
        dim: width of the gaps D.

    Attributes:
        hybrid: which of the two readings :meth:`factors` takes.
    """

    hybrid: ClassVar[bool] = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abstractmethod
    def formula(self, gap: Tensor) -> Tensor:
        """``r(d)`` ``(n, 1)``, positive, of gaps that are not zero, differentiable."""

    @abstractmethod
    def factors(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """``(v, w)``, each ``(n, D)``, of gaps that are not zero."""

    @property
    def learnable(self) -> bool:
        """Whether there are hyper-parameters to be learned, for which :meth:`phantom` is needed."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def forward(self, gap: Tensor) -> Tensor:
        """``r(d)`` ``(n, 1)``, differentiable in the gap and in learnable hyper-parameters."""
        with torch.autocast(gap.device.type, enabled=False):
            gap, far = away_from_zero(gap)
            return self.formula(gap).where(far, 0.0)

    @torch.no_grad()
    def pull(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """``(v, w)``, each ``(n, D)`` without gradient, of ``∂z_q/∂z = I − v wᵀ``, ``∂z_q/∂q = v wᵀ``."""
        with torch.autocast(gap.device.type, enabled=False):
            gap, far = away_from_zero(gap)
            v, w = self.factors(gap)
            return v.where(far, 0.0), w.where(far, 0.0)

    def phantom(self, gap: Tensor) -> Tensor:
        """Zero ``(n, D)``, with the gradient that ``z_q`` has for hyper-parameters ψ; none for the gap.

        The value of ``z_q`` does not depend on ψ, so this gradient, ``(d/r)·∂r/∂ψ`` for a literal
        family and ``s·∂ρ/∂ψ`` for a hybrid one, is that of no loss. It is how the paper learns
        them ("Practical remarks" of Appendix A); fixed hyper-parameters are the default.
        """
        with torch.autocast(gap.device.type, enabled=False):
            gap, far = away_from_zero(gap.detach())
            r = self.formula(gap)
            held = r.detach()
            direction = gap / (_length(gap) if self.hybrid else held)
            return (direction * (r - held)).where(far, 0.0)

    def observe(self, gap: Tensor) -> None:
        """Update running statistics with the gaps of a training step."""


class Radial(Radius):
    """``r = ρ(δ)``, δ = ‖d‖: v = κ s, w = s; a subclass writes :meth:`rho` and :meth:`kappa`.

    The share κ of the gradient along s goes to the codeword, 1 − κ stays with the latent.
    """

    @abstractmethod
    def rho(self, length: Tensor) -> Tensor:
        """``ρ(δ)`` of lengths ``(n, 1)`` above zero."""

    @abstractmethod
    def kappa(self, length: Tensor) -> Tensor:
        """κ ``(n, 1)`` of lengths ``(n, 1)`` above zero: ``δρ'/ρ``, or ``ρ'`` if hybrid."""

    def formula(self, gap: Tensor) -> Tensor:
        """``ρ(‖d‖)``."""
        return self.rho(_length(gap))

    def factors(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """``(κ s, s)``."""
        length = _length(gap)
        unit = gap / length
        return self.kappa(length) * unit, unit
