"""How good semantic IDs are before anyone recommends with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semantic_ids.ids import SemanticIds

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LevelQuality:
    """How evenly one level's codes are used by the catalogue.

    Attributes:
        utilization: share of the codes that at least one item uses.
        dead_codes: number of codes that no item uses.
        perplexity: ``exp(entropy)`` of the codes' frequencies: K if all are used alike, 1 if one is.
    """

    utilization: float
    dead_codes: int
    perplexity: float


@dataclass(frozen=True)
class Quality:
    """Figures of one tokenizer on one catalogue.

    Attributes:
        levels: one entry a level, coarse to fine.
        collision_rate: share of the items whose codes some other item has too.
        unique_id_rate: distinct IDs / items.
        largest_leaf: the most items that share one ID.
        reconstruction_error: share of the embeddings' variance that the codes lose; None where
            the tokenizer cannot reconstruct.
    """

    levels: tuple[LevelQuality, ...]
    collision_rate: float
    unique_id_rate: float
    largest_leaf: int
    reconstruction_error: float | None

    def as_metrics(self) -> dict[str, float]:
        """Flat name → number, levels counted from 1; figures that do not exist are left out."""
        metrics = {
            "collision_rate": self.collision_rate,
            "unique_id_rate": self.unique_id_rate,
            "largest_leaf": float(self.largest_leaf),
        }
        if self.reconstruction_error is not None:
            metrics["reconstruction_error"] = self.reconstruction_error
        for number, level in enumerate(self.levels, start=1):
            metrics[f"utilization_{number}"] = level.utilization
            metrics[f"dead_codes_{number}"] = float(level.dead_codes)
            metrics[f"perplexity_{number}"] = level.perplexity
        return metrics


def perplexity(counts: npt.NDArray[np.int64]) -> float:
    """``exp`` of the entropy of ``counts / counts.sum()``; ``counts`` is ``(K,)`` and not all zero."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def quality(ids: SemanticIds, embeddings: Floats, reconstructed: Floats | None = None) -> Quality:
    """Measure semantic IDs.

    Args:
        ids: of N items.
        embeddings: ``(N, D)`` float32, what was tokenized.
        reconstructed: ``(N, D)`` float32, what the tokenizer decodes from the codes.
    """
    levels = []
    for level, size in enumerate(ids.codebook_sizes):
        counts = np.bincount(ids.codes[:, level], minlength=size)
        used = int((counts > 0).sum())
        levels.append(LevelQuality(used / size, size - used, perplexity(counts)))
    error = None
    if reconstructed is not None:
        spread = float(np.square(embeddings - embeddings.mean(axis=0), dtype=np.float64).sum())
        lost = float(np.square(embeddings - reconstructed, dtype=np.float64).sum())
        error = lost / spread if spread else 0.0
    return Quality(
        levels=tuple(levels),
        collision_rate=float((ids.leaf_sizes[ids.leaf_of_item] > 1).mean()),
        unique_id_rate=len(ids.leaves) / ids.num_items,
        largest_leaf=int(ids.leaf_sizes.max()),
        reconstruction_error=error,
    )
