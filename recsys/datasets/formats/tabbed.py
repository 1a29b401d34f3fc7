"""Reading of large tab-separated files in blocks, with cells that may be lists.

Cells are not quoted. Every row keeps the number of its line, so that an error can name a broken line and the
other lines can still be used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.datasets.formats.lines import decoded, lines_of

BLOCK = 2**25
"""Size in bytes of the parts of a file that are processed at a time."""

logger = logging.getLogger(__name__)


@dataclass
class TabFile:
    """A file with tab-separated columns, which is read in blocks of :data:`BLOCK` bytes.

    Attributes:
        path: Path of the file, plain, gzip or zstd.
        columns: Names of the columns, in the order of the file. A first line with these names is a header.
        skip_bad_lines: Whether to leave broken lines out, count them and log the first, instead of raising
            an error.
        skipped: Number of broken lines that were skipped so far.
    """

    path: Path
    columns: tuple[str, ...]
    skip_bad_lines: bool
    skipped: int = 0

    def blocks(self) -> Iterator[pl.DataFrame]:
        """Read the file in blocks of lines with the right number of columns.

        Yields:
            Frames with the columns ``line`` (number of the line, from 1), ``place`` (the same number without
            the header, from 1 as well), and the file's columns as texts.

        Raises:
            ValueError: If a line is no UTF-8 or has a wrong number of columns and is not skipped, or if the
                file is damaged.
        """
        rows: list[tuple[int, int, str | None]] = []
        size, header_lines, header = 0, 0, "\t".join(self.columns)
        for number, line in lines_of(self.path):
            text = _text_or_none(line)
            if number == 1 and text == header:
                header_lines = 1
                continue
            rows.append((number, number - header_lines, text))
            size += len(line)
            if size > BLOCK:
                yield self._block(rows)
                rows, size = [], 0
        yield self._block(rows)

    def _block(self, rows: list[tuple[int, int, str | None]]) -> pl.DataFrame:
        """Split the texts of ``(line, place, text)`` rows into columns."""
        lines = pl.DataFrame(
            rows, schema={"line": pl.UInt32, "place": pl.UInt32, "text": pl.String}, orient="row"
        )
        width = pl.col("fields").list.len()
        problem = (
            pl.when(width.is_null())
            .then(pl.lit("is not UTF-8"))
            .when(width != len(self.columns))
            .then(pl.format(f"has {{}} columns separated by tabs, not {len(self.columns)}", width))
        )
        block = self.without_broken(lines.with_columns(fields=pl.col("text").str.split("\t")), problem)
        fields = [pl.col("fields").list.get(index).alias(name) for index, name in enumerate(self.columns)]
        return block.select("line", "place", *fields)

    def without_broken(self, block: pl.DataFrame, problem: pl.Expr) -> pl.DataFrame:
        """Return a block without its broken lines.

        Args:
            block: Frame with the column ``line``.
            problem: Expression with the reason why a line is broken, or null if it is not.

        Raises:
            ValueError: If a line is broken and ``skip_bad_lines`` is False. The message names the file, the
                line and the problem.
        """
        checked = block.with_columns(problem=problem)
        broken = checked.filter(pl.col("problem").is_not_null()).select("line", "problem")
        if broken.is_empty():
            return block
        line, reason = broken.row(0)
        reason = repr(reason)[1:-1]  # it may quote control characters of the file
        if not self.skip_bad_lines:
            raise ValueError(f"{self.path}, line {line}: {reason} (skip_bad_lines leaves it out)")
        if not self.skipped:
            logger.warning("%s: broken lines skipped; first line %d: %s", self.path, line, reason)
        self.skipped += len(broken)
        return checked.filter(pl.col("problem").is_null()).drop("problem")


def length_problem(name: str, other: str, more: int = 0) -> pl.Expr:
    """Return an expression with the problem of a list of wrong length, null if the length is right.

    Args:
        name: Column of the list.
        other: Column of the list to compare with.
        more: Number of elements that the first list must have in addition.
    """
    length, other_length = pl.col(name).list.len(), pl.col(other).list.len()
    wanted = f"must have {more} more than" if more else "must have as many as"
    message = f"{name} {wanted} {other}, but they have {{}} and {{}} elements"
    return pl.when(length != other_length + more).then(pl.format(message, length, other_length))


def element_problem(name: str, is_valid: pl.Expr, rule: str) -> pl.Expr:
    """Return an expression that names the first invalid element of a list, null if all are valid.

    Args:
        name: Column of the list.
        is_valid: Boolean expression of ``pl.element()``; null means invalid.
        rule: What elements must be, for the message, such as ``ids are not empty``.
    """
    invalid = pl.when(~is_valid.fill_null(False)).then(pl.element())
    first = pl.col(name).list.eval(invalid).list.drop_nulls().list.first()
    return pl.format(f"{name} holds {{}}, but {rule}", first.str.head(60))


def _text_or_none(line: bytes) -> str | None:
    """Return a line as text, or None if it is no UTF-8."""
    try:
        return decoded(line)
    except ValueError:
        return None
