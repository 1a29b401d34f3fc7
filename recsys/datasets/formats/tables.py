"""Tables with named columns: Parquet, CSV, TSV and JSON lines, whoever wrote them."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.datasets.formats.lines import checked_file, excerpt, lines_of, opened
from semantic_ids.plugins import nearest_name

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (".parquet", *SEPARATORS, ".jsonl")
ROWS_AT_A_TIME = 100_000

_UNREADABLE = (
    *(pl.exceptions.PolarsError, pl.exceptions.PanicException),
    *(pa.ArrowException, UnicodeDecodeError, OSError, EOFError, zlib.error),
)

_READABLE = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating),
    *(pa.types.is_decimal128, pa.types.is_boolean, pa.types.is_date, pa.types.is_timestamp, pa.types.is_null),
)


def table_of(path: Path, what: str, columns: Collection[str], optional: Collection[str] = ()) -> pl.DataFrame:
    """What :func:`parts_of` gives, in one."""
    return pl.concat(parts_of(path, what, columns, optional))


def parts_of(
    path: Path, what: str, columns: Collection[str], optional: Collection[str] = ()
) -> Iterator[pl.DataFrame]:
    """The named columns of a table, in their order, part by part; the first part may have no rows.

    The ending of the name, in capitals or not, tells what a file is: ``.parquet``, ``.csv``, ``.tsv`` or
    ``.jsonl``, the latter three also in ``.csv.gz``, ``.csv.zst`` and so on. CSV and TSV are UTF-8 and begin
    with the names of the columns; all their cells are texts. Categories are texts too.

    pyarrow reads Parquet because polars ends the whole process over some broken files.

    Args:
        path: of the file.
        what: it holds, for messages.
        columns: that must be there.
        optional: columns that may be there.

    Raises:
        OSError: the file is missing, a directory, or may not be read.
        ValueError: it is empty, damaged, not what its ending says, or lacks a column; the message names the
            file, and the line if there is one that is wrong.
    """
    path = checked_file(path, what)
    ending = Path(path.name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
    if ending not in ENDINGS:
        raise ValueError(
            f"{path}: tables end in .parquet, .csv, .tsv or .jsonl, or in .csv.gz and the like; this is none"
        )
    _refuse_pointer(path)
    try:
        if ending == ".parquet":
            yield from _parquet(path, columns, optional)
        else:
            table = _json(path) if ending == ".jsonl" else _separated(path, SEPARATORS[ending])
            yield table.select(_chosen(path, table.columns, columns, optional))
    except _UNREADABLE as error:
        if ending == ".jsonl":
            _find_bad_json(path)
        if ending in SEPARATORS:
            _find_bad_csv(path, SEPARATORS[ending])
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"{path} cannot be read as {ending[1:]} ({reason}); write or download it again"
        ) from error


def _parquet(path: Path, columns: Collection[str], optional: Collection[str]) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(path) as file:
        chosen = _chosen(path, file.schema_arrow.names, columns, optional)
        schema = pa.schema([_readable(path, file.schema_arrow.field(name)) for name in chosen])
        yield pl.DataFrame(schema.empty_table())
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=chosen):
            batch.validate(full=True)
            yield pl.DataFrame(batch.select(chosen).cast(schema))


def _readable(path: Path, column: pa.Field) -> pa.Field:
    """The column as polars can take it, which panics over some types: categories as texts, times as UTC.

    Raises:
        ValueError: there is no use for such a type.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        kind = pa.timestamp(kind.unit, "UTC")
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not any(is_of(kind.value_type if is_list else kind) for is_of in _READABLE):
        raise ValueError(
            f"{path}: {column.name!r} holds {str(kind)[:60]}, not texts, numbers, times or lists of them"
        )
    return pa.field(column.name, kind)


def _separated(path: Path, separator: str) -> pl.DataFrame:
    table = pl.read_csv(path, infer_schema=False, separator=separator, glob=False)
    return table.filter(~pl.all_horizontal(pl.all().is_null()))  # null all over: a blank line


def _json(path: Path) -> pl.DataFrame:
    with opened(path) as file:
        return pl.read_ndjson(file.read(), infer_schema_length=None)


def _chosen(path: Path, names: list[str], columns: Collection[str], optional: Collection[str]) -> list[str]:
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
    with path.open("rb") as file:
        if file.read(19) == b"version https://git":
            raise ValueError(
                f"{path} is a pointer of git-LFS to the file; `git lfs pull` fetches the file itself"
            )


def _find_bad_csv(path: Path, separator: str) -> None:
    """Raise a :class:`ValueError` that names the first bad line, if one can be told."""
    number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for place, line in lines_of(path):
            number = place
            yield line.decode()

    rows = csv.reader(texts(), delimiter=separator, strict=True)
    try:
        names = next(rows, [])
        too_long = next((row for row in rows if len(row) > len(names)), None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}, line {number}: not CSV in UTF-8: {error}") from error
    if too_long:
        raise ValueError(f"{path}, line {number}: {len(too_long)} fields for {len(names)} columns")


def _find_bad_json(path: Path) -> None:
    """Raise a :class:`ValueError` that names the first bad line, if one can be told."""
    for number, line in lines_of(path):
        try:
            sound = isinstance(json.loads(line), dict)
        except (ValueError, RecursionError):
            sound = False
        if not sound:
            raise ValueError(f"{path}, line {number}: not a JSON object: {excerpt(line)}")
