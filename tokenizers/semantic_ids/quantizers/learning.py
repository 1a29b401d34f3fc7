"""Rules by which codewords and latents approach each other, in addition to the surrogate's gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.quantizers.codebook import Codebook
from semantic_ids.quantizers.distributed import summed
from semantic_ids.ranges import check_numbers


class Learning(nn.Module):
    """A rule by which one level's codebook learns from its points; this one adds nothing (end-to-end).

    All losses are means over batch and features, like the reconstruction loss. If one were summed and
    the other averaged, their balance would shift by the width D; that has collapsed codebooks.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.

    Attributes:
        by_gradient: True if the optimizer moves the table of codewords.
    """

    by_gradient = True

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()

    def loss(self, points: Tensor, codewords: Tensor, chosen: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            points: ``(n, D)``.
            codewords: The quantized points ``(n, D)``, with a gradient for the codewords only.
            chosen: The same values, with the gradient of the choice too, if it has one.
        """
        return points.new_zeros(())

    def observe(self, points: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Record the points of a training step, without gradient.

        Args:
            points: Points of this rank ``(n, D)``.
            codes: Their codes ``(n,)``.
            counts: How often each code was chosen on all ranks, ``(K,)`` int64.
        """

    def settle(self, codebook: Codebook) -> None:
        """Move codewords by the recorded points, after the step's graph is no longer needed."""

    def forget(self, codebook: Codebook, rows: Tensor) -> None:
        """Discard what was recorded for codewords ``rows`` ``(r,)``, which were just placed elsewhere."""


class GradientLearning(Learning):
    """The two losses of VQ-VAE: codewords move to their latents, and latents commit to their codewords.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.
        codebook_weight: Weight of ``‖sg[x] − q‖²``.
        commitment_weight: Weight β of ``‖x − sg[q]‖²``.
        joint_weight: Weight of ``‖x − q‖²`` with all gradients, including that of the choice, as in
            IBQ's double loss.

    Raises:
        ValueError: If a weight is out of range.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        joint_weight: float = 0.0,
    ) -> None:
        super().__init__(size, dim)
        check_numbers(
            codebook_weight=codebook_weight, commitment_weight=commitment_weight, joint_weight=joint_weight
        )
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.joint_weight = joint_weight

    def loss(self, points: Tensor, codewords: Tensor, chosen: Tensor) -> Tensor:
        """Return the weighted sum of the three losses."""
        loss = points.new_zeros(())
        if self.codebook_weight:
            loss = loss + self.codebook_weight * F.mse_loss(codewords, points.detach())
        if self.commitment_weight:
            loss = loss + self.commitment_weight * F.mse_loss(points, codewords.detach())
        if self.joint_weight:
            loss = loss + self.joint_weight * F.mse_loss(points, chosen)
        return loss


class MovingAverage(Learning):
    """Codewords that follow the means of their points by exponential moving averages (EMA-VQ; DiVeQ eq. 3).

    Each step updates ``N ← γN + (1−γ)n`` and ``m ← γm + (1−γ)Σx``. The codewords used in the step become
    ``m/N``. The other codewords stay, because their N and m decay by the same factor. If there is a
    transform, :meth:`Codebook.place` moves the transformed codewords to ``m/N`` (GRIT-VQ's protocol B
    with EMA). Then the transform moves only codewords that are not in use.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.
        decay: γ, in [0, 1).
        commitment_weight: Weight β of ``‖x − sg[q]‖²``.

    Raises:
        ValueError: If the decay or the weight is out of range.
    """

    by_gradient = False
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, decay: float = 0.99, commitment_weight: float = 0.25) -> None:
        super().__init__(size, dim)
        check_numbers(0, 1, below=True, decay=decay)
        check_numbers(commitment_weight=commitment_weight)
        self.decay, self.commitment_weight = decay, commitment_weight
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", torch.zeros(size, dim))
        # Not a buffer: DistributedDataParallel would send rank 0's, which may have settled before the others.
        self.used = torch.zeros(size, dtype=torch.bool)

    def loss(self, points: Tensor, codewords: Tensor, chosen: Tensor) -> Tensor:
        """Return the commitment loss."""
        return self.commitment_weight * F.mse_loss(points, codewords.detach())

    @torch.no_grad()
    def observe(self, points: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Update the averages with the points of all ranks."""
        # Unlike index_add_, this sums in the same order every time, on a GPU too.
        sums = summed(torch.ops.aten.embedding_dense_backward(points, codes, len(counts), -1, False))
        self.counts.lerp_(counts.to(self.counts.dtype), 1 - self.decay)
        self.sums.lerp_(sums.to(self.sums.dtype), 1 - self.decay)
        self.used = self.used.to(counts.device) | (counts > 0)

    @torch.no_grad()
    def settle(self, codebook: Codebook) -> None:
        """Place the codewords that were in use at their averages."""
        rows = self.used.nonzero().flatten()
        if len(rows):
            codebook.place(rows, self.sums[rows] / self.counts[rows, None])
            self.used = torch.zeros_like(self.used)

    @torch.no_grad()
    def forget(self, codebook: Codebook, rows: Tensor) -> None:
        """Restart the averages at the new codewords, with the weight of one point."""
        self.counts[rows] = 1
        self.used[rows] = False
        self.sums[rows] = codebook.codewords()[rows]


LEARNINGS: dict[str, type[Learning]] = {
    "gradient": GradientLearning,
    "ema": MovingAverage,
    "end-to-end": Learning,
}
"""Learning rules by the names that configurations use."""
