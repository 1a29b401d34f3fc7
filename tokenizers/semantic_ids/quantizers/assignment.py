"""Assignments: which codeword a point gets, and what gradient that choice itself carries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.nearest import nearest
from semantic_ids.quantizers.schedule import HyperParameter, Scheduled

_STEEPEST = 8.0


@dataclass(frozen=True)
class Assigned:
    """One level's choice for n points.

    Attributes:
        codes: ``(n,)`` int64.
        ends: ``(point, weight)`` pairs, ``(n, D)`` and ``(n, 1)`` or 1.0, with gradient; the points
            are quantized to their weighted sum. One pair but for space-filling curves.
        logits: ``(n, K)`` with gradient, where the assignment is soft.
    """

    codes: Tensor
    ends: tuple[tuple[Tensor, Tensor | float], ...]
    logits: Tensor | None = None

    @property
    def point(self) -> Tensor:
        """``(n, D)``: what the points are quantized to."""
        (first, weight), *others = self.ends
        if not others:
            return first
        return sum((end * share for end, share in others), first * weight)


class Assignment(nn.Module):
    """How one level assigns points to its codewords; here to the nearest.

    Attributes:
        carries_gradient: the choice itself has a gradient for the points; else it takes a surrogate.
    """

    carries_gradient = False

    def codes(self, points: Tensor, codewords: Tensor) -> Tensor:
        """``(n, D), (K, D)`` → ``(n,)`` int64, for inference: nothing random, no gradient."""
        return nearest(points, codewords)

    def forward(self, points: Tensor, codewords: Tensor) -> Assigned:
        """The choice in training; gradients reach the chosen codewords."""
        codes = self.codes(points, codewords)
        # Indexing would do, but its gradient adds up in whichever order the threads come.
        return Assigned(codes, ((F.embedding(codes, codewords), 1.0),))

    def seed(self, points: Tensor, codewords: Tensor) -> None:
        """Fit to the scale of the level's points when codewords are placed; nothing by default."""


class SpaceFilling(Assignment):
    """SF-DiVeQ's curve (eq. 11): training quantizes to random points between neighbouring codewords.

    Each batch draws one point on every segment from codeword j to j + 1; the nearest of these K − 1
    is taken. Its two ends share the gradient, so that no codeword can go unused. At inference it
    is the nearest codeword, as an ID demands.
    """

    def forward(self, points: Tensor, codewords: Tensor) -> Assigned:
        """Codes are the nearer ends of the segments."""
        if len(codewords) == 1:
            return super().forward(points, codewords)
        along = torch.rand(len(codewords) - 1, 1, dtype=codewords.dtype, device=codewords.device)
        fixed = codewords.detach()
        segment = nearest(points, fixed[:-1].lerp(fixed[1:], along))
        share = along[segment]
        ends = F.embedding(segment, codewords), F.embedding(segment + 1, codewords)
        codes = segment + (share[:, 0] > 0.5)
        return Assigned(codes, ((ends[0], 1 - share), (ends[1], share)))


class Soft(Assignment):
    """A hard choice whose gradient is that of a softmax over all codes: ``onehot + soft − sg[soft]``.

    Args:
        logits: ``distance``: ``−λ‖x − c‖²``; ``inner-product``: ``x·c`` (IBQ, arXiv 2412.02692);
            ``hyperbolic``: λ times the multinomial logistic regression of Hyperbolic Neural
            Networks++ in the Poincaré ball, with codewords standing for hyperplanes as in HyperVQ
            (arXiv 2403.13015; there is no public code, so this is our reading of the text).
            λ is 1 for inner products. It is learned for the others, where it starts at 1 for hyperbolic
            logits, and for distances so that the mean squared gap counts as 10: there noise seldom takes
            a point far from its nearest codeword.
        noise: add Gumbel noise in training (Jang 2016).
        temperature: τ of the softmax, a number or a schedule.
    """

    carries_gradient = True

    def __init__(self, logits: str = "distance", noise: bool = False, temperature: Scheduled = 1.0) -> None:
        super().__init__()
        if logits not in _LOGITS:
            raise ValueError(f"logits are one of {', '.join(_LOGITS)}, not {logits!r}")
        self.kind, self.noise = logits, noise
        self.temperature = HyperParameter("temperature", temperature)
        self.log_scale = nn.Parameter(torch.zeros(()), requires_grad=logits != "inner-product")

    def logits(self, points: Tensor, codewords: Tensor) -> Tensor:
        """``(n, D), (K, D)`` → ``(n, K)``."""
        with torch.autocast(points.device.type, enabled=False):
            return self.log_scale.exp() * _LOGITS[self.kind](points, codewords)

    @torch.no_grad()
    def codes(self, points: Tensor, codewords: Tensor) -> Tensor:
        """The largest logit's code."""
        if self.kind == "distance":
            return nearest(points, codewords)
        return self.logits(points, codewords).max(dim=1).indices

    def forward(self, points: Tensor, codewords: Tensor) -> Assigned:
        """The largest logit's code, noise included."""
        logits = self.logits(points, codewords)
        drawn = logits - torch.empty_like(logits).exponential_().log() if self.noise else logits
        codes = drawn.max(dim=1).indices
        soft = (drawn / self.temperature()).softmax(dim=1) @ codewords.detach()
        return Assigned(codes, ((F.embedding(codes, codewords) + (soft - soft.detach()), 1.0),), logits)

    @torch.no_grad()
    def seed(self, points: Tensor, codewords: Tensor) -> None:
        """Set λ to ten over the mean squared gap."""
        if self.kind == "distance":
            gap = points - codewords[nearest(points, codewords)]
            self.log_scale.fill_((10 / gap.square().sum(dim=1).mean().clamp(min=1e-12)).log())


def distance_logits(points: Tensor, codewords: Tensor) -> Tensor:
    """``2x·c − ‖c‖²`` ``(n, K)``: minus the squared distance, but for ‖x‖², which no softmax sees."""
    return 2 * points @ codewords.T - codewords.square().sum(dim=1)


def _inner_product(points: Tensor, codewords: Tensor) -> Tensor:
    return points @ codewords.T


def _hyperbolic(points: Tensor, codewords: Tensor) -> Tensor:
    """HNN++'s logits (arXiv 2006.08210, eq. 5) at curvature −1, of tangent vectors.

    For ``x = exp₀(u)``, ρ = ‖u‖, and the hyperplane through ``exp₀(c)`` across c, r = ‖c‖:
    ``2 asinh(sinh 2ρ cos∠(u, c) cosh 2r − cosh 2ρ sinh 2r)``. Lengths are capped at 8, where float32
    still holds the products.
    """
    u, c = (points.norm(dim=1, keepdim=True), codewords.norm(dim=1))
    cosine = F.normalize(points, dim=1) @ F.normalize(codewords, dim=1).T
    u, c = 2 * u.clamp(max=_STEEPEST), 2 * c.clamp(max=_STEEPEST)
    return 2 * torch.asinh(u.sinh() * cosine * c.cosh() - u.cosh() * c.sinh())


_LOGITS = {"distance": distance_logits, "inner-product": _inner_product, "hyperbolic": _hyperbolic}
ASSIGNMENTS: dict[str, type[Assignment]] = {
    "nearest": Assignment,
    "space-filling": SpaceFilling,
    "soft": Soft,
}
