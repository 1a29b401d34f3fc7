"""The ten radius families of GRIT-VQ (arXiv 2602.01140, Appendix A, whose text has lost its formulas).

Each family takes the reading of :mod:`semantic_ids.quantizers.radius` under which 0 ≤ κ ≤ 1 at every
gap: then no gradient is turned round, and none enlarged unless the radius prefers directions. Where
Appendix A leaves a normalisation open it is the one whose steepest slope is 1. docs/radius.md compares
them.
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

_SMALLEST_WEIGHT = 1e-6


class Euclidean(Radial):
    """``ρ = δ``, κ = 1: the latent gets nothing along the gap. Both readings agree; it is DiVeQ-detach."""

    def rho(self, length: Tensor) -> Tensor:
        """``δ``."""
        return length

    def kappa(self, length: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(length)


class Power(Radial):
    """``ρ = δ^α``, read literally: κ = α at every scale, so deep residual levels are treated as the first.

    The other reading, αδ^{α−1}, is above 1 for small gaps and turns the gradient round below a gap
    of .0625 if α = ½. ``α = 1`` is the Euclidean radius, ``α → 0`` the straight-through estimator.
    Alone, κ < ½ does not draw latents towards their codewords: use a commitment loss.

    Args:
        dim: width of the gaps D.
        alpha: in (0, 1], a number or a schedule.
        learnable: learn it, as a sigmoid, from there.
    """

    def __init__(self, dim: int, alpha: Scheduled = 0.5, learnable: bool = False) -> None:
        super().__init__(dim)
        self.alpha = HyperParameter("alpha", alpha, learnable, at_most_one=True)

    def rho(self, length: Tensor) -> Tensor:
        """``δ^α``."""
        return length ** self.alpha()

    def kappa(self, length: Tensor) -> Tensor:
        """α."""
        return torch.ones_like(length) * self.alpha()


class Threshold(Radial):
    """Families whose behaviour changes at a gap of about τ.

    Args:
        dim: width of the gaps D.
        tau: τ > 0, in the unit of the latents, a number or a schedule.
        learnable: learn it, as a softplus, from there.
    """

    def __init__(self, dim: int, tau: Scheduled = 1.0, learnable: bool = False) -> None:
        super().__init__(dim)
        self.tau = HyperParameter("tau", tau, learnable)


class Clipped(Threshold):
    """``ρ = min(δ, τ)``: Euclidean below τ, straight-through above it. Both readings agree.

    Codewords further than τ from their latents get nothing from the reconstruction.
    """

    def rho(self, length: Tensor) -> Tensor:
        """``min(δ, τ)``."""
        return length.clamp(max=self.tau())

    def kappa(self, length: Tensor) -> Tensor:
        """1 below τ, else 0."""
        return (length < self.tau()).to(length)


class SoftClip(Threshold):
    """``ρ = τ tanh(δ/τ)``, read literally: κ = 2x/sinh 2x with x = δ/τ, from 1 down to 0."""

    def rho(self, length: Tensor) -> Tensor:
        """``τ tanh(δ/τ)``."""
        return self.tau() * torch.tanh(length / self.tau())

    def kappa(self, length: Tensor) -> Tensor:
        """``2x/sinh 2x``."""
        double = 2 * length / self.tau()
        return double / torch.sinh(double)


class Temperature(Threshold):
    """``ρ = τ log(1 + δ/τ)``, read literally: κ = x/((1 + x) log(1 + x)), from 1 slowly down to 0.

    The paper lets τ fall during training: ``{"start": 1.0, "end": 0.1, "shape": "exponential"}``.
    """

    def rho(self, length: Tensor) -> Tensor:
        """``τ log(1 + δ/τ)``."""
        return self.tau() * torch.log1p(length / self.tau())

    def kappa(self, length: Tensor) -> Tensor:
        """``x/((1 + x) log(1 + x))``."""
        x = length / self.tau()
        return x / ((1 + x) * torch.log1p(x))


class Huber(Threshold):
    """``ρ = δ²/2τ`` up to τ, ``δ − τ/2`` beyond; hybrid: κ = min(δ/τ, 1).

    Read literally κ would go to 2 for small gaps, where ρ is quadratic: a reflection.
    """

    hybrid = True

    def rho(self, length: Tensor) -> Tensor:
        """``δ²/2τ`` or ``δ − τ/2``."""
        inside = length.clamp(max=self.tau())
        return inside / self.tau() * (length - inside / 2)

    def kappa(self, length: Tensor) -> Tensor:
        """``min(δ/τ, 1)``."""
        return (length / self.tau()).clamp(max=1.0)


class PseudoHuber(Threshold):
    """``ρ = τ(√(1 + x²) − 1)``, x = δ/τ; hybrid, as :class:`Huber`: κ = x/√(1 + x²)."""

    hybrid = True

    def rho(self, length: Tensor) -> Tensor:
        """``τx²/(√(1 + x²) + 1)``, the same without a difference of nearly equal numbers."""
        x = length / self.tau()
        return length * (x / (self._root(x) + 1))

    def kappa(self, length: Tensor) -> Tensor:
        """``x/√(1 + x²)``."""
        x = length / self.tau()
        return x / self._root(x)

    @staticmethod
    def _root(x: Tensor) -> Tensor:
        return (1 + x.square()).sqrt()


class Lp(Radius):
    """``r = ‖d‖_p``, read literally: w_i = sgn(d_i)·(|d_i|/r)^{p−1}.

    ``v wᵀ`` is a projector (κ = wᵀv = 1), but an oblique one unless p = 2: ∂z_q/∂z has norms up to
    √D. For p = 1 all components pull alike, for p = ∞ the largest alone.

    Args:
        dim: width of the gaps D.
        p: in [1, ∞].
        smoothing: ε of ``√(d_i² + ε²)``, which takes the place of |d_i|, so that w does not jump
            where a component changes its sign; κ then is less than 1, for gaps below ε nearly 0.
    """

    def __init__(self, dim: int, p: float = 1.0, smoothing: float = 0.0) -> None:
        super().__init__(dim)
        if not p >= 1:
            raise ValueError(f"the lp radius needs p in [1, ∞], not {p}")
        if not 0 <= smoothing < math.inf:
            raise ValueError(f"the lp radius needs a smoothing of at least 0, not {smoothing}")
        self.p, self.smoothing = p, smoothing

    def formula(self, gap: Tensor) -> Tensor:
        """``‖d‖_p``."""
        sizes = self._sizes(gap)
        unit = sizes.detach().amax(dim=-1, keepdim=True)  # else powers under- and overflow
        return unit * torch.linalg.vector_norm(sizes / unit, ord=self.p, dim=-1, keepdim=True)

    def factors(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """``(d/r, ∇r)``."""
        r, sizes = self.formula(gap), self._sizes(gap)
        shares = sizes / r
        slopes = (gap / sizes).where(sizes > 0, 0.0)
        # The shares' powers add up to 1, but for p = ∞ to the number of largest components.
        w = shares ** (self.p - 1) * slopes / (shares**self.p).sum(dim=-1, keepdim=True)
        return gap / r, w

    def _sizes(self, gap: Tensor) -> Tensor:
        return torch.hypot(gap, gap.new_tensor(self.smoothing)) if self.smoothing else gap.abs()


class Ellipsoidal(Radius):
    """``r = √(dᵀPd)``, read literally: v = d/r, w = Pd/r; a subclass writes :meth:`weigh`.

    ``v wᵀ`` is a projector (κ = wᵀv = 1), oblique unless P is a multiple of I:
    ``‖∂z_q/∂z‖ ≤ (c + 1)/(2√c)`` with c the condition number of P, whose scale has no effect.
    """

    @abstractmethod
    def weigh(self, gap: Tensor) -> Tensor:
        """``Pd`` ``(n, D)``, with P symmetric and positive definite."""

    def formula(self, gap: Tensor) -> Tensor:
        """``√(dᵀPd)``."""
        return (gap * self.weigh(gap)).sum(dim=-1, keepdim=True).sqrt()

    def factors(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """``(d/r, Pd/r)``."""
        weighed = self.weigh(gap)
        r = (gap * weighed).sum(dim=-1, keepdim=True).sqrt()
        return gap / r, weighed / r


class Mahalanobis(Ellipsoidal):
    """``P = diag(p) + UUᵀ``, learned, with p the softplus of free parameters.

    It starts at P = I, the Euclidean radius, but for a small U: at U = 0 there is no gradient.

    Args:
        dim: width of the gaps D.
        rank: columns of U; 0 for a diagonal P.
    """

    def __init__(self, dim: int, rank: int = 0) -> None:
        super().__init__(dim)
        if not 0 <= rank <= dim:
            raise ValueError(f"the mahalanobis radius needs a rank from 0 to {dim}, not {rank}")
        self.free = nn.Parameter(torch.full((dim,), math.log(math.expm1(1.0))))
        self.u = nn.Parameter(0.1 * torch.randn(dim, rank) / dim**0.5) if rank else None

    def weigh(self, gap: Tensor) -> Tensor:
        """``p∘d + U(Uᵀd)``."""
        scaled = gap * F.softplus(self.free).clamp(min=_SMALLEST_WEIGHT)
        return scaled if self.u is None else scaled + (gap @ self.u) @ self.u.T


class AdaptiveMahalanobis(Ellipsoidal):
    """``P = Σ⁻¹`` with Σ the running average of ddᵀ plus a multiple of I; nothing of it is learned.

    Where the paper suggests a Σ for each codeword, this is one for all. The paper's εI is taken in
    proportion to the gaps, ε·tr(average)/D, so that it keeps its effect when gaps become small:
    cond P ≤ 1 + D/ε always. Before the first :meth:`observe` Σ = (1 + ε)I.

    Args:
        dim: width of the gaps D.
        decay: γ of the running average, in [0, 1).
        epsilon: ε > 0.
    """

    def __init__(self, dim: int, decay: float = 0.99, epsilon: float = 0.1) -> None:
        super().__init__(dim)
        if not 0 <= decay < 1:
            raise ValueError(f"the adaptive-mahalanobis radius needs a decay in [0, 1), not {decay}")
        if not 0 < epsilon < math.inf:
            raise ValueError(f"the adaptive-mahalanobis radius needs an epsilon above 0, not {epsilon}")
        self.decay, self.epsilon = decay, epsilon
        self.register_buffer("total", torch.zeros(dim, dim))
        self.register_buffer("weight", torch.zeros(()))

    def covariance(self) -> Tensor:
        """Σ ``(D, D)``."""
        identity = torch.eye(self.dim, dtype=self.total.dtype, device=self.total.device)
        # A total that starts at zero divided by its weights' sum: an average that owes nothing to its start.
        average = torch.where(self.weight > 0, self.total / self.weight, identity)
        return average + self.epsilon * average.diagonal().mean() * identity

    def weigh(self, gap: Tensor) -> Tensor:
        """``Σ⁻¹d``."""
        # Unlike cholesky, cholesky_ex does not wait for a GPU; Σ is positive definite anyway.
        return torch.cholesky_solve(gap.T, torch.linalg.cholesky_ex(self.covariance()).L).T

    @torch.no_grad()
    def observe(self, gap: Tensor) -> None:
        """Add the mean of ddᵀ over the gaps ``(n, D)`` of all ranks; gaps of zero do not count."""
        with torch.autocast(gap.device.type, enabled=False):
            gap, far = away_from_zero(gap)
            gap = gap.where(far, 0.0).to(self.total)
            count, squares = summed(far.sum()), summed(gap.T @ gap)
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
