"""Numbered lines of text files, plain or compressed; broken lines raise an error or are skipped."""

from __future__ import annotations

import codecs
import gzip
import html
import io
import logging
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa

Row = TypeVar("Row")

LAST_SECOND = 253_402_300_799
"""The last second of the year 9999, in seconds since 1970. A larger number is a time in another unit."""

LONGEST_LINE = 2**24
"""Largest length of a line in bytes. No corpus has longer records; a longer line is probably no text."""

_DAMAGED = (EOFError, OSError, zlib.error)
"""Errors that mean that a compressed file is incomplete or damaged."""

logger = logging.getLogger(__name__)


def checked_file(path: str | Path, what: str) -> Path:
    """Return the path of a file after checking that the file exists and is not empty.

    Args:
        path: Path of the file.
        what: What the file contains, in a word for error messages, such as ``ratings``.

    Raises:
        FileNotFoundError: If there is no such file.
        IsADirectoryError: If the path is a directory.
        ValueError: If the file is empty.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the {what} file itself")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the {what} file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give the {what} file as it was published")
    return path


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file for reading bytes, and unpack gzip and zstd.

    The first bytes decide whether the file is compressed, not its name.
    """
    with path.open("rb") as raw:
        magic = raw.read(4)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)  # type: ignore[return-value]
    if magic == b"\x28\xb5\x2f\xfd":
        return io.BufferedReader(pa.input_stream(path, compression="zstd"))
    return path.open("rb")


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each line, from 1, and its bytes.

    Blank lines are counted but not yielded. A UTF-8 byte order mark is removed.

    Args:
        path: Path of the file, plain, gzip or zstd.

    Yields:
        Line number and line, with its line end.

    Raises:
        ValueError: If the file is incomplete or damaged, or if a line is longer than :data:`LONGEST_LINE`.
    """
    number = 0
    file = open_unpacked(path)
    try:
        with file:
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise ValueError(
                        f"{path}, line {number}: longer than {LONGEST_LINE} bytes; is this a text file?"
                    )
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield number, line
    except _DAMAGED as error:
        raise ValueError(f"{path}: cut off or damaged after line {number}; download it again") from error


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
        ValueError: If a line is broken and not skipped, or if the file is damaged. The message names the
            file and the line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "counts.txt"
        >>> _ = path.write_text("count\n3\nmany\n5\n")
        >>> parsed(path, int, skip_bad_lines=True, header=True)
        ([3, 5], 1)
    """
    rows: list[Row] = []
    problems: list[str] = []
    for number, line in lines_of(path):
        if header and number == 1:
            continue
        try:
            rows.append(parse(line))
        except ValueError as error:
            if not skip_bad_lines:
                raise ValueError(f"{path}, line {number}: {error} (skip_bad_lines leaves it out)") from error
            problems.append(f"line {number}: {error}")
    if problems:
        logger.warning("%s: %d broken lines skipped; %s", path, len(problems), "; ".join(problems[:3]))
    return rows, len(problems)


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
