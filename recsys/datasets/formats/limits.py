"""Bounds on the size of what a packed file holds.

A file of some megabytes can unpack to terabytes and fill the memory or the disk. Real corpora unpack to five
to thirty times their size, so the bound depends on both the size and the ratio.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.filesize import decimal

SETTING = "GRITREC_UNPACKED_GB"
"""Environment variable with the number of gigabytes that every file may unpack to."""

DEFAULT_GB = 1.0
"""The number of gigabytes without this setting."""

GB = 10**9

MOST_TIMES = 100
"""How many times its own size a file may always unpack to."""

_LIST_ROWS = 1000

_VALUE = 8
"""Bytes in memory of a value, such as a number or the end of a text."""


def largest_unpacked(packed: int) -> int:
    """Return the number of bytes that a packed file may unpack to.

    This is 100 times its own size, or the gigabytes of the environment variable :data:`SETTING` (1 if it is
    not set), whichever is larger.

    Args:
        packed: Size of the packed file in bytes.

    Raises:
        ValueError: If the environment variable is not a number above 0.

    Example:
        >>> largest_unpacked(10**6), largest_unpacked(10**9)
        (1000000000, 100000000000)
    """
    text = os.environ.get(SETTING) or str(DEFAULT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < 10**9:
        raise ValueError(f"{SETTING} is {text[:60]!r}; give a number of gigabytes, such as 20")
    return max(MOST_TIMES * packed, int(gigabytes * GB))


def check_unpacked(path: Path, unpacked: int) -> None:
    """Raise a ValueError if a file unpacks to more than :func:`largest_unpacked` bytes.

    Args:
        path: The packed file.
        unpacked: Number of bytes that it unpacks to, or that were unpacked so far.
    """
    packed = path.stat().st_size
    most = largest_unpacked(packed)
    if unpacked > most:
        raise ValueError(
            f"{path} has {decimal(packed)}, but unpacks to more than {decimal(most)}; if this is right, set "
            f"the environment variable {SETTING} to the number of gigabytes that it may have"
        )


def parquet_batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield columns of a Parquet file, some rows at a time, after checking that they do not fill the memory.

    The footer has the sizes of what is in the file. It does not have the size of texts that many rows share
    through a dictionary, so texts stay in dictionaries, and each batch is measured before it is yielded.

    Args:
        path: The file.
        columns: Names of the columns, each once.
        rows: Largest number of rows of a batch; 1,000 if a column has lists, which may be long.

    Yields:
        Valid batches with the columns in their order. Texts, also those in lists, are dictionaries.

    Raises:
        ValueError: If the columns unpack to too many bytes, see :func:`check_unpacked`.
    """
    with pq.ParquetFile(path) as file:
        texts = _text_leaves(file, columns)
        check_unpacked(path, _footer_size(file.metadata, columns))
        has_lists = any(pa.types.is_nested(file.schema_arrow.field(name).type) for name in columns)
    rows = min(rows, _LIST_ROWS) if has_lists else rows
    unpacked = 0
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(rows, columns=list(columns)):
            batch.validate(full=True)
            unpacked += sum(_unpacked_size(column) for column in batch.columns)
            check_unpacked(path, unpacked)
            yield batch.select(list(columns))


def _text_leaves(file: pq.ParquetFile, columns: Sequence[str]) -> list[str]:
    """Return the paths of all texts in the columns, those within lists included."""
    leaves = (file.schema.column(index) for index in range(len(file.schema)))
    return [
        leaf.path
        for leaf in leaves
        if leaf.path.partition(".")[0] in columns and leaf.physical_type == "BYTE_ARRAY"
    ]


def _footer_size(footer: pq.FileMetaData, columns: Sequence[str]) -> int:
    """Return what the row groups unpack to by the footer, in bytes; at least 8 for each value.

    These are the sizes of all columns, because pyarrow ends the process where it looks up a single column in
    some broken footers.
    """
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    return sum(max(group.total_byte_size, _VALUE * group.num_rows * len(columns)) for group in groups)


def _unpacked_size(column: pa.Array) -> int:
    """Return the bytes of a column, with each of its values written out if they are in a dictionary."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return _unpacked_size(column.flatten()) + _VALUE * len(column)
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    size = _VALUE * len(column)
    if pa.types.is_primitive(column.type.value_type):
        return size
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return size + (pc.sum(lengths).as_py() or 0)
