"""How good semantic IDs are before anyone recommends with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semantic_ids.ids import Floats, Ints, SemanticIds

_SHUFFLES = 20


@dataclass(frozen=True)
class LevelQuality:
    """How evenly one level's K codes are used by the catalogue.

    Attributes:
        utilization: share of the codes that at least one item uses.
        dead_codes: number of codes that no item uses.
        entropy: of the codes' frequencies, in bits: at most log₂ K.
        perplexity: ``2 ** entropy``: K if all codes are used alike, 1 if one is.
        gini: inequality of use: 0 if all codes are used alike, (K − 1) / K if one is.
    """

    utilization: float
    dead_codes: int
    entropy: float
    perplexity: float
    gini: float


@dataclass(frozen=True)
class PrefixQuality:
    """How well the first codes of an ID tell an item's category.

    Attributes:
        purity: share of the items that are of the commonest category among those with their prefix.
        chance_purity: the same figure with the categories shuffled among the items, a mean over fixed
            shuffles. It rises with the number of prefixes, to 1 where every item has its own; only what
            purity is above it counts.
    """

    purity: float
    chance_purity: float


@dataclass(frozen=True)
class Quality:
    """Figures of one tokenizer on one catalogue.

    Attributes:
        levels: one entry a level, coarse to fine.
        prefixes: one entry a prefix length, from 1 to L; empty where no item's category is known.
        collision_rate: share of the items whose codes some other item has too.
        unique_id_rate: distinct IDs / items.
        largest_leaf: the most items that share one ID.
        reconstruction_error: share of the embeddings' variance that the codes lose; None where
            the tokenizer cannot reconstruct.
    """

    levels: tuple[LevelQuality, ...]
    prefixes: tuple[PrefixQuality, ...]
    collision_rate: float
    unique_id_rate: float
    largest_leaf: int
    reconstruction_error: float | None

    @property
    def distortion_per_bit(self) -> float | None:
        """``reconstruction_error / Σ entropy`` over the levels (DiVeQ, eq. 17): lower is better.

        None where there is no reconstruction error, or where all items have the same codes.
        """
        bits = sum(level.entropy for level in self.levels)
        return None if self.reconstruction_error is None or bits == 0 else self.reconstruction_error / bits

    def as_metrics(self) -> dict[str, float]:
        """Flat name → number; figures that do not exist are left out.

        Figures of levels and prefix lengths end in their number, from 1. Without a number,
        ``dead_codes`` is the sum over levels; ``utilization``, ``perplexity`` and ``gini`` are means.
        """
        metrics = {
            "collision_rate": self.collision_rate,
            "unique_id_rate": self.unique_id_rate,
            "largest_leaf": float(self.largest_leaf),
            "utilization": float(np.mean([level.utilization for level in self.levels])),
            "dead_codes": float(sum(level.dead_codes for level in self.levels)),
            "perplexity": float(np.mean([level.perplexity for level in self.levels])),
            "gini": float(np.mean([level.gini for level in self.levels])),
        }
        if self.reconstruction_error is not None:
            metrics["reconstruction_error"] = self.reconstruction_error
        if self.distortion_per_bit is not None:
            metrics["distortion_per_bit"] = self.distortion_per_bit
        for entries in (self.levels, self.prefixes):
            for number, entry in enumerate(entries, start=1):
                metrics |= {f"{name}_{number}": float(value) for name, value in vars(entry).items()}
        return metrics


def entropy(counts: Ints) -> float:
    """Bits of ``counts / counts.sum()``; ``counts`` is ``(K,)`` and not all zero."""
    shares = counts[counts > 0] / counts.sum()
    return float((shares * np.log2(1 / shares)).sum())


def perplexity(counts: Ints) -> float:
    """``2 ** entropy(counts)``: how many codes used alike would have this entropy."""
    return float(2 ** entropy(counts))


def gini(counts: Ints) -> float:
    """Gini coefficient ``Σᵢ (2i − K − 1) xᵢ / (K Σ x)`` of ``counts`` ``(K,)``, sorted: x₁ ≤ … ≤ x_K."""
    size = len(counts)
    weights = 2 * np.arange(1, size + 1) - size - 1
    return float((weights * np.sort(counts)).sum() / (size * counts.sum()))


def purity(groups: Ints, categories: Ints) -> float:
    """Share of N items that are of the commonest category of their group; both ``(N,)`` from 0, N ≥ 1."""
    kinds = int(categories.max()) + 1
    pairs, counts = np.unique(groups * kinds + categories, return_counts=True)
    commonest = np.zeros(int(groups.max()) + 1, dtype=np.int64)
    np.maximum.at(commonest, pairs // kinds, counts)
    return float(commonest.sum() / len(groups))


def quality(
    ids: SemanticIds,
    embeddings: Floats | None = None,
    reconstructed: Floats | None = None,
    categories: Ints | None = None,
) -> Quality:
    """Measure semantic IDs.

    Args:
        ids: of N items.
        embeddings: ``(N, D)`` float32, what was tokenized; for the reconstruction error alone.
        reconstructed: ``(N, D)`` float32, what the tokenizer decodes from the codes.
        categories: ``(N,)`` int64 from 0; negative for an item without one, which purity leaves out.
    """
    error = None
    if embeddings is not None and reconstructed is not None:
        spread = float(np.square(embeddings - embeddings.mean(axis=0), dtype=np.float64).sum())
        lost = float(np.square(embeddings - reconstructed, dtype=np.float64).sum())
        error = lost / spread if spread else 0.0
    return Quality(
        levels=tuple(
            _level_quality(np.bincount(ids.codes[:, level], minlength=size))
            for level, size in enumerate(ids.codebook_sizes)
        ),
        prefixes=() if categories is None else _prefix_qualities(ids, categories),
        collision_rate=float((ids.leaf_sizes[ids.leaf_of_item] > 1).mean()),
        unique_id_rate=len(ids.leaves) / ids.num_items,
        largest_leaf=int(ids.leaf_sizes.max()),
        reconstruction_error=error,
    )


def _level_quality(counts: Ints) -> LevelQuality:
    used = int((counts > 0).sum())
    return LevelQuality(
        used / len(counts), len(counts) - used, entropy(counts), perplexity(counts), gini(counts)
    )


def _prefix_qualities(ids: SemanticIds, categories: Ints) -> tuple[PrefixQuality, ...]:
    known = categories >= 0
    if not known.any():
        return ()
    codes, categories = ids.codes[known], categories[known]
    generator = np.random.default_rng(0)
    shuffles = [generator.permutation(categories) for _ in range(_SHUFFLES)]
    prefix = np.zeros(len(codes), dtype=np.int64)
    found = []
    for level, size in enumerate(ids.codebook_sizes):
        # Numbered anew at each length, so that numbers stay below N however many codes there could be.
        prefix = np.unique(prefix * size + codes[:, level], return_inverse=True)[1]
        by_chance = float(np.mean([purity(prefix, shuffled) for shuffled in shuffles]))
        found.append(PrefixQuality(purity(prefix, categories), by_chance))
    return tuple(found)
