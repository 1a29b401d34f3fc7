"""The readers that a benchmark can name. Each is imported where it is used: polars loads slowly."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from semantic_ids.choices import nearest_name

if TYPE_CHECKING:
    from recsys.datasets.corpus import Corpus

READERS = {
    "amazon": "recsys.datasets.amazon:read_amazon",
    "esci": "recsys.datasets.esci:read_esci",
    "jdsearch": "recsys.datasets.jdsearch:read_jdsearch",
    "movielens": "recsys.datasets.movielens:read_movielens",
    "sequences": "recsys.datasets.plain:read_sequence_file",
    "table": "recsys.datasets.plain:read_table",
}
"""Name → ``module:function``. Parameters of a reader that take a ``Path`` are its files."""

SEARCH = ("esci", "jdsearch")
"""Those whose corpora hold queries; in all others the next item is what is asked for."""


def reader(name: str) -> Callable[..., Corpus]:
    """The reader of that name, or that of your own which ``module:function`` names.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if name not in READERS and ":" not in name:
        raise ValueError(f"no reader is called {name!r}. {nearest_name(name, list(READERS))}")
    module, _, function = READERS.get(name, name).partition(":")
    try:
        read: Callable[..., Corpus] = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reader {name!r} cannot be imported: {error}") from error
    return read
