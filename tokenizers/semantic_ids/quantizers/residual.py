"""The walk over L codebooks, coarse to fine, and its mirror."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from semantic_ids.nearest import nearest

WHOLE = slice(None)


@torch.no_grad()
def walk(
    codebooks: Sequence[Tensor],
    z: Tensor,
    blocks: Sequence[slice] | None = None,
    choose: Sequence[Callable[[Tensor, Tensor], Tensor]] | None = None,
) -> tuple[Tensor, Tensor]:
    """At each level the chosen codeword is taken away from what is left.

    With every block the whole width this is residual quantization; with blocks that do not overlap
    it is product quantization, where what is left of a block is what was there.

    Args:
        codebooks: for each level codewords ``(K_l, D_l)``.
        z: ``(n, D)``.
        blocks: for each level the D_l coordinates it sees; all of them if not given.
        choose: for each level points ``(n, D_l)`` and codewords → codes ``(n,)``; the nearest if not given.

    Returns:
        Codes ``(n, L)`` int64, and what is left ``(n, D)``.
    """
    levels = len(codebooks)
    left, codes = z.clone(), torch.empty(len(z), levels, dtype=torch.int64, device=z.device)
    blocks, choose = blocks or [WHOLE] * levels, choose or [nearest] * levels
    for level, (codewords, block, chosen) in enumerate(zip(codebooks, blocks, choose, strict=True)):
        codes[:, level] = chosen(left[:, block], codewords)
        left[:, block] -= codewords[codes[:, level]]
    return codes, left


@torch.no_grad()
def add_up(
    codebooks: Sequence[Tensor], codes: Tensor, blocks: Sequence[slice] | None = None, width: int = 0
) -> Tensor:
    """The walk's mirror: codes ``(n, L)`` → the sum ``(n, D)`` of their codewords in their blocks.

    D is ``width``, or the codewords' own where there are no blocks.
    """
    total = codebooks[0].new_zeros(len(codes), width if blocks else codebooks[0].shape[1])
    for level, block in enumerate(blocks or [WHOLE] * len(codebooks)):
        total[:, block] += codebooks[level][codes[:, level]]
    return total
