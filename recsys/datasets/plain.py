"""Readers of your own data: tables of interactions, and the sequence files of S3-Rec and P5.

Sources of the sequence files: K. Zhou et al., *S3-Rec*, CIKM 2020; S. Geng et al., *Recommendation as
Language Processing (P5)*, RecSys 2022.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl

from recsys.datasets.corpus import EVENTS, ITEMS, Corpus, check_metadata, count_undescribed, items_of
from recsys.datasets.formats.lines import LAST_SECOND, checked_file, decoded, excerpt, parsed
from recsys.datasets.formats.tables import read_columns
from recsys.datasets.interactions import check_core, interactions_of, item_ids_of
from recsys.datasets.readers import reader

TEXTS = {name: name for name in ITEMS if name != "item_id"}
"""The fields of items with texts, each with the default name of its column."""

TIME = "a time from 1970 to 9999: whole seconds (not milliseconds), a date or 2024-05-31T18:30:00"
ISO_TIME = r"^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?$"
"""An ISO date or time; its groups are the day, hour and minute, second, and zone."""

EXACT = {pl.Float64: 2**53, pl.Float32: 2**24, pl.Float16: 2**11}
"""Whole numbers from here on are rounded when they become floats, so that several have one float."""

ROUNDED = r"^[+-]?\d+(?:\.\d*)?[eE]\+\d+$"
DECIMAL = r"^[+-]?\d+\.\d*(?:[eE]-?\d+)?$"
"""How spreadsheets write large numbers, with the digits that they show; and how programs write floats."""

MISSING = ("nan", "NaN", "NAN", "null", "NULL", "Null", "None", "NaT", "<NA>", "N/A", "n/a", "#N/A")
"""Texts that programs write where a value is missing."""

logger = logging.getLogger(__name__)


@reader
def read_sequence_file(
    sequences: Path, texts: Path | None = None, *, k_core: int = 1, skip_bad_lines: bool = False
) -> Corpus:
    r"""Read one line for each user, ``user item item …``, with the oldest item first.

    Users and items are separated by spaces. The time of an interaction is the position of the item in its
    line, from 1. If a line contains an item several times, the first position is used.

    Args:
        sequences: The file, plain or compressed, in UTF-8, without a header.
        texts: A table with ``item_id`` and any of ``title``, ``brand``, ``categories`` and ``description``,
            in a format that :func:`read_table` accepts. Without it items have no texts.
        k_core: Smallest number of interactions of a user and of an item; 1 keeps all.
        skip_bad_lines: Whether to leave broken lines of ``sequences`` out, count them and log the first,
            instead of raising an error.

    Returns:
        The corpus, without queries.

    Raises:
        OSError: If a file is missing or cannot be read.
        ValueError: If a line has no items, or the user of an earlier line; if ``texts`` has an error or
            describes other items; or if nothing is left in the k-core. The message names the file, and the
            line or row.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "sequences.txt"
        >>> _ = path.write_text("ann tea cup\nbob cup\n")
        >>> read_sequence_file(path).interactions.rows()
        [('ann', 'tea', 1), ('ann', 'cup', 2), ('bob', 'cup', 1)]
    """
    sequences = checked_file(sequences, "sequences")
    seen: set[str] = set()

    def parse(line: bytes) -> tuple[str, list[str]]:
        user, *items = decoded(line).split() or [""]
        if not items:
            raise ValueError(f"not a user and at least one item, separated by blanks: {excerpt(line)}")
        if user in seen:
            raise ValueError(
                f"user {user[:60]!r} has a line above already; one line holds all items of a user"
            )
        seen.add(user)
        return user, items

    rows, skipped = parsed(sequences, parse, skip_bad_lines=skip_bad_lines)
    lines = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.List(pl.String)}, orient="row")
    positions = pl.int_ranges(1, pl.col("item_id").list.len() + 1, dtype=pl.Int64)
    events = lines.with_columns(timestamp=positions).explode("item_id", "timestamp")
    interactions = _interactions(sequences, events, k_core, "first")
    metadata = None if texts is None else _read_metadata(texts, "texts", "item_id", TEXTS)
    return replace(_corpus(interactions, metadata, texts, skipped), has_times=False)


@reader
def read_table(
    interactions: Path,
    items: Path | None = None,
    *,
    user: str = "user_id",
    item: str = "item_id",
    time: str = "timestamp",
    title: str = "title",
    brand: str = "brand",
    categories: str = "categories",
    description: str = "description",
    k_core: int = 5,
    keep: Literal["first", "last"] = "first",
) -> Corpus:
    r"""Read interactions and the texts of items from Parquet, CSV, TSV or JSON-lines files.

    File names end in ``.parquet``, ``.csv``, ``.tsv`` or ``.jsonl``. The last three may be compressed, as
    ``.csv.gz``, ``.csv.zst`` and so on. CSV and TSV files are UTF-8 and have the column names in the first
    line. Cells of TSV are not quoted. Other columns than those below are ignored. Items without interactions
    are left out. Items that ``items`` does not describe are kept and counted in ``notes`` as
    ``items_without_metadata``.

    Ids become texts, whole numbers with all their digits. Large numbers that were rounded to floats are
    refused, because several ids may have become one. Ids such as ``nan`` and ``None`` are kept, with a
    warning.

    Times are one of: whole seconds, since 1970 or any other start; dates; ISO texts such as ``2024-05-31`` or
    ``2024-05-31T18:30:00+02:00``, in UTC if there is no zone. Fractions of a second decide the order and are
    then dropped.

    Args:
        interactions: The table of interactions, one row for each.
        items: The table of items, one row for each, with the item's id in the column ``item`` as well.
        user: Column of the user.
        item: Column of the item, in both files.
        time: Column of the time.
        title: Column of the items' titles. This column and the three below may be missing if their names
            are the default ones.
        brand: Column of the items' brands.
        categories: Column of the items' categories, from the broadest to the narrowest: lists, or texts
            separated by ``|``.
        description: Column of the items' descriptions.
        k_core: Smallest number of interactions of a user and of an item; 1 keeps all.
        keep: Which interaction is used if a user has several with an item: the first or the last by time.

    Returns:
        The corpus, without queries.

    Raises:
        OSError: If a file is missing or cannot be read.
        ValueError: If a file has errors; if a column is missing, is there twice, or is named for two things;
            if an id is missing or a rounded number, or occurs twice in ``items``; if a time is missing,
            negative, infinite or no time; if nothing is left in the k-core; or if ``items`` describes other
            items. Messages name the line, or the row, from 1 without the line of the column names.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "orders.csv"
        >>> _ = path.write_text("customer,sku,day\nann,tea,2024-05-31\nann,cup,2024-05-30\n")
        >>> corpus = read_table(path, user="customer", item="sku", time="day", k_core=1)
        >>> corpus.interactions.rows()
        [('ann', 'cup', 1717027200), ('ann', 'tea', 1717113600)]
    """
    table = read_columns(interactions, "interactions", [user, item, time])
    events = pl.DataFrame(
        {
            "user_id": _ids(interactions, table[user]),
            "item_id": _ids(interactions, table[item]),
            "timestamp": _microseconds(interactions, table[time]),
        }
    )
    # Sorted by microseconds first: whole seconds may be equal.
    in_order = events.sort("timestamp", maintain_order=True).with_columns(pl.col("timestamp") // 1_000_000)
    core = _interactions(interactions, in_order, k_core, keep)
    texts = {"title": title, "brand": brand, "categories": categories, "description": description}
    metadata = None if items is None else _read_metadata(items, "items", item, texts)
    return _corpus(core, metadata, items, 0)


def _interactions(
    path: Path, events: pl.DataFrame, k_core: int, keep: Literal["first", "last"]
) -> pl.DataFrame:
    """Return the interactions in the k-core; raise a ValueError that names the file if there are none."""
    interactions = interactions_of(events.select(list(EVENTS)), k_core=k_core, keep=keep)
    check_core(path, interactions, k_core, f"{len(events)} interactions")
    return interactions


def _corpus(
    interactions: pl.DataFrame, metadata: pl.DataFrame | None, metadata_path: Path | None, skipped: int
) -> Corpus:
    """Return the corpus, with or without metadata of items; check that they belong together."""
    item_ids = item_ids_of(interactions)
    if metadata is None or metadata_path is None:
        metadata = pl.DataFrame(schema=ITEMS)
    else:
        check_metadata(metadata_path, item_ids, metadata, "items")
    return Corpus(
        items_of(item_ids, metadata),
        interactions,
        skipped_lines=skipped,
        notes={"items_without_metadata": count_undescribed(item_ids, metadata)},
    )


def _read_metadata(path: Path, what: str, item: str, texts: Mapping[str, str]) -> pl.DataFrame:
    """Return the items that a table describes, with nulls for fields that it does not have.

    Args:
        path: Path of the table.
        what: What the table contains, in a word for error messages.
        item: Column of item ids.
        texts: Field of :data:`ITEMS` to its column in the table. A column with the name of its field may be
            missing, or be the column of something else.

    Returns:
        Frame with the columns :data:`ITEMS`; ids are unique.
    """
    required = [name for field, name in texts.items() if name != field]
    table = read_columns(path, what, [item, *required], optional=texts.values())
    ids = _ids(path, table[item])
    if ids.is_duplicated().any():
        repeated = ids.filter(ids.is_duplicated())[0]
        first, second = ((ids == repeated).arg_true() + 1).to_list()[:2]
        raise ValueError(
            f"{path}: rows {first} and {second} both describe the item {repeated[:60]!r}; keep one"
        )
    taken = {item, *required}
    present = {
        field: name
        for field, name in texts.items()
        if name in table.columns and not (name == field and name in taken)
    }
    if not present:
        raise ValueError(f"{path}: no column is called {', '.join(texts)}; without texts leave the file out")
    metadata = pl.DataFrame({"item_id": ids})
    for field, name in present.items():
        convert = _category_lists if field == "categories" else _texts
        metadata = metadata.with_columns(convert(path, table[name]).alias(field))
    return pl.concat([pl.DataFrame(schema=ITEMS), metadata], how="diagonal")


def _ids(path: Path, column: pl.Series) -> pl.Series:
    """Return ids as texts without nulls; raise a ValueError that names the first row without an id."""
    if not _is_scalar(column.dtype):
        raise ValueError(f"{path}: {column.name!r} holds {column.dtype}; ids are texts or numbers")
    _require_exact(path, column)
    whole = _whole_numbers(column) if column.dtype.is_float() else column
    ids = whole.cast(pl.String, strict=False)
    if column.dtype.is_decimal():
        ids = ids.str.replace(r"\.0*$", "")
        ids = ids.set(ids.str.contains(".", literal=True), None)
    ids = _without_nulls(path, column, ids.set(ids.str.strip_chars() == "", None), "an id")
    for value, count in ids.filter(ids.is_in(MISSING)).value_counts(sort=True).iter_rows():
        logger.warning(
            "%s: %r is %r in %d rows. If this means that it is missing, remove these rows: "
            "they all count as one user or item",
            *(path, column.name, value, count),
        )
    return ids


def _require_exact(path: Path, column: pl.Series) -> None:
    """Raise a ValueError that names the first id that is a rounded number, if there is one."""
    if column.dtype.is_float():
        is_rounded = column.is_finite() & (column.abs() >= EXACT[column.dtype.base_type()])
    elif column.dtype == pl.String:
        decimals = column.set(~column.str.contains(DECIMAL), None).cast(pl.Float64, strict=False)
        is_rounded = column.str.contains(ROUNDED) | (decimals.abs() >= EXACT[pl.Float64]).fill_null(False)
    else:
        return
    for row in is_rounded.arg_true().head(1):
        raise ValueError(
            f"{path}, row {row + 1}: {column.name!r} is {_cell_text(column.slice(row, 1))!r}, a number that "
            "was rounded to a float, so that several ids may be one now; write ids as whole numbers or texts"
        )


def _microseconds(path: Path, column: pl.Series) -> pl.Series:
    """Return times as Int64 in microseconds; raise a ValueError that names the first row without a time."""
    dtype = column.dtype
    if dtype in (pl.Date, pl.Datetime):
        is_known = column.dt.year().is_between(1970, 9999).fill_null(False)
        times = column.dt.timestamp("us").set(~is_known, None)
    elif dtype == pl.String:
        times = _parsed_times(column)
    elif dtype.is_numeric():
        times = _in_microseconds(_whole_numbers(column))
    else:
        raise ValueError(f"{path}: {column.name!r} holds {dtype}; times are numbers, dates or texts")
    return _without_nulls(path, column, times.set(times < 0, None), TIME)


def _parsed_times(texts: pl.Series) -> pl.Series:
    """Return times in microseconds from texts of digits or in ISO format; null for other texts."""
    seconds = texts.str.extract(r"^([0-9]{1,12})(?:\.0*)?$").cast(pl.Int64)
    date, minute, second, zone = texts.str.extract_groups(ISO_TIME).struct.unnest()
    full = date + " " + minute.fill_null("00:00") + second.fill_null(":00") + zone.fill_null("Z")
    moments = full.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", strict=False, time_unit="us", time_zone="UTC")
    return _in_microseconds(seconds).zip_with(seconds.is_not_null(), moments.dt.timestamp("us"))


def _in_microseconds(seconds: pl.Series) -> pl.Series:
    """Return times from 1970 to 9999 in microseconds; null for other times."""
    return seconds.set(~seconds.is_between(0, LAST_SECOND), None) * 1_000_000


def _whole_numbers(numbers: pl.Series) -> pl.Series:
    """Return numbers as Int64; null for fractions and for numbers that are not finite or too large."""
    whole = numbers.cast(pl.Int64, strict=False)
    return whole.set(whole.cast(numbers.dtype, strict=False) != numbers, None)


def _without_nulls(path: Path, raw: pl.Series, converted: pl.Series, what: str) -> pl.Series:
    """Return a converted column; raise a ValueError with the raw value of its first null, if it has one.

    Args:
        path: Path of the table.
        raw: The column as it is in the table.
        converted: The same column, with nulls where the raw value cannot be used.
        what: What the values should be, for the message.
    """
    if converted.null_count():
        row = converted.is_null().arg_true()[0]
        value = _cell_text(raw.slice(row, 1))
        problem = "missing" if value is None else f"{value!r}, not {what}"
        raise ValueError(f"{path}, row {row + 1}: {raw.name!r} is {problem}")
    return converted


def _cell_text(cell: pl.Series) -> str | None:
    """Return the first 60 characters of a value, None for null.

    For a date outside the years of Python's dates, return its number.
    """
    if cell.dtype.is_temporal() and not cell.dt.year().is_between(1, 9999).item():
        cell = cell.to_physical()
    return None if cell.item() is None else str(cell.item())[:60]


def _texts(path: Path, column: pl.Series) -> pl.Series:
    """Return texts with single spaces; ``""`` for null."""
    if not _is_scalar(column.dtype):
        raise ValueError(f"{path}: {column.name!r} holds {column.dtype}, not texts")
    texts = column.cast(pl.String, strict=False).fill_null("")
    return texts.str.replace_all(r"\s+", " ").str.strip_chars()


def _category_lists(path: Path, column: pl.Series) -> pl.Series:
    """Return lists of distinct names in their order, from lists or from texts separated by ``|``."""
    if column.dtype == pl.Null:  # no item has categories
        column = column.cast(pl.String)
    lists = column.str.split("|") if column.dtype == pl.String else column
    if not isinstance(lists.dtype, pl.List) or not _is_scalar(lists.dtype.inner):
        raise ValueError(f"{path}: {column.name!r} holds {column.dtype}, not lists of names or texts with |")
    names = lists.cast(pl.List(pl.String), strict=False).list.eval(pl.element().str.strip_chars())
    return names.list.eval(pl.element().filter(pl.element() != "")).list.unique(maintain_order=True)


def _is_scalar(dtype: pl.DataType) -> bool:
    """Return whether values of a type are texts, booleans, numbers or nulls."""
    return dtype in (pl.String, pl.Boolean, pl.Null) or dtype.is_numeric()
