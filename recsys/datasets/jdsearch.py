"""JDsearch: personal product search at JD.com, each user's history with the queries that led to it.

Source: J. Liu, Z. Dou, G. Tang, S. Xu, *JDsearch: A Personalized Product Search Dataset with Real Queries and
Full Interactions*, SIGIR 2023.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from recsys.datasets.corpus import ITEMS, JUDGEMENTS, QUERIES, Corpus, interactions_of, items_of
from recsys.datasets.lines import checked_file, decoded, lines_of

HISTORY = ("history_qry_list", "history_wid_list", "history_type_list", "history_time_list")
BEHAVIOR = ("query", "candidate_wid_list", "candidate_label_list", *HISTORY)
CATEGORIES = tuple(f"cate_name_{level}" for level in (1, 2, 3, 4))
PRODUCTS = (
    "wid",
    "name",
    "brand_id",
    "brand_name",
    *(name for level in (1, 2, 3, 4) for name in (f"cate_id_{level}", f"cate_name_{level}")),
    "shop_id",
)

GAINS: Mapping[str, float] = {"CLICK": 1.0, "CART": 2.0, "ORD": 3.0, "FLW": 1.0}
"""What a product is worth by what the user did with it: clicked, put into the cart, ordered, followed."""

LABELS = {1.0: "CLICK", 2.0: "CART", 3.0: "ORD"}
"""What the labels of candidates stand for; 0 is none of it."""

NO_QUERY = ("-1", "")
LONGEST_INTERVAL = 10**12
"""So many of these as a line can hold still add up to less than 2^63."""

BLOCK = 2**25
"""Bytes of the file that are worked on at a time."""

logger = logging.getLogger(__name__)


def read_jdsearch(
    behavior: Path,
    products: Path | None = None,
    *,
    catalogue: Literal["touched", "described"] = "touched",
    pool: int | None = None,
    gains: Mapping[str, float] = GAINS,
    seed: int = 0,
    skip_bad_lines: bool = False,
) -> Corpus:
    """Read the corpus, or its sample; both files with or without their header, plain or packed.

    A user has no id but the place of his line: the first is ``u0000001``. All events of his history are
    interactions; their times are running sums of the intervals, in a unit that the source does not tell.

    Events in a row with the same query are one query, answered by their products; its ``history`` are the
    events before them. A product's gain is that of the most that was done with it. The last such query of a
    user is for validation, those before are for training. The query at the end of the line, whose candidates
    are labelled, is for testing. A query without a product of gain above 0 is left out. What is searched is
    the whole catalogue: candidates that were not taken are items as all others.

    Texts are numbers that stand for terms, parted by blanks. ``notes`` counts ``items_without_metadata``,
    ``users_without_test_query`` and, for the catalogue of what is described, ``undescribed_events`` and
    ``undescribed_candidates``, which are left out.

    Args:
        behavior: ``user_behavior_data.txt``: :data:`BEHAVIOR`, parted by TAB, elements of lists by ``_``,
            terms by the byte 0x18; ``-1`` stands for no query.
        products: ``product_meta_data.txt``: :data:`PRODUCTS`. Without it no item has a text.
        catalogue: all products in a history or among the candidates (``touched``), or those of them that
            ``products`` describes.
        pool: only so many test queries, drawn by lot, with their users' histories, and as catalogue only
            what these users touched or were shown. The paper of GRIT-VQ draws such pools without saying how.
        gains: CLICK, CART, ORD, FLW → gain; the labels 1, 2, 3 of candidates are the first three.
        seed: of the draw.
        skip_bad_lines: leave broken lines out, count them and log the first, instead of raising.

    Raises:
        FileNotFoundError, IsADirectoryError: a path is not that of a file.
        ValueError: a line is broken, a file is empty or cut off, or ``products`` describes other items; no
            query is left; or an option is out of range.
    """
    if set(gains) != set(GAINS) or not all(math.isfinite(gain) and gain >= 0 for gain in gains.values()):
        raise ValueError(
            f"gains must give each of {', '.join(GAINS)} a finite number of at least 0, not {dict(gains)}"
        )
    if catalogue == "described" and products is None:
        raise ValueError("the catalogue 'described' needs the products file")
    found = _behavior(behavior, gains, skip_bad_lines)
    notes = {}
    if catalogue == "described":
        metadata, skipped = _metadata(products, found.item_ids(), skip_bad_lines)
        kept = found.with_items(metadata["item_id"])
        notes["undescribed_events"] = len(found.events) - len(kept.events)
        notes["undescribed_candidates"] = len(found.shown) - len(kept.shown)
        found = kept
    if pool is not None:
        found = found.with_users(_drawn(found.tested(), pool, seed))
    item_ids = found.item_ids()
    if catalogue == "touched":
        metadata, skipped = _metadata(products, item_ids, skip_bad_lines)
    parts = [_history_queries(found), _test_queries(found)]
    queries = pl.concat([queries for queries, _ in parts]).sort("query_id")
    if queries.is_empty():
        raise ValueError(
            f"{behavior}: no query has a product with a gain above 0 with the gains {dict(gains)}"
        )
    notes["items_without_metadata"] = len(item_ids) - item_ids.is_in(metadata["item_id"].implode()).sum()
    notes["users_without_test_query"] = len(found.users) - len(found.tested())
    return Corpus(
        items=items_of(item_ids, metadata),
        interactions=interactions_of(
            found.events.select(_user_id(), "item_id", "timestamp"), keep="all", item_ids=item_ids
        ),
        queries=queries,
        judgements=pl.concat([judgements for _, judgements in parts]).sort("query_id", "item_id"),
        term_ids=True,
        skipped_lines=found.skipped + skipped,
        notes=notes,
    )


@dataclass(frozen=True)
class _Behavior:
    """What users did; ``user`` is the place of the line.

    Attributes:
        users: ``user``, ``text`` of the test query.
        events: ``user``, ``run``, ``item_id``, ``timestamp``, ``gain``, in the order of the source. Events of
            a user with the same run had the same query; it is null where there was none.
        asked: ``user``, ``run``, ``text`` of these queries.
        shown: ``user``, ``item_id``, ``gain``: candidates of the test query.
        skipped: broken lines.
    """

    users: pl.DataFrame
    events: pl.DataFrame
    asked: pl.DataFrame
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

    def with_items(self, item_ids: pl.Series) -> _Behavior:
        """Without events and candidates of other items."""
        known = pl.col("item_id").is_in(item_ids.implode())
        return replace(self, events=self.events.filter(known), shown=self.shown.filter(known))

    def with_users(self, users: pl.DataFrame) -> _Behavior:
        """Without other users."""
        known = pl.col("user").is_in(users["user"].implode())
        return replace(
            self,
            users=users,
            events=self.events.filter(known),
            asked=self.asked.filter(known),
            shown=self.shown.filter(known),
        )


def _behavior(path: Path, gains: Mapping[str, float], skip_bad_lines: bool) -> _Behavior:
    table = _Table(checked_file(path, "behavior"), BEHAVIOR, skip_bad_lines)
    blocks = [_behavior_of(table.sound(_split(block), _PROBLEM), gains) for block in table.blocks()]
    users = sum(len(block[0]) for block in blocks)
    if not users:
        raise ValueError(f"{path}: holds no users ({table.skipped} broken lines skipped)")
    users, events, asked, shown = (pl.concat(frames) for frames in zip(*blocks, strict=True))
    return _Behavior(users, events, asked, shown, table.skipped)


def _split(block: pl.DataFrame) -> pl.DataFrame:
    """The lists of a block as lists."""
    nothing = pl.lit([], dtype=pl.List(pl.String))
    return block.with_columns(
        pl.when(pl.col(name) == "").then(nothing).otherwise(pl.col(name).str.split("_")).alias(name)
        for name in BEHAVIOR
        if name.endswith("_list")
    )


def _behavior_of(block: pl.DataFrame, gains: Mapping[str, float]) -> tuple[pl.DataFrame, ...]:
    """The frames of :class:`_Behavior` for sound lines."""
    user = pl.col("place").alias("user")
    lists = block.filter(pl.col("history_wid_list").list.len() > 0).with_columns(
        pl.col("history_time_list").list.head(pl.col("history_time_list").list.len() - 1)
    )
    history = lists.select(user, *HISTORY).explode(HISTORY)
    events = history.select(
        "user",
        run=pl.struct("user", "history_qry_list").rle_id(),
        item_id="history_wid_list",
        timestamp=pl.col("history_time_list").cast(pl.Int64).cum_sum().over("user"),
        gain=pl.col("history_type_list").replace_strict(dict(gains), return_dtype=JUDGEMENTS["gain"]),
        text=_terms("history_qry_list"),
    ).with_columns(run=pl.when(~pl.col("text").is_in(NO_QUERY)).then("run"))
    asked = events.filter(pl.col("run").is_not_null()).unique("run", keep="first", maintain_order=True)
    gain_of = {0.0: 0.0, **{label: gains[kind] for label, kind in LABELS.items()}}
    candidates = ["candidate_wid_list", "candidate_label_list"]
    shown = (
        block.filter(pl.col("candidate_wid_list").list.len() > 0)
        .select(user, *candidates)
        .explode(candidates)
    )
    return (
        block.select(user, text=_terms("query")),
        events.drop("text"),
        asked.select("user", "run", "text"),
        shown.select(
            "user",
            item_id="candidate_wid_list",
            gain=pl.col("candidate_label_list")
            .cast(pl.Float64)
            .replace_strict(gain_of, return_dtype=JUDGEMENTS["gain"]),
        ),
    )


def _history_queries(found: _Behavior) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Queries of histories, and what was taken under each."""
    key = ["user", "run"]
    asked = found.events.with_columns(history=pl.int_range(pl.len()).over("user")).filter(
        pl.col("run").is_not_null()
    )
    taken = _best(asked, [*key, "item_id"])
    queries = (
        found.asked.join(taken, on=key, how="semi")
        .join(asked.group_by(key).agg(pl.col("history").min()), on=key)
        .sort(key)
        .with_columns(
            query_id=pl.format(
                "{}.{}", _user_id(), pl.int_range(1, pl.len() + 1).over("user").cast(pl.String).str.zfill(4)
            ),
            is_last=pl.col("run") == pl.col("run").max().over("user"),
        )
    )
    split = pl.when("is_last").then(pl.lit("valid")).otherwise(pl.lit("train"))
    judgements = taken.join(queries, on=key).select(list(JUDGEMENTS))
    return queries.select("query_id", split.alias("split"), "text", _user_id(), "history"), judgements


def _test_queries(found: _Behavior) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Queries at the ends of lines, and what was taken of their candidates."""
    lengths = found.events.group_by("user").len("history")
    queries = (
        found.tested()
        .join(lengths, on="user", how="left")
        .select(
            query_id=pl.format("{}.test", _user_id()),
            split=pl.lit("test"),
            text="text",
            user_id=_user_id(),
            history=pl.col("history").fill_null(0).cast(QUERIES["history"]),
        )
    )
    taken = _best(found.shown.join(found.tested(), on="user", how="semi"), ["user", "item_id"])
    judgements = taken.select(pl.format("{}.test", _user_id()).alias("query_id"), "item_id", "gain")
    return queries, judgements


def _best(taken: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """The highest gain of each, if above 0."""
    return taken.filter(pl.col("gain") > 0).group_by(key).agg(pl.col("gain").max())


def _drawn(tested: pl.DataFrame, pool: int, seed: int) -> pl.DataFrame:
    if not 1 <= pool <= len(tested):
        raise ValueError(f"pool must be from 1 to {len(tested)}, the number of test queries, not {pool}")
    return tested[np.sort(np.random.default_rng(seed).choice(len(tested), pool, replace=False))]


def _metadata(path: Path | None, wanted: pl.Series, skip_bad_lines: bool) -> tuple[pl.DataFrame, int]:
    """:data:`ITEMS` of those wanted that the file describes, and the number of lines skipped."""
    if path is None:
        return pl.DataFrame(schema=ITEMS), 0
    table = _Table(checked_file(path, "products"), PRODUCTS, skip_bad_lines)
    no_id = pl.when(pl.col("wid") == "").then(pl.lit("wid is empty"))
    ids = pl.Enum(wanted)
    is_wanted = pl.col("wid").cast(ids, strict=False).is_not_null()
    found = [
        table.sound(block, no_id)
        .filter(is_wanted)
        .select(
            item_id="wid",
            title=_terms("name"),
            brand=_terms("brand_name"),
            categories=pl.concat_list(_terms(name) for name in CATEGORIES).list.filter(pl.element() != ""),
            description=pl.lit(""),
        )
        for block in table.blocks()
    ]
    metadata = pl.concat(found)
    if metadata.is_empty():
        raise ValueError(
            f"{path}: describes none of the {len(wanted)} products touched or shown: not its file?"
        )
    return metadata, table.skipped


def _terms(name: str) -> pl.Expr:
    return pl.col(name).str.replace_all("\x18", " ", literal=True)


def _user_id() -> pl.Expr:
    return pl.format("u{}", pl.col("user").cast(pl.String).str.zfill(7)).alias("user_id")


@dataclass
class _Table:
    """A file of columns parted by TAB, of which :data:`BLOCK` bytes at a time are worked on.

    Attributes:
        skipped: lines found broken so far.
    """

    path: Path
    columns: tuple[str, ...]
    skip_bad_lines: bool
    skipped: int = 0

    def blocks(self) -> Iterator[pl.DataFrame]:
        """``line`` from 1, ``place`` without the header, from 1 as well, and the columns as texts."""
        rows: list[tuple[int, int, str | None]] = []
        size, heads, header = 0, 0, "\t".join(self.columns)
        for number, line in lines_of(self.path):
            text = _decoded(line)
            if number == 1 and text == header:
                heads = 1
                continue
            rows.append((number, number - heads, text))
            size += len(line)
            if size > BLOCK:
                yield self._block(rows)
                rows, size = [], 0
        yield self._block(rows)

    def _block(self, rows: list[tuple[int, int, str | None]]) -> pl.DataFrame:
        lines = pl.DataFrame(
            rows, schema={"line": pl.UInt32, "place": pl.UInt32, "text": pl.String}, orient="row"
        )
        width = pl.col("fields").list.len()
        problem = (
            pl.when(width.is_null())
            .then(pl.lit("is not UTF-8"))
            .when(width != len(self.columns))
            .then(pl.format(f"has {{}} columns parted by TAB, not {len(self.columns)}", width))
        )
        block = self.sound(lines.with_columns(fields=pl.col("text").str.split("\t")), problem)
        fields = [pl.col("fields").list.get(at).alias(name) for at, name in enumerate(self.columns)]
        return block.select("line", "place", *fields)

    def sound(self, block: pl.DataFrame, problem: pl.Expr) -> pl.DataFrame:
        """Without the lines of which ``problem`` is not null but says what is wrong.

        Raises:
            ValueError: there is one, unless bad lines are skipped.
        """
        checked = block.with_columns(problem=problem)
        broken = checked.filter(pl.col("problem").is_not_null()).select("line", "problem")
        if broken.is_empty():
            return block
        line, reason = broken.row(0)
        if not self.skip_bad_lines:
            raise ValueError(f"{self.path}, line {line}: {reason} (--skip-bad-lines leaves it out)")
        if not self.skipped:
            logger.warning("%s: broken lines skipped; first line %d: %s", self.path, line, reason)
        self.skipped += len(broken)
        return checked.filter(pl.col("problem").is_null()).drop("problem")


def _decoded(line: bytes) -> str | None:
    try:
        return decoded(line)
    except ValueError:
        return None


def _uneven(name: str, other: str, more: int = 0) -> pl.Expr:
    """What is wrong unless the list of that name has so many more elements than the other."""
    length, others = pl.col(name).list.len(), pl.col(other).list.len()
    wanted = f"must have {more} more than" if more else "must have as many as"
    message = f"{name} {wanted} {other}, but they have {{}} and {{}} elements"
    return pl.when(length != others + more).then(pl.format(message, length, others))


def _odd(name: str, is_sound: pl.Expr, rule: str) -> pl.Expr:
    """What is wrong unless all elements of a list are sound; names the first that is not."""
    odd = pl.col(name).list.eval(pl.when(~is_sound.fill_null(False)).then(pl.element())).list.drop_nulls()
    return pl.format(f"{name} holds {{}}, but {rule}", odd.list.first().str.head(60))


_PROBLEM = pl.coalesce(
    _uneven("candidate_label_list", "candidate_wid_list"),
    _uneven("history_qry_list", "history_wid_list"),
    _uneven("history_type_list", "history_wid_list"),
    _uneven("history_time_list", "history_wid_list", more=1),
    _odd("candidate_wid_list", pl.element() != "", "ids are not empty"),
    _odd("history_wid_list", pl.element() != "", "ids are not empty"),
    _odd(
        "candidate_label_list",
        pl.element().cast(pl.Float64, strict=False).is_in([0.0, *LABELS]),
        "labels are 0, 1, 2 or 3",
    ),
    _odd("history_type_list", pl.element().is_in(list(GAINS)), f"types are {', '.join(GAINS)}"),
    _odd(
        "history_time_list",
        pl.element().cast(pl.Int64, strict=False).is_between(0, LONGEST_INTERVAL),
        f"intervals are whole numbers from 0 to {LONGEST_INTERVAL}",
    ),
)
