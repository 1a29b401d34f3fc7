"""Residual encoding over L codebooks, coarse to fine, and the decoding that reverses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from semantic_ids.nearest import nearest

WHOLE = slice(None)
"""The block of a level that sees all features."""


@torch.no_grad()
def residual_encode(
    codebooks: Sequence[Tensor],
    z: Tensor,
    blocks: Sequence[slice] | None = None,
    choose: Sequence[Callable[[Tensor, Tensor], Tensor]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose a codeword at each level and subtract it from the residual.

    If every block is the whole width, this is residual quantization. If the blocks do not overlap, it
    is product quantization: no earlier level has changed the residual inside a level's block.

    Args:
        codebooks: Codewords ``(K_l, D_l)`` of each level.
        z: Vectors to encode ``(n, D)``.
        blocks: The D_l features that each level sees; all features by default.
        choose: For each level a function of points ``(n, D_l)`` and codewords that returns codes
            ``(n,)``; :func:`~semantic_ids.nearest.nearest` by default.

    Returns:
        Codes ``(n, L)`` int64, and the residual ``(n, D)`` after the last level.

    Example:
        >>> coarse, fine = torch.tensor([[0.0], [10.0]]), torch.tensor([[-1.0], [1.0]])
        >>> codes, residual = residual_encode([coarse, fine], torch.tensor([[11.5]]))
        >>> codes.tolist(), residual.tolist()
        ([[1, 1]], [[0.5]])
    """
    levels = len(codebooks)
    residual, codes = z.clone(), torch.empty(len(z), levels, dtype=torch.int64, device=z.device)
    blocks, choose = blocks or [WHOLE] * levels, choose or [nearest] * levels
    for level, (codewords, block, choose_codes) in enumerate(zip(codebooks, blocks, choose, strict=True)):
        codes[:, level] = choose_codes(residual[:, block], codewords)
        residual[:, block] -= codewords[codes[:, level]]
    return codes, residual


@torch.no_grad()
def residual_decode(
    codebooks: Sequence[Tensor], codes: Tensor, blocks: Sequence[slice] | None = None, width: int = 0
) -> Tensor:
    """Add up the codewords of all levels, each in its block: the reverse of :func:`residual_encode`.

    Args:
        codebooks: Codewords ``(K_l, D_l)`` of each level.
        codes: ``(n, L)`` int64.
        blocks: The D_l features that each level fills; all features by default.
        width: D, which is needed with ``blocks`` only. Without blocks D is the width of the codewords.

    Returns:
        ``(n, D)``.

    Example:
        >>> coarse, fine = torch.tensor([[0.0], [10.0]]), torch.tensor([[-1.0], [1.0]])
        >>> residual_decode([coarse, fine], torch.tensor([[1, 1]])).tolist()
        [[11.0]]
    """
    total = codebooks[0].new_zeros(len(codes), width if blocks else codebooks[0].shape[1])
    for level, block in enumerate(blocks or [WHOLE] * len(codebooks)):
        total[:, block] += codebooks[level][codes[:, level]]
    return total


def equal_blocks(dim: int, levels: int) -> list[slice]:
    """Split ``dim`` features into consecutive blocks of nearly the same width, one for each level.

    Raises:
        ValueError: If there are more levels than features.

    Example:
        >>> equal_blocks(5, 2)
        [slice(0, 2, None), slice(2, 5, None)]
    """
    if dim < levels:
        raise ValueError(f"{levels} levels cannot share {dim} coordinates; give the quantizer a larger dim")
    ends = [dim * level // levels for level in range(levels + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]
