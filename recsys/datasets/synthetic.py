"""A made-up shop in the files of the Amazon 2014 release, from a world whose rules are known.

Items belong to a leaf of a category tree and to a brand, and their titles tell both. A shopper's
next item hangs on the last one: so content helps a recommender, and order does.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys.examples import Ints

Words = tuple[str, ...]

ROOT = "Shop"
DEPARTMENTS: dict[str, tuple[Words, Words]] = {  # name → leaves, and words in titles
    "Kitchen": (
        ("Teapot", "Frying Pan", "Chef's Knife", "Coffee Grinder", "Mixing Bowl"),
        ("Enamel", "Cast Iron", "Stoneware", "Dishwasher Safe", "Copper", "Nonstick"),
    ),
    "Garden": (
        ("Watering Can", "Pruning Shears", "Plant Pot", "Garden Hose", "Bird Feeder"),
        ("Weatherproof", "Galvanized", "Terracotta", "Long Reach", "Rustic", "Frost Proof"),
    ),
    "Bath & Body": (
        ("Hand Soap", "Bath Towel", "Body Lotion", "Shampoo", "Bath Salts"),
        ("Lavender", "Fragrance Free", "Gentle", "Olive Oil", "Soothing", "Sea Mineral"),
    ),
    "Office": (
        ("Notebook", "Fountain Pen", "Desk Lamp", "Stapler", "Letter Tray"),
        ("Dotted", "Refillable", "Slim", "Recycled", "Executive", "Adjustable"),
    ),
    "Toys": (
        ("Jigsaw Puzzle", "Building Blocks", "Plush Bear", "Toy Train", "Kite"),
        ("Wooden", "Cuddly", "Rainbow", "Glow in the Dark", "Giant", "First Steps"),
    ),
    "Sports": (
        ("Yoga Mat", "Water Bottle", "Bicycle Bell", "Jump Rope", "Running Belt"),
        ("Lightweight", "Insulated", "Grippy", "Reflective", "Training", "Compact"),
    ),
    "Music": (
        ("Guitar Strings", "Drum Sticks", "Harmonica", "Music Stand", "Tambourine"),
        ("Bright Tone", "Hickory", "Folding", "Stage", "Concert", "Phosphor Bronze"),
    ),
    "Pets": (
        ("Dog Leash", "Cat Tree", "Food Bowl", "Chew Toy", "Pet Bed"),
        ("Chew Proof", "Sisal", "Washable", "Orthopedic", "Slow Feeding", "Padded"),
    ),
}
LEAVES = [(name, leaf) for name, (leaves, _) in DEPARTMENTS.items() for leaf in leaves]
REVIEWS = {3: ("Fine", "It does its job."), 4: ("Good", "Good for the price."), 5: ("Great", "I love it.")}
SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "je",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "ri",
    "so",
    "tu",
    "va",
    "we",
)

SAME_LEAF, FOLLOW_UP, SAME_BRAND, FAVOURITE, POPULAR = range(5)
HABITS = (0.35, 0.25, 0.15, 0.15, 0.10)
"""How often the next item is of the last one's leaf, of the leaf that goes with that, of the last
one's brand, of one of the shopper's favourite leaves and brands, or anything popular."""

MIN_EVENTS, MAX_EVENTS, MEAN_EXTRA_EVENTS = 5, 40, 4
ZIPF_EXPONENT = 0.7
USERS_AT_ONCE = 10_000
FIRST_DAY = datetime(2012, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _World:
    """The catalogue, and shelves to draw from: each leaf, each brand, and last the whole shop.

    Attributes:
        leaf: ``(I,)`` the leaf of each item, which is also its shelf.
        brand: ``(I,)`` the brand of each item.
        brand_shelf: ``(I,)`` the shelf of its brand.
        follow_up: ``(leaves,)`` the leaf that goes with each: one ring through all leaves.
        stock: ``(3 I,)`` items, shelf after shelf.
        edges: ``(shelves + 1,)`` where each shelf begins in ``stock``.
        weight_before: ``(3 I + 1,)`` summed popularity of all that stands before in ``stock``.
    """

    leaf: Ints
    brand: Ints
    brand_shelf: Ints
    follow_up: Ints
    stock: Ints
    edges: Ints
    weight_before: npt.NDArray[np.float64]

    @property
    def whole_shop(self) -> int:
        """The shelf that holds every item."""
        return len(self.edges) - 2

    def draw(self, shelves: Ints, rng: np.random.Generator) -> Ints:
        """For each shelf one of its items, popular ones more often."""
        first, last = self.edges[shelves], self.edges[shelves + 1] - 1
        low, high = self.weight_before[first], self.weight_before[last + 1]
        point = low + rng.random(len(shelves)) * (high - low)
        place = np.searchsorted(self.weight_before, point, side="right") - 1
        return self.stock[np.clip(place, first, last)]


def write_shop(
    folder: str | Path, *, users: int = 2000, items: int = 1000, seed: int = 0
) -> tuple[Path, Path]:
    """Write ``reviews_Shop_5.json.gz`` and ``meta_Shop.json.gz`` into ``folder`` and return their paths.

    The same arguments give the same bytes. Every user has 5 to 40 events, about 9 on average, and
    no item twice; some rare items have fewer than 5 and leave with a 5-core.

    Raises:
        ValueError: no users, or fewer than 100 items.
    """
    if users < 1 or items < 100:
        raise ValueError(f"a shop needs a user and 100 items at least, not {users} and {items}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    world = _make_world(items, rng)
    reviews, meta = folder / "reviews_Shop_5.json.gz", folder / "meta_Shop.json.gz"
    _write_lines(meta, _meta_lines(world, rng))
    _write_lines(reviews, _review_lines(world, users, rng))
    return reviews, meta


def _make_world(items: int, rng: np.random.Generator) -> _World:
    leaf = rng.permutation(np.arange(items) % len(LEAVES))
    brands_each = max(2, items // 160)  # of a department: about 20 items a brand
    brand = leaf // (len(LEAVES) // len(DEPARTMENTS)) * brands_each + rng.integers(brands_each, size=items)
    brand_shelf = len(LEAVES) + brand
    whole_shop = len(LEAVES) + len(DEPARTMENTS) * brands_each
    shelf = np.concatenate([leaf, brand_shelf, np.full(items, whole_shop)])
    by_shelf = np.argsort(shelf, kind="stable")
    stock = np.tile(np.arange(items), 3)[by_shelf]
    popularity = rng.permutation(np.arange(1.0, items + 1) ** -ZIPF_EXPONENT)
    ring = rng.permutation(len(LEAVES))
    follow_up = np.empty_like(ring)
    follow_up[ring] = np.roll(ring, 1)
    return _World(
        leaf=leaf,
        brand=brand,
        brand_shelf=brand_shelf,
        follow_up=follow_up,
        stock=stock,
        edges=np.searchsorted(shelf[by_shelf], np.arange(whole_shop + 2)),
        weight_before=np.concatenate([[0.0], np.cumsum(popularity[stock])]),
    )


def _shop(world: _World, lengths: Ints, rng: np.random.Generator) -> Ints:
    """``(users, longest)`` items that users of these sequence lengths take, ``-1`` behind the last."""
    taken = np.full((len(lengths), lengths.max()), -1)
    liked = world.draw(np.full(3 * len(lengths), world.whole_shop), rng).reshape(-1, 3)
    favourites = np.column_stack([world.leaf[liked[:, :2]], world.brand_shelf[liked[:, 2]]])
    for step in range(taken.shape[1]):
        users = np.flatnonzero(lengths > step)
        last = taken[users, step - 1]
        habit = rng.choice(len(HABITS), p=HABITS, size=len(users)) if step else np.full(len(users), FAVOURITE)
        shelves = np.full((len(users), len(HABITS)), world.whole_shop)
        shelves[:, SAME_LEAF] = world.leaf[last]
        shelves[:, FOLLOW_UP] = world.follow_up[world.leaf[last]]
        shelves[:, SAME_BRAND] = world.brand_shelf[last]
        shelves[:, FAVOURITE] = favourites[users, rng.integers(favourites.shape[1], size=len(users))]
        wanted = shelves[np.arange(len(users)), habit]
        taken[users, step] = _draw_new(world, wanted, taken[users], rng)
    return taken


def _draw_new(world: _World, wanted: Ints, taken: Ints, rng: np.random.Generator) -> Ints:
    """An item from each wanted shelf that is not in its row of ``taken``.

    Where a few draws find none (a shelf may be bought out), any new item of the shop will do.
    """
    items = np.empty_like(wanted)
    left = np.arange(len(wanted))
    for attempt in itertools.count():
        items[left] = world.draw(wanted[left] if attempt < 8 else np.full(len(left), world.whole_shop), rng)
        left = left[(taken[left] == items[left, None]).any(axis=1)]
        if len(left) == 0:
            break
    return items


def _meta_lines(world: _World, rng: np.random.Generator) -> Iterator[str]:
    """Python dict literals, as in the release."""
    brands = int(world.brand.max()) + 1
    for item, (leaf, brand) in enumerate(zip(world.leaf.tolist(), world.brand.tolist(), strict=True)):
        department, noun = LEAVES[leaf]
        first, second = rng.permutation(DEPARTMENTS[department][1])[:2].tolist()
        yield repr(
            {
                "asin": _asin(item),
                "title": f"{_name(brand)} {_name(brands + item)} {first} {second} {noun}",
                "price": round(float(rng.lognormal(2.5, 0.8)), 2),
                "brand": _name(brand),
                "categories": [[ROOT, department, noun]],
            }
        )


def _review_lines(world: _World, users: int, rng: np.random.Generator) -> Iterator[str]:
    """JSON objects with the fields of the release, user after user, oldest first."""
    for first_user in range(0, users, USERS_AT_ONCE):
        count = min(USERS_AT_ONCE, users - first_user)
        extra = rng.geometric(1 / (1 + MEAN_EXTRA_EVENTS), size=count) - 1
        taken = _shop(world, np.minimum(MIN_EVENTS + extra, MAX_EVENTS), rng)
        days = rng.integers(365, size=(count, 1)) + np.cumsum(rng.geometric(0.1, size=taken.shape), axis=1)
        ratings = rng.choice(list(REVIEWS), p=(0.2, 0.3, 0.5), size=taken.shape)
        for row, step in np.argwhere(taken >= 0).tolist():
            user, date = first_user + row, FIRST_DAY + timedelta(days=int(days[row, step]))
            summary, text = REVIEWS[int(ratings[row, step])]
            review = {
                "reviewerID": f"A{user:013d}",
                "asin": _asin(int(taken[row, step])),
                "reviewerName": f"Shopper {user + 1}",
                "helpful": [0, 0],
                "reviewText": text,
                "overall": float(ratings[row, step]),
                "summary": summary,
                "unixReviewTime": int(date.timestamp()),
                "reviewTime": f"{date.month:02d} {date.day}, {date.year}",
            }
            yield json.dumps(review)


def _asin(item: int) -> str:
    return f"B{item:09d}"


def _name(number: int) -> str:
    """A made-up word for each number."""
    word = ""
    while number or len(word) < 4:
        number, digit = divmod(number, len(SYLLABLES))
        word += SYLLABLES[digit]
    return word.title()


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Gzip without name and time of writing in it, so that equal lines make equal bytes."""
    unfinished = path.with_name(path.name + ".unfinished")
    with (
        unfinished.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
    ):
        packed.writelines(f"{line}\n".encode() for line in lines)
    unfinished.replace(path)
