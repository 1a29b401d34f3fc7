"""How codewords and latents learn to meet, beside what the surrogate lets through."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.quantizers.codebook import Codebook
from semantic_ids.quantizers.distributed import summed


class Learning(nn.Module):
    """What one level's codebook learns from its points; here nothing: end-to-end only.

    All losses are means over batch and features, as the reconstruction loss is: summing one and
    averaging the other shifts their balance by the width, and has collapsed codebooks.

    Args:
        size: number of codewords K.
        dim: their width D.

    Attributes:
        by_gradient: the table of codewords is the optimizer's to move.
    """

    by_gradient = True

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()

    def loss(self, points: Tensor, codewords: Tensor, chosen: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            points: ``(n, D)``.
            codewords: what they are quantized to ``(n, D)``, with gradient to the codewords alone.
            chosen: the same, with the gradient that the choice itself has, if any.
        """
        return points.new_zeros(())

    def observe(self, points: Tensor, codes: Tensor, counts: Tensor) -> None:
        """What a training step saw, without gradient.

        Args:
            points: this rank's, ``(n, D)``.
            codes: theirs, ``(n,)``.
            counts: how often each code came up on all ranks, ``(K,)`` int64.
        """

    def settle(self, codebook: Codebook) -> None:
        """Move codewords by what was observed, once no graph needs them any more."""

    def forget(self, codebook: Codebook, rows: Tensor) -> None:
        """Codewords ``rows`` ``(r,)`` were placed anew: what was known of them is void."""


class GradientLearning(Learning):
    """VQ-VAE's two losses: codewords go to their latents, latents commit to their codewords.

    Args:
        size: number of codewords K.
        dim: their width D.
        codebook_weight: of ``‖sg[x] − q‖²``.
        commitment_weight: of ``‖x − sg[q]‖²``, β.
        joint_weight: of ``‖x − q‖²`` with all gradients, the choice's too, as in IBQ's double loss.
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
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.joint_weight = joint_weight

    def loss(self, points: Tensor, codewords: Tensor, chosen: Tensor) -> Tensor:
        """The weighted sum."""
        loss = points.new_zeros(())
        if self.codebook_weight:
            loss = loss + self.codebook_weight * F.mse_loss(codewords, points.detach())
        if self.commitment_weight:
            loss = loss + self.commitment_weight * F.mse_loss(points, codewords.detach())
        if self.joint_weight:
            loss = loss + self.joint_weight * F.mse_loss(points, chosen)
        return loss


class MovingAverage(Learning):
    """Codewords follow the means of their points by exponential moving averages (EMA-VQ; DiVeQ eq. 3).

    ``N ← γN + (1−γ)n``, ``m ← γm + (1−γ)Σx``, and the codewords used in the step become ``m/N``. The
    others stay: their averages decay alike. Under a transform, :meth:`Codebook.place` puts the
    transformed codewords there (GRIT-VQ's protocol B with EMA), so that it is codewords out of use
    which the transform moves.

    Args:
        size: number of codewords K.
        dim: their width D.
        decay: γ.
        commitment_weight: of ``‖x − sg[q]‖²``, β.
    """

    by_gradient = False
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, decay: float = 0.99, commitment_weight: float = 0.25) -> None:
        super().__init__(size, dim)
        if not 0 <= decay < 1:
            raise ValueError(f"a moving average needs a decay in [0, 1), not {decay}")
        self.decay, self.commitment_weight = decay, commitment_weight
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", torch.zeros(size, dim))
        # Not a buffer: DistributedDataParallel would send rank 0's, which may have settled before the others.
        self.used = torch.zeros(size, dtype=torch.bool)

    def loss(self, points: Tensor, codewords: Tensor, chosen: Tensor) -> Tensor:
        """The commitment."""
        return self.commitment_weight * F.mse_loss(points, codewords.detach())

    @torch.no_grad()
    def observe(self, points: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Move the averages, those of all ranks together."""
        # Unlike index_add_, this adds up in the same order each time on a GPU too.
        sums = summed(torch.ops.aten.embedding_dense_backward(points, codes, len(counts), -1, False))
        self.counts.lerp_(counts.to(self.counts.dtype), 1 - self.decay)
        self.sums.lerp_(sums.to(self.sums.dtype), 1 - self.decay)
        self.used = self.used.to(counts.device) | (counts > 0)

    @torch.no_grad()
    def settle(self, codebook: Codebook) -> None:
        """Place the codewords in use at their averages."""
        rows = self.used.nonzero().flatten()
        if len(rows):
            codebook.place(rows, self.sums[rows] / self.counts[rows, None])
            self.used = torch.zeros_like(self.used)

    @torch.no_grad()
    def forget(self, codebook: Codebook, rows: Tensor) -> None:
        """Start anew from the codewords as placed, with the weight of one point."""
        self.counts[rows] = 1
        self.used[rows] = False
        self.sums[rows] = codebook.codewords()[rows]


LEARNINGS: dict[str, type[Learning]] = {
    "gradient": GradientLearning,
    "ema": MovingAverage,
    "end-to-end": Learning,
}
