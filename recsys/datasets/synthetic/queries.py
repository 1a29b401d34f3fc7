"""The queries of shoppers: some words of an item, such as "enamel teapot" or "teapot lora"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.datasets.synthetic.words import LEAVES, Spelling
from recsys.datasets.synthetic.world import World
from semantic_ids.types import Ints

NONE = -1
"""In place of a feature or brand that the query does not name."""

NAMES_FEATURE, NAMES_BRAND = 0.4, 0.4
"""Shares of queries that name a feature and a brand."""


@dataclass(frozen=True)
class Queries:
    """Q queries, each with a leaf, and some with a feature and a brand.

    Attributes:
        leaf: ``(Q,)`` leaf numbers.
        feature: ``(Q,)`` feature numbers, :data:`NONE` if the query names no feature.
        brand: ``(Q,)`` brand numbers, :data:`NONE` if the query names no brand.
    """

    leaf: Ints
    feature: Ints
    brand: Ints

    def __getitem__(self, rows: Ints | slice) -> Queries:
        return Queries(self.leaf[rows], self.feature[rows], self.brand[rows])

    def matched_by(self, world: World, items: Ints) -> np.ndarray:
        """Return whether items have all words of a query.

        Args:
            world: The catalogue.
            items: ``(Q, n)`` item numbers, n for each query.

        Returns:
            ``(Q, n)`` bool.
        """
        feature, brand = self.feature[:, None], self.brand[:, None]
        has_feature = (world.features[items] == feature[:, :, None]).any(axis=2)
        return (
            (world.leaf[items] == self.leaf[:, None])
            & (has_feature | (feature == NONE))
            & ((world.brand[items] == brand) | (brand == NONE))
        )

    def texts(self, phrases: pl.Series, names: Spelling, *, separator: str = " ") -> pl.Series:
        """Return the texts of the queries: feature, leaf, brand.

        Args:
            phrases: The text for each of :data:`~recsys.datasets.synthetic.words.PHRASES`.
            names: Function that returns the texts of brand numbers.
            separator: Text between the three.

        Returns:
            ``(Q,)`` texts.
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
    """Draw for each item a query that the item answers.

    Args:
        world: The catalogue.
        items: ``(Q,)`` item numbers.
        rng: Random numbers.

    Returns:
        Q queries.
    """
    feature = world.features[items, rng.integers(2, size=len(items))]
    return Queries(
        leaf=world.leaf[items],
        feature=np.where(rng.random(len(items)) < NAMES_FEATURE, feature, NONE),
        brand=np.where(rng.random(len(items)) < NAMES_BRAND, world.brand[items], NONE),
    )


def _or_null(spelling: Spelling, numbers: Ints) -> pl.Series:
    """Return the texts of numbers, null for :data:`NONE`."""
    return spelling(np.maximum(numbers, 0)).set(pl.Series(numbers == NONE), None)
