"""Reading of named columns from Parquet, CSV, TSV and JSON-lines files of any origin."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.datasets.formats.delimited import ROWS_AT_A_TIME, ChooseColumns, read_delimited
from recsys.datasets.formats.json_lines import read_json_lines
from recsys.datasets.formats.limits import parquet_batches
from recsys.datasets.formats.lines import checked_file
from semantic_ids.plugins import nearest_name

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (".parquet", *SEPARATORS, ".jsonl")

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
    ``.jsonl``. The last three may be compressed, as ``.csv.gz``, ``.csv.zst`` and so on. They are UTF-8, and
    their values are read as texts exactly as they are written, see
    :func:`~recsys.datasets.formats.delimited.read_delimited` and
    :func:`~recsys.datasets.formats.json_lines.read_json_lines`. Arrow dictionaries are read as their values.

    pyarrow reads Parquet files, because polars ends the whole process for some broken files.

    Args:
        path: Path of the file.
        what: What the file contains, in a word for error messages, such as ``interactions``.
        columns: Columns that must exist, each once.
        optional: Columns that are read if they exist.

    Yields:
        Frames with the columns in the order of ``columns`` and ``optional``. The first may have no rows.

    Raises:
        OSError: If the file is missing, is a directory, or may not be read.
        ValueError: If the file is empty, damaged or not in the format of its ending; if a column is missing,
            or is there twice; or if ``columns`` has one twice. The message names the file, and the line if
            one line is wrong.
    """
    path = checked_file(path, what)
    ending = Path(path.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
    if ending not in ENDINGS:
        raise ValueError(
            f"{path}: tables end in .parquet, .csv, .tsv or .jsonl, the last three also in .csv.gz, .csv.zst "
            "and so on; this file has another ending"
        )
    _refuse_pointer(path)
    for name, count in Counter(columns).items():
        if count > 1:
            raise ValueError(f"{path}: the column {name!r} is asked for {count} times; name others")
    choose = partial(_choose_columns, path, columns, optional)
    try:
        if ending == ".parquet":
            yield from _read_parquet(path, choose)
        elif ending == ".jsonl":
            yield from read_json_lines(path, list(dict.fromkeys([*columns, *optional])), choose)
        else:
            yield from read_delimited(path, SEPARATORS[ending], choose)
    except _READ_ERRORS as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"{path} cannot be read as {ending[1:]} ({reason!r}); write or download it again"
        ) from error


def _read_parquet(path: Path, choose: ChooseColumns) -> Iterator[pl.DataFrame]:
    """Yield the columns of a Parquet file, first a frame without rows, then one frame for each batch."""
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowNotImplementedError:
        yield _read_wide_integers(path, choose)
        return
    with file:
        chosen, rows = choose(file.schema_arrow.names), file.metadata.num_rows
        schema = pa.schema([_supported_field(path, file.schema_arrow.field(name)) for name in chosen])
    yield pl.DataFrame(schema.empty_table())
    for batch in parquet_batches(path, chosen, ROWS_AT_A_TIME):
        rows -= len(batch)
        yield pl.DataFrame(batch.cast(schema))
    if rows:
        raise ValueError(f"{path}: {abs(rows)} rows {'are missing' if rows > 0 else 'too many'}")


def _read_wide_integers(path: Path, choose: ChooseColumns) -> pl.DataFrame:
    """Return the columns of a Parquet file of polars with integers of 128 bits, which only polars knows."""
    table = pl.read_parquet(path, columns=choose(list(pl.read_parquet_schema(path))), glob=False)
    rows = pl.scan_parquet(path, glob=False).select(pl.len()).collect().item()
    if len(table) != rows:
        raise ValueError(f"{path}: {len(table)} of {rows} rows could be read")
    return table


def _supported_field(path: Path, column: pa.Field) -> pa.Field:
    """Return a column with a type that polars supports: dictionaries as their values, times as UTC.

    polars panics for some other types.

    Raises:
        ValueError: If readers cannot use the type.
    """
    dtype = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_timestamp(dtype) and dtype.tz is not None:
        dtype = pa.timestamp(dtype.unit, "UTC")
    if pa.types.is_decimal32(dtype) or pa.types.is_decimal64(dtype):
        dtype = pa.decimal128(dtype.precision, dtype.scale)
    if pa.types.is_string_view(dtype):
        dtype = pa.large_string()
    is_list = pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)
    if not any(is_supported(dtype.value_type if is_list else dtype) for is_supported in _IS_SUPPORTED):
        kind = repr(str(dtype)[:60])[1:-1]  # may hold names from the file
        raise ValueError(f"{path}: {column.name!r} holds {kind}, not texts, numbers, times or lists of them")
    return pa.field(column.name, dtype)


def _choose_columns(
    path: Path, columns: Collection[str], optional: Collection[str], names: list[str]
) -> list[str]:
    """Return the required columns and the optional ones that the file has.

    Raises:
        ValueError: If a required column is missing, or if the file has a chosen column twice.
    """
    for name in columns:
        if name not in names:
            known = [repr(name[:40])[1:-1] for name in names[:20]]
            raise ValueError(
                f"{path}: no column is called {name!r}. {nearest_name(name, known)}{_separator_hint(names)}"
            )
    chosen = list(dict.fromkeys([*columns, *(name for name in optional if name in names)]))
    for name in chosen:
        if names.count(name) > 1:
            raise ValueError(
                f"{path}: {names.count(name)} columns are called {name!r}; give each its own name"
            )
    return chosen


def _separator_hint(names: list[str]) -> str:
    """Return what to do about a file whose cells are separated by something else, if it looks like one."""
    other = next((sign for sign in ";\t|," if len(names) == 1 and sign in names[0]), None)
    return f" The file has {other!r} between its columns; .csv has a comma, .tsv a tab." if other else ""


def _refuse_pointer(path: Path) -> None:
    """Raise a ValueError if the file is only a git-LFS pointer."""
    with path.open("rb") as file:
        if file.read(19) == b"version https://git":
            raise ValueError(
                f"{path} is only a git-LFS pointer to the file; `git lfs pull` fetches the file itself"
            )
