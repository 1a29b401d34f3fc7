"""What shoppers ask for: some words of an item, as "enamel teapot" or "teapot lora"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.datasets.synthetic.words import LEAVES, Spelling
from recsys.datasets.synthetic.world import World
from semantic_ids.types import Ints

NONE = -1
"""In place of a feature or brand: the query does not name one."""

NAMES_FEATURE, NAMES_BRAND = 0.4, 0.4


@dataclass(frozen=True)
class Queries:
    """Each names a leaf, and may name a feature and a brand.

    Attributes:
        leaf: ``(Q,)``.
        feature: ``(Q,)``, :data:`NONE` if not named.
        brand: ``(Q,)``, :data:`NONE` if not named.
    """

    leaf: Ints
    feature: Ints
    brand: Ints

    def __getitem__(self, rows: Ints | slice) -> Queries:
        return Queries(self.leaf[rows], self.feature[rows], self.brand[rows])

    def matched_by(self, world: World, items: Ints) -> np.ndarray:
        """``(Q, n)`` bool: whether each of the ``(Q, n)`` items has all words of its row's query."""
        feature, brand = self.feature[:, None], self.brand[:, None]
        has_feature = (world.features[items] == feature[:, :, None]).any(axis=2)
        return (
            (world.leaf[items] == self.leaf[:, None])
            & (has_feature | (feature == NONE))
            & ((world.brand[items] == brand) | (brand == NONE))
        )

    def texts(self, phrases: pl.Series, names: Spelling, *, separator: str = " ") -> pl.Series:
        """``(Q,)`` texts: feature, leaf, brand.

        Args:
            phrases: what stands for each of :data:`~recsys.datasets.synthetic.words.PHRASES`.
            names: numbers of brands → texts.
            separator: between the three.
        """
        features, leaves = phrases[len(LEAVES) :], phrases[: len(LEAVES)]
        parts = {
            "feature": _or_null(features.gather, self.feature),
            "leaf": leaves.gather(self.leaf),
            "brand": _or_null(names, self.brand),
        }
        words = pl.concat_str(pl.all(), separator=separator, ignore_nulls=True)
        return pl.DataFrame(parts).select(words).to_series()


def ask_for(world: World, items: Ints, rng: np.random.Generator) -> Queries:
    """``(Q,)`` items → for each a query that it answers."""
    feature = world.features[items, rng.integers(2, size=len(items))]
    return Queries(
        leaf=world.leaf[items],
        feature=np.where(rng.random(len(items)) < NAMES_FEATURE, feature, NONE),
        brand=np.where(rng.random(len(items)) < NAMES_BRAND, world.brand[items], NONE),
    )


def _or_null(spelling: Spelling, numbers: Ints) -> pl.Series:
    """Texts, null where nothing is named."""
    return spelling(np.maximum(numbers, 0)).set(pl.Series(numbers == NONE), None)
