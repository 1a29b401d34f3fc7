"""Blocks of whole lines of text files, plain or compressed, with bounds on everything that could fill memory.

All readers of text files read them through :func:`blocks_of` or check them with :func:`check_text`, because
polars ends the whole process for some files, such as one with a line of a gigabyte.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from recsys.datasets.formats.limits import check_unpacked
from recsys.texts.encodings import is_utf16

Item = TypeVar("Item")

LONGEST_LINE = 2**24
"""Largest length of a line in bytes. No corpus has longer records; a longer line is probably no text."""

MOST_BLANK_LINES = 10_000_000
"""Largest number of blank lines in a file where most lines are blank."""

BLOCK = 2**24
"""Size of a block in bytes, without the rest of its last line."""

_PIECE = 2**18
"""Number of bytes that are unpacked at a time."""

_SHORT = 16
"""Average length of lines in bytes below which blank lines are counted."""

_DAMAGED = (EOFError, OSError, zlib.error)
"""Errors that mean that a compressed file is incomplete or damaged."""


def open_unpacked(path: Path) -> io.BufferedReader:
    """Open a file for reading bytes, and unpack gzip and zstd.

    The first bytes decide whether the file is compressed, not its name. Reading raises a ValueError after
    more bytes than :func:`~recsys.datasets.formats.limits.largest_unpacked` permits.
    """
    with path.open("rb") as raw:
        magic = raw.read(4)
    if magic[:2] == b"\x1f\x8b":
        return io.BufferedReader(_Bounded(gzip.open(path), path), _PIECE)
    if magic == b"\x28\xb5\x2f\xfd":
        return io.BufferedReader(_Bounded(pa.input_stream(path, compression="zstd"), path), _PIECE)
    return path.open("rb")


class _Bounded(io.RawIOBase):
    """A stream of unpacked bytes that raises a ValueError when there are too many of them.

    Args:
        file: The stream to read.
        path: The packed file.
    """

    def __init__(self, file: Any, path: Path) -> None:
        self.path, self.file, self.count = path, file, 0
        # gzip's readinto() loses what it has read before it meets damage.
        self.read_into = getattr(file, "readinto1", file.readinto)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with the next bytes, and return how many there were."""
        count: int = self.read_into(buffer)
        self.count += count
        check_unpacked(self.path, self.count)
        return count

    def close(self) -> None:
        """Close the stream and the file below it."""
        self.file.close()
        super().close()


def blocks_of(path: Path, size: int = BLOCK) -> Iterator[tuple[int, bytes]]:
    """Yield the whole file in blocks of whole lines.

    A UTF-8 byte order mark is removed.

    Args:
        path: Path of the file, plain, gzip or zstd.
        size: Size from which on a block ends at the end of a line.

    Yields:
        Number of the block's first line, from 1, and the block.

    Raises:
        ValueError: If the file is UTF-16, incomplete or damaged; if it unpacks to too many bytes; if a line
            is longer than :data:`LONGEST_LINE`; or if there are nearly only blank lines.
    """
    number, blank = 1, 0
    for block, damage in _whole_lines(path, size):
        _check_lines(path, number, block)
        if block:
            yield number, _without_mark(path, block) if number == 1 else block
        ends = block.count(b"\n")
        number += ends
        blank += _count_blank(block, ends)
        if blank > MOST_BLANK_LINES and 2 * blank > number:
            raise ValueError(f"{path}: {blank} of {number} lines are blank; is this the right file?")
        if damage:
            raise ValueError(
                f"{path}: cut off or damaged after line {number - 1}; download it again"
            ) from damage


def _whole_lines(path: Path, size: int) -> Iterator[tuple[bytes, Exception | None]]:
    """Yield blocks of whole lines; together with the last one the error that ends a damaged file.

    Lines may be too long here. The last line before the error is left out.
    """
    held: list[bytes] = []
    length = 0
    with open_unpacked(path) as file:
        while True:
            try:
                piece = file.read1(_PIECE)
            except _DAMAGED as error:
                before, end, _ = b"".join(held).rpartition(b"\n")
                yield before + end, error
                return
            held.append(piece)
            length += len(piece)
            end_of_line = piece.rfind(b"\n") + 1
            if not piece:
                yield b"".join(held), None
                return
            if length >= size and (end_of_line or length > size + LONGEST_LINE):
                cut = end_of_line or len(piece)
                held[-1], rest = piece[:cut], piece[cut:]
                yield b"".join(held), None
                held, length = [rest], len(rest)


def check_text(path: Path) -> None:
    """Read a text file once, before it is given to polars as a whole.

    Args:
        path: Path of the file, plain, gzip or zstd.

    Raises:
        ValueError: As :func:`blocks_of` does.
    """
    for _ in blocks_of(path, _PIECE):
        pass


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items of an iterator, and fetch each in a thread while the one before it is used."""
    end = object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        item = pool.submit(next, items, end)
        while (current := item.result()) is not end:
            item = pool.submit(next, items, end)
            yield current  # type: ignore[misc]


def _check_lines(path: Path, number: int, block: bytes) -> None:
    """Raise a ValueError that names the first line that is too long, if there is one."""
    start = 0
    while len(block) - start >= LONGEST_LINE:
        end = block.rfind(b"\n", start, start + LONGEST_LINE)
        if end < 0:
            line = number + block.count(b"\n", 0, start)
            raise ValueError(f"{path}, line {line}: longer than {LONGEST_LINE} bytes; is this a text file?")
        start = end + 1


def _without_mark(path: Path, block: bytes) -> bytes:
    """Return the first block without a byte order mark; raise a ValueError if the file is UTF-16."""
    if is_utf16(block[:4]):
        raise ValueError(f"{path} is UTF-16, not UTF-8; save it as UTF-8")
    return block.removeprefix(codecs.BOM_UTF8)


def _count_blank(block: bytes, ends: int) -> int:
    """Return how many of the ``ends`` lines are blank; 0 if they are so long that most cannot be blank."""
    if ends * _SHORT < len(block):
        return 0
    return ends - len(re.findall(rb"\n+", block.translate(None, b" \t\r\v\f").lstrip(b"\n")))
