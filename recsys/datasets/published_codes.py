"""Semantic IDs that others made: a table of codes, read for a catalogue of ours."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.datasets.formats.lines import checked_file, decoded, lines_of
from recsys.datasets.formats.tables import parts_of
from semantic_ids.ids import Ints, SemanticIds

_HIGHEST = 10_000_000
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
    """Read the codes of a catalogue's items from a file, whose other items are passed over.

    By the ending of its name, in capitals or not, the file is one of

    - ``.parquet``: a row an item, with its ID in ``key`` and a list of its codes in ``column``, or with
      several columns, one a level, coarse to fine;
    - ``.csv``: the same with one column a level;
    - ``.json``: one object ``{"item": codes, …}``; ``.jsonl``: such objects, one a line. ``key`` and
      ``column`` do not matter.

    Codes are integers from 0, or tokens that end in one, such as the ``<a_12>`` of LC-Rec's and
    LETTER's index files; the place of a token tells its level.

    Args:
        path: of the file.
        item_ids: N items in the order of the rows wanted.
        key: column of item IDs.
        column: one column, or those of the levels.
        levels: keep the first so many; many publish a last one that only tells items apart. All if
            not given.
        codebook_size: K of every level. If not given, the highest code + 1 of each, so that unused
            codes above it are not known of.

    Returns:
        Codes ``(N, L)``.

    Raises:
        ValueError: the file is not as described, or items of the catalogue have no codes, have them
            twice, or have codes that do not fit; the message names file, column and the first items.
        OSError: the file cannot be read.
    """
    path = Path(path)
    check_format(path)
    ending = path.suffix.lower()
    if ending in (".json", ".jsonl"):
        where, frame = str(path), _read_json(path)
    else:
        columns = [column] if isinstance(column, str) else list(column)
        where, frame = f"{path}, column {', '.join(columns)}", _read_table(path, key, columns)
    found = _rows_of(where, frame, item_ids)
    one_a_level = " (a CSV has one column a level)" if ending == ".csv" else ""
    codes = _numbers(where, found, levels, f"integers from 0{one_a_level}")
    too_high = (codes > _HIGHEST).any(axis=1)
    _refuse(where, found.filter(too_high), f"have codes above {_HIGHEST:,}, are these item IDs?")
    if codebook_size is None:
        return SemanticIds(codes, tuple(int(highest) + 1 for highest in codes.max(axis=0)))
    too_high = (codes >= codebook_size).any(axis=1)
    _refuse(where, found.filter(too_high), f"have codes above {codebook_size - 1}")
    return SemanticIds(codes, (codebook_size,) * codes.shape[1])


def check_format(path: Path) -> None:
    """Raise a :class:`ValueError` unless the file's name ends like one that :func:`read_codes` reads."""
    if path.suffix.lower() not in (".parquet", ".csv", ".json", ".jsonl"):
        raise ValueError(f"{path} is no table of codes: it must end in .parquet, .csv, .json or .jsonl")


def _rows_of(where: str, frame: pl.DataFrame, item_ids: Sequence[str]) -> pl.DataFrame:
    """The items' rows in the items' order."""
    if frame.is_empty():
        raise ValueError(f"{where}: there are no items")
    items = pl.DataFrame({"item": item_ids}, schema={"item": pl.String})
    named = frame.join(items, on="item", how="semi")
    _refuse(where, named.filter(named["item"].is_duplicated()), "stand there more than once")
    missing = items.join(named, on="item", how="anti", maintain_order="left")
    _refuse(where, missing, f"do not stand there, but {frame['item'].str.head(60).first()!r}, for one, does")
    found = items.join(named, on="item", how="left", maintain_order="left")
    _refuse(where, found.filter(found["codes"].list.len().fill_null(0) == 0), "have no list of codes")
    return found


def _numbers(where: str, found: pl.DataFrame, levels: int | None, expected: str) -> Ints:
    """``(N, L)`` of the rows' texts, which must be what is ``expected``."""
    number = pl.element().str.extract(_TOKEN, 1).cast(pl.Int64, strict=False)
    codes = found["codes"].list.eval(number)
    _refuse(where, found.filter(codes.list.contains(None)), f"have codes that are no {expected}")
    lengths = codes.list.len()
    if levels is None:
        levels = int(lengths[0])
        _refuse(where, found.filter(lengths != levels), f"have not {levels} codes, as the first has")
    _refuse(where, found.filter(lengths < levels), f"have fewer than {levels} codes")
    numbers: Ints = codes.list.head(levels).list.to_array(levels).to_numpy(writable=True)
    return numbers


def _read_table(path: Path, key: str, columns: Sequence[str]) -> pl.DataFrame:
    """``item``, text, and ``codes``, lists of texts."""
    parts = []
    for part in parts_of(path, "codes", [key, *columns]):
        if key in columns or part[key].dtype.is_nested():
            raise ValueError(f"{path}: column {key!r} holds codes; name that of the item IDs with key")
        lists = [_texts(path, part[name]) for name in columns]
        parts.append(part.select(_texts(path, part[key]).alias("item"), pl.concat_list(lists).alias("codes")))
    return pl.concat(parts)


def _texts(path: Path, column: pl.Series) -> pl.Series:
    """Texts, or lists of them."""
    nested = isinstance(column.dtype, pl.List | pl.Array)
    inner = column.dtype.inner if nested else column.dtype
    if not (inner in (pl.String, pl.Null) or inner.is_numeric()):
        raise ValueError(f"{path}: column {column.name!r} holds {column.dtype}, no texts or numbers")
    return column.cast(pl.List(pl.String) if nested else pl.String)


def _read_json(path: Path) -> pl.DataFrame:
    """As :func:`_read_table`; an item that stands there twice has two rows."""
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
            raise ValueError(f"{path}, line {number}: must be an object, item → codes")
        pairs += document
    codes = [[str(code) for code in codes] if isinstance(codes, list) else None for _, codes in pairs]
    schema = {"item": pl.String, "codes": pl.List(pl.String)}
    try:
        return pl.DataFrame({"item": [item for item, _ in pairs], "codes": codes}, schema=schema)
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: a text holds half of a character, {error.object[:60]!a}") from error


def _refuse(where: str, items: pl.DataFrame, what: str) -> None:
    """Raise a :class:`ValueError` that names the first of ``items``, if there are any."""
    names = items["item"].unique(maintain_order=True)
    if len(names):
        first = ", ".join(names.head(3).str.head(60).to_list())
        raise ValueError(f"{where}: {len(names)} items of the catalogue {what}; first {first}")
