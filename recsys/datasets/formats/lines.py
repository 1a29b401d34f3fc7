"""Numbered lines of text files, plain or compressed; broken lines raise an error or are skipped."""

from __future__ import annotations

import html
import io
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from recsys.datasets.formats.blocks import blocks_of, open_unpacked

__all__ = [
    "LAST_SECOND",
    "MOST_BROKEN_LINES",
    "LineParser",
    "checked_file",
    "decoded",
    "excerpt",
    "has_each_key_once",
    "json_object",
    "lines_in",
    "lines_of",
    "open_unpacked",
    "parsed",
    "unescaped",
]

Row = TypeVar("Row")

LAST_SECOND = 253_402_300_799
"""The last second of the year 9999, in seconds since 1970. A larger number is a time in another unit."""

MOST_BROKEN_LINES = 100_000
"""Largest number of broken lines that are skipped in a file where most lines are broken."""

_BLOCK = 2**20
"""Size in bytes of the parts of a file that are split into lines at a time."""

logger = logging.getLogger(__name__)


def checked_file(path: str | Path, what: str) -> Path:
    """Return the path of a file after checking that the file exists and is not empty.

    Args:
        path: Path of the file.
        what: What the file contains, in a word for error messages, such as ``ratings``.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a directory.
        ValueError: If the file is empty, or a pipe or device.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the {what} file itself")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the {what} file")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe or a device; give the {what} as a file, which can be read twice")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give the {what} file as it was published")
    return path


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each line, from 1, and its bytes.

    Blank lines are counted but not yielded. A UTF-8 byte order mark is removed.

    Args:
        path: Path of the file, plain, gzip or zstd.

    Yields:
        Line number and line, with its line end.

    Raises:
        ValueError: If the file cannot be read, see :func:`~recsys.datasets.formats.blocks.blocks_of`.
    """
    for number, block in blocks_of(path, _BLOCK):
        yield from lines_in(number, block)


def lines_in(number: int, block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a block as :func:`lines_of` does; ``number`` is the number of its first line."""
    for place, line in enumerate(io.BytesIO(block), number):
        if line.strip():
            yield place, line


def parsed(
    path: Path, parse: Callable[[bytes], Row], *, skip_bad_lines: bool, header: bool = False
) -> tuple[list[Row], int]:
    r"""Parse all lines of a file.

    Args:
        path: Path of the file, plain, gzip or zstd.
        parse: Function of a line. It must raise a ValueError with the reason if the line is broken.
        skip_bad_lines: Whether to leave broken lines out, count them and log the first three, instead of
            raising an error.
        header: Whether the first line is a header, which is not parsed.

    Returns:
        The results of ``parse``, and the number of skipped lines.

    Raises:
        ValueError: If a line is broken and not skipped, if too many are skipped, or if the file is damaged.
            The message names the file and the line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "counts.txt"
        >>> _ = path.write_text("count\n3\nmany\n5\n")
        >>> parsed(path, int, skip_bad_lines=True, header=True)
        ([3, 5], 1)
    """
    parser = LineParser(path, parse, skip_bad_lines)
    lines = ((number, line) for number, line in lines_of(path) if not (header and number == 1))
    rows = list(parser.rows(lines))
    parser.log()
    return rows, parser.skipped


class LineParser(Generic[Row]):
    """A function of a line, with the broken lines of a file that it met.

    Args:
        path: The file, for messages.
        parse: Function of a line. It must raise a ValueError with the reason if the line is broken.
        skip_bad_lines: Whether to leave broken lines out and count them, instead of raising an error.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Row], skip_bad_lines: bool) -> None:
        self.path, self.parse, self.skip_bad_lines = path, parse, skip_bad_lines
        self.skipped = 0
        self.first_problems: list[str] = []

    def rows(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[Row]:
        """Yield the result of each line that is not broken.

        Args:
            lines: Number and bytes of each line.

        Raises:
            ValueError: If a line is broken and not skipped, or if more than :data:`MOST_BROKEN_LINES` lines
                and more than half of all are broken.
        """
        for number, line in lines:
            try:
                row = self.parse(line)
            except ValueError as error:
                self._skip(number, error)
            else:
                yield row

    def log(self) -> None:
        """Log how many lines were skipped, and what is wrong with the first three."""
        if self.skipped:
            problems = "; ".join(self.first_problems)
            logger.warning("%s: %d broken lines skipped; %s", self.path, self.skipped, problems)

    def _skip(self, number: int, error: ValueError) -> None:
        """Count a broken line, or raise a ValueError that names it."""
        if not self.skip_bad_lines:
            raise ValueError(f"{self.path}, line {number}: {error} (skip_bad_lines leaves it out)") from error
        self.skipped += 1
        if self.skipped <= 3:
            self.first_problems.append(f"line {number}: {error}")
        if self.skipped > MOST_BROKEN_LINES and 2 * self.skipped > number:
            raise ValueError(
                f"{self.path}: {self.skipped} of {number} lines are broken; is this the right file? "
                f"The first is {self.first_problems[0]}"
            ) from error


def decoded(line: bytes, encoding: str = "utf-8") -> str:
    r"""Return a line as text, without its line end.

    Args:
        line: Bytes of the line.
        encoding: Name of the encoding.

    Raises:
        ValueError: If the line is not in this encoding.

    Example:
        >>> decoded(b"caf\xc3\xa9\r\n")
        'café'
    """
    try:
        return line.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding}: {excerpt(line)}") from error


def json_object(line: bytes, unique: Collection[str]) -> dict[str, Any]:
    """Return the JSON object of a line.

    Of a key that is given several times the first value counts, as for polars, except for the keys that must
    be unique.

    Args:
        line: Bytes of the line.
        unique: Keys that must not be given twice, in this object or in one within it.

    Raises:
        ValueError: If the line is no JSON object in UTF-8, or if one of the keys is given twice.

    Example:
        >>> json_object(b'{"a": 1, "a": 2}', unique=["b"])
        {'a': 1}
    """

    def first_values(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(reversed(pairs))
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            for name in unique:
                if names.count(name) > 1:
                    raise ValueError(f"the key {name!r} is given twice")
        return values

    try:
        value = json.loads(decoded(line), object_pairs_hook=first_values)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}, character {error.pos + 1}): {excerpt(line)}") from error
    except RecursionError as error:
        raise ValueError(f"not JSON (nested too deeply): {excerpt(line)}") from error
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {excerpt(line)}")
    return value


def has_each_key_once(block: bytes, keys: Iterable[str], texts: Collection[str], num_lines: int) -> bool:
    """Return whether JSON lines surely have some keys once each; False if that is not clear at a glance.

    Args:
        block: The lines.
        keys: The keys.
        texts: Those of the keys whose values must be texts, after at most one blank.
        num_lines: Number of lines, none of them blank.
    """
    if re.search(rb"\\u00[4-7]", block):  # letters as escapes, perhaps in a key
        return False
    return all(
        block.count(f'"{key}"'.encode()) == num_lines
        and (key not in texts or num_lines in (block.count(f'"{key}":{gap}"'.encode()) for gap in (" ", "")))
        for key in keys
    )


def excerpt(line: bytes) -> str:
    """Return the first 60 bytes of a line in quotes, for error messages."""
    return repr(line[:60].decode(errors="replace"))


def unescaped(text: str) -> str:
    """Return a text with HTML entities replaced by their characters.

    A text with an entity of more digits than Python can convert is returned unchanged.

    Example:
        >>> unescaped("Bath &amp; Body")
        'Bath & Body'
    """
    try:
        return html.unescape(text)
    except ValueError:
        return text
