"""The corpus: checked frames of items, interactions, queries and judgements, which every reader returns."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

# Not used here: plug-ins import them from where they were in version 0.1.0.
from recsys.datasets.interactions import interactions_of, item_ids_of  # noqa: F401
from recsys.examples import SPLITS

ITEMS = {
    "item_id": pl.String,
    "title": pl.String,
    "brand": pl.String,
    "categories": pl.List(pl.String),
    "description": pl.String,
}
"""Columns of the items. An unknown text is ``""``, and unknown categories are an empty list.

Categories are ordered from the broadest to the narrowest if the source has that order.
"""

EVENTS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
"""Columns of the events that :func:`~recsys.datasets.interactions.interactions_of` takes.

Both ids may also be ``Categorical``.
"""

QUERIES = {
    "query_id": pl.String,
    "split": pl.String,
    "text": pl.String,
    "user_id": pl.String,
    "history": pl.Int64,
}
"""Columns of the queries of a search corpus.

``split`` is ``train``, ``valid`` or ``test``. ``user_id`` is ``""`` if the user is unknown. ``history`` is
the number of the user's interactions before the query: the first ``history`` interactions of the user.
"""

JUDGEMENTS = {"query_id": pl.String, "item_id": pl.String, "gain": pl.Float32}
"""Columns of the judgements: the items that answer a query, each with a gain above 0."""


@dataclass(frozen=True)
class Corpus:
    """A catalogue and the interactions of users with it; for search also queries and their judgements.

    Attributes:
        items: Frame with the columns :data:`ITEMS`, sorted by ``item_id``, which is unique. The index of an
            item in this order is its *row*. Everything else refers to items by their rows.
        interactions: Frame with the columns ``user_id``, ``item_id`` and ``timestamp`` that
            :func:`~recsys.datasets.interactions.interactions_of` returns. Both ids are ``Enum``; the
            categories of the item ``Enum`` are exactly the ids in ``items``. ``timestamp`` is int64, in
            seconds, since 1970 if the source says so. Rows are sorted by user, then time. Interactions of
            a user at the same time are in the order of the source.
        queries: Frame with the columns :data:`QUERIES`, sorted by ``query_id``, which is unique. None for a
            corpus without search, where the task is to predict the next item.
        judgements: Frame with the columns :data:`JUDGEMENTS`, sorted by query, then item. Every pair occurs
            once, and every query has at least one judgement. None if ``queries`` is None.
        category_level: Index in an item's categories of the category that reports group items by. It is 1
            for Amazon, where category 0 is the name of the whole department.
        term_ids: Whether the texts are numbers in place of words. A sentence encoder cannot understand them.
        skipped_lines: Number of broken lines of the source that were left out.
        notes: Other counts of the reader by name, such as ``items_without_metadata``.
        has_times: Whether the source has times. If not, ``timestamp`` holds the positions of interactions in
            their user's sequence.

    Raises:
        ValueError: If a frame is not as described here; the message names the frame and the problem.

    Example:
        >>> from recsys.datasets.interactions import interactions_of, item_ids_of
        >>> events = pl.DataFrame([("u", "b", 20), ("u", "a", 10)], schema=EVENTS, orient="row")
        >>> interactions = interactions_of(events)
        >>> items = items_of(item_ids_of(interactions), metadata=pl.DataFrame(schema=ITEMS))
        >>> Corpus(items, interactions).statistics()
        {'users': 1, 'items': 2, 'interactions': 2, 'mean_length': 2.0}
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    queries: pl.DataFrame | None = None
    judgements: pl.DataFrame | None = None
    category_level: int = 0
    term_ids: bool = False
    skipped_lines: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    has_times: bool = True

    def __post_init__(self) -> None:
        _check_columns("items", self.items, ITEMS)
        ids = self.items["item_id"]
        if not ids.is_sorted() or ids.n_unique() < len(ids):
            raise ValueError("items must be sorted by item_id, and each item_id must occur once")
        self._check_interactions()
        if (self.queries is None) != (self.judgements is None):
            raise ValueError("queries and judgements come together")
        if self.queries is not None and self.judgements is not None:
            self._check_queries(self.queries, self.judgements)

    def digest(self) -> str:
        """Return 64 hex digits that are equal for two corpora only if all cells of their frames are equal."""
        sha = hashlib.sha256()
        users = self.interactions["user_id"].rle().struct.unnest()
        for frame in (self.items, users, self.queries, self.judgements):
            if frame is None:
                continue
            sha.update(f"{len(frame)} rows\n".encode())
            for part in frame.iter_slices(100_000):
                sha.update(part.write_ndjson().encode())
        # Item rows instead of item ids: to hash the ids of all interactions as texts would take minutes. The
        # hash covers the ids already, with the items.
        sha.update(self.interactions["item_id"].to_physical().to_numpy().astype("<u4"))
        sha.update(self.interactions["timestamp"].to_numpy().astype("<i8"))
        return sha.hexdigest()

    def statistics(self) -> dict[str, float]:
        """Return the sizes of the corpus.

        Returns:
            ``users``, ``items`` and ``interactions``, ``mean_length`` (interactions per user), and for
            search ``queries``.
        """
        users = self.interactions["user_id"].n_unique()
        query_count = {"queries": len(self.queries)} if self.queries is not None else {}
        return {
            "users": users,
            "items": len(self.items),
            "interactions": len(self.interactions),
            "mean_length": len(self.interactions) / max(1, users),
            **query_count,
        }

    def has_clock(self) -> bool:
        """Return whether ``timestamp`` can be compared between users.

        It cannot where the source has no times, nor where the same number of seconds, not 0, lies between any
        two interactions of a user that follow each other: then the times are positions in another form.
        """
        if not self.has_times:
            return False
        users, times = self.interactions["user_id"].to_physical(), self.interactions["timestamp"]
        gaps = (times[1:] - times[:-1]).filter(users[1:] == users[:-1])
        return len(gaps) < 2 or gaps.min() != gaps.max() or gaps[0] == 0

    def top_categories(self) -> list[str | None]:
        """Return each item's category at :attr:`category_level`, or None if the item has fewer categories."""
        names = self.items["categories"].list.get(self.category_level, null_on_oob=True).to_list()
        return [name or None for name in names]

    def _check_interactions(self) -> None:
        """Raise a ValueError unless the interactions are as the class describes them."""
        types = dict(self.interactions.schema)
        if list(types) != list(EVENTS) or types["timestamp"] != pl.Int64:
            # Without the categories of an Enum, which may be millions of names.
            base_types = {name: dtype.base_type() for name, dtype in types.items()}
            raise ValueError(f"interactions must have the columns {EVENTS}, not {base_types}")
        _check_no_nulls("interactions", self.interactions)
        users, items = types["user_id"], types["item_id"]
        if not (isinstance(users, pl.Enum) and isinstance(items, pl.Enum)):
            raise ValueError("user_id and item_id of interactions must be Enum; interactions_of makes them")
        if not items.categories.equals(self.items["item_id"]):
            raise ValueError("the item_id of interactions must be an Enum of exactly the items' ids")
        user_codes = self.interactions["user_id"].to_physical()
        times = self.interactions["timestamp"]
        users_sorted = users.categories.is_sorted() and user_codes.is_sorted()
        if not users_sorted or ((user_codes[1:] == user_codes[:-1]) & (times[1:] < times[:-1])).any():
            raise ValueError("interactions must be sorted by user_id, then timestamp")

    def _check_queries(self, queries: pl.DataFrame, judgements: pl.DataFrame) -> None:
        """Raise a ValueError unless queries and judgements are as the class describes them."""
        _check_columns("queries", queries, QUERIES)
        _check_columns("judgements", judgements, JUDGEMENTS)
        ids = queries["query_id"]
        if not ids.is_sorted() or ids.n_unique() < len(ids):
            raise ValueError("queries must be sorted by query_id, and each query_id must occur once")
        wrong_splits = queries.filter(~pl.col("split").is_in(SPLITS))["split"]
        if len(wrong_splits):
            raise ValueError(
                f"the split of a query must be one of {', '.join(SPLITS)}, not {wrong_splits[0]!r}"
            )
        pairs = judgements.select("query_id", "item_id")
        if not pairs.equals(pairs.sort("query_id", "item_id")) or pairs.is_duplicated().any():
            raise ValueError("judgements must be sorted by query_id, then item_id, each pair once")
        if not judgements["query_id"].unique().sort().equals(ids):
            raise ValueError("every query must have a judgement, and every judgement a query")
        if len(judgements.filter(~(pl.col("gain").is_finite() & (pl.col("gain") > 0)))):
            raise ValueError("gains must be finite and above 0")
        unknown = judgements.join(self.items, on="item_id", how="anti")["item_id"]
        if len(unknown):
            raise ValueError(
                f"{len(unknown)} judgements are of items that items does not contain; first: {unknown[0]!r}"
            )
        lengths = self.interactions.group_by(pl.col("user_id").cast(pl.String)).len("length")
        with_lengths = queries.join(lengths, on="user_id", how="left")
        in_range = pl.col("history").is_between(0, pl.col("length").fill_null(0))
        if not with_lengths.select(in_range.all()).item():
            raise ValueError(
                "the history of a query must be at least 0 and not longer than its user's interactions"
            )


def checked_gains(gains: Mapping[str, float], known: Collection[str]) -> dict[str, float]:
    """Check the gains that a user chose for the labels of judgements.

    Args:
        gains: Gain by label.
        known: All labels of the corpus.

    Returns:
        The gains as floats.

    Raises:
        ValueError: If a label is missing or unknown, or if a gain is negative or too large for float32.

    Example:
        >>> checked_gains({"exact": 1, "other": 0}, known=("exact", "other"))
        {'exact': 1.0, 'other': 0.0}
    """
    if set(gains) != set(known) or not all(0 <= gain < 3e38 for gain in gains.values()):
        raise ValueError(
            f"gains must give each of {', '.join(known)} a finite number of at least 0, not {dict(gains)}"
        )
    return {label: float(gain) for label, gain in gains.items()}


def items_of(item_ids: pl.Series, metadata: pl.DataFrame) -> pl.DataFrame:
    """Return the items of a :class:`Corpus`, with the metadata that is known of each.

    Args:
        item_ids: Ids of the catalogue, sorted and unique.
        metadata: Frame with the columns :data:`ITEMS`, in any order. If an item has several rows, the first
            one is used. Rows of items that are not in ``item_ids`` are ignored. Nulls mean unknown.

    Returns:
        Frame with the columns :data:`ITEMS`, one row for each of ``item_ids``, without nulls.

    Example:
        >>> metadata = pl.DataFrame([("b", "Teapot", None, None, None)], schema=ITEMS, orient="row")
        >>> items_of(pl.Series(["a", "b"]), metadata).rows()
        [('a', '', '', [], ''), ('b', 'Teapot', '', [], '')]
    """
    first_rows = metadata.unique("item_id", keep="first", maintain_order=True)
    catalogue = pl.DataFrame({"item_id": item_ids}, schema={"item_id": pl.String})
    return catalogue.join(first_rows, on="item_id", how="left", maintain_order="left").with_columns(
        pl.col("title", "brand", "description").fill_null(""), pl.col("categories").fill_null([])
    )


def count_undescribed(item_ids: pl.Series, metadata: pl.DataFrame) -> int:
    """Return the number of items without metadata, which readers note as ``items_without_metadata``.

    Args:
        item_ids: Unique ids of items.
        metadata: Frame with a column ``item_id``, which may contain other items, too.

    Example:
        >>> count_undescribed(pl.Series(["a", "b"]), pl.DataFrame({"item_id": ["b", "b", "z"]}))
        1
    """
    return len(item_ids) - int(item_ids.is_in(metadata["item_id"].implode()).sum())


def check_metadata(path: Path, item_ids: pl.Series, metadata: pl.DataFrame, items: str) -> None:
    """Raise an error if a metadata file describes no item at all: then it is the file of another corpus.

    Args:
        path: The metadata file, for the message.
        item_ids: Ids of the items that the file should describe.
        metadata: Frame with a column ``item_id``, read from the file.
        items: What the items are, for the message, such as ``films of ratings.csv``.

    Raises:
        ValueError: If there are items and ``metadata`` contains none of them.
    """
    if len(item_ids) and count_undescribed(item_ids, metadata) == len(item_ids):
        raise ValueError(
            f"{path}: describes none of the {len(item_ids)} {items}, such as {item_ids[0][:60]!r}; "
            "is it the file of another corpus?"
        )


def _check_columns(name: str, frame: pl.DataFrame, columns: dict[str, pl.DataType]) -> None:
    """Raise a ValueError unless a frame has exactly these columns and types, and no nulls."""
    if dict(frame.schema) != columns:
        raise ValueError(f"{name} must have the columns {columns}, not {dict(frame.schema)}")
    _check_no_nulls(name, frame)


def _check_no_nulls(name: str, frame: pl.DataFrame) -> None:
    """Raise a ValueError that names the first column with nulls, if there is one."""
    for column in frame.columns:
        if frame[column].null_count():
            raise ValueError(f"{name} hold nulls in the column {column}")
