"""The reviews of every release of Amazon product reviews, as events.

Files are read in blocks. polars reads a block, or Python does, line by line, if a line is broken or unusual.
"""

from __future__ import annotations

import reprlib
from functools import partial
from pathlib import Path

import polars as pl

from recsys.datasets.corpus import EVENTS
from recsys.datasets.formats.blocks import ahead, blocks_of
from recsys.datasets.formats.lines import (
    LAST_SECOND,
    LineParser,
    decoded,
    excerpt,
    has_each_key_once,
    json_object,
    lines_in,
    lines_of,
)

REVIEW_FIELDS = {
    2014: ("reviewerID", "asin", "unixReviewTime"),
    2018: ("reviewerID", "asin", "unixReviewTime"),
    2023: ("user_id", "parent_asin", "timestamp"),
}
"""Names of the user, item and time of a review in each release."""

RATING_COLUMNS = {
    2014: ("reviewerID", "asin", "rating", "unixReviewTime"),
    2018: ("asin", "reviewerID", "rating", "unixReviewTime"),
    2023: ("user_id", "parent_asin", "rating", "timestamp"),
}
"""Columns of the ratings-only files of each release."""

WITH_HEADER = (2023,)
"""Releases whose ratings-only files have a header."""

TICKS = {2014: 1, 2018: 1, 2023: 1000}
"""Units of time per second in each release."""

LONGEST_ID = 100
"""Largest length of an id in characters. Amazon's own ids have 10 to 28."""

PLAIN_ID = f"^[A-Za-z0-9_-]{{1,{LONGEST_ID}}}$"
"""Ids that need no further check."""


def read_events(path: Path, release: int, *, skip_bad_lines: bool) -> tuple[pl.DataFrame, int]:
    """Read all reviews.

    Args:
        path: The file of reviews or of ratings only.
        release: 2014, 2018 or 2023.
        skip_bad_lines: Whether to leave broken lines out, count them and log the first, instead of raising
            an error.

    Returns:
        A frame with the columns :data:`~recsys.datasets.corpus.EVENTS`, in the order of the file, and the
        number of skipped lines. Ids are ``Categorical``; times have the unit of the file.

    Raises:
        ValueError: If a line is broken, if the file is incomplete, or if it has no reviews.
    """
    if _is_ratings(path) and release in WITH_HEADER:
        _check_header(path, release)
    parser = LineParser(path, partial(_parse, _is_ratings(path), release), skip_bad_lines)
    # One set of names for all blocks. All ids as texts would fill the memory.
    users, items = (pl.Categorical(pl.Categories.random()) for _ in range(2))
    types = {"user_id": users, "item_id": items, "timestamp": pl.Int64}
    parts = [pl.DataFrame(schema=types)]
    for number, block in ahead(blocks_of(path)):
        has_header = number == 1 and _is_ratings(path) and release in WITH_HEADER
        lines = block.partition(b"\n")[2] if has_header else block
        events = _read_block(lines, path, release)
        if events is None:
            rows = list(parser.rows(lines_in(number + has_header, lines)))
            events = pl.DataFrame(rows, schema=EVENTS, orient="row")
        parts.append(events.cast(types))
    parser.log()
    events = pl.concat(parts, rechunk=True)  # small parts take far more memory than their data
    if events.is_empty():
        raise ValueError(f"{path}: holds no reviews ({parser.skipped} broken lines skipped)")
    return events, parser.skipped


def _is_ratings(path: Path) -> bool:
    """Return whether a file has ratings only, by the ending of its name."""
    return path.name.lower().endswith((".csv", ".csv.gz", ".csv.zst"))


def _check_header(path: Path, release: int) -> None:
    """Raise a ValueError unless the first line of a ratings-only file is the right header."""
    header = ",".join(RATING_COLUMNS[release])
    _, line = next(lines_of(path), (0, b""))
    if line.rstrip() != header.encode():
        raise ValueError(f"{path}: the header must be {header}, not {excerpt(line)}")


def _read_block(block: bytes, path: Path, release: int) -> pl.DataFrame | None:
    """Return the events of a block, or None if it must be parsed line by line.

    That is so if a line is blank, broken or unusual, or if polars might read it differently.
    """
    user, item, time = REVIEW_FIELDS[release]
    types = {user: pl.String, item: pl.String, time: pl.Int64}
    num_lines = block.count(b"\n") + (not block.endswith(b"\n"))
    try:
        if _is_ratings(path):
            if block.count(b"\r") != block.count(b"\r\n"):  # polars removes it from the ends of cells
                return None
            schema = {name: types.get(name, pl.String) for name in RATING_COLUMNS[release]}
            rows = pl.read_csv(block, schema=schema, has_header=False, quote_char=None)
        else:
            # polars takes the first of two equal keys, and makes the text 2 of the number 2.0.
            if not has_each_key_once(block, types, (user, item), num_lines):
                return None
            rows = pl.read_ndjson(block, schema=types)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    events = rows.select(user_id=user, item_id=item, timestamp=time)
    return events if len(events) == num_lines and _is_plain(events, release) else None


def _is_plain(events: pl.DataFrame, release: int) -> bool:
    """Return whether no value is missing, out of range or unusual.

    polars itself refuses broken lines and times of other types.
    """
    if events.null_count().sum_horizontal().item():
        return False
    if not (events["timestamp"] // TICKS[release]).is_between(0, LAST_SECOND).all():
        return False
    # polars also reads JSON's true and false as texts.
    return all(
        ids.str.contains(PLAIN_ID).all() and not ids.is_in(["true", "false"]).any()
        for ids in (events["user_id"].unique(), events["item_id"].unique())
    )


def _parse(is_ratings: bool, release: int, line: bytes) -> tuple[str, str, int]:
    """Return user, item and time of a line, or raise a ValueError with the problem."""
    return _parse_rating(line, release) if is_ratings else _parse_review(line, release)


def _parse_review(line: bytes, release: int) -> tuple[str, str, int]:
    """Return user, item and time of a JSON line, or raise a ValueError with the problem."""
    fields = REVIEW_FIELDS[release]
    review = json_object(line, fields)
    missing = [field for field in fields if review.get(field) in (None, "")]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}; is this the {release} release?")
    user, item, time = fields
    return (
        _checked_id(user, review[user]),
        _checked_id(item, review[item]),
        _checked_time(time, review[time], release),
    )


def _parse_rating(line: bytes, release: int) -> tuple[str, str, int]:
    """Return user, item and time of a CSV line, or raise a ValueError with the problem."""
    columns = RATING_COLUMNS[release]
    # Not with the csv module, because this must accept what polars accepts in _read_block: there no cell
    # contains a comma, and the rating may be any text.
    cells = [_unquoted(cell) for cell in decoded(line).split(",")]
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells instead of {','.join(columns)}: {excerpt(line)}")
    row = dict(zip(columns, cells, strict=True))
    user, item, time = REVIEW_FIELDS[release]
    if '"' in row[user] + row[item]:
        raise ValueError(f"not CSV (a quote within an id): {excerpt(line)}")
    digits = row[time].removeprefix("+")
    seconds = int(digits) if digits.isascii() and digits.isdigit() else row[time]
    return (
        _checked_id(user, row[user]),
        _checked_id(item, row[item]),
        _checked_time(time, seconds, release),
    )


def _unquoted(cell: str) -> str:
    """Return a cell without quotes around it."""
    return cell[1:-1] if cell[:1] == cell[-1:] == '"' else cell


def _checked_id(field: str, value: object) -> str:
    """Return an id as text, or raise a ValueError that names the field."""
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= LONGEST_ID:
        raise ValueError(f"{field} is {reprlib.repr(value)}, not a name of 1 to {LONGEST_ID} characters")
    return text


def _checked_time(field: str, value: object, release: int) -> int:
    """Return a time in the unit of the release, or raise a ValueError that names the field."""
    if not isinstance(value, int) or isinstance(value, bool):
        unit = "seconds" if TICKS[release] == 1 else "milliseconds"
        raise ValueError(f"{field} is {reprlib.repr(value)}, not a whole number of {unit}")
    if not 0 <= value // TICKS[release] <= LAST_SECOND:
        raise ValueError(f"{field} is {reprlib.repr(value)}, not between the years 1970 and 10000")
    return value
