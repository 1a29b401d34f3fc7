"""Reading of JSON-lines files with every value as it is written, also numbers of many digits.

A parser that finds one type for a column makes floats of large integers where another line has a fraction,
and drops texts where another line has a list.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from recsys.datasets.formats.delimited import ROWS_AT_A_TIME, ChooseColumns
from recsys.datasets.formats.lines import decoded, excerpt, lines_of

_EXACT = 2**53
"""From here on several whole numbers share one float."""


def read_json_lines(path: Path, wanted: Collection[str], choose: ChooseColumns) -> Iterator[pl.DataFrame]:
    """Read columns of a file with one JSON object per line, as texts or lists of texts.

    Numbers become texts as they are written, but ``7.0`` and ``7e0`` become ``7``. ``true`` and ``false``
    become texts as well. A key that a line lacks is null.

    Args:
        path: Path of the file, plain, gzip or zstd.
        wanted: Columns that may be chosen.
        choose: Function that chooses the columns among those that any line has.

    Yields:
        Frames with the chosen columns. The first has no rows.

    Raises:
        ValueError: If a line is no JSON object; if it has a wanted key twice, or a nested object or list in
            a wanted column; or if a column has lists in some lines only. The message names file and line.
    """
    table = _Table(path, wanted)
    parts = list(table.parts())
    chosen = choose(list(table.names))
    types = {name: pl.List(pl.String) if table.has_lists.get(name) else pl.String() for name in chosen}
    yield pl.DataFrame(schema=types)
    for part in parts:
        yield part.select(chosen).cast(types)  # type: ignore[arg-type]


class _Table:
    """The wanted columns of a file, and what is known of all columns so far.

    Args:
        path: The file.
        wanted: Names of the columns to read.
    """

    def __init__(self, path: Path, wanted: Collection[str]) -> None:
        self.path, self.wanted = path, wanted
        self.names: dict[str, Any] = {}
        self.has_lists: dict[str, bool] = {}

    def parts(self) -> Iterator[pl.DataFrame]:
        """Yield the wanted columns, some rows at a time; a column is Null as long as it has no values."""
        lines = lines_of(self.path)
        while batch := list(islice(lines, ROWS_AT_A_TIME)):
            cells: dict[str, list[Any]] = {name: [] for name in self.wanted}
            for number, line in batch:
                try:
                    self._add(line, cells)
                except ValueError as error:
                    raise ValueError(f"{self.path}, line {number}: {error}") from error
            yield pl.DataFrame([self._column(name, cells[name], batch) for name in self.wanted])

    def _add(self, line: bytes, cells: dict[str, list[Any]]) -> None:
        """Add the wanted values of a line; raise a ValueError with the problem if it has one."""
        row = _parse(line)
        for name in getattr(row, "repeated", ()):
            if name in cells:
                raise ValueError(f"the key {name!r} is given twice")
        self.names.update(row)
        for name, values in cells.items():
            value: Any = row.get(name)
            is_list = isinstance(value, list)
            if is_list and any(isinstance(element, dict | list) for element in value):
                raise ValueError(f"{name!r} holds a list of objects or lists")
            if isinstance(value, dict):
                raise ValueError(f"{name!r} holds an object, not a text, a number or a list of them")
            if value is not None and is_list != self.has_lists.setdefault(name, is_list):
                kinds = ("a list", "a text or number") if is_list else ("a text or number", "a list")
                raise ValueError(f"{name!r} holds {kinds[0]}, but lines above hold {kinds[1]}")
            values.append([_text(element) for element in value] if is_list else _text(value))

    def _column(self, name: str, values: list[Any], lines: list[tuple[int, bytes]]) -> pl.Series:
        """Return the values of some lines as a column."""
        kinds = {None: pl.Null(), True: pl.List(pl.String), False: pl.String()}
        try:
            return pl.Series(name, values, kinds[self.has_lists.get(name)])
        except UnicodeEncodeError as error:
            wrong = [_has_surrogate(value) for value in values].index(True)
            raise ValueError(
                f"{self.path}, line {lines[wrong][0]}: {name!r} holds half of a surrogate pair"
            ) from error


class _Repeating(dict[str, Any]):
    """An object with several values for some keys, which are in ``repeated``."""

    repeated: Collection[str] = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, which remembers keys that it has several times."""
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    names = [name for name, _ in pairs]
    repeating = _Repeating(values)
    repeating.repeated = {name for name in names if names.count(name) > 1}
    return repeating


def _float_text(literal: str) -> str:
    """Return a number with a point or exponent as a text, as a whole number if that loses nothing."""
    number = float(literal)
    if not number.is_integer():
        return literal
    return str(int(number)) if abs(number) < _EXACT else repr(number)


def _refuse(literal: str) -> NoReturn:
    """Refuse ``NaN`` and ``Infinity``, which are not JSON."""
    raise ValueError(literal)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=str, parse_float=_float_text, parse_constant=_refuse
)


def _parse(line: bytes) -> dict[str, Any]:
    """Return the object of a line, with its numbers as texts."""
    try:
        row = _DECODER.decode(decoded(line).strip())
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"not a JSON object: {excerpt(line)}")
    return row


def _text(value: Any) -> str | None:
    """Return a text, number, truth value or null as a text or null."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else value


def _has_surrogate(value: Any) -> bool:
    """Return whether a value holds half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False)
    return text != text.encode(errors="replace").decode()
