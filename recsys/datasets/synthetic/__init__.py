"""A made-up shop with known rules, written in the file format of any corpus.

Every item belongs to a leaf of a category tree and to a brand, and its title names both. A shopper's next
item depends on the last one. So both the content and the order of items help a recommender. The queries of
shoppers consist of words of the items.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from recsys.datasets.synthetic.amazon import write_amazon
from recsys.datasets.synthetic.esci import write_esci
from recsys.datasets.synthetic.jdsearch import write_jdsearch
from recsys.datasets.synthetic.movielens import write_movielens
from recsys.datasets.synthetic.plain import write_sequences, write_table
from recsys.datasets.synthetic.shoppers import Shop
from recsys.datasets.synthetic.words import DEPARTMENTS, LEAVES
from recsys.datasets.synthetic.world import make_world

Value = TypeVar("Value")

__all__ = ["CORPORA", "DEPARTMENTS", "LEAVES", "shop_options", "write_shop"]

CORPORA: dict[str, tuple[Callable[..., dict[str, Path]], dict[str, tuple[Any, ...]]]] = {
    "amazon": (write_amazon, {"release": (2014, 2018, 2023)}),
    "esci": (write_esci, {}),
    "jdsearch": (write_jdsearch, {"header": (True, False)}),
    "movielens": (write_movielens, {"release": ("25m", "latest-small", "1m", "100k")}),
    "sequences": (write_sequences, {}),
    "table": (write_table, {}),
}
"""For each corpus its writer, and the possible values of each option with the default first."""


def shop_options(corpus: str) -> list[str]:
    """Return the names of the options of a corpus, such as ``release``.

    Args:
        corpus: A key of :data:`CORPORA`.

    Example:
        >>> shop_options("movielens")
        ['release']
    """
    return list(CORPORA[corpus][1])


def write_shop(
    folder: str | Path,
    corpus: str,
    *,
    users: int = 2000,
    items: int = 1000,
    seed: int = 0,
    signal: float = 1.0,
    **options: Any,
) -> dict[str, Path]:
    """Write the made-up shop in the files of a corpus.

    Equal arguments write equal bytes. Equal seeds and sizes give the same shop in every corpus. Every user
    has 5 to 40 events, about 9 on average, and no item twice. In ``jdsearch`` the number differs, because
    users also click items before they take one. Some rare items have fewer than 5 events, so a 5-core does
    not contain them. Memory does not depend on the number of users, except for ``esci``, where it grows with
    the number of queries.

    Args:
        folder: Folder for the files. It is created if it does not exist.
        corpus: A key of :data:`CORPORA`.
        users: Number of users; for ``esci`` the number of users who each ask one query.
        items: Number of items in the catalogue, at least 100.
        seed: Seed of everything that is drawn, at least 0.
        signal: Share from 0 to 1 of actions and judgements that follow the planted habits. The rest is drawn
            uniformly from all items. At 0 there is nothing to learn.
        **options: Options of the corpus in :data:`CORPORA`, such as ``release=2018``.

    Returns:
        The files by the file parameters of the reader.

    Raises:
        ValueError: If the corpus, an option or its value is unknown; if there are too few users or items; or
            if ``signal`` is not from 0 to 1.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     files = write_shop(folder, "movielens", users=10, items=100, release="1m")
        >>> {parameter: file.name for parameter, file in files.items()}
        {'ratings': 'ratings.dat', 'movies': 'movies.dat'}
    """
    write, values_of = _look_up(CORPORA, corpus, "corpus")
    for option, value in options.items():
        if value not in _look_up(values_of, option, f"option of {corpus}"):
            choices = ", ".join(map(repr, values_of[option]))
            raise ValueError(f"{option} of {corpus} must be one of {choices}, not {value!r}")
    if users < 1 or items < 100:
        raise ValueError(f"a shop needs at least 1 user and 100 items, not {users} and {items}")
    if not 0 <= signal <= 1:
        raise ValueError(f"signal must be from 0 to 1, not {signal}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world = make_world(items, np.random.default_rng(seed))
    defaults = {option: values[0] for option, values in values_of.items()}
    return write(folder, Shop(world, users, seed, signal), **(defaults | options))


def _look_up(entries: dict[str, Value], name: str, what: str) -> Value:
    """Return the entry of a name, or raise a ValueError that lists the known names."""
    if name not in entries:
        raise ValueError(f"unknown {what}: {name!r}; there is {', '.join(entries) or 'none'}")
    return entries[name]
