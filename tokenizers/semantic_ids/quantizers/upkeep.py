"""How codewords come alive and stay alive: where they start, and where dead ones go."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from semantic_ids.kmeans import kmeans
from semantic_ids.nearest import nearest

Initialization = Callable[[Tensor, int, Generator], Tensor]
"""Points ``(n, D)``, K → codewords ``(K, D)``."""


def _pick(points: Tensor, count: int, generator: Generator) -> Tensor:
    """``(count, D)``: different rows drawn evenly, then the same again where there are too few."""
    order = torch.randperm(len(points), generator=generator)
    return points[order.repeat(-(-count // len(order)))[:count].to(points.device)]


def _kmeans(points: Tensor, k: int, generator: Generator) -> Tensor:
    return kmeans(points, k, generator=generator)


def _normal(points: Tensor, k: int, generator: Generator) -> Tensor:
    return torch.randn(k, points.shape[1], generator=generator, dtype=points.dtype).to(points.device)


def _recent_means(points: Tensor, k: int, generator: Generator) -> Tensor:
    """Means of k runs of consecutive points (DiVeQ, appendix A.5): near the centre, hence near each other."""
    if len(points) < k:
        return _pick(points, k, generator)
    return torch.stack([run.mean(dim=0) for run in points.tensor_split(k)])


INITIALIZATIONS: dict[str, Initialization] = {
    "k-means": _kmeans,
    "latents": _pick,
    "recent-means": _recent_means,
    "normal": _normal,
}


Replacement = Callable[[Tensor, Tensor, Tensor, int, Generator], Tensor]
"""Points ``(n, D)``, codewords ``(K, D)``, usage ``(K,)``, how many → up to so many new codewords."""


def _latents(points: Tensor, codewords: Tensor, usage: Tensor, count: int, generator: Generator) -> Tensor:
    return _pick(points, min(count, len(points)), generator)


def _high_error(points: Tensor, codewords: Tensor, usage: Tensor, count: int, generator: Generator) -> Tensor:
    """The points that are served worst."""
    error = (points - codewords[nearest(points, codewords)]).square().sum(dim=1)
    return points[error.topk(min(count, len(points))).indices]


def _importance(points: Tensor, codewords: Tensor, usage: Tensor, count: int, generator: Generator) -> Tensor:
    """Used codewords drawn by how often they are used, shaken a little (DiVeQ, appendix B.1)."""
    return _shaken(points, codewords, usage.double().cpu(), count, generator)


def _used(points: Tensor, codewords: Tensor, usage: Tensor, count: int, generator: Generator) -> Tensor:
    """Used codewords drawn evenly, shaken a little (NSVQ)."""
    return _shaken(points, codewords, (usage > 0).double().cpu(), count, generator)


def _shaken(points: Tensor, codewords: Tensor, chances: Tensor, count: int, generator: Generator) -> Tensor:
    """A hundredth of the points' spread is enough to part two codewords, and keeps them in the cell."""
    # Inverse of the distribution function, which unlike multinomial takes any number of codewords.
    total = chances.cumsum(dim=0)
    draws = torch.rand(count, generator=generator, dtype=torch.float64) * total[-1]
    rows = torch.searchsorted(total, draws, right=True).clamp(max=len(total) - 1)
    noise = torch.randn(count, codewords.shape[1], generator=generator, dtype=codewords.dtype)
    return codewords[rows.to(codewords.device)] + 0.01 * points.std(correction=0) * noise.to(codewords.device)


REPLACEMENTS: dict[str, Replacement] = {
    "latents": _latents,
    "high-error": _high_error,
    "importance": _importance,
    "used": _used,
}
