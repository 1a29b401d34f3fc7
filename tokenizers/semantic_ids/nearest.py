"""Search for the nearest codewords, exact and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SCORES_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 1024
_GROUP_SIZE, _MIN_GROUPED_CODEWORDS = 8, 256


@torch.no_grad()
def nearest(points: Tensor, codewords: Tensor) -> Tensor:
    """Return the index of each point's nearest codeword in Euclidean distance.

    If several codewords are equally near, the lowest index is returned.

    ``‖x − c‖² = ‖x‖² − 2(x·c − ½‖c‖²)``, so the codeword with the largest score ``x·c − ½‖c‖²`` is the
    nearest. The scores are a matrix product in float32 or better, even under autocast. It is computed in
    blocks of at most a million scores. The mean of the codewords is first subtracted from points and
    codewords, because float32 loses the small distances between vectors that are far from the origin.

    Args:
        points: ``(n, D)``.
        codewords: ``(K, D)``.

    Returns:
        ``(n,)`` int64.

    Example:
        >>> nearest(torch.tensor([[0.2], [0.9], [0.5]]), torch.tensor([[0.0], [1.0]])).tolist()
        [0, 1, 0]
    """
    with torch.autocast(points.device.type, enabled=False):
        dtype = torch.promote_types(points.dtype, torch.float32)
        codewords = codewords.to(dtype)
        centre = codewords.mean(dim=0)
        codewords = codewords - centre
        grouped = len(codewords) >= _MIN_GROUPED_CODEWORDS and len(codewords) % _GROUP_SIZE == 0
        if grouped:
            codewords = codewords.unflatten(0, (-1, _GROUP_SIZE)).transpose(0, 1).flatten(0, 1)
        bias = codewords.square().sum(dim=1).mul_(-0.5)
        largest = _largest_grouped if grouped else _largest
        # A power of two, so that batches of in_equal_batches are split into blocks of one size.
        rows = 1 << (max(1, _SCORES_AT_ONCE // len(codewords)).bit_length() - 1)
        codes = [
            largest(torch.addmm(bias, part.to(dtype) - centre, codewords.T)) for part in points.split(rows)
        ]
    return torch.cat(codes)


def _largest(scores: Tensor) -> Tensor:
    """Return the column of each row's largest score, the first of equal ones, ``(n, K)`` → ``(n,)``."""
    return scores.max(dim=1).indices


def _largest_grouped(scores: Tensor) -> Tensor:
    """Return the codeword of each row's largest score, if columns are ordered by groups of 8.

    Column ``w·K/8 + g`` holds codeword ``8g + w``. It takes a sixth of the time to find a maximum without
    its position. So the maximum of every group comes first, and then only one group has to be searched.
    """
    members = scores.unflatten(1, (_GROUP_SIZE, -1))
    group = _largest(members.amax(dim=1))
    inside = members.gather(2, group[:, None, None].expand(-1, _GROUP_SIZE, 1))[..., 0]
    return group * _GROUP_SIZE + _largest(inside)


@torch.no_grad()
def squared_distances(points: Tensor, codewords: Tensor) -> Tensor:
    """Return the squared distances of all pairs, ``(n, D), (K, D)`` → ``(n, K)`` float64 on the CPU.

    They are computed in float64 without a matrix product, because near duplicates differ only in the last
    digits.
    """
    points, codewords = points.cpu().double(), codewords.cpu().double()
    return torch.cdist(points, codewords, compute_mode="donot_use_mm_for_euclid_dist").square()


@torch.no_grad()
def in_equal_batches(function: Callable[[Tensor], Tensor], rows: Tensor, device: torch.device) -> Tensor:
    """Apply a function to rows in batches of one fixed size.

    Matrix products round differently for different shapes. Then a point half-way between two codewords
    could change its code. With a single shape an item's codes do not depend on the other items.

    Args:
        function: Function of a batch ``(1024, …)`` that returns one row for each row of the batch.
        rows: ``(n, …)``; the last batch is filled up with zeros.
        device: Device on which the function gets its batches.

    Returns:
        The results ``(n, …)``, on the CPU.

    Example:
        >>> rows = torch.arange(3.0)[:, None]
        >>> in_equal_batches(lambda batch: 2 * batch, rows, torch.device("cpu")).flatten().tolist()
        [0.0, 2.0, 4.0]
    """
    results = []
    for part in rows.split(_ROWS_AT_ONCE):
        batch = part.new_zeros(_ROWS_AT_ONCE, *part.shape[1:])
        batch[: len(part)] = part
        results.append(function(batch.to(device))[: len(part)].cpu())
    return torch.cat(results)
