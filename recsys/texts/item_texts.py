"""Turn the attributes of items into one text per item, for text encoders and text-based retrievers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import polars as pl

_LABEL = re.compile(r"(?:^|(?<=; ))(?:Title|Brand|Categories|Description): ")

NO_TEXT = "Unknown item"
"""The text of an item without any known attribute; all of them share one embedding."""


def item_texts(items: pl.DataFrame) -> list[str]:
    """Return one text per item; attributes that are unknown (empty) are left out.

    The full form is ``Title: …; Brand: …; Categories: A > B > C; Description: …``.

    Args:
        items: Table with columns ``title``, ``brand``, ``description`` (strings) and ``categories`` (lists
            of strings).

    Returns:
        The texts in the order of ``items``; :data:`NO_TEXT` for an item without any known attribute.

    Example:
        >>> import polars as pl
        >>> items = pl.DataFrame(
        ...     {
        ...         "title": ["Soap", ""],
        ...         "brand": ["Dove", ""],
        ...         "categories": [["Beauty", "Bath"], []],
        ...         "description": ["", ""],
        ...     },
        ...     schema_overrides={"categories": pl.List(pl.String)},
        ... )
        >>> item_texts(items)
        ['Title: Soap; Brand: Dove; Categories: Beauty > Bath', 'Unknown item']
    """
    texts = []
    columns = items.select("title", "brand", "categories", "description")
    for title, brand, categories, description in columns.iter_rows():
        attributes = {
            "Title": title,
            "Brand": brand,
            "Categories": " > ".join(categories),
            "Description": description,
        }
        known = [f"{label}: {value}" for label, value in attributes.items() if value]
        texts.append("; ".join(known) or NO_TEXT)
    return texts


def without_labels(text: str) -> str:
    """Remove the labels that :func:`item_texts` adds, such as ``Title:``; :data:`NO_TEXT` becomes empty.

    BM25 uses this, so that a query with the word "brand" does not match every item.
    """
    return "" if text == NO_TEXT else _LABEL.sub("", text)


def write_texts(texts: Sequence[str], path: str | Path) -> None:
    """Write a parquet file with one column, ``text``."""
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)


def read_texts(path: str | Path) -> list[str]:
    """Read the texts that :func:`write_texts` wrote."""
    return pq.ParquetFile(path).read()["text"].to_pylist()
