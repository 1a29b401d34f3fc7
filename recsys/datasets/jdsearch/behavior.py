"""What users of JDsearch did: the lines of its file, checked and taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from recsys.datasets.corpus import JUDGEMENTS
from recsys.datasets.formats.lines import checked_file
from recsys.datasets.formats.tabbed import Tabbed, odd, uneven

HISTORY = ("history_qry_list", "history_wid_list", "history_type_list", "history_time_list")
BEHAVIOR = ("query", "candidate_wid_list", "candidate_label_list", *HISTORY)

GAINS: Mapping[str, float] = {"CLICK": 1.0, "CART": 2.0, "ORD": 3.0, "FLW": 1.0}
"""What a product is worth by what the user did with it: clicked, put into the cart, ordered, followed."""

LABELS = {1.0: "CLICK", 2.0: "CART", 3.0: "ORD"}
"""What the labels of candidates stand for; 0 is none of it."""

NO_QUERY = ("-1", "")
LONGEST_INTERVAL = 10**12
"""So many of these as a line can hold still add up to less than 2^63."""


@dataclass(frozen=True)
class Behavior:
    """What users did; ``user`` is the place of the line.

    Attributes:
        users: ``user``, ``text`` of the test query.
        events: ``user``, ``asked``, ``item_id``, ``timestamp``, ``gain``, in the order of the source. Those
            that a user did under one query share ``asked``, which rises with the time of the first of
            them; it is null where there was no query.
        queries: ``user``, ``asked``, ``text``.
        shown: ``user``, ``item_id``, ``gain``: candidates of the test query.
        skipped: broken lines.
    """

    users: pl.DataFrame
    events: pl.DataFrame
    queries: pl.DataFrame
    shown: pl.DataFrame
    skipped: int

    def item_ids(self) -> pl.Series:
        """Of all that was touched or shown, sorted."""
        return pl.concat([self.events["item_id"].unique(), self.shown["item_id"].unique()]).unique().sort()

    def tested(self) -> pl.DataFrame:
        """The users whose test query has an answer."""
        answered = self.shown.filter(pl.col("gain") > 0)
        asking = self.users.filter(~pl.col("text").is_in(NO_QUERY))
        return asking.join(answered, on="user", how="semi", maintain_order="left")

    def with_items(self, item_ids: pl.Series) -> Behavior:
        """Without events and candidates of other items."""
        known = pl.col("item_id").is_in(item_ids.implode())
        return replace(self, events=self.events.filter(known), shown=self.shown.filter(known))

    def with_users(self, users: pl.DataFrame) -> Behavior:
        """Without other users."""
        known = pl.col("user").is_in(users["user"].implode())
        return replace(
            self,
            users=users,
            events=self.events.filter(known),
            queries=self.queries.filter(known),
            shown=self.shown.filter(known),
        )


def read_behavior(path: Path, gains: Mapping[str, float], skip_bad_lines: bool) -> Behavior:
    """All sound lines of the file.

    Raises:
        OSError: it is missing, or a directory.
        ValueError: it is empty, cut off, or a line is broken and not to be skipped.
    """
    table = Tabbed(checked_file(path, "behavior"), BEHAVIOR, skip_bad_lines)
    blocks = [_behavior_of(table.sound(_split(block), _PROBLEM), gains) for block in table.blocks()]
    users = sum(len(block[0]) for block in blocks)
    if not users:
        raise ValueError(f"{path}: holds no users ({table.skipped} broken lines skipped)")
    users, events, queries, shown = (pl.concat(frames) for frames in zip(*blocks, strict=True))
    return Behavior(users, events, queries, shown, table.skipped)


def _split(block: pl.DataFrame) -> pl.DataFrame:
    """The lists of a block as lists."""
    nothing = pl.lit([], dtype=pl.List(pl.String))
    return block.with_columns(
        pl.when(pl.col(name) == "").then(nothing).otherwise(pl.col(name).str.split("_")).alias(name)
        for name in BEHAVIOR
        if name.endswith("_list")
    )


def _behavior_of(block: pl.DataFrame, gains: Mapping[str, float]) -> tuple[pl.DataFrame, ...]:
    """The frames of :class:`Behavior` for sound lines."""
    user = pl.col("place").alias("user")
    lists = block.filter(pl.col("history_wid_list").list.len() > 0).with_columns(
        pl.col("history_time_list").list.head(pl.col("history_time_list").list.len() - 1)
    )
    history = lists.select(user, *HISTORY).explode(HISTORY).with_row_index("row")
    events = history.select(
        "user",
        asked=pl.col("row").min().over("user", "history_qry_list"),
        item_id="history_wid_list",
        timestamp=pl.col("history_time_list").cast(pl.Int64).cum_sum().over("user"),
        gain=pl.col("history_type_list").replace_strict(dict(gains), return_dtype=JUDGEMENTS["gain"]),
        text=terms("history_qry_list"),
    ).with_columns(asked=pl.when(~pl.col("text").is_in(NO_QUERY)).then("asked"))
    queries = events.drop_nulls("asked").unique("asked", keep="first", maintain_order=True)
    gain_of = {0.0: 0.0, **{label: gains[kind] for label, kind in LABELS.items()}}
    candidates = ["candidate_wid_list", "candidate_label_list"]
    shown = (
        block.filter(pl.col("candidate_wid_list").list.len() > 0)
        .select(user, *candidates)
        .explode(candidates)
    )
    return (
        block.select(user, text=terms("query")),
        events.drop("text"),
        queries.select("user", "asked", "text"),
        shown.select(
            "user",
            item_id="candidate_wid_list",
            gain=pl.col("candidate_label_list")
            .cast(pl.Float64)
            .replace_strict(gain_of, return_dtype=JUDGEMENTS["gain"]),
        ),
    )


def terms(name: str) -> pl.Expr:
    """The terms of a column, parted by blanks."""
    return pl.col(name).str.replace_all("\x18", " ", literal=True)


_PROBLEM = pl.coalesce(
    uneven("candidate_label_list", "candidate_wid_list"),
    uneven("history_qry_list", "history_wid_list"),
    uneven("history_type_list", "history_wid_list"),
    uneven("history_time_list", "history_wid_list", more=1),
    odd("candidate_wid_list", pl.element() != "", "ids are not empty"),
    odd("history_wid_list", pl.element() != "", "ids are not empty"),
    odd(
        "candidate_label_list",
        pl.element().cast(pl.Float64, strict=False).is_in([0.0, *LABELS]),
        "labels are 0, 1, 2 or 3",
    ),
    odd("history_type_list", pl.element().is_in(list(GAINS)), f"types are {', '.join(GAINS)}"),
    odd(
        "history_time_list",
        pl.element().cast(pl.Int64, strict=False).is_between(0, LONGEST_INTERVAL),
        f"intervals are whole numbers from 0 to {LONGEST_INTERVAL}",
    ),
)
