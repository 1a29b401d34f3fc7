"""Reading of named columns from Parquet, CSV, TSV and JSON-lines files of any origin."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.datasets.formats.lines import checked_file, excerpt, lines_of, open_unpacked
from semantic_ids.plugins import nearest_name

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (".parquet", *SEPARATORS, ".jsonl")
ROWS_AT_A_TIME = 100_000

_READ_ERRORS = (
    *(pl.exceptions.PolarsError, pl.exceptions.PanicException),
    *(pa.ArrowException, UnicodeDecodeError, OSError, EOFError, zlib.error),
)
"""Errors that polars and pyarrow raise for broken files."""

_IS_SUPPORTED = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating),
    *(pa.types.is_decimal128, pa.types.is_boolean, pa.types.is_date, pa.types.is_timestamp, pa.types.is_null),
)
"""Predicates of the Arrow types that a column, or the elements of its lists, may have."""


def read_columns(
    path: Path, what: str, columns: Collection[str], optional: Collection[str] = ()
) -> pl.DataFrame:
    """Read the named columns of a table into one frame, see :func:`read_columns_in_parts`."""
    return pl.concat(read_columns_in_parts(path, what, columns, optional))


def read_columns_in_parts(
    path: Path, what: str, columns: Collection[str], optional: Collection[str] = ()
) -> Iterator[pl.DataFrame]:
    """Read the named columns of a table, some rows at a time.

    The ending of the file name, in capitals or not, decides the format: ``.parquet``, ``.csv``, ``.tsv`` or
    ``.jsonl``. The last three may be compressed, as ``.csv.gz``, ``.csv.zst`` and so on. CSV and TSV files
    are UTF-8, have the column names in the first line, and all their cells are read as texts. Arrow
    dictionaries are read as their values.

    pyarrow reads Parquet files, because polars ends the whole process for some broken files.

    Args:
        path: Path of the file.
        what: What the file contains, in a word for error messages, such as ``interactions``.
        columns: Columns that must exist.
        optional: Columns that are read if they exist.

    Yields:
        Frames with the columns in the order of ``columns`` and ``optional``. The first may have no rows.

    Raises:
        OSError: If the file is missing, is a directory, or may not be read.
        ValueError: If the file is empty, damaged or not in the format of its ending, or if a column is
            missing. The message names the file, and the line if one line is wrong.
    """
    path = checked_file(path, what)
    ending = Path(path.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
    if ending not in ENDINGS:
        raise ValueError(
            f"{path}: tables end in .parquet, .csv, .tsv or .jsonl, the last three also in .csv.gz, .csv.zst "
            "and so on; this file has another ending"
        )
    _refuse_pointer(path)
    try:
        if ending == ".parquet":
            yield from _read_parquet(path, columns, optional)
        else:
            table = _read_json(path) if ending == ".jsonl" else _read_csv(path, SEPARATORS[ending])
            yield table.select(_choose_columns(path, table.columns, columns, optional))
    except _READ_ERRORS as error:
        if ending == ".jsonl":
            _raise_for_bad_json(path)
        if ending in SEPARATORS:
            _raise_for_bad_csv(path, SEPARATORS[ending])
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"{path} cannot be read as {ending[1:]} ({reason}); write or download it again"
        ) from error


def _read_parquet(path: Path, columns: Collection[str], optional: Collection[str]) -> Iterator[pl.DataFrame]:
    """Yield the columns of a Parquet file, first a frame without rows, then one frame for each batch."""
    with pq.ParquetFile(path) as file:
        chosen = _choose_columns(path, file.schema_arrow.names, columns, optional)
        schema = pa.schema([_supported_field(path, file.schema_arrow.field(name)) for name in chosen])
        yield pl.DataFrame(schema.empty_table())
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=chosen):
            batch.validate(full=True)
            yield pl.DataFrame(batch.select(chosen).cast(schema))


def _supported_field(path: Path, column: pa.Field) -> pa.Field:
    """Return a column with a type that polars supports: dictionaries as their values, times as UTC.

    polars panics for some other types.

    Raises:
        ValueError: If readers cannot use the type.
    """
    dtype = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_timestamp(dtype) and dtype.tz is not None:
        dtype = pa.timestamp(dtype.unit, "UTC")
    is_list = pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)
    if not any(is_supported(dtype.value_type if is_list else dtype) for is_supported in _IS_SUPPORTED):
        raise ValueError(
            f"{path}: {column.name!r} holds {str(dtype)[:60]}, not texts, numbers, times or lists of them"
        )
    return pa.field(column.name, dtype)


def _read_csv(path: Path, separator: str) -> pl.DataFrame:
    """Return all columns of a CSV or TSV file as texts, without blank lines."""
    table = pl.read_csv(path, infer_schema=False, separator=separator, glob=False)
    return table.filter(~pl.all_horizontal(pl.all().is_null()))  # a blank line is null in all columns


def _read_json(path: Path) -> pl.DataFrame:
    """Return all columns of a JSON-lines file."""
    with open_unpacked(path) as file:
        return pl.read_ndjson(file.read(), infer_schema_length=None)


def _choose_columns(
    path: Path, names: list[str], columns: Collection[str], optional: Collection[str]
) -> list[str]:
    """Return the required columns and the optional ones that the file has.

    Raises:
        ValueError: If a required column is missing, or if the file has a chosen column twice.
    """
    for name in columns:
        if name not in names:
            known = [name[:40] for name in names[:20]]
            raise ValueError(f"{path}: no column is called {name!r}. {nearest_name(name, known)}")
    chosen = list(dict.fromkeys([*columns, *(name for name in optional if name in names)]))
    for name in chosen:
        if names.count(name) > 1:
            raise ValueError(
                f"{path}: {names.count(name)} columns are called {name!r}; give each its own name"
            )
    return chosen


def _refuse_pointer(path: Path) -> None:
    """Raise a ValueError if the file is only a git-LFS pointer."""
    with path.open("rb") as file:
        if file.read(19) == b"version https://git":
            raise ValueError(
                f"{path} is only a git-LFS pointer to the file; `git lfs pull` fetches the file itself"
            )


def _raise_for_bad_csv(path: Path, separator: str) -> None:
    """Raise a ValueError that names the first broken line of a CSV file, if there is one."""
    number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for line_number, line in lines_of(path):
            number = line_number
            yield line.decode()

    rows = csv.reader(texts(), delimiter=separator, strict=True)
    try:
        names = next(rows, [])
        too_long = next((row for row in rows if len(row) > len(names)), None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}, line {number}: not CSV in UTF-8: {error}") from error
    if too_long:
        raise ValueError(f"{path}, line {number}: {len(too_long)} fields for {len(names)} columns")


def _raise_for_bad_json(path: Path) -> None:
    """Raise a ValueError that names the first line that is no JSON object, if there is one."""
    for number, line in lines_of(path):
        try:
            is_object = isinstance(json.loads(line), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise ValueError(f"{path}, line {number}: not a JSON object: {excerpt(line)}")
