"""The checked frames that every reader of a corpus ends in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

ITEMS = {"item_id": pl.String, "title": pl.String, "brand": pl.String, "categories": pl.List(pl.String)}
"""Columns of the items; an unknown text is ``""``, unknown categories are an empty list."""

INTERACTIONS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
"""Columns of the interactions; ``timestamp`` is in seconds since 1970."""


@dataclass(frozen=True)
class Corpus:
    """A catalogue and who took what from it, and when.

    Attributes:
        items: :data:`ITEMS`, sorted by ``item_id``, which is unique. The place of an item in this
            order is its *row*, by which everything else refers to it.
        interactions: :data:`INTERACTIONS`, sorted by user, then time; what happened at the same
            time stands in the order of the source.
        skipped_lines: lines of the source that were broken and left out.

    Raises:
        ValueError: a frame is not as described; the message says which and how.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    skipped_lines: int = 0

    def __post_init__(self) -> None:
        _check_columns("items", self.items, ITEMS)
        _check_columns("interactions", self.interactions, INTERACTIONS)
        ids = self.items["item_id"]
        if not ids.is_sorted() or ids.n_unique() < len(ids):
            raise ValueError("items must be sorted by item_id, each of which must stand there once")
        unknown = self.interactions.join(self.items, on="item_id", how="anti")["item_id"]
        if len(unknown):
            raise ValueError(f"{len(unknown)} interactions are with items not in items, first {unknown[0]!r}")
        users, times = self.interactions["user_id"], self.interactions["timestamp"]
        if not users.is_sorted() or ((users == users.shift()) & (times < times.shift())).any():
            raise ValueError("interactions must be sorted by user_id, then timestamp")

    def digest(self) -> str:
        """64 hex digits that two corpora share only if items and interactions agree in every cell."""
        sha = hashlib.sha256()
        for frame in (self.items, self.interactions):
            sha.update(f"{len(frame)} rows\n".encode())
            for part in frame.iter_slices(100_000):
                sha.update(part.write_ndjson().encode())
        return sha.hexdigest()

    def statistics(self) -> dict[str, float]:
        """``users``, ``items``, ``interactions``, and ``mean_length``: interactions a user."""
        users = self.interactions["user_id"].n_unique()
        return {
            "users": users,
            "items": len(self.items),
            "interactions": len(self.interactions),
            "mean_length": len(self.interactions) / max(1, users),
        }

    def top_categories(self) -> list[str | None]:
        """Each item's second category: that below the root of its first path; None if it has fewer."""
        names = self.items["categories"].list.get(1, null_on_oob=True).to_list()
        return [name or None for name in names]


def first_interactions(events: pl.DataFrame, k: int) -> pl.DataFrame:
    """Raw events → the interactions of a :class:`Corpus`: each user's first with an item, k-core, sorted.

    Args:
        events: :data:`INTERACTIONS` in the order of the source, which decides between equal times.
        k: see :func:`k_core`.
    """
    in_order = events.sort("user_id", "timestamp", maintain_order=True)
    return k_core(in_order.unique(["user_id", "item_id"], keep="first", maintain_order=True), k)


def k_core(interactions: pl.DataFrame, k: int) -> pl.DataFrame:
    """The largest part in which every user and every item has at least ``k`` interactions.

    Rows keep their order. ``k = 1`` keeps all. The part may be empty.

    Raises:
        ValueError: ``k`` is below 1.
    """
    if k < 1:
        raise ValueError(f"k-core needs k of at least 1, not {k}")
    users, items = (
        ids.cast(pl.Enum(ids.unique())).to_physical().to_numpy()
        for ids in (interactions["user_id"], interactions["item_id"])
    )
    rows = np.arange(len(interactions))
    while True:
        enough = (np.bincount(users)[users] >= k) & (np.bincount(items)[items] >= k)
        if enough.all():
            return interactions[rows]
        users, items, rows = users[enough], items[enough], rows[enough]


def items_of(interactions: pl.DataFrame, metadata: pl.DataFrame) -> pl.DataFrame:
    """The items of a :class:`Corpus`: all that ``interactions`` names, described as far as is known.

    Args:
        interactions: has ``item_id``.
        metadata: :data:`ITEMS` in any order; of several rows for an item the first counts. Items
            that nobody interacted with are left out.
    """
    named = interactions.select(pl.col("item_id").unique().sort())
    described = metadata.unique("item_id", keep="first", maintain_order=True)
    return named.join(described, on="item_id", how="left", maintain_order="left").with_columns(
        pl.col("title", "brand").fill_null(""), pl.col("categories").fill_null([])
    )


def _check_columns(name: str, frame: pl.DataFrame, columns: dict[str, pl.DataType]) -> None:
    if dict(frame.schema) != columns:
        raise ValueError(f"{name} must have the columns {columns}, not {dict(frame.schema)}")
    for column in columns:
        if frame[column].null_count():
            raise ValueError(f"{name} hold nulls in the column {column}")
