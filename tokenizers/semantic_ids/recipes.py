"""The table of built-in tokenizers: each name has a class and constructor arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from semantic_ids.autoencoder import Autoencoder
from semantic_ids.fitted import DenseIds, RandomHyperplanes, RandomIds, ResidualKMeans
from semantic_ids.product import ProductKMeans
from semantic_ids.tokenizer import Tokenizer


@dataclass(frozen=True)
class Recipe:
    """A tokenizer class with the constructor arguments of a named method.

    Attributes:
        tokenizer: The class of the tokenizer.
        summary: One line that describes the method.
        source: The paper that the method comes from.
        choices: Constructor arguments of the method; all others keep their defaults.
    """

    tokenizer: type[Tokenizer]
    summary: str
    source: str
    choices: Mapping[str, Any] = field(default_factory=dict)

    def parameters(self) -> list[str]:
        """Return the names of the constructor's arguments."""
        return list(inspect.signature(self.tokenizer).parameters)


def _vector(summary: str, source: str, **choices: Any) -> Recipe:
    """Return the recipe of an autoencoder with a vector quantizer of these choices."""
    return Recipe(Autoencoder, summary, source, {"quantizer": {"name": "vector", **choices}})


def _grit(summary: str, source: str, **choices: Any) -> Recipe:
    """Return the recipe of an autoencoder with GRIT-VQ's power radius and, by default, low-rank transform."""
    radius = {"name": "power", "alpha": 0.5}
    transform = {"name": "low-rank", "rank": 64}
    grit = {"surrogate": {"name": "grit", "radius": radius}, "transform": transform}
    return _vector(summary, source, **{**grit, **choices})


_GUMBEL = {"start": 1.0, "end": 0.1, "shape": "exponential"}

# The README prints names, summaries and sources of this table: run `make readme` after a change.
RECIPES: dict[str, Recipe] = {
    "grit-vq": _grit(
        "residual GRIT-VQ: radius surrogate (power, α = ½), C = (I + ABᵀ) E W, all learned (protocol B)",
        "arXiv 2602.01140, extended to residual quantization",
    ),
    "grit-vq-frozen": _grit(
        "residual GRIT-VQ with E kept as seeded, except for dead codes; A, B and W are learned (protocol A)",
        "arXiv 2602.01140, D.1",
        codebook={"frozen": True},
    ),
    "grit-vq-ema": _grit(
        "residual GRIT-VQ whose codewords in use are moving averages of their latents (protocol B by EMA)",
        "arXiv 2602.01140, D.2",
        learning="ema",
    ),
    "grit-vq-attention": _grit(
        "residual GRIT-VQ with gated attention over codewords for its transform",
        "arXiv 2602.01140, §4.3",
        transform="attention",
    ),
    "grit-vq-literal": _grit(
        "GRIT-VQ as its paper has it: M = ABᵀ, rows normalised (with a gain), W clipped, E frozen",
        "arXiv 2602.01140, D.1",
        transform={"name": "low-rank", "rank": 64, "identity": False},
        codebook={"normalize": True, "spectral_clip": 2.0, "frozen": True},
    ),
    "rq-vae": _vector(
        "residual VQ-VAE: straight-through, codebook and commitment loss",
        "after TIGER, arXiv 2305.05065, §3.1",
    ),
    "rq-ema": _vector(
        "residual VQ-VAE whose codewords are moving averages (EMA-VQ)",
        "arXiv 1711.00937, A.1",
        learning="ema",
    ),
    "rotation": _vector(
        "residual VQ-VAE with the rotation trick, once on the total",
        "arXiv 2410.06424",
        surrogate="rotation",
    ),
    "st-gumbel": _vector(
        "straight-through Gumbel-softmax over distances, τ 1 → 0.1",
        "arXiv 1611.01144",
        assignment={"name": "soft", "noise": True, "temperature": _GUMBEL},
        surrogate="direct",
        learning="end-to-end",
        regularizers=[{"name": "posterior", "weight": 5e-4}],
    ),
    "nsvq": _vector(
        "noise substitution: an error of the right length in a random direction",
        "Vali & Bäckström 2022",
        surrogate="nsvq",
        learning="end-to-end",
        upkeep={"replacement": "used", "dead_below": 0.01},
    ),
    "diveq": _vector(
        "directional noise, σ² = 10⁻³, no auxiliary loss",
        "DiVeQ, eq. 8",
        surrogate={"name": "diveq", "variance": 1e-3},
        learning="end-to-end",
        upkeep={"replacement": "importance", "dead_below": 0.01},
    ),
    "diveq-detach": _vector(
        "DiVeQ without noise: the Euclidean radius of GRIT-VQ",
        "DiVeQ, B.2",
        surrogate={"name": "diveq", "variance": 0.0},
        learning="end-to-end",
        upkeep={"replacement": "importance", "dead_below": 0.01},
    ),
    "sf-diveq": Recipe(
        Autoencoder,
        "space-filling DiVeQ: trained on the segments between codewords, hard codes at inference",
        "DiVeQ, eq. 12",
        {
            "quantizer": {
                "name": "vector",
                "assignment": "space-filling",
                "surrogate": {"name": "diveq", "variance": 1e-3},
                "per_level": True,
                "learning": "end-to-end",
                "upkeep": {"initialization": "recent-means"},
            },
            "reset_every": 0,
        },
    ),
    "simvq": _vector(
        "a frozen table, but for dead codes, seen through one learned linear map, seeded by k-means",
        "arXiv 2411.02038",
        transform="linear",
        codebook={"frozen": True},
    ),
    "ibq": _vector(
        "index backpropagation: softmax gradient to all codes, inner products with codewords of one length",
        "arXiv 2412.02692",
        assignment={"name": "soft", "logits": "inner-product"},
        surrogate="direct",
        codebook={"normalize": True},
        learning={"name": "gradient", "codebook_weight": 0.25, "commitment_weight": 1.0, "joint_weight": 1.0},
        regularizers=[{"name": "entropy", "weight": 0.05}],
    ),
    "hypervq": _vector(
        "Gumbel-softmax over hyperbolic logits, codewords of one length: our reading, without public code",
        "arXiv 2403.13015",
        assignment={"name": "soft", "logits": "hyperbolic", "noise": True, "temperature": _GUMBEL},
        surrogate="direct",
        codebook={"normalize": True},
    ),
    "pq-vae": _vector(
        "product VQ-VAE: a codebook for each block of the latent, straight-through",
        "arXiv 1711.00937 with product quantization",
        composition="product",
    ),
    "multi-head": _vector(
        "product VQ-VAE whose blocks share one codebook", "multi-head VQ", composition="multi-head"
    ),
    "fsq": Recipe(
        Autoencoder, "finite scalar quantization: rounded scalars", "arXiv 2309.15505", {"quantizer": "fsq"}
    ),
    "lfq": Recipe(
        Autoencoder,
        "lookup-free quantization: signs and an entropy loss",
        "arXiv 2310.05737",
        {"quantizer": "lfq"},
    ),
    "bsq": Recipe(
        Autoencoder,
        "binary spherical quantization: signs on the sphere",
        "arXiv 2406.07548",
        {"quantizer": "bsq"},
    ),
    "rq-kmeans": Recipe(
        ResidualKMeans, "residual k-means on the embeddings themselves", "QARM, arXiv 2411.11739"
    ),
    "pq-kmeans": Recipe(
        ProductKMeans, "product k-means: each block of coordinates by itself", "Jégou et al. 2011"
    ),
    "opq": Recipe(
        ProductKMeans, "product k-means after a learned rotation", "Ge et al. 2013", {"rotate": True}
    ),
    "lsh": Recipe(
        RandomHyperplanes,
        "sides of random hyperplanes, cut at the medians",
        "after TIGER's LSH, arXiv 2305.05065",
    ),
    "dense-id": Recipe(
        DenseIds, "one code an item, no semantics: the atomic-ID baseline", "GRIT-VQ, appendix G.2"
    ),
    "random-id": Recipe(
        RandomIds,
        "random codes, no semantics: the baseline of every comparison",
        "TIGER, arXiv 2305.05065, §4.3",
    ),
}
