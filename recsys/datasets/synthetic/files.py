"""Writers of files that are complete or do not exist: the files are renamed when they are complete."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from semantic_ids.files import atomic_write

GZIP_LEVEL = 1
"""Level 1 is fast. The usual level 6 takes three times as long for files that are a quarter smaller."""


def write_chunks(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write bytes to a file, with gzip if its name ends in ``.gz``; equal chunks give equal files.

    Args:
        path: Path of the file.
        chunks: The content in parts.

    Returns:
        ``path``.
    """
    with atomic_write(path) as partial, partial.open("wb") as raw:
        if path.suffix == ".gz":
            # Without file name and time, which would make the bytes differ.
            with gzip.GzipFile("", "wb", compresslevel=GZIP_LEVEL, fileobj=raw, mtime=0) as compressed:
                compressed.writelines(chunks)
        else:
            raw.writelines(chunks)
    return path


def write_parquet(path: Path, frames: Iterable[pl.DataFrame], schema: pa.Schema) -> Path:
    """Write frames to a Parquet file, one row group for each.

    Args:
        path: Path of the file.
        frames: Frames with the columns of the schema; other columns are ignored.
        schema: Names and types of the columns.

    Returns:
        ``path``.
    """
    with atomic_write(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for frame in frames:
            writer.write_table(frame.select(schema.names).to_arrow().cast(schema))
    return path


def json_lines(frame: pl.DataFrame) -> bytes:
    r"""Return the rows of a frame as JSON objects, one per line.

    Example:
        >>> json_lines(pl.DataFrame({"a": [1, 2]}))
        b'{"a":1}\n{"a":2}\n'
    """
    buffer = io.BytesIO()
    frame.write_ndjson(buffer)
    return buffer.getvalue()


def csv_lines(frame: pl.DataFrame) -> bytes:
    """Return the rows of a frame as CSV without header, with the line ends of RFC 4180 (CR LF)."""
    buffer = io.BytesIO()
    frame.write_csv(buffer, include_header=False, line_terminator="\r\n")
    return buffer.getvalue()


def plain_lines(frame: pl.DataFrame, separator: str, encoding: str = "utf-8") -> bytes:
    """Return the rows of a frame as lines without quotes.

    Args:
        frame: The rows; cells must not contain the separator.
        separator: Text between the cells.
        encoding: Encoding of the result.
    """
    lines = frame.select(pl.concat_str(pl.all(), separator=separator) + "\n").to_series()
    return lines.str.join("").item().encode(encoding)
