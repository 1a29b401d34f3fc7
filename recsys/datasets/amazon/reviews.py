"""The reviews of every release of Amazon product reviews, as events.

Good files are read by polars. Files with a broken or unusual line are read line by line, which is slower.
"""

from __future__ import annotations

import glob
import json
import reprlib
from array import array
from pathlib import Path

import polars as pl

from recsys.datasets.formats.lines import LAST_SECOND, decoded, excerpt, lines_of, parsed

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
    skipped = 0
    try:
        # polars must parse all columns, or it would not notice lines with too many.
        all_columns = pl.QueryOptFlags(projection_pushdown=False)
        events = _scan(path, release).collect(engine="streaming", optimizations=all_columns)
        events = events.rechunk()  # thousands of small blocks take far more memory than their data
        is_plain = _is_plain(events, release)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        is_plain = False
    if not is_plain:
        events, skipped = _read_lines(path, release, skip_bad_lines)
    if events.is_empty():
        raise ValueError(f"{path}: holds no reviews ({skipped} broken lines skipped)")
    return events, skipped


def _is_ratings(path: Path) -> bool:
    """Return whether a file has ratings only, by the ending of its name."""
    return path.name.lower().endswith((".csv", ".csv.gz", ".csv.zst"))


def _check_header(path: Path, release: int) -> None:
    """Raise a ValueError unless the first line of a ratings-only file is the right header."""
    header = ",".join(RATING_COLUMNS[release])
    _, line = next(lines_of(path), (0, b""))
    if line.rstrip() != header.encode():
        raise ValueError(f"{path}: the header must be {header}, not {excerpt(line)}")


def _scan(path: Path, release: int) -> pl.LazyFrame:
    """Return a query for the events of a file.

    It converts ids to ``Categorical`` block by block, because all ids as texts would fill the memory.
    """
    user, item, time = REVIEW_FIELDS[release]
    types = {user: pl.String, item: pl.String, time: pl.Int64}
    if _is_ratings(path):
        schema = {name: types.get(name, pl.String) for name in RATING_COLUMNS[release]}
        has_header = release in WITH_HEADER
        rows = pl.scan_csv(path, schema=schema, has_header=has_header, quote_char=None, glob=False)
    else:
        # Escaped, because polars would treat brackets in the name as a pattern.
        rows = pl.scan_ndjson(glob.escape(str(path)), schema=types)
    return rows.select(
        pl.col(user).cast(pl.Categorical(pl.Categories.random())).alias("user_id"),
        pl.col(item).cast(pl.Categorical(pl.Categories.random())).alias("item_id"),
        pl.col(time).alias("timestamp"),
    )


def _is_plain(events: pl.DataFrame, release: int) -> bool:
    """Return whether no value is missing, out of range or unusual.

    polars itself refuses broken lines and times of other types.
    """
    if events.is_empty() or events.null_count().sum_horizontal().item():
        return False
    times = events["timestamp"]
    if times.min() < 0 or times.max() // TICKS[release] > LAST_SECOND:
        return False
    ids = (events[name].unique().cast(pl.String) for name in ("user_id", "item_id"))
    # polars also reads JSON's true and false as texts.
    return all(
        texts.str.contains(PLAIN_ID).all() and not texts.is_in(["true", "false"]).any() for texts in ids
    )


def _read_lines(path: Path, release: int, skip_bad_lines: bool) -> tuple[pl.DataFrame, int]:
    """Return the events of a file and the number of skipped lines.

    This is several times slower than :func:`_scan`, but it knows the number of each line.
    """
    is_ratings = _is_ratings(path)
    header = is_ratings and release in WITH_HEADER
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user_codes, item_codes, times = array("I"), array("I"), array("q")

    def add(line: bytes) -> None:
        user, item, time = _parse_rating(line, release) if is_ratings else _parse_review(line, release)
        user_codes.append(users.setdefault(user, len(users)))
        item_codes.append(items.setdefault(item, len(items)))
        times.append(time)

    _, skipped = parsed(path, add, skip_bad_lines=skip_bad_lines, header=header)
    return pl.DataFrame(
        {
            "user_id": _categorical(users, user_codes),
            "item_id": _categorical(items, item_codes),
            "timestamp": pl.Series(times, dtype=pl.Int64),
        }
    ), skipped


def _categorical(names: dict[str, int], codes: array[int]) -> pl.Series:
    """Return the names of codes as a Categorical column; ``names`` are in the order of their codes."""
    ids = pl.Series(list(names), dtype=pl.String).cast(pl.Categorical(pl.Categories.random()))
    return ids.gather(pl.Series(codes, dtype=pl.UInt32))


def _parse_review(line: bytes, release: int) -> tuple[str, str, int]:
    """Return user, item and time of a JSON line, or raise a ValueError with the problem."""
    fields = REVIEW_FIELDS[release]
    try:
        review = json.loads(decoded(line))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {excerpt(line)}") from error
    if not isinstance(review, dict):
        raise ValueError(f"not a JSON object: {excerpt(line)}")
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
    # Not with the csv module, because this must accept what polars accepts in _scan: there no cell contains
    # a comma, and the rating may be any text.
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
