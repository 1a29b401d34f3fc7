"""The catalogue of the made-up shop: what each item is, and shelves to take items from."""

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
"""In place of a shelf: the whole shop, in which no item is more popular than another."""

ZIPF_EXPONENT = 0.7
ITEMS_A_BRAND = 20
ITEMS_AT_ONCE = 20_000


@dataclass(frozen=True)
class World:
    """All items, numbered from 0, and shelves of them: one a leaf, one a brand, and last the whole shop.

    Attributes:
        leaf: ``(I,)`` the leaf of each item, which is also its shelf.
        brand: ``(I,)`` the brand of each item.
        features: ``(I, 2)`` two different features of its department.
        follow_up: ``(leaves,)`` the leaf that goes with each: one ring through all leaves.
        brands: how many there are.
        stock: ``(3 I,)`` items, shelf after shelf.
        edges: ``(shelves + 1,)`` where each shelf begins in ``stock``.
        weight_before: ``(3 I + 1,)`` summed popularity of all that stands before in ``stock``.
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
        """The shelf that holds every item."""
        return len(self.edges) - 2

    @property
    def department(self) -> Ints:
        """``(I,)`` the department of each item."""
        return self.leaf // LEAVES_EACH

    def brand_shelf(self, items: Ints) -> Ints:
        """The shelves of the items' brands."""
        return len(LEAVES) + self.brand[items]

    def draw(self, shelves: Ints, rng: np.random.Generator) -> Ints:
        """For each shelf one of its items, popular ones more often; for :data:`ANY` each alike."""
        items = rng.integers(len(self), size=len(shelves))
        chosen = np.flatnonzero(shelves != ANY)
        first, last = self.edges[shelves[chosen]], self.edges[shelves[chosen] + 1] - 1
        low, high = self.weight_before[first], self.weight_before[last + 1]
        point = low + rng.random(len(chosen)) * (high - low)
        place = np.searchsorted(self.weight_before, point, side="right") - 1
        items[chosen] = self.stock[np.clip(place, first, last)]
        return items

    def blocks(self) -> Iterator[Ints]:
        """All items, some at a time."""
        for first in range(0, len(self), ITEMS_AT_ONCE):
            yield np.arange(first, min(first + ITEMS_AT_ONCE, len(self)))

    def describe(self, items: Ints) -> pl.DataFrame:
        """What the items are called.

        Returns:
            One row an item: ``item``, its number, and as strings ``brand``, ``model`` (a word that no
            other item has), ``first`` and ``second`` (features), ``leaf``, ``department``, and ``title``,
            which is all of them but the department.
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
    """A catalogue of so many items (100 at least): every leaf has as many, popularity is Zipf's."""
    leaf = rng.permutation(np.arange(items) % len(LEAVES))
    department = leaf // LEAVES_EACH
    brands_each = max(2, items // (len(DEPARTMENTS) * ITEMS_A_BRAND))
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
