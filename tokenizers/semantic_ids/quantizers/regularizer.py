"""Optional losses on how codes are used and where codewords lie."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.quantizers.assignment import distance_logits
from semantic_ids.quantizers.schedule import HyperParameter, Scheduled


class Regularizer(nn.Module):
    """A loss of one level's points and codewords.

    Args:
        weight: of the loss, a number or a schedule.
    """

    def __init__(self, weight: Scheduled = 0.05) -> None:
        super().__init__()
        self.weight = HyperParameter("weight", weight, may_be_zero=True)

    def forward(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """``(n, D), (K, D)``, the assignment's logits ``(n, K)`` if it has any → weighted scalar."""
        return self.weight() * self.loss(points, codewords, logits)

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """The loss with weight 1."""
        raise NotImplementedError


def soft_assignment(points: Tensor, codewords: Tensor) -> Tensor:
    """Logits ``(n, K)``: minus the squared distances, in units of their mean smallest one.

    That unit makes one temperature fit all residual levels, whose scales differ.
    """
    scores = distance_logits(points, codewords)
    with torch.no_grad():
        gap = points.square().sum(dim=1) - scores.max(dim=1).values
        unit = gap.mean().clamp(min=1e-12)
    return scores / unit


class Usage(Regularizer):
    """``KL(p̄ ‖ uniform)`` of the batch's mean soft assignment (GRIT-VQ's protocol B; Reg-VQ).

    Hard frequencies have no gradient; latents are held fixed, so that codewords go to the latents.

    Args:
        weight: λ.
        temperature: of the soft assignment, in units of the mean squared gap.
    """

    def __init__(self, weight: Scheduled = 0.05, temperature: float = 1.0) -> None:
        super().__init__(weight)
        self.temperature = _positive(temperature)

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """In nats."""
        logits = soft_assignment(points.detach(), codewords) / self.temperature
        mean = logits.softmax(dim=1).mean(dim=0)
        return (mean * (mean.clamp(min=1e-12) * len(mean)).log()).sum()


class Posterior(Regularizer):
    """``KL(q(k|x) ‖ uniform)``, averaged over points: the prior term of Gumbel-softmax (DiVeQ eq. 6)."""

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """In nats."""
        log_q = (soft_assignment(points, codewords) if logits is None else logits).log_softmax(dim=1)
        return (log_q.exp() * log_q).sum(dim=1).mean() + math.log(log_q.shape[1])


class Entropy(Regularizer):
    """``E[H(q(k|x))] − γ H(E q)``: certain choices, all codes in use (LFQ, IBQ).

    Args:
        weight: of the loss.
        diversity: γ.
        temperature: that logits are divided by.
    """

    def __init__(self, weight: Scheduled = 0.05, diversity: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__(weight)
        self.diversity, self.temperature = diversity, _positive(temperature)

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """In nats."""
        logits = soft_assignment(points, codewords) if logits is None else logits
        log_q = (logits / self.temperature).log_softmax(dim=1)
        mean = log_q.exp().mean(dim=0)
        each = -(log_q.exp() * log_q).sum(dim=1).mean()
        together = -(mean * mean.clamp(min=1e-12).log()).sum()
        return each - self.diversity * together


class Orthogonality(Regularizer):
    """Mean squared cosine of different codewords: spreads their directions."""

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """In [0, 1]; 0 for a single codeword."""
        k = len(codewords)
        unit = F.normalize(codewords, dim=1)
        # ‖U Uᵀ‖² = ‖UᵀU‖², and the latter is D × D; the diagonal of the former holds k ones.
        return ((unit.T @ unit).square().sum() - k) / max(1, k * (k - 1))


class Repulsion(Regularizer):
    """Mean ``exp(−‖c − c'‖²/τ)`` over pairs of codewords: pushes apart those that lie together.

    Args:
        weight: of the loss.
        temperature: τ, in units of the codewords' mean squared distance.
    """

    def __init__(self, weight: Scheduled = 0.05, temperature: float = 0.1) -> None:
        super().__init__(weight)
        self.temperature = _positive(temperature)

    def loss(self, points: Tensor, codewords: Tensor, logits: Tensor | None) -> Tensor:
        """In [0, 1]; 0 for a single codeword."""
        if len(codewords) == 1:
            return codewords.new_zeros(())
        squared = F.pdist(codewords).square()
        return (-squared / (self.temperature * squared.detach().mean().clamp(min=1e-12))).exp().mean()


def _positive(temperature: float) -> float:
    if temperature <= 0:
        raise ValueError(f"a temperature must be above 0, not {temperature}")
    return temperature


REGULARIZERS: dict[str, type[Regularizer]] = {
    "usage": Usage,
    "posterior": Posterior,
    "entropy": Entropy,
    "orthogonality": Orthogonality,
    "repulsion": Repulsion,
}
