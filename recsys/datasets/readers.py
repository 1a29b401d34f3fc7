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
        raise ValueError(
            f"no reader is called {name!r}. {nearest_name(name, list(READERS))} "
            "Or name one of your own as module:function."
        )
    module, _, function = READERS.get(name, name).partition(":")
    try:
        read: Callable[..., Corpus] = getattr(import_module(module), function)
    except Exception as error:  # the module of a plug-in may fail in any way
        what = (
            error if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: {error}"
        )
        raise ValueError(
            f"reader {name!r} cannot be imported: {what} (modules are looked for in the current folder, too)"
        ) from error
    if not callable(read):
        raise ValueError(f"reader {name!r} is no function")
    return read
