"""Reading of CSV and TSV files so that every line is accounted for.

A block without quotation marks is split at its separators. polars reads a block after every line of it was
proved to be a record of the right width. From the first other block, Python's csv module reads the rest of
the file in its strict mode. It is slower, but it knows cells with line breaks, and it refuses a quoted cell
with text behind its end, which is what a quotation mark escaped by a backslash looks like.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path

import polars as pl

from recsys.datasets.formats.blocks import LONGEST_LINE, blocks_of

ChooseColumns = Callable[[list[str]], list[str]]
"""Returns the columns to read, out of all column names of a file, or raises a ValueError."""

ROWS_AT_A_TIME = 100_000

_CELL = r'(?:"(?:[^"]|"")*"|[^",]*)'
"""A cell of CSV, for lines without line breaks in cells."""

_LOST_END = re.compile(r'\\"[,\r\n]')
"""The end of a cell whose last character was a quotation mark with a backslash before it."""

_REASONS = {
    "expected after": 'text behind the end of a quoted cell; write a quotation mark in one as "", not as \\"',
    "end of data": "unexpected end of data; a quoted cell that begins in this record never ends",
    "new-line": "a carriage return within a line; lines end in \\n or \\r\\n",
}
"""Our words for errors of the csv module, by a part of its own words."""


def read_delimited(path: Path, separator: str, choose: ChooseColumns) -> Iterator[pl.DataFrame]:
    """Read columns of a CSV or TSV file as texts, some rows at a time.

    The first line that is not blank has the column names. Blank lines and lines with only empty cells are
    left out. Cells of CSV may be quoted as in RFC 4180. Cells of TSV are never quoted.

    Args:
        path: Path of the file, plain, gzip or zstd.
        separator: A comma for CSV, a tab for TSV.
        choose: Function that chooses the columns.

    Yields:
        Frames with the chosen columns, null for an empty cell. The first has no rows.

    Raises:
        ValueError: If a line has more or fewer cells than there are columns, is not UTF-8, or has wrong
            quotation marks or line ends. The message names the file and the line.
    """
    names: list[str] = []
    columns: list[pl.Expr] = []
    for cells in _all_cells(path, separator):
        if not names:
            names = list(cells.row(0))
            columns = [pl.col(str(names.index(name))).alias(name) for name in choose(names)]
            cells = cells[1:]  # noqa: PLW2901 — without the names
            yield cells.select(columns).clear()
        yield cells.select(columns).with_columns(pl.all().replace("", None))
    if not names:
        raise ValueError(f"{path} has only blank lines; the first line must have the column names")


def _all_cells(path: Path, separator: str) -> Iterator[pl.DataFrame]:
    """Yield all lines with cells, the column names first; columns are called ``0``, ``1`` and so on."""
    width = 0
    blocks = blocks_of(path)
    for number, block in blocks:
        cells = _quick_cells(path, separator, number, block, width)
        if cells is None:
            rest = chain([block], map(itemgetter(1), blocks))
            texts = (line.decode() for part in rest for line in io.BytesIO(part))
            records = _records(path, separator, number, texts, width)
            while part := list(islice(records, ROWS_AT_A_TIME)):
                columns = enumerate(zip(*part, strict=True))
                yield pl.DataFrame([pl.Series(str(index), cells, pl.String) for index, cells in columns])
            return
        if len(cells):
            width = cells.width
            yield cells


def _quick_cells(path: Path, separator: str, number: int, block: bytes, width: int) -> pl.DataFrame | None:
    """Return the cells of a block, or None if it needs the csv module."""
    if block.count(b"\r") != block.count(b"\r\n"):
        return None
    lines = _lines(path, separator, number, block)
    if lines.is_empty():
        return lines
    if separator == "\t" or b'"' not in block:
        return _split(path, separator, lines, width or lines["text"][0].count(separator) + 1)
    return _regular_cells(lines["text"], width or len(next(csv.reader([lines["text"][0]]))))


def _lines(path: Path, separator: str, number: int, block: bytes) -> pl.DataFrame:
    """Return number and text of the lines with cells that a block holds."""
    try:
        texts = block.decode().split("\n")
    except UnicodeDecodeError as error:
        line = number + block.count(b"\n", 0, error.start)
        raise _not_utf8(path, line, error) from error
    lines = pl.DataFrame({"text": texts}).with_row_index("line", offset=number)
    text = pl.col("text").str.strip_suffix("\r")
    return lines.with_columns(text).filter(text.str.strip_chars(f" \t{separator}") != "")


def _split(path: Path, separator: str, lines: pl.DataFrame, width: int) -> pl.DataFrame:
    """Return the cells of lines without quoted cells in ``width`` columns."""
    widths = lines["text"].str.count_matches(separator, literal=True) + 1
    wrong = lines.select("line", widths.alias("width")).filter(widths != width)
    for line, cells in wrong.head(1).iter_rows():
        raise _wrong_width(path, line, cells, width)
    cells = lines["text"].str.split_exact(separator, width - 1).struct.unnest()
    return cells.rename(lambda name: name.removeprefix("field_"))


def _regular_cells(lines: pl.Series, width: int) -> pl.DataFrame | None:
    """Return the cells of lines that may be quoted, or None if a line is no record of ``width`` cells."""
    try:
        if not lines.str.contains(rf"^{_CELL}(?:,{_CELL}){{{width - 1}}}$").all():
            return None
    except pl.exceptions.ComputeError:  # the expression is too large
        return None
    names = ",".join(map(str, range(width)))
    cells = pl.read_csv("\n".join([names, *lines]).encode(), infer_schema=False)
    if cells.shape != (len(lines), width):
        return None
    return cells.filter(pl.any_horizontal(pl.all().str.strip_chars() != ""))


def _records(
    path: Path, separator: str, number: int, texts: Iterable[str], width: int
) -> Iterator[list[str]]:
    """Yield the cells of each record, which may have several lines.

    Args:
        path: The file, for messages.
        separator: A comma or a tab.
        number: Number of the first line.
        texts: All lines from there on.
        width: Number of cells of a record; 0 if the first record decides.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    reader = csv.reader(
        texts,
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        first = number + reader.line_num
        try:
            record = next(reader, None)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, number + reader.line_num, error) from error
        except csv.Error as error:
            reason = next((reason for part, reason in _REASONS.items() if part in str(error)), str(error))
            raise ValueError(f"{path}, line {first}: not CSV in UTF-8: {reason}") from error
        if record is None:
            return
        if not any(map(str.strip, record)):
            continue
        width = width or len(record)
        if len(record) != width:
            raise _wrong_width(path, first, len(record), width)
        if number + reader.line_num > first + 1 and any(map(_LOST_END.search, record)):
            raise ValueError(f"{path}, line {first}: not CSV in UTF-8: {_REASONS['expected after']}")
        yield record


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> ValueError:
    """Return an error that names a line with bytes that are no text."""
    return ValueError(f"{path}, line {line}: not CSV in UTF-8: {error.reason}")


def _wrong_width(path: Path, line: int, cells: int, width: int) -> ValueError:
    """Return an error that names a line with too many or too few cells."""
    return ValueError(f"{path}, line {line}: {cells} fields for {width} columns")
