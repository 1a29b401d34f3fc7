"""Where a radius enlarges gradients or turns them round: the paper's claim beside what is implemented."""

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
    """The factor κ along the gap, of which the latent keeps 1 − κ, over a set of gaps.

    Attributes:
        range: smallest and largest κ.
        expansive: shortest and longest gap at which κ is outside [0, 1], so that 1 − κ is not
            within [0, 1] as GRIT-VQ asks; None if there is none.
        flipping: the same for κ ≥ 2, where the gradient is turned round and not shortened.
    """

    range: Interval
    expansive: Interval | None
    flipping: Interval | None


@dataclass(frozen=True)
class Stability:
    """A radius over a set of gaps.

    Attributes:
        claimed: with the paper's ``κ = sᵀ∇r``, which is ρ' for ``r = ρ(‖d‖)`` (Appendix B).
        implemented: with the ``κ = wᵀv`` of :meth:`Radius.pull <semantic_ids.quantizers.radius.Radius.pull>`.
        norm: largest spectral norm of ``∂z_q/∂z = I − v wᵀ``.
    """

    claimed: Factors
    implemented: Factors
    norm: float


def stability(radius: Radius, gaps: Tensor) -> Stability:
    """The factors of ``radius`` at ``gaps`` ``(n, D)``, none of them zero, in float64."""
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
    outside = (kappa < -_ROUNDING) | (kappa > 1 + _ROUNDING)
    return Factors(_interval(kappa), _spread(lengths[outside]), _spread(lengths[kappa >= 2 - _ROUNDING]))


def _interval(values: Tensor) -> Interval:
    return float(values.min()), float(values.max())


def _spread(values: Tensor) -> Interval | None:
    return _interval(values) if len(values) else None
