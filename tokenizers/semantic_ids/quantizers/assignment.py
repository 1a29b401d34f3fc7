"""Assignments: how one level chooses a codeword for each point, and the gradient of that choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.nearest import nearest
from semantic_ids.quantizers.schedule import HyperParameter, Scheduled

_LONGEST_TANGENT = 8.0


@dataclass(frozen=True)
class Assigned:
    """The codewords that one level chose for n points.

    Attributes:
        codes: Index of each point's codeword, ``(n,)`` int64.
        ends: Pairs of a vector ``(n, D)`` and its weight, ``(n, 1)`` or the number 1.0. Each point is
            quantized to the weighted sum of the vectors, which carry the gradient. There is one pair,
            except for :class:`SpaceFilling`, which has two.
        logits: ``(n, K)`` with gradient if the assignment is soft, else None.
    """

    codes: Tensor
    ends: tuple[tuple[Tensor, Tensor | float], ...]
    logits: Tensor | None = None

    @property
    def point(self) -> Tensor:
        """The quantized points ``(n, D)``."""
        (first, weight), *others = self.ends
        if not others:
            return first
        return sum((end * share for end, share in others), first * weight)


class Assignment(nn.Module):
    """A level's rule for choosing codewords; this one chooses the nearest.

    Attributes:
        carries_gradient: True if the choice itself has a gradient for the points. If False, a surrogate
            has to supply that gradient.
    """

    carries_gradient = False

    def codes(self, points: Tensor, codewords: Tensor) -> Tensor:
        """Return the codes for inference, without randomness and without gradient.

        Args:
            points: ``(n, D)``.
            codewords: ``(K, D)``.

        Returns:
            ``(n,)`` int64.
        """
        return nearest(points, codewords)

    def forward(self, points: Tensor, codewords: Tensor) -> Assigned:
        """Choose codewords in training; gradients reach the chosen codewords.

        Args:
            points: ``(n, D)``.
            codewords: ``(K, D)``.
        """
        codes = self.codes(points, codewords)
        # The gradient of plain indexing sums in an order that depends on the threads; embedding's does not.
        return Assigned(codes, ((F.embedding(codes, codewords), 1.0),))

    def seed(self, points: Tensor, codewords: Tensor) -> None:
        """Adapt to the scale of the level's points after codewords are placed; do nothing by default."""


class SpaceFilling(Assignment):
    """A space-filling curve through the codewords; points on it replace the codewords (DiVeQ, eq. 11).

    In training every batch draws one random point on each segment from codeword j to codeword j + 1.
    Each input is quantized to the nearest of these K − 1 points. Both ends of the segment share the
    gradient, so no codeword can go unused. At inference the nearest codeword is chosen, because an ID
    needs a code. Together with the surrogate ``diveq`` on every level it is SF-DiVeQ (eq. 12).
    """

    def forward(self, points: Tensor, codewords: Tensor) -> Assigned:
        """Choose a segment for each point; its code is the nearer end of the segment.

        Args:
            points: ``(n, D)``.
            codewords: ``(K, D)``.
        """
        if len(codewords) == 1:
            return super().forward(points, codewords)
        position = torch.rand(len(codewords) - 1, 1, dtype=codewords.dtype, device=codewords.device)
        fixed = codewords.detach()
        segment = nearest(points, fixed[:-1].lerp(fixed[1:], position))
        share = position[segment]
        ends = F.embedding(segment, codewords), F.embedding(segment + 1, codewords)
        codes = segment + (share[:, 0] > 0.5)
        return Assigned(codes, ((ends[0], 1 - share), (ends[1], share)))


class Soft(Assignment):
    """A hard choice with the gradient of a softmax over all codes: ``onehot + soft − sg[soft]``.

    λ is a scale on the logits. It is 1 for inner products and learned for the other two kinds.
    For hyperbolic logits it starts at 1. For distances :meth:`seed` sets it so that the mean squared gap
    has the logit −10; with that scale, noise seldom moves a point far from its nearest codeword.

    Args:
        logits: Kind of logits. ``distance``: ``−λ‖x − c‖²``. ``inner-product``: ``x·c`` (IBQ, arXiv
            2412.02692). ``hyperbolic``: λ times the multinomial logistic regression of Hyperbolic Neural
            Networks++ in the Poincaré ball, in which each codeword defines a hyperplane as in HyperVQ
            (arXiv 2403.13015). HyperVQ has no public code, so this is our reading of its text.
        noise: True to add Gumbel noise in training (Jang 2016).
        temperature: τ of the softmax, a number or a schedule.

    Raises:
        ValueError: If the kind of logits is unknown.
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
        """Return the logits without noise, ``(n, D), (K, D) → (n, K)``."""
        with torch.autocast(points.device.type, enabled=False):
            return self.log_scale.exp() * _LOGITS[self.kind](points, codewords)

    @torch.no_grad()
    def codes(self, points: Tensor, codewords: Tensor) -> Tensor:
        """Return the code with the largest logit for each point, ``(n,)`` int64."""
        if self.kind == "distance":
            return nearest(points, codewords)
        return self.logits(points, codewords).max(dim=1).indices

    def forward(self, points: Tensor, codewords: Tensor) -> Assigned:
        """Choose the code with the largest logit, after adding noise if ``noise`` is set.

        Args:
            points: ``(n, D)``.
            codewords: ``(K, D)``.
        """
        logits = self.logits(points, codewords)
        noisy = logits - torch.empty_like(logits).exponential_().log() if self.noise else logits
        codes = noisy.max(dim=1).indices
        soft = (noisy / self.temperature()).softmax(dim=1) @ codewords.detach()
        return Assigned(codes, ((F.embedding(codes, codewords) + (soft - soft.detach()), 1.0),), logits)

    @torch.no_grad()
    def seed(self, points: Tensor, codewords: Tensor) -> None:
        """Set λ of distance logits to ten divided by the mean squared gap."""
        if self.kind == "distance":
            gap = points - codewords[nearest(points, codewords)]
            self.log_scale.fill_((10 / gap.square().sum(dim=1).mean().clamp(min=1e-12)).log())


def distance_logits(points: Tensor, codewords: Tensor) -> Tensor:
    """Return ``2x·c − ‖c‖²`` for all pairs, ``(n, D), (K, D) → (n, K)``.

    This is minus the squared distance, without the term ``‖x‖²``. A softmax does not depend on that term.
    """
    return 2 * points @ codewords.T - codewords.square().sum(dim=1)


def _inner_product(points: Tensor, codewords: Tensor) -> Tensor:
    """Return ``x·c`` for all pairs, ``(n, K)``."""
    return points @ codewords.T


def _hyperbolic(points: Tensor, codewords: Tensor) -> Tensor:
    """Return the logits of HNN++ (arXiv 2006.08210, eq. 5) at curvature −1 for tangent vectors, ``(n, K)``.

    For ``x = exp₀(u)`` with ρ = ‖u‖, and the hyperplane through ``exp₀(c)`` orthogonal to c with r = ‖c‖:
    ``2 asinh(sinh 2ρ cos∠(u, c) cosh 2r − cosh 2ρ sinh 2r)``. Lengths are capped at 8, at which float32
    can still represent the products.
    """
    rho, r = points.norm(dim=1, keepdim=True), codewords.norm(dim=1)
    cosine = F.normalize(points, dim=1) @ F.normalize(codewords, dim=1).T
    two_rho, two_r = 2 * rho.clamp(max=_LONGEST_TANGENT), 2 * r.clamp(max=_LONGEST_TANGENT)
    return 2 * torch.asinh(two_rho.sinh() * cosine * two_r.cosh() - two_rho.cosh() * two_r.sinh())


_LOGITS = {"distance": distance_logits, "inner-product": _inner_product, "hyperbolic": _hyperbolic}
ASSIGNMENTS: dict[str, type[Assignment]] = {
    "nearest": Assignment,
    "space-filling": SpaceFilling,
    "soft": Soft,
}
"""Assignments by the names that configurations use."""
