"""The residual quantizer: one walk over L codebooks, each on what the ones before left over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import Choice, build
from semantic_ids.codebook import Codebook
from semantic_ids.kmeans import kmeans
from semantic_ids.learning import LEARNINGS
from semantic_ids.nearest import nearest
from semantic_ids.surrogate import SURROGATES


@torch.no_grad()
def walk(codebooks: Sequence[Tensor], z: Tensor) -> Tensor:
    """The residual walk: at each level the codeword nearest to what is left is taken away.

    Args:
        codebooks: for each level codewords ``(K_l, D)``.
        z: ``(n, D)``.

    Returns:
        Codes ``(n, L)`` int64.
    """
    codes = []
    for codewords in codebooks:
        codes.append(nearest(z, codewords))
        z = z - codewords[codes[-1]]
    return torch.stack(codes, dim=1)


@torch.no_grad()
def add_up(codebooks: Sequence[Tensor], codes: Tensor) -> Tensor:
    """The walk's mirror: codes ``(n, L)`` → the sum of their codewords ``(n, D)``."""
    return torch.stack([words[codes[:, level]] for level, words in enumerate(codebooks)]).sum(dim=0)


@dataclass(frozen=True)
class Quantized:
    """What a residual quantizer makes of latents.

    Attributes:
        codes: ``(n, L)`` int64.
        latents: ``(n, D)``, the sum of the chosen codewords, with the surrogate's gradient.
        loss: scalar, summed over levels.
    """

    codes: Tensor
    latents: Tensor
    loss: Tensor


class ResidualQuantizer(nn.Module):
    """L codebooks, coarse to fine: ``r_1 = z``, ``q_l = nn(r_l)``, ``r_{l+1} = r_l − q_l``.

    In training the surrogate acts once, on the total ``Σ q_l``: one surrogate a level would either
    multiply the encoder's gradient by L or starve the levels. Each level's losses see the residual
    with what earlier levels took away held fixed.

    Args:
        codebook_sizes: ``(K_1, …, K_L)``.
        dim: width of the latents D.
        surrogate: a choice of :data:`~semantic_ids.surrogate.SURROGATES`.
        transform: a choice of :data:`~semantic_ids.transform.TRANSFORMS`.
        learning: a choice of :data:`~semantic_ids.learning.LEARNINGS`.
        frozen: learn the transforms only, see :class:`~semantic_ids.codebook.Codebook`.
    """

    def __init__(
        self,
        codebook_sizes: tuple[int, ...],
        dim: int,
        *,
        surrogate: Choice = "straight-through",
        transform: Choice = "plain",
        learning: Choice = "gradient",
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.codebooks = nn.ModuleList(Codebook(size, dim, transform, frozen) for size in codebook_sizes)
        self.surrogate = build("surrogate", SURROGATES, surrogate)
        self.learning = build("learning", LEARNINGS, learning)
        for level, size in enumerate(codebook_sizes):
            self.register_buffer(f"usage_{level}", torch.zeros(size, dtype=torch.int64), persistent=False)

    def forward(self, z: Tensor) -> Quantized:
        """``(n, D)`` latents → codes, quantized latents and the loss; counts how often codes are used."""
        residual, total, loss, codes = z, torch.zeros_like(z), z.new_zeros(()), []
        for level, codebook in enumerate(self.codebooks):
            codewords = codebook.codewords()
            code = nearest(residual, codewords)
            # Indexing would do, but its gradient adds up in whichever order the threads come.
            chosen = F.embedding(code, codewords)
            loss = loss + self.learning.loss(residual, chosen)
            total = total + chosen
            residual = residual - chosen.detach()
            codes.append(code)
            if self.training:
                self.usage(level).add_(torch.bincount(code, minlength=codebook.size))
        return Quantized(torch.stack(codes, dim=1), self.surrogate(z, total), loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """``(n, D)`` latents → codes ``(n, L)`` int64."""
        return walk([codebook.codewords() for codebook in self.codebooks], z)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(n, L)`` → the sum of their codewords ``(n, D)``."""
        return add_up([codebook.codewords() for codebook in self.codebooks], codes)

    def usage(self, level: int) -> Tensor:
        """``(K_l,)`` int64: how often each code of a level was used in training since last cleared."""
        return self.get_buffer(f"usage_{level}")

    @torch.no_grad()
    def seed(self, z: Tensor, generator: torch.Generator) -> None:
        """Place all codewords at k-means centres of the latents ``z`` ``(n, D)`` and their residuals."""
        residual = z
        for codebook in self.codebooks:
            centres = kmeans(residual, codebook.size, generator=generator)
            codebook.place(torch.arange(codebook.size, device=z.device), centres)
            codewords = codebook.codewords()
            residual = residual - codewords[nearest(residual, codewords)]

    @torch.no_grad()
    def replace_dead_codes(self, z: Tensor, generator: torch.Generator) -> int:
        """Move codewords unused since the last call onto residuals of ``z`` ``(n, D)``; returns how many.

        Usage is cleared for all codes, so a code placed here has until the next call to be used.
        """
        replaced, residual = 0, z
        for level, codebook in enumerate(self.codebooks):
            dead = (self.usage(level) == 0).nonzero().flatten()
            if len(dead):
                pick = torch.randperm(len(z), generator=generator)[: len(dead)].to(z.device)
                codebook.place(dead[: len(pick)], residual[pick])
                replaced += len(pick)
            self.usage(level).zero_()
            codewords = codebook.codewords()
            residual = residual - codewords[nearest(residual, codewords)]
        return replaced
