"""The plug-in point for readers: functions that turn the raw files of a corpus into a checked ``Corpus``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from semantic_ids.plugins import Registry

if TYPE_CHECKING:
    from recsys.datasets.corpus import Corpus

Reader = Callable[..., "Corpus"]
"""A function marked by :func:`reader`.

Its parameters with the type ``Path`` are its files. All others are options.
"""

AnyReader = TypeVar("AnyReader", bound=Reader)

_MARK = "reads_queries"


@overload
def reader(function: AnyReader) -> AnyReader: ...
@overload
def reader(*, search: bool) -> Callable[[AnyReader], AnyReader]: ...
def reader(function: AnyReader | None = None, *, search: bool = False) -> Any:
    """Mark a function as a reader, so that a benchmark may call it.

    A function with the annotation ``-> Corpus`` is a reader without it, one of a corpus without queries.

    Args:
        function: The function to mark, where the decorator is used without arguments.
        search: Whether the corpus holds queries to answer. If not, the task is to predict the next item.

    Example:
        >>> from pathlib import Path
        >>> @reader
        ... def read_my_log(events: Path, *, k_core: int = 5) -> "Corpus": ...
        >>> is_search(read_my_log)
        False
    """

    def mark(function: AnyReader) -> AnyReader:
        setattr(function, _MARK, search)
        return function

    return mark if function is None else mark(function)


def is_search(read: Reader) -> bool:
    """Return whether a reader's corpus holds queries to answer."""
    return bool(getattr(read, _MARK, False))


def _accept(plugin: Any) -> Reader:
    """Return the object that a name leads to, or raise a ValueError if it does not call itself a reader."""
    if not callable(plugin) or not (hasattr(plugin, _MARK) or _returns_corpus(plugin)):
        raise ValueError(
            "it is not marked as a reader; write @reader, from recsys.datasets.readers, above the function"
        )
    accepted: Reader = plugin
    return accepted


def _returns_corpus(function: Callable[..., Any]) -> bool:
    """Return whether a function says that it returns a corpus, which is as good as the mark."""
    returned = getattr(function, "__annotations__", {}).get("return")
    return getattr(returned, "__name__", str(returned)).rpartition(".")[2] == "Corpus"


READERS: Registry[Reader] = Registry(
    "reader",
    "recsys.readers",
    {
        "amazon": "recsys.datasets.amazon:read_amazon",
        "esci": "recsys.datasets.esci:read_esci",
        "jdsearch": "recsys.datasets.jdsearch:read_jdsearch",
        "movielens": "recsys.datasets.movielens:read_movielens",
        "sequences": "recsys.datasets.plain:read_sequence_file",
        "table": "recsys.datasets.plain:read_table",
    },
    _accept,
)
"""Readers by name, plug-ins of installed packages included; also ``module:function``."""


def read_corpus(name: str, **arguments: Any) -> Corpus:
    """Read a corpus, and check that the reader keeps its promises.

    Args:
        name: A name in :data:`READERS`, or ``module:function``.
        **arguments: Files and options of the reader.

    Returns:
        The corpus.

    Raises:
        ValueError: If the name is unknown; if a file changes while it is read; if the reader returns no
            corpus; if it returns queries although it is not marked with ``search=True``; or if it returns
            none although it is.
    """
    from recsys.datasets.corpus import Corpus  # noqa: PLC0415 — polars loads slowly

    read = READERS.load(name)
    files = {argument: _state(argument) for argument in arguments.values() if isinstance(argument, Path)}
    corpus = read(**arguments)
    for path, state in files.items():
        if _state(path) != state:
            raise ValueError(f"{path} changed while it was read; run the command again when it is complete")
    if not isinstance(corpus, Corpus):
        raise ValueError(f"reader {name!r} must return a Corpus, not {type(corpus).__name__}")
    if (corpus.queries is not None) != is_search(read):
        returned, mark = (
            ("queries", "search=True") if corpus.queries is not None else ("no queries", "search=False")
        )
        raise ValueError(f"reader {name!r} returns {returned}: mark it with @reader({mark})")
    return corpus


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return numbers that change when a file is replaced or written to; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
