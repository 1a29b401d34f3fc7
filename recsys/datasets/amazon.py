"""Amazon product reviews, 2014 release: the corpora of TIGER and GRIT-VQ.

Source: J. McAuley, C. Targett, Q. Shi, A. van den Hengel, *Image-based recommendations on styles
and substitutes*, SIGIR 2015.
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import polars as pl

from recsys.datasets.corpus import INTERACTIONS, ITEMS, Corpus, first_interactions, items_of

Row = TypeVar("Row")

REVIEW_FIELDS = {"reviewerID": pl.String, "asin": pl.String, "unixReviewTime": pl.Int64}
LEADING_ASIN = re.compile(rb"\s*\{\s*'asin':\s*'(\w+)'")
"""The item of a line whose first key is ``asin``, as in the release: no text can come before it."""

logger = logging.getLogger(__name__)


def read_amazon2014(
    reviews: str | Path, meta: str | Path, *, k_core: int = 5, skip_bad_lines: bool = False
) -> Corpus:
    """Read one category of the release, from gzip or plain text.

    Of several reviews of an item by a user the first by time counts. Items that ``meta`` does not
    describe are kept, without text; items without reviews are left out. HTML entities in texts are
    decoded and white space is evened out. The brand ``Unknown`` counts as none (``Generic`` stays:
    it says that a thing is unbranded). ``categories`` are the distinct names on all paths of an
    item, in the order of the file: the whole first path from the root to the leaf, then what
    further paths add.

    Args:
        reviews: ``reviews_<category>_5.json.gz``: a JSON object a line with ``reviewerID``,
            ``asin``, ``unixReviewTime`` (seconds); other fields are ignored.
        meta: ``meta_<category>.json.gz``: a Python dict literal a line with ``asin`` and, where
            known, ``title``, ``brand``, ``categories``. Lines on items that nobody reviewed are
            not looked into.
        k_core: keep users and items with this many interactions at least; 1 keeps all.
        skip_bad_lines: leave broken lines out, count them and log the first, instead of raising.

    Raises:
        FileNotFoundError: a file is missing.
        IsADirectoryError: a path is a directory.
        ValueError: a line is broken, a gzip file is cut off, a file is empty, nothing is left of
            the k-core, or ``meta`` describes other items.
    """
    reviews, meta = _checked(reviews, "reviews"), _checked(meta, "meta")
    events, skipped_reviews = _read_reviews(reviews, skip_bad_lines)
    interactions = first_interactions(events, k_core)
    if interactions.is_empty():
        raise ValueError(f"{reviews}: of {len(events)} reviews nothing is left in the {k_core}-core")
    wanted = set(interactions["item_id"].unique())
    found, skipped_items = _parsed(meta, lambda line: _item(line, wanted), skip_bad_lines)
    metadata = pl.DataFrame([row for row in found if row], schema=ITEMS, orient="row")
    if metadata.is_empty():
        raise ValueError(f"{meta}: describes none of the {len(wanted)} items of {reviews}: not its file?")
    return Corpus(items_of(interactions, metadata), interactions, skipped_reviews + skipped_items)


def _checked(path: str | Path, what: str) -> Path:
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the {what} file itself")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the {what} file of the 2014 release")
    return path


def _read_reviews(path: Path, skip_bad_lines: bool) -> tuple[pl.DataFrame, int]:
    """:data:`INTERACTIONS` in the order of the file, and the number of lines skipped."""
    try:
        events = pl.scan_ndjson(path, schema=REVIEW_FIELDS).collect(engine="streaming")
        sound = not events.null_count().sum_horizontal().item()
    except (pl.exceptions.PolarsError, OSError):
        sound = False
    skipped = 0
    if not sound:  # the slow way knows the number of each line
        rows, skipped = _parsed(path, _review, skip_bad_lines)
        events = pl.DataFrame(rows, schema=REVIEW_FIELDS, orient="row")
    if events.is_empty():
        raise ValueError(f"{path}: holds no reviews ({skipped} broken lines skipped)")
    return events.rename(dict(zip(REVIEW_FIELDS, INTERACTIONS, strict=True))), skipped


def _parsed(path: Path, parse: Callable[[bytes], Row], skip_bad_lines: bool) -> tuple[list[Row], int]:
    """What ``parse`` makes of each line, and the number of lines skipped.

    Raises:
        ValueError: ``parse`` raised one, unless bad lines are skipped.
    """
    rows: list[Row] = []
    skipped: list[str] = []
    for number, line in _lines(path):
        try:
            rows.append(parse(line))
        except ValueError as error:
            if not skip_bad_lines:
                raise ValueError(
                    f"{path}, line {number}: {error} (--skip-bad-lines leaves it out)"
                ) from error
            skipped.append(f"line {number}: {error}")
    if skipped:
        logger.warning("%s: %d broken lines skipped; %s", path, len(skipped), "; ".join(skipped[:3]))
    return rows, len(skipped)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """All lines that are not blank, and their numbers from 1."""
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    number = 0
    try:
        with gzip.open(path) if is_gzip else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: cut off or damaged after line {number}; download it again") from error


def _review(line: bytes) -> tuple[str, str, int]:
    try:
        review = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {_excerpt(line)}") from error
    if not isinstance(review, dict):
        raise ValueError(f"not a JSON object: {_excerpt(line)}")
    missing = [field for field in REVIEW_FIELDS if review.get(field) is None]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    user, item, time = (review[field] for field in REVIEW_FIELDS)
    if not isinstance(time, int) or isinstance(time, bool):
        raise ValueError(f"unixReviewTime is {time!r}, not a whole number of seconds")
    return str(user), str(item), time


def _item(line: bytes, wanted: set[str]) -> tuple[str, str, str, list[str]] | None:
    """A row of :data:`ITEMS`, or None where the item is not wanted.

    Parsing costs nearly all the time, so lines that say at once that they are not wanted are spared.
    """
    leading = LEADING_ASIN.match(line)
    if leading and leading[1].decode() not in wanted:
        return None
    try:
        fields = ast.literal_eval(line.decode().strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a Python literal: {_excerpt(line)}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("asin"), str):
        raise ValueError(f"not a dict with an asin: {_excerpt(line)}")
    if fields["asin"] not in wanted:
        return None
    title, brand, paths = fields.get("title") or "", fields.get("brand") or "", fields.get("categories") or []
    if not (isinstance(title, str) and isinstance(brand, str)):
        raise ValueError("title and brand must be texts")
    if not (isinstance(paths, list) and all(isinstance(path, list) for path in paths)):
        raise ValueError("categories must be a list of lists of names")
    names = dict.fromkeys(_clean(str(name)) for path in paths for name in path)
    return fields["asin"], _clean(title), "" if brand == "Unknown" else _clean(brand), list(names)


def _clean(text: str) -> str:
    return " ".join(html.unescape(text).split())


def _excerpt(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace"))
