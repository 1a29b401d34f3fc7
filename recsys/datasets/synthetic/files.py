"""Files that are whole or not there: they are written under another name, then renamed."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from semantic_ids.files import atomic_write

FAST = 1
"""Gzip level: the usual 6 takes three times as long and saves a quarter."""


def write_chunks(path: Path, chunks: Iterable[bytes]) -> Path:
    """Write bytes, packed where the name ends in ``.gz``; equal chunks make equal bytes."""
    with atomic_write(path) as partial, partial.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", compresslevel=FAST, fileobj=raw, mtime=0) as packed:
                packed.writelines(chunks)
        else:
            raw.writelines(chunks)
    return path


def write_parquet(path: Path, frames: Iterable[pl.DataFrame], schema: pa.Schema) -> Path:
    """Write frames, each a row group, as columns of these types."""
    with atomic_write(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for frame in frames:
            writer.write_table(frame.select(schema.names).to_arrow().cast(schema))
    return path


def json_lines(frame: pl.DataFrame) -> bytes:
    """One JSON object a row."""
    buffer = io.BytesIO()
    frame.write_ndjson(buffer)
    return buffer.getvalue()


def csv_lines(frame: pl.DataFrame) -> bytes:
    """One line a row, without header; lines end as RFC 4180 says."""
    buffer = io.BytesIO()
    frame.write_csv(buffer, include_header=False, line_terminator="\r\n")
    return buffer.getvalue()


def plain_lines(frame: pl.DataFrame, separator: str, encoding: str = "utf-8") -> bytes:
    """One line a row, nothing quoted."""
    lines = frame.select(pl.concat_str(pl.all(), separator=separator) + "\n").to_series()
    return lines.str.join("").item().encode(encoding)
