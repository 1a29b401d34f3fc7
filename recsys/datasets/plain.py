"""Data of one's own: tables of interactions, and the sequence files of S3-Rec and P5.

Sources of the latter: K. Zhou et al., *S3-Rec*, CIKM 2020; S. Geng et al., *Recommendation as Language
Processing (P5)*, RecSys 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl

from recsys.datasets.corpus import EVENTS, ITEMS, Corpus, items_of, undescribed
from recsys.datasets.formats.lines import LAST_SECOND, checked_file, decoded, excerpt, parsed
from recsys.datasets.formats.tables import table_of
from recsys.datasets.interactions import interactions_of, item_ids_of
from recsys.datasets.readers import reader

TEXTS = {name: name for name in ITEMS if name != "item_id"}
TIME = "a time from 1970 to 9999: whole seconds (not milliseconds), a date or 2024-05-31T18:30:00"
ISO_TIME = r"^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?$"
"""Day, hour and minute, second, zone."""


@reader
def read_sequence_file(
    sequences: Path, texts: Path | None = None, *, k_core: int = 1, skip_bad_lines: bool = False
) -> Corpus:
    """Read a line a user, ``user item item …``, separated by blanks, the oldest item first.

    The time of an interaction is the place of the item in its line, from 1. Of an item that stands in a
    line several times the first counts.

    Args:
        sequences: the file, plain or compressed, UTF-8, without a header.
        texts: a table with ``item_id`` and any of ``title``, ``brand``, ``categories`` and ``description``,
            in a format that :func:`read_table` takes. Without it items have no text.
        k_core: keep users and items with this many interactions at least; 1 keeps all.
        skip_bad_lines: leave broken lines of ``sequences`` out, count them and log the first, instead of
            raising.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a line has no items, or a user that another line has; ``texts`` is broken, or describes
            other items; nothing is left of the k-core; the message names file and line or row.
    """
    sequences = checked_file(sequences, "sequences")
    seen: set[str] = set()

    def user_and_items(line: bytes) -> tuple[str, list[str]]:
        user, *items = decoded(line).split() or [""]
        if not items:
            raise ValueError(f"not a user and at least one item, separated by blanks: {excerpt(line)}")
        if user in seen:
            raise ValueError(
                f"user {user[:60]!r} has a line above already; one line holds all items of a user"
            )
        seen.add(user)
        return user, items

    rows, skipped = parsed(sequences, user_and_items, skip_bad_lines=skip_bad_lines)
    lines = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.List(pl.String)}, orient="row")
    places = pl.int_ranges(1, pl.col("item_id").list.len() + 1, dtype=pl.Int64)
    events = lines.with_columns(timestamp=places).explode("item_id", "timestamp")
    interactions = _core(sequences, events, k_core, "first")
    metadata = None if texts is None else _items(texts, "texts", "item_id", TEXTS)
    return _corpus(interactions, metadata, texts, skipped)


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
    """Read interactions, and texts of items, from Parquet, CSV, TSV or JSON lines.

    Files end in ``.parquet``, ``.csv``, ``.tsv`` or ``.jsonl``, the latter three also in ``.csv.gz``,
    ``.csv.zst`` and so on. CSV and TSV begin with the names of the columns, and are UTF-8. Other columns are
    passed over. Items without interactions are left out; those that ``items`` does not describe are kept
    and counted as ``items_without_metadata``.

    Ids become texts. Times are whole seconds, since 1970 or any other start, dates, or ISO texts such as
    ``2024-05-31`` or ``2024-05-31T18:30:00+02:00``, UTC if they do not say. Parts of a second decide what
    came first and are then dropped.

    Args:
        interactions: one row each.
        items: one row an item, with its id in the column ``item`` as well.
        user: column of the user.
        item: column of the item, in both files.
        time: column of the time.
        title: column of the items' titles; like the three below it may be absent under its default name.
        brand: column of their brands.
        categories: column of their categories, broadest first: lists, or texts separated by ``|``.
        description: column of their descriptions.
        k_core: keep users and items with this many interactions at least; 1 keeps all.
        keep: which of several interactions of a user with an item counts, by time.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is broken or lacks a column; an id is missing, or twice in ``items``; a time is
            missing, negative, infinite or none; nothing is left of the k-core; ``items`` describes other
            items. Messages name the row, from 1, not counting the line of the names.
    """
    table = table_of(interactions, "interactions", [user, item, time])
    events = pl.DataFrame(
        {
            "user_id": _ids(interactions, table[user]),
            "item_id": _ids(interactions, table[item]),
            "timestamp": _microseconds(interactions, table[time]),
        }
    )
    in_order = events.sort("timestamp", maintain_order=True).with_columns(pl.col("timestamp") // 1_000_000)
    left = _core(interactions, in_order, k_core, keep)
    texts = {"title": title, "brand": brand, "categories": categories, "description": description}
    metadata = None if items is None else _items(items, "items", item, texts)
    return _corpus(left, metadata, items, 0)


def _core(path: Path, events: pl.DataFrame, k_core: int, keep: Literal["first", "last"]) -> pl.DataFrame:
    interactions = interactions_of(events.select(list(EVENTS)), k_core=k_core, keep=keep)
    if interactions.is_empty():
        raise ValueError(f"{path}: of {len(events)} interactions nothing is left in the {k_core}-core")
    return interactions


def _corpus(
    interactions: pl.DataFrame, metadata: pl.DataFrame | None, described_in: Path | None, skipped: int
) -> Corpus:
    item_ids = item_ids_of(interactions)
    known = pl.DataFrame(schema=ITEMS) if metadata is None else metadata
    without = undescribed(item_ids, known)
    if metadata is not None and without == len(item_ids):
        raise ValueError(f"{described_in}: describes none of the {without} items, such as {item_ids[0]!r}")
    items = items_of(item_ids, known)
    return Corpus(items, interactions, skipped_lines=skipped, notes={"items_without_metadata": without})


def _items(path: Path, what: str, item: str, texts: Mapping[str, str]) -> pl.DataFrame:
    """:data:`ITEMS`, null where the file has no such column; ``texts`` are the columns that hold them."""
    named = [name for field, name in texts.items() if name != field]
    table = table_of(path, what, [item, *named], optional=texts.values())
    ids = _ids(path, table[item])
    if ids.is_duplicated().any():
        twice = ids.filter(ids.is_duplicated())[0]
        first, second = ((ids == twice).arg_true() + 1).to_list()[:2]
        raise ValueError(f"{path}: rows {first} and {second} both describe the item {twice[:60]!r}; keep one")
    there = {field: name for field, name in texts.items() if name in table.columns}
    if not there:
        raise ValueError(f"{path}: no column is called {', '.join(texts)}; without texts leave the file out")
    found = pl.DataFrame({"item_id": ids})
    for field, name in there.items():
        read = _category_lists if field == "categories" else _texts
        found = found.with_columns(read(path, table[name]).alias(field))
    return pl.concat([pl.DataFrame(schema=ITEMS), found], how="diagonal")


def _ids(path: Path, column: pl.Series) -> pl.Series:
    """Any scalars as texts."""
    if not _is_scalar(column.dtype):
        raise ValueError(f"{path}: {column.name!r} holds {column.dtype}; ids are texts or numbers")
    fractional = column.dtype.is_float() or column.dtype.is_decimal()
    ids = (_whole(column) if fractional else column).cast(pl.String, strict=False)
    return _sound(path, column, ids.set(ids.str.strip_chars() == "", None), "an id")


def _microseconds(path: Path, column: pl.Series) -> pl.Series:
    """Times as Int64."""
    kind = column.dtype
    if kind in (pl.Date, pl.Datetime):
        is_known = column.dt.year().is_between(1970, 9999).fill_null(False)
        times = column.dt.timestamp("us").set(~is_known, None)
    elif kind == pl.String:
        times = _parsed_times(column)
    elif kind.is_numeric():
        times = _in_microseconds(_whole(column))
    else:
        raise ValueError(f"{path}: {column.name!r} holds {kind}; times are numbers, dates or texts")
    return _sound(path, column, times.set(times < 0, None), TIME)


def _parsed_times(texts: pl.Series) -> pl.Series:
    """Microseconds; null for what is neither digits nor ISO."""
    seconds = texts.str.extract(r"^([0-9]{1,12})(?:\.0*)?$").cast(pl.Int64)
    date, minute, second, zone = texts.str.extract_groups(ISO_TIME).struct.unnest()
    full = date + " " + minute.fill_null("00:00") + second.fill_null(":00") + zone.fill_null("Z")
    moments = full.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", strict=False, time_unit="us", time_zone="UTC")
    return _in_microseconds(seconds).zip_with(seconds.is_not_null(), moments.dt.timestamp("us"))


def _in_microseconds(seconds: pl.Series) -> pl.Series:
    """Null for what is out of range."""
    return seconds.set(~seconds.is_between(0, LAST_SECOND), None) * 1_000_000


def _whole(numbers: pl.Series) -> pl.Series:
    """Int64; null for fractions and what is not finite."""
    whole = numbers.cast(pl.Int64, strict=False)
    return whole.set(whole.cast(numbers.dtype, strict=False) != numbers, None)


def _sound(path: Path, raw: pl.Series, read: pl.Series, what: str) -> pl.Series:
    """``read``, of which nothing may be null."""
    if read.null_count():
        row = read.is_null().arg_true()[0]
        value = _shown(raw.slice(row, 1))
        said = "missing" if value is None else f"{value!r}, not {what}"
        raise ValueError(f"{path}, row {row + 1}: {raw.name!r} is {said}")
    return read


def _shown(cell: pl.Series) -> str | None:
    """The beginning of a value; of a date that Python does not know the number behind it."""
    if cell.dtype.is_temporal() and not cell.dt.year().is_between(1, 9999).item():
        cell = cell.to_physical()
    return None if cell.item() is None else str(cell.item())[:60]


def _texts(path: Path, column: pl.Series) -> pl.Series:
    """Texts with white space evened out, ``""`` where there is none."""
    if not _is_scalar(column.dtype):
        raise ValueError(f"{path}: {column.name!r} holds {column.dtype}, not texts")
    texts = column.cast(pl.String, strict=False).fill_null("")
    return texts.str.replace_all(r"\s+", " ").str.strip_chars()


def _category_lists(path: Path, column: pl.Series) -> pl.Series:
    """Lists of distinct names, in order."""
    if column.dtype == pl.Null:  # nobody has any
        column = column.cast(pl.String)
    lists = column.str.split("|") if column.dtype == pl.String else column
    if not isinstance(lists.dtype, pl.List) or not _is_scalar(lists.dtype.inner):
        raise ValueError(f"{path}: {column.name!r} holds {column.dtype}, not lists of names or texts with |")
    names = lists.cast(pl.List(pl.String), strict=False).list.eval(pl.element().str.strip_chars())
    return names.list.eval(pl.element().filter(pl.element() != "")).list.unique(maintain_order=True)


def _is_scalar(kind: pl.DataType) -> bool:
    return kind in (pl.String, pl.Boolean, pl.Null) or kind.is_numeric()
