"""Text files by lines: plain, gzip or zstd, with the number of each; broken ones stop, or are counted."""

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
"""Of the year 9999, since 1970; a time after it is in another unit."""

LONGEST_LINE = 2**24
"""Bytes; what is longer is no record of any corpus, and may be a whole file without line ends."""

_DAMAGED = (EOFError, OSError, zlib.error)

logger = logging.getLogger(__name__)


def checked_file(path: str | Path, what: str) -> Path:
    """The path of a file that is there and holds something.

    Raises:
        FileNotFoundError, IsADirectoryError: it is not there, or is a directory.
        ValueError: it is empty.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the {what} file itself")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the {what} file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give the {what} file as it was published")
    return path


def opened(path: Path) -> BinaryIO:
    """The file's bytes; gzip and zstd are told by how they begin, not by the name, and unpacked."""
    with path.open("rb") as raw:
        magic = raw.read(4)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)  # type: ignore[return-value]
    if magic == b"\x28\xb5\x2f\xfd":
        return io.BufferedReader(pa.input_stream(path, compression="zstd"))
    return path.open("rb")


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """All lines that are not blank, and their numbers from 1; a byte order mark of UTF-8 is no part of them.

    Raises:
        ValueError: the file is cut off or damaged, or a line is longer than :data:`LONGEST_LINE`.
    """
    number = 0
    file = opened(path)
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
    """What ``parse`` makes of each line, and the number of lines skipped.

    Args:
        path: of the file.
        parse: raises a ValueError that says what is wrong with a line.
        skip_bad_lines: leave broken lines out, count them and log the first, instead of raising.
        header: whether the first line is passed over.

    Raises:
        ValueError: ``parse`` raised one, unless bad lines are skipped; the message names file and line.
    """
    rows: list[Row] = []
    skipped: list[str] = []
    for number, line in lines_of(path):
        if header and number == 1:
            continue
        try:
            rows.append(parse(line))
        except ValueError as error:
            if not skip_bad_lines:
                raise ValueError(f"{path}, line {number}: {error} (skip_bad_lines leaves it out)") from error
            skipped.append(f"line {number}: {error}")
    if skipped:
        logger.warning("%s: %d broken lines skipped; %s", path, len(skipped), "; ".join(skipped[:3]))
    return rows, len(skipped)


def decoded(line: bytes, encoding: str = "utf-8") -> str:
    """The line as text, without its end.

    Raises:
        ValueError: it is not in that encoding.
    """
    try:
        return line.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding}: {excerpt(line)}") from error


def excerpt(line: bytes) -> str:
    """The beginning of a line, for messages."""
    return repr(line[:60].decode(errors="replace"))


def unescaped(text: str) -> str:
    """HTML entities as what they stand for; all left alone if one has more digits than Python takes."""
    try:
        return html.unescape(text)
    except ValueError:
        return text
