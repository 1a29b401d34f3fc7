"""Tables whose columns are parted by TAB and whose cells may be lists, block by block.

Nothing is quoted, and each line is known by its number, so that broken ones can be named or left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recsys.datasets.formats.lines import decoded, lines_of

BLOCK = 2**25
"""Bytes of the file that are worked on at a time."""

logger = logging.getLogger(__name__)


@dataclass
class Tabbed:
    """A file of columns parted by TAB, of which :data:`BLOCK` bytes at a time are worked on.

    Attributes:
        skipped: lines found broken so far.
    """

    path: Path
    columns: tuple[str, ...]
    skip_bad_lines: bool
    skipped: int = 0

    def blocks(self) -> Iterator[pl.DataFrame]:
        """``line`` from 1, ``place`` without the header, from 1 as well, and the columns as texts."""
        rows: list[tuple[int, int, str | None]] = []
        size, heads, header = 0, 0, "\t".join(self.columns)
        for number, line in lines_of(self.path):
            text = _decoded(line)
            if number == 1 and text == header:
                heads = 1
                continue
            rows.append((number, number - heads, text))
            size += len(line)
            if size > BLOCK:
                yield self._block(rows)
                rows, size = [], 0
        yield self._block(rows)

    def _block(self, rows: list[tuple[int, int, str | None]]) -> pl.DataFrame:
        lines = pl.DataFrame(
            rows, schema={"line": pl.UInt32, "place": pl.UInt32, "text": pl.String}, orient="row"
        )
        width = pl.col("fields").list.len()
        problem = (
            pl.when(width.is_null())
            .then(pl.lit("is not UTF-8"))
            .when(width != len(self.columns))
            .then(pl.format(f"has {{}} columns parted by TAB, not {len(self.columns)}", width))
        )
        block = self.sound(lines.with_columns(fields=pl.col("text").str.split("\t")), problem)
        fields = [pl.col("fields").list.get(at).alias(name) for at, name in enumerate(self.columns)]
        return block.select("line", "place", *fields)

    def sound(self, block: pl.DataFrame, problem: pl.Expr) -> pl.DataFrame:
        """Without the lines of which ``problem`` is not null but says what is wrong.

        Raises:
            ValueError: there is one, unless bad lines are skipped.
        """
        checked = block.with_columns(problem=problem)
        broken = checked.filter(pl.col("problem").is_not_null()).select("line", "problem")
        if broken.is_empty():
            return block
        line, reason = broken.row(0)
        if not self.skip_bad_lines:
            raise ValueError(f"{self.path}, line {line}: {reason} (skip_bad_lines leaves it out)")
        if not self.skipped:
            logger.warning("%s: broken lines skipped; first line %d: %s", self.path, line, reason)
        self.skipped += len(broken)
        return checked.filter(pl.col("problem").is_null()).drop("problem")


def _decoded(line: bytes) -> str | None:
    try:
        return decoded(line)
    except ValueError:
        return None


def uneven(name: str, other: str, more: int = 0) -> pl.Expr:
    """What is wrong unless the list of that name has so many more elements than the other."""
    length, others = pl.col(name).list.len(), pl.col(other).list.len()
    wanted = f"must have {more} more than" if more else "must have as many as"
    message = f"{name} {wanted} {other}, but they have {{}} and {{}} elements"
    return pl.when(length != others + more).then(pl.format(message, length, others))


def odd(name: str, is_sound: pl.Expr, rule: str) -> pl.Expr:
    """What is wrong unless all elements of a list are sound; names the first that is not."""
    found = pl.col(name).list.eval(pl.when(~is_sound.fill_null(False)).then(pl.element())).list.drop_nulls()
    return pl.format(f"{name} holds {{}}, but {rule}", found.list.first().str.head(60))
