"""k-means on the device where the points are: seeds codebooks, and is a tokenizer's whole learning."""

from __future__ import annotations

import torch
from torch import Tensor

from semantic_ids.nearest import nearest


@torch.no_grad()
def kmeans(points: Tensor, k: int, *, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """Lloyd's algorithm from k-means++ seeds; an empty cluster takes the point worst served.

    With fewer distinct points than ``k`` the surplus centres repeat points, which is harmless:
    of equal codewords only the first is ever used.

    Args:
        points: ``(n, D)`` float, n ≥ 1.
        k: number of centres.
        generator: on the CPU; decides the seeds.
        iterations: at the most; stops when no point changes its centre.

    Returns:
        Centres ``(k, D)``.
    """
    centres = _plus_plus(points, k, generator)
    before = None
    for _ in range(iterations):
        owner = nearest(points, centres)
        if before is not None and torch.equal(owner, before):
            break
        before = owner
        centres, counts = cluster_means(points, owner, centres)
        empty = (counts == 0).nonzero().flatten()[: len(points)]
        if len(empty):
            error = (points - centres[owner]).square().sum(dim=1)
            centres[empty] = points[error.topk(len(empty)).indices]
    return centres


def cluster_means(points: Tensor, owner: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Centres ``(k, D)`` moved to the mean of the points ``(n, D)`` they own, and how many each has ``(k,)``.

    ``owner`` ``(n,)`` holds each point's centre; a centre without points stays.
    """
    counts = torch.bincount(owner, minlength=len(centres))
    # Unlike index_add_, this adds up in the same order each time on a GPU too.
    sums = torch.ops.aten.embedding_dense_backward(points, owner, len(centres), -1, False)
    return torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres), counts


def _plus_plus(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Seeds drawn one by one with probability ∝ squared distance to those before (Arthur 2007)."""
    first = int(torch.randint(len(points), (1,), generator=generator))
    chosen = [first]
    distance = (points - points[first]).square().sum(dim=1)
    draws = torch.rand(k - 1, generator=generator, dtype=torch.float64).tolist()
    for draw in draws:
        total = distance.cpu().double().cumsum(dim=0)
        index = int(torch.searchsorted(total, total[-1] * draw, right=True).clamp(max=len(points) - 1))
        chosen.append(index)
        distance = torch.minimum(distance, (points - points[index]).square().sum(dim=1))
    return points[torch.tensor(chosen, device=points.device)].clone()
