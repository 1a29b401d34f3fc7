"""From what is known of an item to a text."""

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
"""Stands for an item of which nothing is known; all such items share one embedding."""


def item_texts(items: pl.DataFrame) -> list[str]:
    """One text an item, without what is not known.

    ``Title: …; Brand: …; Categories: A > B > C; Description: …``

    Args:
        items: has ``title``, ``brand``, ``description`` (strings) and ``categories`` (lists of strings).

    Returns:
        The texts in the order of ``items``; :data:`NO_TEXT` for an item of which nothing is known.
    """
    texts = []
    columns = items.select("title", "brand", "categories", "description")
    for title, brand, categories, description in columns.iter_rows():
        parts = {
            "Title": title,
            "Brand": brand,
            "Categories": " > ".join(categories),
            "Description": description,
        }
        texts.append("; ".join(f"{name}: {part}" for name, part in parts.items() if part) or NO_TEXT)
    return texts


def without_labels(text: str) -> str:
    """What is known of an item, for those who count words: :func:`item_texts` without its own words."""
    return "" if text == NO_TEXT else _LABEL.sub("", text)


def write_texts(texts: Sequence[str], path: str | Path) -> None:
    """Write a parquet file of one column, ``text``."""
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)


def read_texts(path: str | Path) -> list[str]:
    """Read what :func:`write_texts` wrote."""
    return pq.ParquetFile(path).read()["text"].to_pylist()
