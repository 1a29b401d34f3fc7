"""A made-up shop in the files of every corpus, from a world whose rules are known.

Items belong to a leaf of a category tree and to a brand, and their titles tell both. A shopper's
next item hangs on the last one: so content helps a recommender, and order does. What shoppers ask
for is made of the words of items.
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

Known = TypeVar("Known")

__all__ = ["CORPORA", "DEPARTMENTS", "LEAVES", "shop_options", "write_shop"]

CORPORA: dict[str, tuple[Callable[..., dict[str, Path]], dict[str, tuple[Any, ...]]]] = {
    "amazon": (write_amazon, {"release": (2014, 2018, 2023)}),
    "esci": (write_esci, {}),
    "jdsearch": (write_jdsearch, {"header": (True, False)}),
    "movielens": (write_movielens, {"release": ("25m", "latest-small", "1m", "100k")}),
    "sequences": (write_sequences, {}),
    "table": (write_table, {}),
}
"""Corpus → its writer, and the values that each of its options may have, the usual one first."""


def shop_options(corpus: str) -> list[str]:
    """Return the names of the options that a corpus' shop has, such as ``release``."""
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
    """Write the shop as a corpus of the given name into ``folder``.

    The same arguments give the same bytes, and the same seed and sizes the same shop whatever the
    corpus. Every user has 5 to 40 events, about 9 on average, and no item twice (in ``jdsearch`` more
    or less, for what is asked for may be looked at again); some rare items have fewer than 5 and leave
    with a 5-core. Memory does not grow with the number of users, but for
    ``esci`` with that of queries.

    Args:
        folder: is made if it is not there.
        corpus: a key of :data:`CORPORA`.
        users: how many shop; for ``esci`` how many ask for something.
        items: of the catalogue.
        seed: of everything that is drawn, 0 or more.
        signal: the share, 0 to 1, of what shoppers do and judges say that follows the planted habits;
            the rest is drawn from the whole shop, each item alike. At 0 there is nothing to learn.
        options: those of the corpus in :data:`CORPORA`, as ``release=2018``.

    Returns:
        The reader's file parameters → the files.

    Raises:
        ValueError: no such corpus, option or value, a shop too small, or a signal beyond 0 to 1.
    """
    write, known = _of(CORPORA, corpus, "corpus")
    for option, value in options.items():
        if value not in _of(known, option, f"option of {corpus}"):
            choices = ", ".join(map(repr, known[option]))
            raise ValueError(f"{option} of {corpus} must be one of {choices}, not {value!r}")
    if users < 1 or items < 100:
        raise ValueError(f"a shop needs a user and 100 items at least, not {users} and {items}")
    if not 0 <= signal <= 1:
        raise ValueError(f"signal must be from 0 to 1, not {signal}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world = make_world(items, np.random.default_rng(seed))
    usual = {option: values[0] for option, values in known.items()}
    return write(folder, Shop(world, users, seed, signal), **(usual | options))


def _of(known: dict[str, Known], name: str, what: str) -> Known:
    if name not in known:
        raise ValueError(f"unknown {what}: {name!r}; there is {', '.join(known) or 'none'}")
    return known[name]
