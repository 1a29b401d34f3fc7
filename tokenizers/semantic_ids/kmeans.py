"""K-means on the device of the points, to seed codebooks and to fit tokenizers."""

from __future__ import annotations

import torch
from torch import Tensor

from semantic_ids.nearest import nearest


@torch.no_grad()
def kmeans(points: Tensor, k: int, *, generator: torch.Generator, iterations: int = 20) -> Tensor:
    """Run Lloyd's algorithm from k-means++ seeds.

    An empty cluster is moved to the point with the largest error. If there are fewer distinct points than
    ``k``, the surplus centres are copies of points. That does no harm, because only the first of several
    equal codewords is ever used.

    Args:
        points: ``(n, D)`` float, n ≥ 1.
        k: Number of centres.
        generator: Random generator on the CPU, for the seeds.
        iterations: Largest number of iterations; the algorithm stops earlier if no point changes its centre.

    Returns:
        Centres ``(k, D)``.

    Example:
        >>> points = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
        >>> centres = kmeans(points, 2, generator=torch.Generator().manual_seed(0))
        >>> sorted(centres.flatten().tolist())
        [1.0, 11.0]
    """
    centres = _kmeans_plus_plus(points, k, generator)
    previous_owner = None
    for _ in range(iterations):
        owner = nearest(points, centres)
        if previous_owner is not None and torch.equal(owner, previous_owner):
            break
        previous_owner = owner
        centres, counts = cluster_means(points, owner, centres)
        empty = (counts == 0).nonzero().flatten()[: len(points)]
        if len(empty):
            error = (points - centres[owner]).square().sum(dim=1)
            centres[empty] = points[error.topk(len(empty)).indices]
    return centres


def cluster_means(points: Tensor, owner: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean of the points of every centre.

    Args:
        points: ``(n, D)``.
        owner: Index of each point's centre, ``(n,)`` int64.
        centres: ``(k, D)``; a centre without points keeps its position.

    Returns:
        The new centres ``(k, D)``, and the number of points of each ``(k,)`` int64.
    """
    counts = torch.bincount(owner, minlength=len(centres))
    # Unlike index_add_, this sums in the same order every time, on a GPU too.
    sums = torch.ops.aten.embedding_dense_backward(points, owner, len(centres), -1, False)
    return torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres), counts


def _kmeans_plus_plus(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw seeds one by one, with probability ∝ squared distance to the nearest seed (Arthur 2007)."""
    first = int(torch.randint(len(points), (1,), generator=generator))
    chosen = [first]
    distance = (points - points[first]).square().sum(dim=1)
    draws = torch.rand(k - 1, generator=generator, dtype=torch.float64).tolist()
    for draw in draws:
        cumulative = distance.cpu().double().cumsum(dim=0)
        threshold = cumulative[-1] * draw
        index = int(torch.searchsorted(cumulative, threshold, right=True).clamp(max=len(points) - 1))
        chosen.append(index)
        distance = torch.minimum(distance, (points - points[index]).square().sum(dim=1))
    return points[torch.tensor(chosen, device=points.device)].clone()
