"""JDsearch: personal product search at JD.com, each user's history with the queries that led to it.

Source: J. Liu, Z. Dou, G. Tang, S. Xu, *JDsearch: A Personalized Product Search Dataset with Real Queries and
Full Interactions*, SIGIR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from recsys.datasets.corpus import ITEMS, JUDGEMENTS, QUERIES, Corpus, checked_gains, items_of, undescribed
from recsys.datasets.formats.lines import checked_file
from recsys.datasets.formats.tabbed import Tabbed
from recsys.datasets.interactions import interactions_of
from recsys.datasets.jdsearch.behavior import BEHAVIOR, GAINS, Behavior, read_behavior, terms
from recsys.datasets.readers import reader

__all__ = ["BEHAVIOR", "GAINS", "PRODUCTS", "read_jdsearch"]

CATEGORIES = tuple(f"cate_name_{level}" for level in (1, 2, 3, 4))
PRODUCTS = (
    "wid",
    "name",
    "brand_id",
    "brand_name",
    *(name for level in (1, 2, 3, 4) for name in (f"cate_id_{level}", f"cate_name_{level}")),
    "shop_id",
)


@reader(search=True)
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

    All events of a user under the same words are one query, answered by their products; its ``history`` are
    the events before the first of them. A product's gain is that of the most that was done with it. Of a user
    the last query that is new is for validation, the others are for training, with all that was taken when
    they were asked again, if only after it. The query at the end of the
    line, whose candidates are labelled, is for testing. A query without a product of gain above 0 is left
    out. What is searched is the whole catalogue: candidates that were not taken are items as all others.

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
    gains = checked_gains(gains, GAINS)
    if catalogue == "described" and products is None:
        raise ValueError("the catalogue 'described' needs the products file")
    found = read_behavior(behavior, gains, skip_bad_lines)
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
    notes["items_without_metadata"] = undescribed(item_ids, metadata)
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


def _history_queries(found: Behavior) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Queries of histories, and what was taken under each."""
    key = ["user", "asked"]
    asked = found.events.with_columns(history=pl.int_range(pl.len()).over("user")).drop_nulls("asked")
    taken = _best(asked, [*key, "item_id"])
    queries = (
        found.queries.join(taken, on=key, how="semi")
        .join(asked.group_by(key).agg(pl.col("history").min()), on=key)
        .sort(key)
        .with_columns(
            query_id=pl.format(
                "{}.{}", _user_id(), pl.int_range(1, pl.len() + 1).over("user").cast(pl.String).str.zfill(4)
            ),
            is_last=pl.col("asked") == pl.col("asked").max().over("user"),
        )
    )
    split = pl.when("is_last").then(pl.lit("valid")).otherwise(pl.lit("train"))
    judgements = taken.join(queries, on=key).select(list(JUDGEMENTS))
    return queries.select("query_id", split.alias("split"), "text", _user_id(), "history"), judgements


def _test_queries(found: Behavior) -> tuple[pl.DataFrame, pl.DataFrame]:
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
    table = Tabbed(checked_file(path, "products"), PRODUCTS, skip_bad_lines)
    no_id = pl.when(pl.col("wid") == "").then(pl.lit("wid is empty"))
    ids = pl.Enum(wanted)
    is_wanted = pl.col("wid").cast(ids, strict=False).is_not_null()
    found = [
        table.sound(block, no_id)
        .filter(is_wanted)
        .select(
            item_id="wid",
            title=terms("name"),
            brand=terms("brand_name"),
            categories=pl.concat_list(terms(name) for name in CATEGORIES).list.filter(pl.element() != ""),
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


def _user_id() -> pl.Expr:
    return pl.format("u{}", pl.col("user").cast(pl.String).str.zfill(7)).alias("user_id")
