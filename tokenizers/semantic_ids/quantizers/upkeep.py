"""Rules for the initial positions of codewords, and for the new positions of dead ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from semantic_ids.kmeans import kmeans
from semantic_ids.nearest import nearest
from semantic_ids.plugins import nearest_name
from semantic_ids.ranges import check_numbers, check_whole

Initialization = Callable[[Tensor, int, Generator], Tensor]
"""A function that returns the first codewords ``(K, D)``.

Its arguments are points ``(n, D)``, the number K and a generator on the CPU.
"""


def _random_rows(points: Tensor, count: int, generator: Generator) -> Tensor:
    """Draw ``count`` different rows evenly; if there are fewer rows, repeat them."""
    order = torch.randperm(len(points), generator=generator)
    return points[order.repeat(-(-count // len(order)))[:count].to(points.device)]


def _kmeans(points: Tensor, k: int, generator: Generator) -> Tensor:
    """Return k-means centres of the points."""
    return kmeans(points, k, generator=generator)


def _normal(points: Tensor, k: int, generator: Generator) -> Tensor:
    """Draw codewords from the standard normal distribution; the points give only width, dtype and device."""
    return torch.randn(k, points.shape[1], generator=generator, dtype=points.dtype).to(points.device)


def _recent_means(points: Tensor, k: int, generator: Generator) -> Tensor:
    """Return the means of k runs of consecutive points (DiVeQ, appendix A.5).

    The means are near the centre of all points, hence near each other. With fewer points than k, return
    random points.
    """
    if len(points) < k:
        return _random_rows(points, k, generator)
    return torch.stack([run.mean(dim=0) for run in points.tensor_split(k)])


INITIALIZATIONS: dict[str, Initialization] = {
    "k-means": _kmeans,
    "latents": _random_rows,
    "recent-means": _recent_means,
    "normal": _normal,
}
"""Initializations by the names that configurations use."""

Replacement = Callable[[Tensor, Tensor, Tensor, int, Generator], Tensor]
"""A function that returns new positions for dead codewords, at most ``count``.

Its arguments are points ``(n, D)``, codewords ``(K, D)``, usage ``(K,)`` int64 (0 for dead codes), the number
``count`` of dead codewords and a generator on the CPU.
"""


def _latents(points: Tensor, codewords: Tensor, usage: Tensor, count: int, generator: Generator) -> Tensor:
    """Draw different points evenly."""
    return _random_rows(points, min(count, len(points)), generator)


def _high_error(points: Tensor, codewords: Tensor, usage: Tensor, count: int, generator: Generator) -> Tensor:
    """Return the points with the largest distances to their nearest codewords."""
    error = (points - codewords[nearest(points, codewords)]).square().sum(dim=1)
    return points[error.topk(min(count, len(points))).indices]


def _importance(points: Tensor, codewords: Tensor, usage: Tensor, count: int, generator: Generator) -> Tensor:
    """Draw codewords with probability ∝ usage, and add a little noise (DiVeQ, appendix B.1)."""
    return _perturbed_codewords(points, codewords, usage.double().cpu(), count, generator)


def _used(points: Tensor, codewords: Tensor, usage: Tensor, count: int, generator: Generator) -> Tensor:
    """Draw used codewords evenly, and add a little noise (NSVQ)."""
    return _perturbed_codewords(points, codewords, (usage > 0).double().cpu(), count, generator)


def _perturbed_codewords(
    points: Tensor, codewords: Tensor, chances: Tensor, count: int, generator: Generator
) -> Tensor:
    """Draw codewords with probability ∝ ``chances`` ``(K,)``, and add noise.

    The noise has a hundredth of the points' standard deviation. That is enough to separate two equal
    codewords, and little enough to keep the copy within the region of its original.
    """
    # multinomial limits the number of codewords; inverting the distribution function does not.
    cumulative = chances.cumsum(dim=0)
    draws = torch.rand(count, generator=generator, dtype=torch.float64) * cumulative[-1]
    rows = torch.searchsorted(cumulative, draws, right=True).clamp(max=len(cumulative) - 1)
    noise = torch.randn(count, codewords.shape[1], generator=generator, dtype=codewords.dtype)
    return codewords[rows.to(codewords.device)] + 0.01 * points.std(correction=0) * noise.to(codewords.device)


REPLACEMENTS: dict[str, Replacement] = {
    "latents": _latents,
    "high-error": _high_error,
    "importance": _importance,
    "used": _used,
}
"""Replacements by the names that configurations use."""


@dataclass(frozen=True)
class Upkeep:
    """The choices that decide where codewords start, which ones are dead, and where dead ones go.

    Attributes:
        initialization: Where codewords start, a name of ``INITIALIZATIONS``.
        replacement: Where dead codes go, a name of ``REPLACEMENTS``.
        dead_below: A code is dead if its usage is below this share of the usage that it would have if all
            codes were used equally; in [0, 1). Unused codes are always dead.
        reservoir: Number of recent latents from which replacements are drawn; 0 to use the last batch.

    Raises:
        ValueError: If a name is unknown or a number is out of range.

    Example:
        >>> Upkeep(replacement="high-error").initialization
        'k-means'
    """

    initialization: str = "k-means"
    replacement: str = "latents"
    dead_below: float = 0.0
    reservoir: int = 0

    def __post_init__(self) -> None:
        for name, kind, known in (
            (self.initialization, "initialization", list(INITIALIZATIONS)),
            (self.replacement, "replacement", list(REPLACEMENTS)),
        ):
            if name not in known:
                raise ValueError(f"no {kind} is called {name!r}. {nearest_name(name, known)}")
        check_numbers(0, 1, below=True, dead_below=self.dead_below)
        check_whole(0, reservoir=self.reservoir)

    @property
    def initialize(self) -> Initialization:
        """The function that returns the first codewords."""
        return INITIALIZATIONS[self.initialization]

    @property
    def replace(self) -> Replacement:
        """The function that returns new positions for dead codewords."""
        return REPLACEMENTS[self.replacement]
