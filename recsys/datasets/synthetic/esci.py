"""The made-up shop in the files of Amazon's Shopping Queries (ESCI).

Source of the format: C. Reddy et al., *Shopping Queries Dataset*, https://github.com/amazon-science/esci-data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from recsys.datasets.synthetic.files import write_parquet
from recsys.datasets.synthetic.queries import Queries, ask_for
from recsys.datasets.synthetic.shoppers import Shop
from recsys.datasets.synthetic.words import PHRASES, names
from recsys.datasets.synthetic.world import ANY, World
from semantic_ids.types import Ints

EXAMPLES = pa.schema(
    [
        ("example_id", pa.int64()),
        ("query", pa.string()),
        ("query_id", pa.int64()),
        ("product_id", pa.string()),
        ("product_locale", pa.string()),
        ("esci_label", pa.string()),
        ("small_version", pa.int64()),
        ("large_version", pa.int64()),
        ("split", pa.string()),
    ]
)
PRODUCTS = pa.schema(
    [
        (f"product_{name}", pa.string())
        for name in ("id", "title", "description", "bullet_point", "brand", "color", "locale")
    ]
)

LOCALES = np.array(["us", "es", "jp"])
"""The locales. The first one sells all items. Each other one sells a different third of them."""

OTHER_LOCALE_SHARE = 0.45
"""Share of queries in another locale than the first, among queries about an item that this locale sells."""

LEAF_ITEMS, FOLLOW_UP_ITEMS, ANY_ITEMS = 16, 6, 8
"""Numbers of items that are drawn for a query: of its leaf, of the follow-up leaf, and of the whole shop."""

SMALL_VERSION_SHARE, TEST_SHARE = 0.5, 0.2
"""Shares of queries in the small version, and in the test split."""

QUERIES_PER_BLOCK = 10_000
COLORS = ["Black", "Blue", "Green", "Red", "White"]
NULL_SHARES = {"description": 0.5, "bullet_point": 0.15, "brand": 0.06, "color": 0.35}
"""Shares of products without each field."""

PRODUCT = pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(9))


def write_esci(folder: Path, shop: Shop) -> dict[str, Path]:
    """Write ``examples`` and ``products``.

    Each shopper asks one query. A query that several shoppers ask is judged once.
    """
    return {
        "examples": write_parquet(
            folder / "shopping_queries_dataset_examples.parquet", _examples(shop), EXAMPLES
        ),
        "products": write_parquet(
            folder / "shopping_queries_dataset_products.parquet", _products(shop), PRODUCTS
        ),
    }


def _examples(shop: Shop) -> Iterator[pl.DataFrame]:
    """Yield the rows of the examples file in blocks of queries."""
    rng = shop.generator("queries")
    subject = rng.integers(len(shop.world), size=shop.users)
    locale = np.where(rng.random(shop.users) < OTHER_LOCALE_SHARE, subject % len(LOCALES), 0)
    queries = ask_for(shop.world, subject, rng)
    wording = np.column_stack([locale, queries.leaf, queries.feature, queries.brand])
    distinct = np.sort(np.unique(wording, axis=0, return_index=True)[1])
    rows_before = 0
    for first in range(0, len(distinct), QUERIES_PER_BLOCK):
        chosen = distinct[first : first + QUERIES_PER_BLOCK]
        judged = _judge(shop, queries[chosen], subject[chosen], locale[chosen], rng)
        yield judged.with_columns(
            example_id=pl.int_range(rows_before, rows_before + pl.len()), query_id=pl.col("query_id") + first
        )
        rows_before += len(judged)


def _judge(
    shop: Shop, queries: Queries, subject: Ints, locale: Ints, rng: np.random.Generator
) -> pl.DataFrame:
    """Draw products for each query, and label them.

    Args:
        shop: The shop.
        queries: Q queries.
        subject: ``(Q,)`` the item that each query is about.
        locale: ``(Q,)`` the index of each query's locale.
        rng: Random numbers.

    Returns:
        Rows of the examples file without ``example_id``; ``query_id`` is the index of the query.
    """
    count = len(subject)
    leaf, follow_up = queries.leaf, shop.world.follow_up[queries.leaf]
    shelves = np.repeat(
        np.column_stack([leaf, follow_up, np.full(count, ANY)]),
        (LEAF_ITEMS, FOLLOW_UP_ITEMS, ANY_ITEMS),
        axis=1,
    )
    drawn = shop.world.draw(shelves.ravel(), rng).reshape(shelves.shape)
    items = np.column_stack([subject, drawn])
    labels = _labels(shop.world, queries, items)
    planted = shop.follows_habits(items.size, rng).reshape(items.shape)
    items = np.where(planted, items, rng.integers(len(shop.world), size=items.shape))
    judgements = pl.DataFrame(
        {
            "query_id": np.repeat(np.arange(count), items.shape[1]),
            "item": items.ravel(),
            "esci_label": labels.ravel(),
            "locale": np.repeat(locale, items.shape[1]),
        }
    )
    query_columns = pl.DataFrame(
        {
            "query_id": np.arange(count),
            "query": queries.texts(pl.Series(PHRASES), names).str.to_lowercase(),
            "product_locale": LOCALES[locale],
            "small_version": rng.random(count) < SMALL_VERSION_SHARE,
            "split": np.where(rng.random(count) < TEST_SHARE, "test", "train"),
        }
    )
    is_sold = (pl.col("locale") == 0) | (pl.col("item") % len(LOCALES) == pl.col("locale"))
    return (
        judgements.filter(is_sold)
        .unique(["query_id", "item"], keep="first", maintain_order=True)
        .join(query_columns, on="query_id", maintain_order="left")
        .with_columns(product_id=PRODUCT, large_version=1)
    )


def _labels(world: World, queries: Queries, items: Ints) -> np.ndarray:
    """Return the label of each item for its query, ``(Q, n)``.

    E: the item has all words of the query. S: it is of the query's leaf. C: it is of the follow-up leaf.
    I: all others.
    """
    leaf = world.leaf[items]
    return np.select(
        [
            queries.matched_by(world, items),
            leaf == queries.leaf[:, None],
            leaf == world.follow_up[queries.leaf][:, None],
        ],
        ["E", "S", "C"],
        default="I",
    )


def _products(shop: Shop) -> Iterator[pl.DataFrame]:
    """Yield the rows of the products file, locale after locale, in blocks of items."""
    rng = shop.generator("products")
    for index, locale in enumerate(LOCALES):
        for block in shop.world.blocks():
            items = block[(block % len(LOCALES) == index) | (index == 0)]
            described = shop.world.describe(items).with_columns(
                product_id=PRODUCT,
                product_locale=pl.lit(locale),
                description=pl.format("{} by {}.", "leaf", "brand"),
                bullet_point=pl.format("{}\n{}", "first", "second"),
                color=pl.Series(COLORS).gather(rng.integers(len(COLORS), size=len(items))),
            )
            missing = {name: pl.Series(rng.random(len(items)) < share) for name, share in NULL_SHARES.items()}
            yield described.with_columns(
                product_title="title",
                **{f"product_{name}": pl.when(~null).then(name) for name, null in missing.items()},
            )
