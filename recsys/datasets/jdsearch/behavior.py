"""The behavior of JDsearch's users: the lines of its file, checked and split into frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from recsys.datasets.corpus import JUDGEMENTS
from recsys.datasets.formats.lines import checked_file
from recsys.datasets.formats.tabbed import TabFile, element_problem, length_problem

HISTORY = ("history_qry_list", "history_wid_list", "history_type_list", "history_time_list")
BEHAVIOR = ("query", "candidate_wid_list", "candidate_label_list", *HISTORY)
"""Columns of the behavior file."""

GAINS: Mapping[str, float] = {"CLICK": 1.0, "CART": 2.0, "ORD": 3.0, "FLW": 1.0}
"""Gain of a product by the user's action: clicked, put into the cart, ordered, followed."""

LABELS = {1.0: "CLICK", 2.0: "CART", 3.0: "ORD"}
"""Action that each label of a candidate means. The label 0 means no action."""

NO_QUERY = ("-1", "")
"""Texts in place of a query if there was none."""

LONGEST_INTERVAL = 10**12
"""Largest interval. The sum of the intervals of the longest possible line is below 2^63."""


@dataclass(frozen=True)
class Behavior:
    """The behavior of users. In all frames ``user`` is the number of the user's line, without the header.

    Attributes:
        users: One row for each user: ``user`` and ``text``, the text of the test query.
        events: Histories in the order of the source: ``user``, ``query_row``, ``item_id``, ``timestamp``,
            ``gain``. ``query_row`` identifies the query; it is equal for all events of a user with the same
            query text, rises with the time of the first of them, and is null if there was no query.
        queries: Queries of histories: ``user``, ``query_row``, ``text``.
        candidates: Candidates of test queries: ``user``, ``item_id``, ``gain``.
        skipped: Number of broken lines that were skipped.
    """

    users: pl.DataFrame
    events: pl.DataFrame
    queries: pl.DataFrame
    candidates: pl.DataFrame
    skipped: int

    def item_ids(self) -> pl.Series:
        """Return the ids of all items in histories or among candidates, sorted."""
        return (
            pl.concat([self.events["item_id"].unique(), self.candidates["item_id"].unique()]).unique().sort()
        )

    def tested(self) -> pl.DataFrame:
        """Return the rows of ``users`` whose test query has an answer."""
        answers = self.candidates.filter(pl.col("gain") > 0)
        with_query = self.users.filter(~pl.col("text").is_in(NO_QUERY))
        return with_query.join(answers, on="user", how="semi", maintain_order="left")

    def with_items(self, item_ids: pl.Series) -> Behavior:
        """Return the behavior without events and candidates of other items."""
        is_kept = pl.col("item_id").is_in(item_ids.implode())
        return replace(self, events=self.events.filter(is_kept), candidates=self.candidates.filter(is_kept))

    def with_users(self, users: pl.DataFrame) -> Behavior:
        """Return the behavior of these users only, who are rows of ``users``."""
        is_kept = pl.col("user").is_in(users["user"].implode())
        return replace(
            self,
            users=users,
            events=self.events.filter(is_kept),
            queries=self.queries.filter(is_kept),
            candidates=self.candidates.filter(is_kept),
        )


def read_behavior(path: Path, gains: Mapping[str, float], skip_bad_lines: bool) -> Behavior:
    """Read the lines of the behavior file that are not broken.

    Args:
        path: The behavior file.
        gains: Gain by action, for each key of :data:`GAINS`.
        skip_bad_lines: Whether to leave broken lines out, count them and log the first, instead of raising
            an error.

    Returns:
        The behavior of all users.

    Raises:
        OSError: If the file does not exist or is a directory.
        ValueError: If the file is empty or incomplete, or if a line is broken and not skipped.
    """
    table = TabFile(checked_file(path, "behavior"), BEHAVIOR, skip_bad_lines)
    blocks = [
        _block_frames(table.without_broken(_split_lists(block), _PROBLEM), gains) for block in table.blocks()
    ]
    if not any(len(users) for users, *_ in blocks):
        raise ValueError(f"{path}: holds no users ({table.skipped} broken lines skipped)")
    users, events, queries, candidates = (pl.concat(frames) for frames in zip(*blocks, strict=True))
    return Behavior(users, events, queries, candidates, table.skipped)


def _split_lists(block: pl.DataFrame) -> pl.DataFrame:
    """Split the texts of list columns into lists."""
    empty = pl.lit([], dtype=pl.List(pl.String))
    return block.with_columns(
        pl.when(pl.col(name) == "").then(empty).otherwise(pl.col(name).str.split("_")).alias(name)
        for name in BEHAVIOR
        if name.endswith("_list")
    )


def _block_frames(block: pl.DataFrame, gains: Mapping[str, float]) -> tuple[pl.DataFrame, ...]:
    """Return the first four frames of :class:`Behavior`, in their order, for a block of lines."""
    user = pl.col("place").alias("user")
    # The last interval is that of the test query, which is no event of the history.
    lists = block.filter(pl.col("history_wid_list").list.len() > 0).with_columns(
        pl.col("history_time_list").list.head(pl.col("history_time_list").list.len() - 1)
    )
    history = lists.select(user, *HISTORY).explode(HISTORY).with_row_index("row")
    events = history.select(
        "user",
        query_row=pl.col("row").min().over("user", "history_qry_list"),
        item_id="history_wid_list",
        timestamp=pl.col("history_time_list").cast(pl.Int64).cum_sum().over("user"),
        gain=pl.col("history_type_list").replace_strict(dict(gains), return_dtype=JUDGEMENTS["gain"]),
        text=terms("history_qry_list"),
    ).with_columns(query_row=pl.when(~pl.col("text").is_in(NO_QUERY)).then("query_row"))
    queries = events.drop_nulls("query_row").unique("query_row", keep="first", maintain_order=True)
    label_gains = {0.0: 0.0, **{label: gains[action] for label, action in LABELS.items()}}
    candidate_columns = ["candidate_wid_list", "candidate_label_list"]
    candidates = (
        block.filter(pl.col("candidate_wid_list").list.len() > 0)
        .select(user, *candidate_columns)
        .explode(candidate_columns)
    )
    return (
        block.select(user, text=terms("query")),
        events.drop("text"),
        queries.select("user", "query_row", "text"),
        candidates.select(
            "user",
            item_id="candidate_wid_list",
            gain=pl.col("candidate_label_list")
            .cast(pl.Float64)
            .replace_strict(label_gains, return_dtype=JUDGEMENTS["gain"]),
        ),
    )


def terms(name: str) -> pl.Expr:
    """Return an expression for a column's texts with spaces between the terms."""
    return pl.col(name).str.replace_all("\x18", " ", literal=True)


_PROBLEM = pl.coalesce(
    length_problem("candidate_label_list", "candidate_wid_list"),
    length_problem("history_qry_list", "history_wid_list"),
    length_problem("history_type_list", "history_wid_list"),
    length_problem("history_time_list", "history_wid_list", more=1),
    element_problem("candidate_wid_list", pl.element() != "", "ids are not empty"),
    element_problem("history_wid_list", pl.element() != "", "ids are not empty"),
    element_problem(
        "candidate_label_list",
        pl.element().cast(pl.Float64, strict=False).is_in([0.0, *LABELS]),
        "labels are 0, 1, 2 or 3",
    ),
    element_problem("history_type_list", pl.element().is_in(list(GAINS)), f"types are {', '.join(GAINS)}"),
    element_problem(
        "history_time_list",
        pl.element().cast(pl.Int64, strict=False).is_between(0, LONGEST_INTERVAL),
        f"intervals are whole numbers from 0 to {LONGEST_INTERVAL}",
    ),
)
"""The first problem of a line, null if it has none."""
