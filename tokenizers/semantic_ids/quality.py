"""Quality of semantic IDs, measured before any retriever is trained on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semantic_ids.ids import SemanticIds
from semantic_ids.types import Floats, Ints

_SHUFFLES = 20


@dataclass(frozen=True)
class LevelQuality:
    """Figures that say how evenly a catalogue uses the K codes of one level.

    Attributes:
        utilization: Share of the codes that at least one item has.
        dead_codes: Number of codes that no item has.
        entropy: Entropy of the codes' frequencies in bits, at most log₂ K.
        perplexity: ``2 ** entropy``; K if all codes are used equally, 1 if only one is used.
        gini: Gini coefficient of usage; 0 if all codes are used equally, (K − 1) / K if only one is used.
    """

    utilization: float
    dead_codes: int
    entropy: float
    perplexity: float
    gini: float


@dataclass(frozen=True)
class PrefixQuality:
    """Figures that say how well the first codes of an ID predict an item's category.

    Attributes:
        purity: Share of the items whose category is the most frequent one among the items with the same
            prefix.
        chance_purity: The same figure with the categories shuffled among the items, averaged over fixed
            shuffles. It rises with the number of prefixes, up to 1 if every item has a different
            prefix. So only the difference between ``purity`` and ``chance_purity`` counts.
    """

    purity: float
    chance_purity: float


@dataclass(frozen=True)
class Quality:
    """The quality of one tokenizer's semantic IDs on one catalogue.

    Attributes:
        levels: One entry for each level, coarse to fine.
        prefixes: One entry for each prefix length from 1 to L; empty if no item's category is known.
        collision_rate: Share of the items that share all their codes with another item.
        unique_id_rate: Number of distinct IDs divided by the number of items.
        largest_leaf: Largest number of items with the same ID.
        reconstruction_error: Share of the embeddings' variance that is lost in the codes; None if the
            tokenizer cannot reconstruct.
    """

    levels: tuple[LevelQuality, ...]
    prefixes: tuple[PrefixQuality, ...]
    collision_rate: float
    unique_id_rate: float
    largest_leaf: int
    reconstruction_error: float | None

    @property
    def distortion_per_bit(self) -> float | None:
        """``reconstruction_error / Σ entropy`` over the levels (DiVeQ, eq. 17); lower is better.

        It is None if there is no reconstruction error or if all items have the same codes.
        """
        bits = sum(level.entropy for level in self.levels)
        return None if self.reconstruction_error is None or bits == 0 else self.reconstruction_error / bits

    def as_metrics(self) -> dict[str, float]:
        """Return all figures in one flat mapping from name to number.

        Figures that are None are left out. Names of a level's or prefix length's figures end in its
        number, from 1. Without a number, ``dead_codes`` is the sum over levels, and ``utilization``,
        ``perplexity`` and ``gini`` are means over levels.
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
    """Return the entropy of ``counts / counts.sum()`` in bits; ``counts`` is ``(K,)`` and not all zero."""
    shares = counts[counts > 0] / counts.sum()
    return float((shares * np.log2(1 / shares)).sum())


def perplexity(counts: Ints) -> float:
    """Return ``2 ** entropy(counts)``: the number of equally used codes with the same entropy."""
    return float(2 ** entropy(counts))


def gini(counts: Ints) -> float:
    """Return the Gini coefficient of ``counts`` ``(K,)``.

    It is ``Σᵢ (2i − K − 1) xᵢ / (K Σ x)`` with the counts sorted: x₁ ≤ … ≤ x_K.
    """
    size = len(counts)
    weights = 2 * np.arange(1, size + 1) - size - 1
    return float((weights * np.sort(counts)).sum() / (size * counts.sum()))


def purity(groups: Ints, categories: Ints) -> float:
    """Return the share of items whose category is the most frequent one in their group.

    Args:
        groups: Group of each item, ``(N,)`` from 0, N ≥ 1.
        categories: Category of each item, ``(N,)`` from 0.

    Example:
        >>> purity(np.array([0, 0, 0, 1]), np.array([7, 7, 2, 5]))
        0.75
    """
    num_categories = int(categories.max()) + 1
    pairs, counts = np.unique(groups * num_categories + categories, return_counts=True)
    largest_count = np.zeros(int(groups.max()) + 1, dtype=np.int64)
    np.maximum.at(largest_count, pairs // num_categories, counts)
    return float(largest_count.sum() / len(groups))


def quality(
    ids: SemanticIds,
    embeddings: Floats | None = None,
    reconstructed: Floats | None = None,
    categories: Ints | None = None,
) -> Quality:
    """Measure the quality of semantic IDs.

    The reconstruction error is measured only if ``embeddings`` and ``reconstructed`` are both given.

    Args:
        ids: Semantic IDs of N items.
        embeddings: The items' embeddings ``(N, D)`` float32.
        reconstructed: Embeddings that the tokenizer decodes from the codes, ``(N, D)`` float32.
        categories: Category of each item, ``(N,)`` int64 from 0. Items with a negative category have none
            and are left out of purity.

    Example:
        Three items on two levels; the first two items share all their codes:

        >>> ids = SemanticIds(np.array([[0, 1], [0, 1], [1, 0]]), codebook_sizes=(2, 4))
        >>> measured = quality(ids)
        >>> round(measured.collision_rate, 3), measured.largest_leaf
        (0.667, 2)
        >>> [level.utilization for level in measured.levels]
        [1.0, 0.5]
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
    """Measure one level from the number of items with each code, ``(K,)``."""
    used = int((counts > 0).sum())
    return LevelQuality(
        used / len(counts), len(counts) - used, entropy(counts), perplexity(counts), gini(counts)
    )


def _prefix_qualities(ids: SemanticIds, categories: Ints) -> tuple[PrefixQuality, ...]:
    """Measure every prefix length, on the items with a category."""
    known = categories >= 0
    if not known.any():
        return ()
    codes, categories = ids.codes[known], categories[known]
    generator = np.random.default_rng(0)
    shuffles = [generator.permutation(categories) for _ in range(_SHUFFLES)]
    prefix = np.zeros(len(codes), dtype=np.int64)
    qualities = []
    for level, size in enumerate(ids.codebook_sizes):
        # Prefixes are renumbered at each length, so numbers stay below N for any number of possible codes.
        prefix = np.unique(prefix * size + codes[:, level], return_inverse=True)[1]
        by_chance = float(np.mean([purity(prefix, shuffled) for shuffled in shuffles]))
        qualities.append(PrefixQuality(purity(prefix, categories), by_chance))
    return tuple(qualities)
