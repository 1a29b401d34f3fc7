"""Surrogates: how gradients pass the choice of the nearest codeword, which has none.

Each takes latents ``z`` and their codewords ``q``, both ``(n, D)``, and returns ``z_q`` ``(n, D)``
that goes on to the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from semantic_ids.choices import Choice, build
from semantic_ids.radius import RADII


class Surrogate(Protocol):
    """``(z, q) → z_q`` with the value of ``q`` and gradients of its own."""

    def __call__(self, z: Tensor, q: Tensor) -> Tensor:
        """``(n, D), (n, D) → (n, D)``."""
        ...


class StraightThrough:
    """VQ-VAE's estimator (van den Oord 2017): the latent gets the whole gradient, the codeword none."""

    def __call__(self, z: Tensor, q: Tensor) -> Tensor:
        """Value ``q``; ∂z = g, ∂q = 0."""
        return z + (q - z).detach()


class GritRadius:
    """GRIT-VQ's radius surrogate: the gradient along the gap is shared between latent and codeword.

    Args:
        radius: a family of :data:`~semantic_ids.radius.RADII`.
    """

    def __init__(self, radius: Choice = "power") -> None:
        self.radius = build("radius", RADII, radius)

    def __call__(self, z: Tensor, q: Tensor) -> Tensor:
        """Value ``q``; ∂z = g − w(v·g), ∂q = w(v·g)."""
        gap = q - z
        v, w = self.radius.pull(gap.detach())
        along = (w * gap).sum(dim=-1, keepdim=True)
        return z + gap.detach() + v * (along - along.detach())


SURROGATES: dict[str, Callable[..., Surrogate]] = {"straight-through": StraightThrough, "grit": GritRadius}
