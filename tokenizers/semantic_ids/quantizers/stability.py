"""A report on the gaps at which a radius enlarges or reverses gradients, by claim and by code."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from semantic_ids.quantizers.radius import Radius

Interval = tuple[float, float]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Factors:
    """The factor κ along the gap, over a set of gaps; the latent keeps 1 − κ of the gradient.

    Attributes:
        range: Smallest and largest κ.
        expansive: Lengths of the shortest and the longest gap with κ outside [0, 1], None if there is no
            such gap. There 1 − κ is not within [0, 1], which GRIT-VQ requires.
        flipping: The same for κ ≥ 2, where the gradient is reversed and not shortened.
    """

    range: Interval
    expansive: Interval | None
    flipping: Interval | None


@dataclass(frozen=True)
class Stability:
    """The stability of a radius over a set of gaps, as the paper claims it and as the code has it.

    Attributes:
        claimed: Factors with the paper's ``κ = sᵀ∇r``, which is ρ' for ``r = ρ(‖d‖)`` (Appendix B).
        implemented: Factors with ``κ = wᵀv`` of :meth:`Radius.pull
            <semantic_ids.quantizers.radius.Radius.pull>`.
        norm: Largest spectral norm of ``∂z_q/∂z = I − v wᵀ``.
    """

    claimed: Factors
    implemented: Factors
    norm: float


def stability(radius: Radius, gaps: Tensor) -> Stability:
    """Measure the stability of a radius, in float64.

    Args:
        radius: The radius; it is copied and not changed.
        gaps: ``(n, D)``, none of them zero.

    Example:
        >>> from semantic_ids.quantizers.radii import Euclidean
        >>> stability(Euclidean(dim=1), torch.tensor([[0.5], [2.0]])).implemented
        Factors(range=(1.0, 1.0), expansive=None, flipping=None)
    """
    radius = copy.deepcopy(radius).double()
    gaps = gaps.detach().double().requires_grad_()
    lengths = gaps.detach().norm(dim=1)
    (slopes,) = torch.autograd.grad(radius(gaps).sum(), gaps)
    v, w = radius.pull(gaps)
    jacobians = torch.eye(gaps.shape[1]).to(v) - v[:, :, None] * w[:, None, :]
    return Stability(
        claimed=_factors((slopes * gaps.detach()).sum(dim=1) / lengths, lengths),
        implemented=_factors((v * w).sum(dim=1), lengths),
        norm=float(torch.linalg.matrix_norm(jacobians, ord=2).max()),
    )


def _factors(kappa: Tensor, lengths: Tensor) -> Factors:
    """Summarise κ ``(n,)`` of gaps with these lengths ``(n,)``."""
    outside = (kappa < -_ROUNDING) | (kappa > 1 + _ROUNDING)
    flipping = kappa >= 2 - _ROUNDING
    return Factors(
        _interval(kappa), _interval_or_none(lengths[outside]), _interval_or_none(lengths[flipping])
    )


def _interval(values: Tensor) -> Interval:
    """Return the smallest and the largest value."""
    return float(values.min()), float(values.max())


def _interval_or_none(values: Tensor) -> Interval | None:
    """Return the smallest and the largest value, or None if there are no values."""
    return _interval(values) if len(values) else None
