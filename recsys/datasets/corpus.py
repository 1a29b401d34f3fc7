"""The checked frames that every reader of a corpus ends in."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import polars as pl

from recsys.examples import SPLITS

ITEMS = {
    "item_id": pl.String,
    "title": pl.String,
    "brand": pl.String,
    "categories": pl.List(pl.String),
    "description": pl.String,
}
"""Columns of the items; an unknown text is ``""``, unknown categories are an empty list.

Categories go from the broadest to the narrowest, as far as the source has such an order.
"""

EVENTS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
"""What readers give to :func:`interactions_of`; both ids may also be ``Categorical``."""

QUERIES = {
    "query_id": pl.String,
    "split": pl.String,
    "text": pl.String,
    "user_id": pl.String,
    "history": pl.Int64,
}
"""Columns of the queries of a search corpus.

``split`` is ``train``, ``valid`` or ``test``; ``user_id`` is ``""`` where nobody is known to ask, and
``history`` tells how many of the user's interactions, the first ones, come before the query.
"""

JUDGEMENTS = {"query_id": pl.String, "item_id": pl.String, "gain": pl.Float32}
"""Columns of what answers the queries: items with a gain above 0."""


@dataclass(frozen=True)
class Corpus:
    """A catalogue, who took what from it and when, and for search also what was asked and what answers it.

    Attributes:
        items: :data:`ITEMS`, sorted by ``item_id``, which is unique. The place of an item in this
            order is its *row*, by which everything else refers to it.
        interactions: ``user_id``, ``item_id`` and ``timestamp`` (int64, in seconds; since 1970 where the
            source tells that) as :func:`interactions_of` makes them: both ids are ``Enum``, that of the items
            holds exactly theirs; sorted by user, then time; what happened at the same time stands in the
            order of the source.
        queries: :data:`QUERIES`, sorted by ``query_id``, which is unique. None for a corpus of sequences,
            in which the next item is what is asked for.
        judgements: :data:`JUDGEMENTS`, sorted by query, then item, each pair once; every query has one.
        category_level: at which place of an item's categories those stand that tell sorts of things apart;
            in Amazon's 0 is the name of the whole department.
        term_ids: whether the texts are numbers that stand for terms, of which a sentence encoder
            understands nothing.
        skipped_lines: lines of the source that were broken and left out.
        notes: what else the reader counted, as ``items_without_metadata``.

    Raises:
        ValueError: a frame is not as described; the message says which and how.
    """

    items: pl.DataFrame
    interactions: pl.DataFrame
    queries: pl.DataFrame | None = None
    judgements: pl.DataFrame | None = None
    category_level: int = 0
    term_ids: bool = False
    skipped_lines: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_columns("items", self.items, ITEMS)
        ids = self.items["item_id"]
        if not ids.is_sorted() or ids.n_unique() < len(ids):
            raise ValueError("items must be sorted by item_id, each of which must stand there once")
        self._check_interactions()
        if (self.queries is None) != (self.judgements is None):
            raise ValueError("queries and judgements come together")
        if self.queries is not None and self.judgements is not None:
            self._check_queries(self.queries, self.judgements)

    def digest(self) -> str:
        """64 hex digits that two corpora share only if their frames agree in every cell."""
        sha = hashlib.sha256()
        users = self.interactions["user_id"].rle().struct.unnest()
        for frame in (self.items, users, self.queries, self.judgements):
            if frame is None:
                continue
            sha.update(f"{len(frame)} rows\n".encode())
            for part in frame.iter_slices(100_000):
                sha.update(part.write_ndjson().encode())
        # As rows of the items, which are told above: as texts the interactions alone would take minutes.
        sha.update(self.interactions["item_id"].to_physical().to_numpy().astype("<u4"))
        sha.update(self.interactions["timestamp"].to_numpy().astype("<i8"))
        return sha.hexdigest()

    def statistics(self) -> dict[str, float]:
        """``users``, ``items``, ``interactions``, ``mean_length`` of users; ``queries`` if there are any."""
        users = self.interactions["user_id"].n_unique()
        counted = {"queries": len(self.queries)} if self.queries is not None else {}
        return {
            "users": users,
            "items": len(self.items),
            "interactions": len(self.interactions),
            "mean_length": len(self.interactions) / max(1, users),
            **counted,
        }

    def top_categories(self) -> list[str | None]:
        """Each item's category at :attr:`category_level`; None if it has fewer."""
        names = self.items["categories"].list.get(self.category_level, null_on_oob=True).to_list()
        return [name or None for name in names]

    def _check_interactions(self) -> None:
        types = dict(self.interactions.schema)
        if list(types) != list(EVENTS) or types["timestamp"] != pl.Int64:
            # An Enum may hold millions of names, none of which helps here.
            found = {name: kind.base_type() for name, kind in types.items()}
            raise ValueError(f"interactions must have the columns {EVENTS}, not {found}")
        _check_no_nulls("interactions", self.interactions)
        users, items = types["user_id"], types["item_id"]
        if not (isinstance(users, pl.Enum) and isinstance(items, pl.Enum)):
            raise ValueError("user_id and item_id of interactions must be Enum; interactions_of makes them")
        if not items.categories.equals(self.items["item_id"]):
            raise ValueError("the item_id of interactions must be an Enum of exactly the items' ids")
        user = self.interactions["user_id"].to_physical()
        times = self.interactions["timestamp"]
        in_order = users.categories.is_sorted() and user.is_sorted()
        if not in_order or ((user[1:] == user[:-1]) & (times[1:] < times[:-1])).any():
            raise ValueError("interactions must be sorted by user_id, then timestamp")

    def _check_queries(self, queries: pl.DataFrame, judgements: pl.DataFrame) -> None:
        _check_columns("queries", queries, QUERIES)
        _check_columns("judgements", judgements, JUDGEMENTS)
        ids = queries["query_id"]
        if not ids.is_sorted() or ids.n_unique() < len(ids):
            raise ValueError("queries must be sorted by query_id, each of which must stand there once")
        odd = queries.filter(~pl.col("split").is_in(SPLITS))["split"]
        if len(odd):
            raise ValueError(f"the split of a query must be one of {', '.join(SPLITS)}, not {odd[0]!r}")
        pairs = judgements.select("query_id", "item_id")
        if not pairs.equals(pairs.sort("query_id", "item_id")) or pairs.is_duplicated().any():
            raise ValueError("judgements must be sorted by query_id, then item_id, each pair once")
        if not judgements["query_id"].unique().sort().equals(ids):
            raise ValueError("every query must have a judgement, and every judgement a query")
        if len(judgements.filter(~(pl.col("gain").is_finite() & (pl.col("gain") > 0)))):
            raise ValueError("gains must be finite and above 0")
        unknown = judgements.join(self.items, on="item_id", how="anti")["item_id"]
        if len(unknown):
            raise ValueError(f"{len(unknown)} judgements are of items not in items, first {unknown[0]!r}")
        lengths = self.interactions.group_by(pl.col("user_id").cast(pl.String)).len("known")
        known = queries.join(lengths, on="user_id", how="left").with_columns(pl.col("known").fill_null(0))
        if len(known.filter((pl.col("history") < 0) | (pl.col("history") > pl.col("known")))):
            raise ValueError("the history of a query must not be longer than its user's interactions")


def checked_gains(gains: Mapping[str, float], known: Collection[str]) -> dict[str, float]:
    """The gain of each of the known labels.

    Raises:
        ValueError: one is lacking, unknown, or no number from 0 to what float32 holds.
    """
    if set(gains) != set(known) or not all(0 <= gain < 3e38 for gain in gains.values()):
        raise ValueError(
            f"gains must give each of {', '.join(known)} a finite number of at least 0, not {dict(gains)}"
        )
    return {label: float(gain) for label, gain in gains.items()}


def items_of(item_ids: pl.Series, metadata: pl.DataFrame) -> pl.DataFrame:
    """The items of a :class:`Corpus`, described as far as is known.

    Args:
        item_ids: sorted and unique.
        metadata: :data:`ITEMS` in any order; of several rows for an item the first counts. Others are
            passed over.
    """
    described = metadata.unique("item_id", keep="first", maintain_order=True)
    named = pl.DataFrame({"item_id": item_ids}, schema={"item_id": pl.String})
    return named.join(described, on="item_id", how="left", maintain_order="left").with_columns(
        pl.col("title", "brand", "description").fill_null(""), pl.col("categories").fill_null([])
    )


def undescribed(item_ids: pl.Series, metadata: pl.DataFrame) -> int:
    """How many of the items :func:`items_of` finds nothing of: what readers note as without metadata."""
    return len(item_ids) - int(item_ids.is_in(metadata["item_id"].implode()).sum())


def _check_columns(name: str, frame: pl.DataFrame, columns: dict[str, pl.DataType]) -> None:
    if dict(frame.schema) != columns:
        raise ValueError(f"{name} must have the columns {columns}, not {dict(frame.schema)}")
    _check_no_nulls(name, frame)


def _check_no_nulls(name: str, frame: pl.DataFrame) -> None:
    for column in frame.columns:
        if frame[column].null_count():
            raise ValueError(f"{name} hold nulls in the column {column}")
