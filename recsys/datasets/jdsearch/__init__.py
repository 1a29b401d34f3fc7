"""Reader of JDsearch, personal product search at JD.com: histories of users, with their queries.

Source: J. Liu, Z. Dou, G. Tang, S. Xu, *JDsearch: A Personalized Product Search Dataset with Real Queries and
Full Interactions*, SIGIR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from recsys.datasets.corpus import (
    ITEMS,
    JUDGEMENTS,
    QUERIES,
    Corpus,
    check_metadata,
    checked_gains,
    count_undescribed,
    items_of,
)
from recsys.datasets.formats.lines import checked_file
from recsys.datasets.formats.tabbed import TabFile
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
"""Columns of the products file."""


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
    """Read the corpus or its sample, from plain or compressed files, with or without their headers.

    The source has no user ids, so a user's id is the number of the line: the first user is ``u0000001``. All
    events of a user's history are interactions. Their times are running sums of the intervals, in a unit
    that the source does not give.

    All events of a user with the same query text are one query. Its answers are the products of these
    events, and its ``history`` is the events before the first of them. If a user did several things with a
    product, the highest gain is used. Among the queries of a history, the one whose first event is the
    latest is for validation. The others are for training, with all their answers, also those from events
    after the start of the validation query. The query at the end of the line, with its labelled candidates,
    is for testing. Queries without a product with a gain above 0 are left out. Rankings are over the whole
    catalogue; a candidate that the user ignored is an item like all others.

    Texts are numbers of terms, separated by spaces. ``notes`` counts ``items_without_metadata``,
    ``users_without_test_query``, and for the catalogue ``described`` also the ``undescribed_events`` and
    ``undescribed_candidates`` that are left out.

    Args:
        behavior: ``user_behavior_data.txt``, with the tab-separated columns :data:`BEHAVIOR`. ``_``
            separates the elements of lists, and the byte 0x18 separates terms. ``-1`` means no query.
        products: ``product_meta_data.txt``, with the columns :data:`PRODUCTS`. Without it items have no
            texts.
        catalogue: The items of the corpus. ``touched``: all products in a history or among the candidates.
            ``described``: those of them that ``products`` describes.
        pool: Number of test queries to draw at random. The corpus then has only the histories of their
            users, and only the products that these users touched or saw. By default all test queries are
            used. The paper of GRIT-VQ draws such pools without saying how.
        gains: Gain of CLICK, CART, ORD and FLW. The labels 1, 2 and 3 of candidates mean the first three.
        seed: Seed for drawing the pool.
        skip_bad_lines: Whether to leave broken lines out, count them and log the first, instead of raising
            an error.

    Returns:
        The corpus, with queries and judgements.

    Raises:
        FileNotFoundError: If a file does not exist.
        IsADirectoryError: If a path is a directory.
        ValueError: If a line is broken; if a file is empty or incomplete; if ``products`` describes other
            items; if no query is left; or if an option is out of range.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from recsys.datasets.synthetic import write_shop
        >>> with TemporaryDirectory() as folder:
        ...     corpus = read_jdsearch(**write_shop(folder, "jdsearch", users=20, items=100))
        >>> corpus.queries["query_id"].sort().first()
        'u0000001.0001'
    """
    gains = checked_gains(gains, GAINS)
    if catalogue == "described" and products is None:
        raise ValueError("the catalogue 'described' needs the products file")
    log = read_behavior(behavior, gains, skip_bad_lines)
    notes = {}
    if catalogue == "described":
        metadata, skipped = _read_products(products, log.item_ids(), skip_bad_lines)
        described = log.with_items(metadata["item_id"])
        notes["undescribed_events"] = len(log.events) - len(described.events)
        notes["undescribed_candidates"] = len(log.candidates) - len(described.candidates)
        log = described
    if pool is not None:
        log = log.with_users(_draw(log.tested(), pool, seed))
    item_ids = log.item_ids()
    if catalogue == "touched":
        metadata, skipped = _read_products(products, item_ids, skip_bad_lines)
    parts = [_history_queries(log), _test_queries(log)]
    queries = pl.concat([queries for queries, _ in parts]).sort("query_id")
    if queries.is_empty():
        raise ValueError(
            f"{behavior}: no query has a product with a gain above 0 with the gains {dict(gains)}"
        )
    notes["items_without_metadata"] = count_undescribed(item_ids, metadata)
    notes["users_without_test_query"] = len(log.users) - len(log.tested())
    return Corpus(
        items=items_of(item_ids, metadata),
        interactions=interactions_of(
            log.events.select(_user_id(), "item_id", "timestamp"), keep="all", item_ids=item_ids
        ),
        queries=queries,
        judgements=pl.concat([judgements for _, judgements in parts]).sort("query_id", "item_id"),
        term_ids=True,
        skipped_lines=log.skipped + skipped,
        notes=notes,
    )


def _history_queries(log: Behavior) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the queries of histories, for training and validation, and their judgements."""
    key = ["user", "query_row"]
    events = log.events.with_columns(history=pl.int_range(pl.len()).over("user")).drop_nulls("query_row")
    answers = _best_gains(events, [*key, "item_id"])
    queries = (
        log.queries.join(answers, on=key, how="semi")
        .join(events.group_by(key).agg(pl.col("history").min()), on=key)
        .sort(key)
        .with_columns(
            query_id=pl.format(
                "{}.{}", _user_id(), pl.int_range(1, pl.len() + 1).over("user").cast(pl.String).str.zfill(4)
            ),
            is_last=pl.col("query_row") == pl.col("query_row").max().over("user"),
        )
    )
    split = pl.when("is_last").then(pl.lit("valid")).otherwise(pl.lit("train"))
    judgements = answers.join(queries, on=key).select(list(JUDGEMENTS))
    return queries.select("query_id", split.alias("split"), "text", _user_id(), "history"), judgements


def _test_queries(log: Behavior) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the queries at the ends of lines, for testing, and the judgements of their candidates."""
    lengths = log.events.group_by("user").len("history")
    queries = (
        log.tested()
        .join(lengths, on="user", how="left")
        .select(
            query_id=pl.format("{}.test", _user_id()),
            split=pl.lit("test"),
            text="text",
            user_id=_user_id(),
            history=pl.col("history").fill_null(0).cast(QUERIES["history"]),
        )
    )
    answers = _best_gains(log.candidates.join(log.tested(), on="user", how="semi"), ["user", "item_id"])
    judgements = answers.select(pl.format("{}.test", _user_id()).alias("query_id"), "item_id", "gain")
    return queries, judgements


def _best_gains(rows: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """Return the highest ``gain`` for each value of the key columns, without gains of 0."""
    return rows.filter(pl.col("gain") > 0).group_by(key).agg(pl.col("gain").max())


def _draw(tested: pl.DataFrame, pool: int, seed: int) -> pl.DataFrame:
    """Return ``pool`` random rows in their order; raise a ValueError if there are not as many."""
    if not 1 <= pool <= len(tested):
        raise ValueError(f"pool must be from 1 to {len(tested)}, the number of test queries, not {pool}")
    return tested[np.sort(np.random.default_rng(seed).choice(len(tested), pool, replace=False))]


def _read_products(path: Path | None, wanted: pl.Series, skip_bad_lines: bool) -> tuple[pl.DataFrame, int]:
    """Read the metadata of products.

    Args:
        path: The products file; None returns no rows.
        wanted: Ids of the products to return.
        skip_bad_lines: Whether to skip broken lines.

    Returns:
        A frame with the columns :data:`ITEMS`, in the order of the file, and the number of skipped lines.

    Raises:
        ValueError: If a line is broken and not skipped, or if no wanted product is described.
    """
    if path is None:
        return pl.DataFrame(schema=ITEMS), 0
    table = TabFile(checked_file(path, "products"), PRODUCTS, skip_bad_lines)
    no_id = pl.when(pl.col("wid") == "").then(pl.lit("wid is empty"))
    ids = pl.Enum(wanted)
    is_wanted = pl.col("wid").cast(ids, strict=False).is_not_null()
    blocks = [
        table.without_broken(block, no_id)
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
    metadata = pl.concat(blocks)
    check_metadata(path, wanted, metadata, "products touched or shown")
    return metadata, table.skipped


def _user_id() -> pl.Expr:
    """Return an expression for the user's id, such as ``u0000001``, from the number of the line."""
    return pl.format("u{}", pl.col("user").cast(pl.String).str.zfill(7)).alias("user_id")
