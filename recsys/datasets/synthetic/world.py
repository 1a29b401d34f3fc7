"""The catalogue of the made-up shop: the properties of every item, and shelves to draw items from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.datasets.synthetic.words import (
    DEPARTMENTS,
    FEATURES,
    FEATURES_EACH,
    LEAVES,
    LEAVES_EACH,
    names,
)
from semantic_ids.types import Ints

ANY = -1
"""In place of a shelf: all items, drawn with equal probability."""

ZIPF_EXPONENT = 0.7
ITEMS_PER_BRAND = 20
ITEMS_PER_BLOCK = 20_000


@dataclass(frozen=True)
class World:
    """The items of the shop, numbered from 0 to I - 1, and shelves to draw them from.

    A *shelf* is a group of items: one for each leaf, one for each brand, and the last one with all items. So
    every item is on three shelves.

    Attributes:
        leaf: ``(I,)`` the leaf of each item, which is also the number of its first shelf.
        brand: ``(I,)`` the brand of each item.
        features: ``(I, 2)`` two different features of the item's department.
        follow_up: ``(leaves,)`` the leaf that shoppers go to after each leaf. These links form one ring.
        brands: Number of brands.
        stock: ``(3 I,)`` the items of all shelves, shelf after shelf.
        edges: ``(shelves + 1,)`` index in ``stock`` at which each shelf begins.
        weight_before: ``(3 I + 1,)`` sum of the popularity of all items before each index of ``stock``.
    """

    leaf: Ints
    brand: Ints
    features: Ints
    follow_up: Ints
    brands: int
    stock: Ints
    edges: Ints
    weight_before: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.leaf)

    @property
    def whole_shop(self) -> int:
        """The number of the shelf with all items."""
        return len(self.edges) - 2

    @property
    def department(self) -> Ints:
        """The department of each item, ``(I,)``."""
        return self.leaf // LEAVES_EACH

    def brand_shelf(self, items: Ints) -> Ints:
        """Return the shelf of each item's brand.

        Args:
            items: ``(n,)`` item numbers.
        """
        return len(LEAVES) + self.brand[items]

    def draw(self, shelves: Ints, rng: np.random.Generator) -> Ints:
        """Draw one item from each shelf, with probability proportional to popularity.

        Args:
            shelves: ``(n,)`` shelf numbers, or :data:`ANY` for an item of the whole shop with equal
                probability.
            rng: Random numbers.

        Returns:
            ``(n,)`` item numbers.
        """
        items = rng.integers(len(self), size=len(shelves))
        with_shelf = np.flatnonzero(shelves != ANY)
        first, last = self.edges[shelves[with_shelf]], self.edges[shelves[with_shelf] + 1] - 1
        low, high = self.weight_before[first], self.weight_before[last + 1]
        point = low + rng.random(len(with_shelf)) * (high - low)
        index = np.searchsorted(self.weight_before, point, side="right") - 1
        items[with_shelf] = self.stock[np.clip(index, first, last)]
        return items

    def blocks(self) -> Iterator[Ints]:
        """Yield the numbers of all items, in blocks of :data:`ITEMS_PER_BLOCK`."""
        for first in range(0, len(self), ITEMS_PER_BLOCK):
            yield np.arange(first, min(first + ITEMS_PER_BLOCK, len(self)))

    def describe(self, items: Ints) -> pl.DataFrame:
        """Return the names and titles of items.

        Args:
            items: ``(n,)`` item numbers.

        Returns:
            Frame with one row for each item: its number ``item``, and the texts ``brand``, ``model`` (a word
            that no other item has), ``first`` and ``second`` (features), ``leaf``, ``department``, and
            ``title``, which consists of all texts except the department.
        """
        frame = pl.DataFrame(
            {
                "item": items,
                "brand": names(self.brand[items]),
                "model": names(self.brands + items),
                "first": pl.Series(FEATURES).gather(self.features[items, 0]),
                "second": pl.Series(FEATURES).gather(self.features[items, 1]),
                "leaf": pl.Series([leaf for _, leaf in LEAVES]).gather(self.leaf[items]),
                "department": pl.Series(list(DEPARTMENTS)).gather(self.department[items]),
            }
        )
        title = pl.concat_str("brand", "model", "first", "second", "leaf", separator=" ")
        return frame.with_columns(title=title)


def make_world(items: int, rng: np.random.Generator) -> World:
    """Return a catalogue with equally large leaves and Zipf popularity.

    Args:
        items: Number of items, at least 100.
        rng: Random numbers.
    """
    leaf = rng.permutation(np.arange(items) % len(LEAVES))
    department = leaf // LEAVES_EACH
    brands_each = max(2, items // (len(DEPARTMENTS) * ITEMS_PER_BRAND))
    brand = department * brands_each + rng.integers(brands_each, size=items)
    first = rng.integers(FEATURES_EACH, size=items)
    second = (first + rng.integers(1, FEATURES_EACH, size=items)) % FEATURES_EACH
    brands = len(DEPARTMENTS) * brands_each
    whole_shop = len(LEAVES) + brands
    shelf = np.concatenate([leaf, len(LEAVES) + brand, np.full(items, whole_shop)])
    by_shelf = np.argsort(shelf, kind="stable")
    stock = by_shelf % items
    popularity = rng.permutation(np.arange(1.0, items + 1) ** -ZIPF_EXPONENT)
    ring = rng.permutation(len(LEAVES))
    follow_up = np.empty_like(ring)
    follow_up[ring] = np.roll(ring, 1)
    return World(
        leaf=leaf,
        brand=brand,
        features=department[:, None] * FEATURES_EACH + np.column_stack([first, second]),
        follow_up=follow_up,
        brands=brands,
        stock=stock,
        edges=np.searchsorted(shelf[by_shelf], np.arange(whole_shop + 2)),
        weight_before=np.concatenate([[0.0], np.cumsum(popularity[stock])]),
    )
