"""The table of tokenizers by name: each is a class and a few choices."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from semantic_ids.autoencoder import ResidualAutoencoder
from semantic_ids.fitted import DenseIds, RandomHyperplanes, ResidualKMeans
from semantic_ids.tokenizer import Tokenizer


@dataclass(frozen=True)
class Recipe:
    """A tokenizer by name.

    Attributes:
        tokenizer: the class.
        summary: one line.
        source: where it comes from.
        choices: constructor arguments that make the recipe.
    """

    tokenizer: type[Tokenizer]
    summary: str
    source: str
    choices: Mapping[str, Any] = field(default_factory=dict)

    def parameters(self) -> list[str]:
        """What may be chosen: the constructor's arguments."""
        return list(inspect.signature(self.tokenizer).parameters)


RECIPES: dict[str, Recipe] = {
    "grit-vq": Recipe(
        ResidualAutoencoder,
        "residual GRIT-VQ: radius surrogate (power, α = ½), C = (I + ABᵀ) E W",
        "arXiv 2602.01140, extended to residual quantization",
        {
            "surrogate": {"name": "grit", "radius": {"name": "power", "alpha": 0.5}},
            "transform": {"name": "low-rank", "rank": 64},
        },
    ),
    "rq-vae": Recipe(
        ResidualAutoencoder,
        "residual VQ-VAE: straight-through, codebook and commitment loss",
        "after TIGER, arXiv 2305.05065, §3.1",
    ),
    "rq-kmeans": Recipe(
        ResidualKMeans, "residual k-means on the embeddings themselves", "QARM, arXiv 2411.11739"
    ),
    "lsh": Recipe(
        RandomHyperplanes,
        "sides of random hyperplanes, cut at the medians",
        "after TIGER's LSH, arXiv 2305.05065",
    ),
    "dense-id": Recipe(
        DenseIds, "one code an item, no semantics: the atomic-ID baseline", "GRIT-VQ, appendix G.2"
    ),
}
