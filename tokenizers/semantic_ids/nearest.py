"""Nearest codewords, exactly and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SCORES_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 1024
_GROUP, _WORTH_GROUPING = 8, 256


@torch.no_grad()
def nearest(points: Tensor, codewords: Tensor) -> Tensor:
    """The codeword next to each point in Euclidean distance; the lowest index where several are.

    ``‖x − c‖² = ‖x‖² − 2(x·c − ½‖c‖²)``, so the largest ``x·c − ½‖c‖²`` is the nearest: one matrix
    product, in float32 or better whatever autocast says, over blocks of at most a million scores.
    Both sides are first moved by the codewords' mean, because float32 loses the small distances
    of points that lie far from the origin.

    Args:
        points: ``(n, D)``.
        codewords: ``(K, D)``.

    Returns:
        ``(n,)`` int64.
    """
    with torch.autocast(points.device.type, enabled=False):
        dtype = torch.promote_types(points.dtype, torch.float32)
        codewords = codewords.to(dtype)
        centre = codewords.mean(dim=0)
        codewords = codewords - centre
        grouped = len(codewords) >= _WORTH_GROUPING and len(codewords) % _GROUP == 0
        if grouped:
            codewords = codewords.unflatten(0, (-1, _GROUP)).transpose(0, 1).flatten(0, 1)
        bias = codewords.square().sum(dim=1).mul_(-0.5)
        largest = _largest_grouped if grouped else _largest
        # A power of two, so that batches of one size fall into blocks of one size as well.
        rows = 1 << (max(1, _SCORES_AT_ONCE // len(codewords)).bit_length() - 1)
        found = [
            largest(torch.addmm(bias, part.to(dtype) - centre, codewords.T)) for part in points.split(rows)
        ]
    return torch.cat(found)


def _largest(scores: Tensor) -> Tensor:
    """``(n, K)`` → ``(n,)``: the column of each row's largest score, the first where several are."""
    return scores.max(dim=1).indices


def _largest_grouped(scores: Tensor) -> Tensor:
    """The same for columns dealt out in groups of 8: column ``w·K/8 + g`` is codeword ``8g + w``.

    A maximum without its place takes a sixth of the time, and then one group is left to search.
    """
    members = scores.unflatten(1, (_GROUP, -1))
    group = _largest(members.amax(dim=1))
    inside = members.gather(2, group[:, None, None].expand(-1, _GROUP, 1))[..., 0]
    return group * _GROUP + _largest(inside)


@torch.no_grad()
def squared_distances(points: Tensor, codewords: Tensor) -> Tensor:
    """``(n, D), (K, D)`` → ``(n, K)`` float64 on the CPU.

    As exact as can be: all that tells near duplicates apart is in the last digits.
    """
    points, codewords = points.cpu().double(), codewords.cpu().double()
    return torch.cdist(points, codewords, compute_mode="donot_use_mm_for_euclid_dist").square()


@torch.no_grad()
def in_equal_batches(function: Callable[[Tensor], Tensor], rows: Tensor, device: torch.device) -> Tensor:
    """``function`` over ``rows`` in batches of one fixed size, the last filled up; the result on the CPU.

    Matrix products round differently for different shapes, and a point half-way between two
    codewords then changes sides. With one shape only, an item's codes do not depend on its company.
    """
    results = []
    for part in rows.split(_ROWS_AT_ONCE):
        batch = part.new_zeros(_ROWS_AT_ONCE, *part.shape[1:])
        batch[: len(part)] = part
        results.append(function(batch.to(device))[: len(part)].cpu())
    return torch.cat(results)
