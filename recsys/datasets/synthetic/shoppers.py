"""What shoppers take from the made-up shop, one after the other: a shopper's next item hangs on the last."""

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
"""How often the next item is of the last one's leaf, of the leaf that goes with that, of the last
one's brand, of one of the shopper's favourite leaves and brands, or anything popular."""

MIN_EVENTS, MAX_EVENTS, MEAN_EXTRA_EVENTS = 5, 40, 4
RATINGS, RATING_SHARES = (3, 4, 5), (0.2, 0.3, 0.5)
USERS_AT_ONCE = 10_000
DAY = 86_400
FIRST_DAY = 15_340
"""2012-01-01, in days since 1970."""


@dataclass(frozen=True)
class Shop:
    """A catalogue and those who shop there.

    Attributes:
        world: the catalogue.
        users: how many shoppers there are.
        seed: of everything that is drawn.
        signal: the share, 0 to 1, of what shoppers do that follows the planted habits; the rest is
            drawn from the whole shop, each item alike.
    """

    world: World
    users: int
    seed: int
    signal: float

    def generator(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose, which hang on no other."""
        return np.random.default_rng([self.seed, *purpose.encode()])

    def follows_habits(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """``(count,)`` bool: whether each of so many doings follows the habits."""
        return rng.random(count) < self.signal

    def events(self) -> Iterator[pl.DataFrame]:
        """Blocks of users, one after the other; memory does not grow with their number.

        A shopper has 5 to 40 events, about 9 on average, each on a day of its own, and no item twice.

        Yields:
            ``user`` and ``item`` (numbers from 0), ``time`` (seconds since 1970, at midnight UTC),
            ``rating`` (3 to 5), all int64; user after user, oldest first.
        """
        rng = self.generator("events")
        for first_user in range(0, self.users, USERS_AT_ONCE):
            count = min(USERS_AT_ONCE, self.users - first_user)
            extra = rng.geometric(1 / (1 + MEAN_EXTRA_EVENTS), size=count) - 1
            taken = self._shop(np.minimum(MIN_EVENTS + extra, MAX_EVENTS), rng)
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

    def _shop(self, lengths: Ints, rng: np.random.Generator) -> Ints:
        """``(users, longest)`` items that users of these sequence lengths take, ``-1`` behind the last."""
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
    """An item from each wanted shelf that is not in its row of ``taken``.

    Where a few draws find none (a shelf may be bought out), any new item of the shop will do.
    """
    items = np.empty_like(wanted)
    left = np.arange(len(wanted))
    for attempt in itertools.count():
        items[left] = world.draw(wanted[left] if attempt < 8 else np.full(len(left), ANY), rng)
        left = left[(taken[left] == items[left, None]).any(axis=1)]
        if len(left) == 0:
            break
    return items
