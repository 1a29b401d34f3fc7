"""Reader of published semantic IDs: a table with the codes of a catalogue's items."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.datasets.formats.lines import checked_file, decoded, lines_of
from recsys.datasets.formats.tables import read_columns_in_parts
from semantic_ids.ids import SemanticIds
from semantic_ids.types import Ints

_HIGHEST = 10_000_000
"""Largest code. Larger numbers are probably item IDs."""

_TOKEN = r"^(?:<?[A-Za-z]+_)?(\d+)>?$"  # noqa: S105 — a code: 12, a_12 or <a_12>


def read_codes(
    path: str | Path,
    *,
    item_ids: Sequence[str],
    key: str = "item_id",
    column: str | Sequence[str] = "codes",
    levels: int | None = None,
    codebook_size: int | None = None,
) -> SemanticIds:
    """Read the codes of a catalogue's items from a file.

    Other items in the file are ignored. The ending of the file name, in capitals or not, decides the format:

    - ``.parquet``: one row for each item, with its ID in ``key``, and a list of its codes in ``column``, or
      several columns, one for each level, from coarse to fine;
    - ``.csv``: the same, always with one column for each level;
    - ``.json``: one object ``{"item": codes, …}``; ``.jsonl``: one of these objects per line. ``key`` and
      ``column`` are not used.

    Codes are integers from 0, or tokens that end in one, such as ``<a_12>`` in the index files of LC-Rec and
    LETTER. The position of a token decides its level.

    Args:
        path: Path of the file.
        item_ids: IDs of the N items, in the order of the rows to return.
        key: Column of the item IDs.
        column: Column of the lists of codes, or the columns of the levels.
        levels: Number of levels to keep, from the first. Many publications have a last level that only
            distinguishes items with equal codes. By default all levels are kept.
        codebook_size: Number of codes K of every level. By default the highest code + 1 of each level;
            unused codes above it are then unknown.

    Returns:
        Semantic IDs with codes ``(N, L)``.

    Raises:
        ValueError: If the file is not in this format, or if items of the catalogue have no codes, have
            several rows, or have codes that do not fit. The message names the file, the column and the
            first of these items.
        OSError: If the file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "index.json"
        >>> _ = path.write_text('{"x": ["<a_1>", "<b_0>"], "y": ["<a_0>", "<b_3>"], "z": ["<a_9>", "<b_9>"]}')
        >>> ids = read_codes(path, item_ids=["y", "x"])
        >>> ids.codes.tolist(), ids.codebook_sizes
        ([[0, 3], [1, 0]], (2, 4))
    """
    path = Path(path)
    check_format(path)
    ending = path.suffix.lower()
    if ending in (".json", ".jsonl"):
        where, frame = str(path), _read_json(path)
    else:
        columns = [column] if isinstance(column, str) else list(column)
        where, frame = f"{path}, column {', '.join(columns)}", _read_table(path, key, columns)
    rows = _rows_in_order(where, frame, item_ids)
    per_level = " (a CSV has one column for each level)" if ending == ".csv" else ""
    codes = _numbers(where, rows, levels, f"integers from 0{per_level}")
    too_high = (codes > _HIGHEST).any(axis=1)
    _require_none(where, rows.filter(too_high), f"have codes above {_HIGHEST:,}, are these item IDs?")
    if codebook_size is None:
        return SemanticIds(codes, tuple(int(highest) + 1 for highest in codes.max(axis=0)))
    too_high = (codes >= codebook_size).any(axis=1)
    _require_none(where, rows.filter(too_high), f"have codes above {codebook_size - 1}")
    return SemanticIds(codes, (codebook_size,) * codes.shape[1])


def check_format(path: Path) -> None:
    """Raise a ValueError unless the file name has an ending that :func:`read_codes` supports."""
    if path.suffix.lower() not in (".parquet", ".csv", ".json", ".jsonl"):
        raise ValueError(f"{path} is no table of codes: it must end in .parquet, .csv, .json or .jsonl")


def _rows_in_order(where: str, frame: pl.DataFrame, item_ids: Sequence[str]) -> pl.DataFrame:
    """Return one row with codes for each of ``item_ids``, in their order, or raise a ValueError.

    Args:
        where: The file, and the column if there is one, for messages.
        frame: The rows of the file, with the columns ``item`` and ``codes``.
        item_ids: IDs of the catalogue.
    """
    if frame.is_empty():
        raise ValueError(f"{where}: there are no items")
    items = pl.DataFrame({"item": item_ids}, schema={"item": pl.String})
    own_rows = frame.join(items, on="item", how="semi")
    _require_none(where, own_rows.filter(own_rows["item"].is_duplicated()), "have more than one row")
    missing = items.join(own_rows, on="item", how="anti", maintain_order="left")
    example = frame["item"].str.head(60).first()
    _require_none(where, missing, f"do not stand there, but {example!r}, for one, does")
    rows = items.join(own_rows, on="item", how="left", maintain_order="left")
    _require_none(where, rows.filter(rows["codes"].list.len().fill_null(0) == 0), "have no list of codes")
    return rows


def _numbers(where: str, rows: pl.DataFrame, levels: int | None, expected: str) -> Ints:
    """Return the codes ``(N, L)`` as numbers, or raise a ValueError.

    Args:
        where: The file, and the column if there is one, for messages.
        rows: N rows with the columns ``item`` and ``codes``, lists of texts.
        levels: Number of levels to keep; None if all rows must have equally many.
        expected: What the texts should be, for messages.
    """
    number = pl.element().str.extract(_TOKEN, 1).cast(pl.Int64, strict=False)
    codes = rows["codes"].list.eval(number)
    _require_none(where, rows.filter(codes.list.contains(None)), f"have codes that are no {expected}")
    lengths = codes.list.len()
    if levels is None:
        levels = int(lengths[0])
        uneven = rows.filter(lengths != levels)
        _require_none(where, uneven, f"do not have {levels} codes, as the first item has")
    _require_none(where, rows.filter(lengths < levels), f"have fewer than {levels} codes")
    numbers: Ints = codes.list.head(levels).list.to_array(levels).to_numpy(writable=True)
    return numbers


def _read_table(path: Path, key: str, columns: Sequence[str]) -> pl.DataFrame:
    """Read a Parquet or CSV file into the columns ``item``, texts, and ``codes``, lists of texts."""
    parts = []
    no_key = f"{path}: column {key!r} holds codes; name the column of the item IDs with key"
    if key in columns:
        raise ValueError(no_key)
    for part in read_columns_in_parts(path, "codes", [key, *columns]):
        if part[key].dtype.is_nested():
            raise ValueError(no_key)
        lists = [_texts(path, part[name]) for name in columns]
        parts.append(part.select(_texts(path, part[key]).alias("item"), pl.concat_list(lists).alias("codes")))
    return pl.concat(parts)


def _texts(path: Path, column: pl.Series) -> pl.Series:
    """Return a column of texts or numbers, or of lists of them, as texts or lists of texts."""
    is_nested = isinstance(column.dtype, pl.List | pl.Array)
    inner = column.dtype.inner if is_nested else column.dtype
    if not (inner in (pl.String, pl.Null) or inner.is_numeric()):
        raise ValueError(f"{path}: column {column.name!r} holds {column.dtype}, no texts or numbers")
    return column.cast(pl.List(pl.String) if is_nested else pl.String)


def _read_json(path: Path) -> pl.DataFrame:
    """Read a JSON or JSON-lines file like :func:`_read_table`; an item that occurs twice has two rows."""
    pairs: list[tuple[str, Any]] = []
    if path.suffix.lower() == ".jsonl":
        lines = lines_of(path)
    else:
        lines = iter([(1, checked_file(path, "codes").read_bytes().removeprefix(BOM_UTF8))])
    for number, line in lines:
        try:
            document = json.loads(decoded(line), object_pairs_hook=tuple)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(document, tuple):
            raise ValueError(f"{path}, line {number}: must be an object with the codes of each item")
        pairs += document
    codes = [[str(code) for code in codes] if isinstance(codes, list) else None for _, codes in pairs]
    schema = {"item": pl.String, "codes": pl.List(pl.String)}
    try:
        return pl.DataFrame({"item": [item for item, _ in pairs], "codes": codes}, schema=schema)
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: a text has a lone surrogate, {error.object[:60]!a}") from error


def _require_none(where: str, items: pl.DataFrame, problem: str) -> None:
    """Raise a ValueError that counts the ``items`` with a problem and names the first three, if any."""
    names = items["item"].unique(maintain_order=True)
    if len(names):
        first = ", ".join(repr(name)[1:-1] for name in names.head(3).str.head(60))
        raise ValueError(f"{where}: {len(names)} items of the catalogue {problem}; first: {first}")
