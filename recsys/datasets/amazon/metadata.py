"""The metadata of items in every release of Amazon product reviews."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import polars as pl

from recsys.datasets.corpus import ITEMS
from recsys.datasets.formats.blocks import ahead, blocks_of
from recsys.datasets.formats.lines import (
    LineParser,
    decoded,
    excerpt,
    has_each_key_once,
    json_object,
    lines_in,
    unescaped,
)

Row = tuple[str, str, str, list[str], str]
"""A row of a frame with the columns :data:`~recsys.datasets.corpus.ITEMS`."""

ITEM_FIELDS = {
    2014: ("asin", "title", "brand", "categories"),
    2018: ("asin", "title", "brand", "category"),
    2023: ("parent_asin", "title", "store", "categories"),
}
"""Names of the id, title, brand and categories of an item in each release."""

LEADING_ASIN = re.compile(rb"\s*\{\s*'asin':\s*'(\w+)'")
"""The item id at the start of a 2014 line, if ``asin`` is the first key, so that no text comes before it."""

LONGEST_LITERAL = 2**20
"""Largest length of a 2014 line in bytes, because Python needs 500 times the memory to parse one."""

SCRIPT = "getTime"
"""Occurs in 2018 titles that are a script of the web page, as the notes of the release say."""


def read_items(
    path: Path, release: int, wanted: set[str], *, skip_bad_lines: bool
) -> tuple[pl.DataFrame, int]:
    """Read the metadata of items.

    Args:
        path: The metadata file.
        release: 2014, 2018 or 2023.
        wanted: Ids of the items to return; others are ignored.
        skip_bad_lines: Whether to leave broken lines out, count them and log the first, instead of raising
            an error.

    Returns:
        A frame with the columns :data:`~recsys.datasets.corpus.ITEMS`, in the order of the file, and the
        number of skipped lines. An item may have several rows.

    Raises:
        ValueError: If a line is broken, or if the file is incomplete.
    """
    parse = _parse_literal if release == 2014 else _parse_json
    parser = LineParser(path, lambda line: parse(line, release, wanted), skip_bad_lines)
    rows: list[Row] = []
    for number, block in ahead(blocks_of(path)):
        items = _read_block(block, release, wanted) if release != 2014 else None
        if items is None:
            items = [row for row in parser.rows(lines_in(number, block)) if row is not None]
        rows += items
    parser.log()
    return pl.DataFrame(rows, schema=ITEMS, orient="row"), parser.skipped


def _read_block(block: bytes, release: int, wanted: set[str]) -> list[Row] | None:
    """Return the rows of the wanted items in a block, or None if it must be parsed line by line.

    That is so if a line is blank or broken, if a line may have two ids, or if polars might read a value
    differently from :func:`_parse_json`.
    """
    item_id, title, brand, categories = ITEM_FIELDS[release]
    num_lines = block.count(b"\n") + (not block.endswith(b"\n"))
    if not has_each_key_once(block, [item_id], [item_id], num_lines):
        return None
    try:
        lines = pl.read_ndjson(block, schema=_schema(release))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    if len(lines) != num_lines or lines[item_id].null_count():
        return None
    items = lines.filter(pl.col(item_id).is_in(pl.Series(sorted(wanted)).implode()))
    texts = pl.concat([items[title], items[brand], items[categories].explode()])
    if texts.str.contains("\x00", literal=True).any():  # polars reads lone surrogates as NUL
        return None
    return [_row(fields, release) for fields in items.iter_rows(named=True)]


def _schema(release: int) -> dict[str, pl.DataType]:
    """Return the types of :data:`ITEM_FIELDS` for polars."""
    return dict(zip(ITEM_FIELDS[release], (pl.String, pl.String, pl.String, pl.List(pl.String)), strict=True))


def _parse_literal(line: bytes, release: int, wanted: set[str]) -> Row | None:
    """Return the row of a 2014 line, None if the item is not wanted.

    A line that begins with the id of another item is not parsed, because parsing takes nearly all the time.
    """
    leading = LEADING_ASIN.match(line)
    if leading and leading[1].decode() not in wanted:
        return None
    if len(line) > LONGEST_LITERAL:
        raise ValueError(f"longer than {LONGEST_LITERAL} bytes: {excerpt(line)}")
    try:
        tree = ast.parse(decoded(line).strip(), mode="eval").body
        fields = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a Python literal: {excerpt(line)}") from error
    if isinstance(tree, ast.Dict) and len(tree.keys) != len(fields):
        raise ValueError(f"a key is given twice: {excerpt(line)}")
    return _wanted_row(fields, release, wanted, line)


def _parse_json(line: bytes, release: int, wanted: set[str]) -> Row | None:
    """Return the row of a 2018 or 2023 line, None if the item is not wanted."""
    fields = json_object(line, ITEM_FIELDS[release][:1])
    if not _has_only_texts(fields, release):
        fields = _fields_as_texts(line, release)
    return _wanted_row(fields, release, wanted, line)


def _has_only_texts(fields: dict[str, object], release: int) -> bool:
    """Return whether the fields of an item are texts, lists of texts, or missing."""
    *texts, categories = (fields.get(name) for name in ITEM_FIELDS[release])
    names = categories if isinstance(categories, list) else []
    return all(text is None or isinstance(text, str) for text in (*texts, *names))


def _fields_as_texts(line: bytes, release: int) -> dict[str, object]:
    """Return the fields of a line, with numbers and booleans as the texts that polars makes of them."""
    try:
        return pl.read_ndjson(line, schema=_schema(release)).row(0, named=True)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ValueError(f"{', '.join(ITEM_FIELDS[release])} must be texts: {excerpt(line)}") from error


def _wanted_row(fields: object, release: int, wanted: set[str], line: bytes) -> Row | None:
    """Return the row of an item, None if it is not wanted; raise a ValueError if it has no id."""
    name = ITEM_FIELDS[release][0]
    if not isinstance(fields, dict) or not isinstance(fields.get(name), str):
        raise ValueError(f"not a {'dict' if release == 2014 else 'JSON object'} with {name}: {excerpt(line)}")
    return _row(fields, release) if fields[name] in wanted else None


def _row(fields: dict[str, object], release: int) -> Row:
    """Return the row of an item with clean texts; raise a ValueError if a field has another type."""
    item_id, title, brand, categories = (fields.get(name) for name in ITEM_FIELDS[release])
    title, brand, categories = title or "", brand or "", categories or []
    if not (isinstance(item_id, str) and isinstance(title, str) and isinstance(brand, str)):
        raise ValueError(f"{' and '.join(ITEM_FIELDS[release][1:3])} must be texts")
    paths = categories if release == 2014 else [categories]
    if not (isinstance(paths, list) and all(isinstance(path, list) for path in paths)):
        expected = "a list of lists of names" if release == 2014 else "a list of names"
        raise ValueError(f"{ITEM_FIELDS[release][3]} must be {expected}")
    raw_names = [name for path in paths for name in path if name is not None]
    if not all(isinstance(name, str | int | float) for name in raw_names):
        raise ValueError(f"the names in {ITEM_FIELDS[release][3]} must be texts")
    names = dict.fromkeys(_clean(str(name)) for name in raw_names)  # distinct, in order
    names.pop("", None)
    return (
        item_id,
        "" if SCRIPT in title else _clean(title),
        "" if brand == "Unknown" else _clean(brand),
        list(names),
        "",
    )


def _clean(text: str) -> str:
    """Return a text with HTML entities decoded, lone surrogates replaced, and single spaces."""
    return " ".join(unescaped(text).encode(errors="replace").decode().split())
