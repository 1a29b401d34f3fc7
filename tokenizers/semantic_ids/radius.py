r"""Radius families: how strongly a gradient is taken from the latent and given to the codeword.

GRIT-VQ (arXiv 2602.01140, eq. 2) replaces the codeword by ``z_q = z + r(d)·sg[d / r(d)]`` with
``d = q − z``. For every r > 0 its value is ``q`` and its Jacobians are

    ∂z_q/∂z = I − v wᵀ        ∂z_q/∂q = v wᵀ        v = d / r(d),  w = ∇_d r(d).

A family therefore is nothing but the pair (v, w). For ``r = ρ(‖d‖)`` it is ``v wᵀ = κ s sᵀ`` with
``s = d/‖d‖`` and the elasticity ``κ = δρ'(δ)/ρ(δ)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

_ZERO_GAP = 1e-12


class Radius(Protocol):
    """A family of radii."""

    def pull(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """``(v, w)`` for gaps ``d``, each ``(n, D)``, without gradient; zero where the gap is."""
        ...


@dataclass(frozen=True)
class Power:
    """``ρ(δ) = δ^α``: κ = α at every scale, so deep residual levels are treated as the first.

    ``α = 1`` is DiVeQ-detach and the Euclidean radius, ``α → 0`` the straight-through estimator.
    Alone, κ < ½ does not draw latents towards their codewords: use a commitment loss.

    Attributes:
        alpha: in (0, 1].
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"the power radius needs alpha in (0, 1], not {self.alpha}")

    def pull(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """``(α s, s)``."""
        length = gap.norm(dim=-1, keepdim=True)
        unit = (gap / length.clamp(min=_ZERO_GAP)).where(length > _ZERO_GAP, 0.0)
        return self.alpha * unit, unit


RADII: dict[str, Callable[..., Radius]] = {"power": Power}
