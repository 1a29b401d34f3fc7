"""Optional losses on the use of codes and on the positions of codewords."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.quantizers.assignment import distance_logits
from semantic_ids.quantizers.schedule import HyperParameter, Scheduled
from semantic_ids.ranges import check_numbers


class Regularizer(nn.Module):
    """A weighted loss that depends on one level's points and codewords.

    Args:
        weight: Weight of the loss, a number or a schedule.
    """

    def __init__(self, weight: Scheduled = 0.05) -> None:
        super().__init__()
        self.weight = HyperParameter("weight", weight, may_be_zero=True)

    def forward(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """Compute the weighted loss, a scalar.

        Args:
            points: ``(n, D)``.
            codewords: ``(K, D)``.
            logits: The assignment's logits ``(n, K)``, or None if it has none.
        """
        return self.weight() * self.loss(points, codewords, logits)

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """Return the loss before weighting, a scalar."""
        raise NotImplementedError


def soft_assignment(points: Tensor, codewords: Tensor) -> Tensor:
    """Return logits for a soft assignment: minus the squared distances, scaled.

    The unit is the mean squared distance from a point to its nearest codeword. So one temperature fits
    all residual levels, although their scales differ. The term ``‖x‖²`` of the distance is left out,
    because a softmax does not depend on it.

    Args:
        points: ``(n, D)``.
        codewords: ``(K, D)``.

    Returns:
        ``(n, K)``.
    """
    scores = distance_logits(points, codewords)
    with torch.no_grad():
        gap = points.square().sum(dim=1) - scores.max(dim=1).values
        unit = gap.mean().clamp(min=1e-12)
    return scores / unit


class Usage(Regularizer):
    """``KL(p̄ ‖ uniform)`` of the batch's mean soft assignment p̄ (GRIT-VQ's protocol B; Reg-VQ).

    The assignment is soft because hard frequencies have no gradient. The latents are held fixed, so
    codewords move to the latents.

    Args:
        weight: Weight λ of the loss, a number or a schedule.
        temperature: Temperature of the soft assignment, in units of the mean squared gap.

    Raises:
        ValueError: If the temperature is not positive.
    """

    def __init__(self, weight: Scheduled = 0.05, temperature: float = 1.0) -> None:
        super().__init__(weight)
        check_numbers(0, above=True, temperature=temperature)
        self.temperature = temperature

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """Return the divergence in nats."""
        logits = soft_assignment(points.detach(), codewords) / self.temperature
        mean = logits.softmax(dim=1).mean(dim=0)
        return (mean * (mean.clamp(min=1e-12) * len(mean)).log()).sum()


class Posterior(Regularizer):
    """``KL(q(k|x) ‖ uniform)``, averaged over points: the prior term of Gumbel-softmax (DiVeQ eq. 6)."""

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """Return the mean divergence in nats."""
        log_q = (soft_assignment(points, codewords) if logits is None else logits).log_softmax(dim=1)
        return (log_q.exp() * log_q).sum(dim=1).mean() + math.log(log_q.shape[1])


class Entropy(Regularizer):
    """``E[H(q(k|x))] − γ H(E q)``, which favours sure choices and the use of all codes (LFQ, IBQ).

    Args:
        weight: Weight of the loss, a number or a schedule.
        diversity: γ ≥ 0.
        temperature: Number by which the logits are divided.

    Raises:
        ValueError: If the diversity or the temperature is out of range.
    """

    def __init__(self, weight: Scheduled = 0.05, diversity: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__(weight)
        check_numbers(diversity=diversity)
        check_numbers(0, above=True, temperature=temperature)
        self.diversity, self.temperature = diversity, temperature

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """Return the difference of entropies in nats."""
        logits = soft_assignment(points, codewords) if logits is None else logits
        log_q = (logits / self.temperature).log_softmax(dim=1)
        mean = log_q.exp().mean(dim=0)
        mean_of_entropies = -(log_q.exp() * log_q).sum(dim=1).mean()
        entropy_of_mean = -(mean * mean.clamp(min=1e-12).log()).sum()
        return mean_of_entropies - self.diversity * entropy_of_mean


class Orthogonality(Regularizer):
    """The mean squared cosine of pairs of different codewords, which spreads their directions."""

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """Return the mean in [0, 1]; 0 for a single codeword."""
        k = len(codewords)
        unit = F.normalize(codewords, dim=1)
        # ‖U Uᵀ‖² = ‖UᵀU‖², and UᵀU is only D × D. The diagonal of U Uᵀ holds k ones.
        return ((unit.T @ unit).square().sum() - k) / max(1, k * (k - 1))


class Repulsion(Regularizer):
    """The mean of ``exp(−‖c − c'‖²/τ)`` over pairs of codewords, which pushes close codewords apart.

    Args:
        weight: Weight of the loss, a number or a schedule.
        temperature: τ, in units of the mean squared distance between codewords.

    Raises:
        ValueError: If the temperature is not positive.
    """

    def __init__(self, weight: Scheduled = 0.05, temperature: float = 0.1) -> None:
        super().__init__(weight)
        check_numbers(0, above=True, temperature=temperature)
        self.temperature = temperature

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """Return the mean in [0, 1]; 0 for a single codeword."""
        if len(codewords) == 1:
            return codewords.new_zeros(())
        squared = F.pdist(codewords).square()
        return (-squared / (self.temperature * squared.detach().mean().clamp(min=1e-12))).exp().mean()


REGULARIZERS: dict[str, type[Regularizer]] = {
    "usage": Usage,
    "posterior": Posterior,
    "entropy": Entropy,
    "orthogonality": Orthogonality,
    "repulsion": Repulsion,
}
"""Regularizers by the names that configurations use."""
