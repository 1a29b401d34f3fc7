"""What every release of Amazon's tells of its items."""

from __future__ import annotations

import ast
import glob
import json
import re
from pathlib import Path

import polars as pl

from recsys.datasets.corpus import ITEMS
from recsys.datasets.formats.lines import decoded, excerpt, parsed, unescaped

Row = tuple[str, str, str, list[str], str]
"""Of :data:`~recsys.datasets.corpus.ITEMS`."""

ITEM_FIELDS = {
    2014: ("asin", "title", "brand", "categories"),
    2018: ("asin", "title", "brand", "category"),
    2023: ("parent_asin", "title", "store", "categories"),
}
"""What a release calls the id, the title, the brand and the categories of an item."""

LEADING_ASIN = re.compile(rb"\s*\{\s*'asin':\s*'(\w+)'")
"""The item of a line whose first key is ``asin``, as in the release of 2014: no text can come before it."""

SCRIPT = "getTime"
"""Stands in the titles of 2018 that are a script of the web page, as the release's own notes say."""


def read_items(
    path: Path, release: int, wanted: set[str], *, skip_bad_lines: bool
) -> tuple[pl.DataFrame, int]:
    """What is told of the items in ``wanted``, in the order of the file, and the number of lines skipped.

    Returns:
        :data:`~recsys.datasets.corpus.ITEMS`; an item may stand there several times.

    Raises:
        ValueError: a line is broken or the file is cut off.
    """
    skipped = 0
    rows = _scanned(path, release, wanted) if release != 2014 else None
    if rows is None:
        parse = _literal if release == 2014 else _json
        found, skipped = parsed(
            path, lambda line: parse(line, release, wanted), skip_bad_lines=skip_bad_lines
        )
        rows = [row for row in found if row is not None]
    return pl.DataFrame(rows, schema=ITEMS, orient="row"), skipped


def _scanned(path: Path, release: int, wanted: set[str]) -> list[Row] | None:
    """The items of a JSON file, or None where it holds anything odd."""
    item_id, title, brand, categories = ITEM_FIELDS[release]
    is_wanted = pl.col(item_id).is_in(pl.Series(sorted(wanted)).implode()) | pl.col(item_id).is_null()
    file = glob.escape(str(path))  # else polars takes brackets in names for a pattern
    try:
        found = pl.scan_ndjson(file, schema=_schema(release)).filter(is_wanted).collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return None
    texts = pl.concat([found[title], found[brand], found[categories].explode()])
    has_half = texts.str.contains("\x00", literal=True).any()  # polars makes NUL of halves of characters
    if has_half or found[item_id].null_count():
        return None
    return [_row(fields, release) for fields in found.iter_rows(named=True)]


def _schema(release: int) -> dict[str, pl.DataType]:
    return dict(zip(ITEM_FIELDS[release], (pl.String, pl.String, pl.String, pl.List(pl.String)), strict=True))


def _literal(line: bytes, release: int, wanted: set[str]) -> Row | None:
    """A line of 2014. Parsing costs nearly all the time, so lines that begin with another item are spared."""
    leading = LEADING_ASIN.match(line)
    if leading and leading[1].decode() not in wanted:
        return None
    try:
        fields = ast.literal_eval(decoded(line).strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a Python literal: {excerpt(line)}") from error
    return _wanted_row(fields, release, wanted, line)


def _json(line: bytes, release: int, wanted: set[str]) -> Row | None:
    try:
        fields = json.loads(decoded(line))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {excerpt(line)}") from error
    if isinstance(fields, dict) and not _holds_texts(fields, release):
        fields = _as_texts(line, release)
    return _wanted_row(fields, release, wanted, line)


def _holds_texts(fields: dict[str, object], release: int) -> bool:
    *texts, categories = (fields.get(name) for name in ITEM_FIELDS[release])
    names = categories if isinstance(categories, list) else []
    return all(text is None or isinstance(text, str) for text in (*texts, *names))


def _as_texts(line: bytes, release: int) -> dict[str, object]:
    """The fields of a line, numbers and the like as the texts that :func:`_scanned` makes of them."""
    try:
        return pl.read_ndjson(line, schema=_schema(release)).row(0, named=True)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(f"{', '.join(ITEM_FIELDS[release])} must be texts: {excerpt(line)}") from error


def _wanted_row(fields: object, release: int, wanted: set[str], line: bytes) -> Row | None:
    name = ITEM_FIELDS[release][0]
    if not isinstance(fields, dict) or not isinstance(fields.get(name), str):
        raise ValueError(f"not a {'dict' if release == 2014 else 'JSON object'} with {name}: {excerpt(line)}")
    return _row(fields, release) if fields[name] in wanted else None


def _row(fields: dict[str, object], release: int) -> Row:
    item_id, title, brand, categories = (fields.get(name) for name in ITEM_FIELDS[release])
    title, brand, categories = title or "", brand or "", categories or []
    if not (isinstance(item_id, str) and isinstance(title, str) and isinstance(brand, str)):
        raise ValueError(f"{' and '.join(ITEM_FIELDS[release][1:3])} must be texts")
    paths = categories if release == 2014 else [categories]
    if not (isinstance(paths, list) and all(isinstance(path, list) for path in paths)):
        kind = "a list of lists of names" if release == 2014 else "a list of names"
        raise ValueError(f"{ITEM_FIELDS[release][3]} must be {kind}")
    found = [name for path in paths for name in path if name is not None]
    if not all(isinstance(name, str | int | float) for name in found):
        raise ValueError(f"the names in {ITEM_FIELDS[release][3]} must be texts")
    names = dict.fromkeys(_clean(str(name)) for name in found)
    names.pop("", None)
    return (
        item_id,
        "" if SCRIPT in title else _clean(title),
        "" if brand == "Unknown" else _clean(brand),
        list(names),
        "",
    )


def _clean(text: str) -> str:
    """Entities decoded, white space evened out, halves of characters replaced."""
    return " ".join(unescaped(text).encode(errors="replace").decode().split())
