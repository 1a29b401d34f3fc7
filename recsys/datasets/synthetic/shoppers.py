"""The shoppers of the made-up shop and their events: a shopper's next item depends on the last one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.datasets.synthetic.world import ANY, World
from semantic_ids.types import Ints

SAME_LEAF, FOLLOW_UP, SAME_BRAND, FAVOURITE, POPULAR = range(5)
HABITS = (0.35, 0.25, 0.15, 0.15, 0.10)
"""Probability of each habit.

The next item is of the last item's leaf, of the leaf that follows that leaf, of the last item's brand, of one
of the shopper's favourite leaves and brands, or any popular item.
"""

MIN_EVENTS, MAX_EVENTS, MEAN_EXTRA_EVENTS = 5, 40, 4
RATINGS, RATING_SHARES = (3, 4, 5), (0.2, 0.3, 0.5)
USERS_PER_BLOCK = 10_000
DAY = 86_400
FIRST_DAY = 15_340
"""The day 2012-01-01, in days since 1970."""


@dataclass(frozen=True)
class Shop:
    """A catalogue and its shoppers.

    Attributes:
        world: The catalogue.
        users: Number of shoppers.
        seed: Seed of everything that is drawn.
        signal: Share from 0 to 1 of actions that follow the planted habits. The rest is drawn uniformly from
            all items.
    """

    world: World
    users: int
    seed: int
    signal: float

    def generator(self, purpose: str) -> np.random.Generator:
        """Return random numbers for one purpose, which do not depend on other purposes."""
        return np.random.default_rng([self.seed, *purpose.encode()])

    def follows_habits(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw for each of ``count`` actions whether it follows the habits, ``(count,)`` bool."""
        return rng.random(count) < self.signal

    def events(self) -> Iterator[pl.DataFrame]:
        """Yield the events of all shoppers in blocks, so that memory does not depend on their number.

        A shopper has 5 to 40 events, about 9 on average, each on a different day, and no item twice.

        Yields:
            Frames with the columns ``user`` and ``item`` (numbers from 0), ``time`` (seconds since 1970, at
            midnight UTC) and ``rating`` (3 to 5), all int64, sorted by user, then time.
        """
        rng = self.generator("events")
        for first_user in range(0, self.users, USERS_PER_BLOCK):
            count = min(USERS_PER_BLOCK, self.users - first_user)
            extra = rng.geometric(1 / (1 + MEAN_EXTRA_EVENTS), size=count) - 1
            taken = self._take_items(np.minimum(MIN_EVENTS + extra, MAX_EVENTS), rng)
            days = rng.integers(365, size=(count, 1)) + np.cumsum(
                rng.geometric(0.1, size=taken.shape), axis=1
            )
            ratings = rng.choice(RATINGS, p=RATING_SHARES, size=taken.shape)
            row, step = np.nonzero(taken >= 0)
            yield pl.DataFrame(
                {
                    "user": first_user + row,
                    "item": taken[row, step],
                    "time": (FIRST_DAY + days[row, step]) * DAY,
                    "rating": ratings[row, step],
                }
            )

    def _take_items(self, lengths: Ints, rng: np.random.Generator) -> Ints:
        """Draw the items of a block of shoppers.

        Args:
            lengths: ``(users,)`` number of items of each shopper.
            rng: Random numbers.

        Returns:
            ``(users, max(lengths))`` item numbers in order, -1 after the last.
        """
        world = self.world
        taken = np.full((len(lengths), lengths.max()), -1)
        liked = world.draw(np.full(3 * len(lengths), world.whole_shop), rng).reshape(-1, 3)
        favourites = np.column_stack([world.leaf[liked[:, :2]], world.brand_shelf(liked[:, 2])])
        for step in range(taken.shape[1]):
            users = np.flatnonzero(lengths > step)
            last = taken[users, step - 1]
            habit = rng.choice(len(HABITS), p=HABITS, size=len(users)) if step else FAVOURITE
            favourite = favourites[users, rng.integers(favourites.shape[1], size=len(users))]
            shelves = np.select(
                [habit == SAME_LEAF, habit == FOLLOW_UP, habit == SAME_BRAND, habit == FAVOURITE],
                [world.leaf[last], world.follow_up[world.leaf[last]], world.brand_shelf(last), favourite],
                default=world.whole_shop,
            )
            wanted = np.where(self.follows_habits(len(users), rng), shelves, ANY)
            taken[users, step] = _draw_new(world, wanted, taken[users, :step], rng)
        return taken


def _draw_new(world: World, wanted: Ints, taken: Ints, rng: np.random.Generator) -> Ints:
    """Draw an item for each row that is not in its row of ``taken``.

    After eight draws that found no new item, the item comes from the whole shop, because a shopper may have
    all items of a shelf.

    Args:
        world: The catalogue.
        wanted: ``(n,)`` shelf of each row.
        taken: ``(n, t)`` items that each shopper already has.
        rng: Random numbers.

    Returns:
        ``(n,)`` item numbers.
    """
    items = np.empty_like(wanted)
    open_rows = np.arange(len(wanted))
    for attempt in itertools.count():
        shelves = wanted[open_rows] if attempt < 8 else np.full(len(open_rows), ANY)
        items[open_rows] = world.draw(shelves, rng)
        open_rows = open_rows[(taken[open_rows] == items[open_rows, None]).any(axis=1)]
        if len(open_rows) == 0:
            break
    return items
