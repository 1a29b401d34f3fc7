"""The ten radius families of GRIT-VQ (arXiv 2602.01140, Appendix A).

The formulas are missing from the text of Appendix A. :mod:`semantic_ids.quantizers.radius` describes two
readings of the paper. Each family follows the reading under which 0 ≤ κ ≤ 1 at every gap. Then no gradient
is reversed, and no gradient is enlarged unless the radius prefers some directions. If Appendix A leaves a
normalisation open, the family has the one with a steepest slope of 1. docs/radius.md compares the families.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.quantizers.distributed import summed
from semantic_ids.quantizers.radius import Radial, Radius, away_from_zero
from semantic_ids.quantizers.schedule import HyperParameter, Scheduled
from semantic_ids.ranges import check_numbers, check_whole

_SMALLEST_WEIGHT = 1e-6


class Euclidean(Radial):
    """``ρ = δ`` with κ = 1: the latent gets no gradient along the gap.

    Both readings agree. This radius is DiVeQ-detach.
    """

    def rho(self, length: Tensor) -> Tensor:
        """Return ``δ``."""
        return length

    def kappa(self, length: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(length)


class Power(Radial):
    """``ρ = δ^α``, read literally: κ = α at every gap, so all residual levels are treated alike.

    In the hybrid reading κ = αδ^{α−1}. It is above 1 for small gaps; for α = ½ it reverses the gradient
    at gaps below .0625. ``α = 1`` is the Euclidean radius, and ``α → 0`` gives the straight-through
    estimator. With κ < ½ the radius alone does not draw latents towards their codewords: use a
    commitment loss.

    Args:
        dim: Width of the gaps D.
        alpha: α in (0, 1], a number or a schedule.
        learnable: True to learn α as a sigmoid, starting at ``alpha``.
    """

    def __init__(self, dim: int, alpha: Scheduled = 0.5, learnable: bool = False) -> None:
        super().__init__(dim)
        self.alpha = HyperParameter("alpha", alpha, learnable, at_most_one=True)

    def rho(self, length: Tensor) -> Tensor:
        """Return ``δ^α``."""
        return length ** self.alpha()

    def kappa(self, length: Tensor) -> Tensor:
        """Return α."""
        return torch.ones_like(length) * self.alpha()


class Threshold(Radial):
    """The base of families whose behaviour changes at a gap of about τ.

    Args:
        dim: Width of the gaps D.
        tau: τ > 0, in the unit of the latents, a number or a schedule.
        learnable: True to learn τ as a softplus, starting at ``tau``.
    """

    def __init__(self, dim: int, tau: Scheduled = 1.0, learnable: bool = False) -> None:
        super().__init__(dim)
        self.tau = HyperParameter("tau", tau, learnable)


class Clipped(Threshold):
    """``ρ = min(δ, τ)``: Euclidean below τ, straight-through above it. Both readings agree.

    Codewords farther than τ from their latents get no gradient from the reconstruction.
    """

    def rho(self, length: Tensor) -> Tensor:
        """Return ``min(δ, τ)``."""
        return length.clamp(max=self.tau())

    def kappa(self, length: Tensor) -> Tensor:
        """Return 1 below τ, else 0."""
        return (length < self.tau()).to(length)


class SoftClip(Threshold):
    """``ρ = τ tanh(δ/τ)``, read literally: κ = 2x/sinh 2x with x = δ/τ, which falls from 1 to 0."""

    def rho(self, length: Tensor) -> Tensor:
        """Return ``τ tanh(δ/τ)``."""
        return self.tau() * torch.tanh(length / self.tau())

    def kappa(self, length: Tensor) -> Tensor:
        """Return ``2x/sinh 2x``."""
        two_x = 2 * length / self.tau()
        return two_x / torch.sinh(two_x)


class Temperature(Threshold):
    """``ρ = τ log(1 + δ/τ)``, read literally: κ = x/((1 + x) log(1 + x)) with x = δ/τ.

    κ falls slowly from 1 to 0. The paper lets τ fall during training:
    ``{"start": 1.0, "end": 0.1, "shape": "exponential"}``.
    """

    def rho(self, length: Tensor) -> Tensor:
        """Return ``τ log(1 + δ/τ)``."""
        return self.tau() * torch.log1p(length / self.tau())

    def kappa(self, length: Tensor) -> Tensor:
        """Return ``x/((1 + x) log(1 + x))``."""
        x = length / self.tau()
        return x / ((1 + x) * torch.log1p(x))


class Huber(Threshold):
    """``ρ = δ²/2τ`` up to τ and ``δ − τ/2`` beyond, hybrid: κ = min(δ/τ, 1).

    In the literal reading κ would approach 2 for small gaps, where ρ is quadratic. That is a reflection.
    """

    hybrid = True

    def rho(self, length: Tensor) -> Tensor:
        """Return ``δ²/2τ`` up to τ, else ``δ − τ/2``."""
        inside = length.clamp(max=self.tau())
        return inside / self.tau() * (length - inside / 2)

    def kappa(self, length: Tensor) -> Tensor:
        """Return ``min(δ/τ, 1)``."""
        return (length / self.tau()).clamp(max=1.0)


class PseudoHuber(Threshold):
    """``ρ = τ(√(1 + x²) − 1)`` with x = δ/τ, hybrid like :class:`Huber`: κ = x/√(1 + x²)."""

    hybrid = True

    def rho(self, length: Tensor) -> Tensor:
        """Return ``τx²/(√(1 + x²) + 1)``, which equals ρ without a difference of nearly equal numbers."""
        x = length / self.tau()
        return length * (x / (self._root(x) + 1))

    def kappa(self, length: Tensor) -> Tensor:
        """Return ``x/√(1 + x²)``."""
        x = length / self.tau()
        return x / self._root(x)

    @staticmethod
    def _root(x: Tensor) -> Tensor:
        """Return ``√(1 + x²)``."""
        return (1 + x.square()).sqrt()


class Lp(Radius):
    """``r = ‖d‖_p``, read literally: w_i = sgn(d_i)·(|d_i|/r)^{p−1}.

    ``v wᵀ`` is a projector (κ = wᵀv = 1). It is oblique unless p = 2, so ∂z_q/∂z has norms up to √D.
    For p = 1 all components have the same weight in w; for p = ∞ only the largest counts.

    Args:
        dim: Width of the gaps D.
        p: p in [1, ∞].
        smoothing: ε ≥ 0 of ``√(d_i² + ε²)``, which replaces |d_i|. With ε > 0, w does not jump at a
            change of a component's sign, but κ is less than 1, and nearly 0 for gaps below ε.

    Raises:
        ValueError: If ``p`` or ``smoothing`` is out of range.
    """

    def __init__(self, dim: int, p: float = 1.0, smoothing: float = 0.0) -> None:
        super().__init__(dim)
        check_numbers(1, infinite=True, p=p)
        check_numbers(smoothing=smoothing)
        self.p, self.smoothing = p, smoothing

    def formula(self, gap: Tensor) -> Tensor:
        """Return ``‖d‖_p``."""
        magnitudes = self._magnitudes(gap)
        unit = magnitudes.detach().amax(dim=-1, keepdim=True)  # without it powers underflow or overflow
        return unit * torch.linalg.vector_norm(magnitudes / unit, ord=self.p, dim=-1, keepdim=True)

    def factors(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(d/r, ∇r)``."""
        r, magnitudes = self.formula(gap), self._magnitudes(gap)
        shares = magnitudes / r
        slopes = (gap / magnitudes).where(magnitudes > 0, 0.0)
        # The powers of the shares sum to 1; for p = ∞ they sum to the number of largest components.
        w = shares ** (self.p - 1) * slopes / (shares**self.p).sum(dim=-1, keepdim=True)
        return gap / r, w

    def _magnitudes(self, gap: Tensor) -> Tensor:
        """Return ``|d_i|``, or ``√(d_i² + ε²)`` with smoothing, ``(n, D)``."""
        return torch.hypot(gap, gap.new_tensor(self.smoothing)) if self.smoothing else gap.abs()


class Ellipsoidal(Radius):
    """``r = √(dᵀPd)``, read literally: v = d/r, w = Pd/r; a subclass implements :meth:`weigh`.

    ``v wᵀ`` is a projector (κ = wᵀv = 1). It is oblique unless P is a multiple of I:
    ``‖∂z_q/∂z‖ ≤ (c + 1)/(2√c)`` with c the condition number of P. The scale of P has no effect.
    """

    @abstractmethod
    def weigh(self, gap: Tensor) -> Tensor:
        """Return ``Pd`` ``(n, D)``, with P symmetric and positive definite."""

    def formula(self, gap: Tensor) -> Tensor:
        """Return ``√(dᵀPd)``."""
        return (gap * self.weigh(gap)).sum(dim=-1, keepdim=True).sqrt()

    def factors(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(d/r, Pd/r)``."""
        weighed = self.weigh(gap)
        r = (gap * weighed).sum(dim=-1, keepdim=True).sqrt()
        return gap / r, weighed / r


class Mahalanobis(Ellipsoidal):
    """A learned ``P = diag(p) + UUᵀ``, with p the softplus of free parameters.

    P starts close to I, the matrix of the Euclidean radius. U starts small but not at zero, because at
    U = 0 it has no gradient.

    Args:
        dim: Width of the gaps D.
        rank: Number of columns of U, from 0 to D; 0 for a diagonal P.

    Raises:
        ValueError: If the rank is out of range.
    """

    def __init__(self, dim: int, rank: int = 0) -> None:
        super().__init__(dim)
        check_whole(0, dim, rank=rank)
        self.free = nn.Parameter(torch.full((dim,), math.log(math.expm1(1.0))))
        self.u = nn.Parameter(0.1 * torch.randn(dim, rank) / dim**0.5) if rank else None

    def weigh(self, gap: Tensor) -> Tensor:
        """Return ``p∘d + U(Uᵀd)``."""
        scaled = gap * F.softplus(self.free).clamp(min=_SMALLEST_WEIGHT)
        return scaled if self.u is None else scaled + (gap @ self.u) @ self.u.T


class AdaptiveMahalanobis(Ellipsoidal):
    """``P = Σ⁻¹`` with Σ the running average of ddᵀ plus a multiple of I; no part of it is learned.

    The paper suggests one Σ for each codeword; here all codewords share one. The paper adds εI; here
    the multiple of I is ε·tr(average)/D. It shrinks with the gaps, so cond P ≤ 1 + D/ε always holds.
    Before the first :meth:`observe`, Σ = (1 + ε)I.

    Args:
        dim: Width of the gaps D.
        decay: γ of the running average, in [0, 1).
        epsilon: ε > 0.

    Raises:
        ValueError: If ``decay`` or ``epsilon`` is out of range.
    """

    def __init__(self, dim: int, decay: float = 0.99, epsilon: float = 0.1) -> None:
        super().__init__(dim)
        check_numbers(0, 1, below=True, decay=decay)
        check_numbers(0, above=True, epsilon=epsilon)
        self.decay, self.epsilon = decay, epsilon
        self.register_buffer("total", torch.zeros(dim, dim))
        self.register_buffer("weight", torch.zeros(()))

    def covariance(self) -> Tensor:
        """Return Σ ``(D, D)``."""
        identity = torch.eye(self.dim, dtype=self.total.dtype, device=self.total.device)
        # The total starts at zero and is divided by the sum of its weights, so the start has no influence.
        average = torch.where(self.weight > 0, self.total / self.weight, identity)
        return average + self.epsilon * average.diagonal().mean() * identity

    def weigh(self, gap: Tensor) -> Tensor:
        """Return ``Σ⁻¹d``."""
        # cholesky waits for the GPU to check Σ; cholesky_ex does not. Σ is always positive definite.
        return torch.cholesky_solve(gap.T, torch.linalg.cholesky_ex(self.covariance()).L).T

    @torch.no_grad()
    def observe(self, gap: Tensor) -> None:
        """Add the mean of ddᵀ over the gaps ``(n, D)`` of all ranks; gaps of zero do not count."""
        with torch.autocast(gap.device.type, enabled=False):
            gap, nonzero = away_from_zero(gap)
            gap = gap.where(nonzero, 0.0).to(self.total)
            count, squares = summed(nonzero.sum()), summed(gap.T @ gap)
        share = ((1 - self.decay) * (count > 0)).to(self.total)
        self.total.lerp_(squares / count.clamp(min=1), share)
        self.weight.lerp_(torch.ones_like(self.weight), share)


RADII: dict[str, type[Radius]] = {
    "euclidean": Euclidean,
    "clipped": Clipped,
    "power": Power,
    "huber": Huber,
    "mahalanobis": Mahalanobis,
    "soft-clip": SoftClip,
    "pseudo-huber": PseudoHuber,
    "lp": Lp,
    "temperature": Temperature,
    "adaptive-mahalanobis": AdaptiveMahalanobis,
}
"""Radius families by the names that configurations use."""
