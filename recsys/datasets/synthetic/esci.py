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
"""In the first all items are sold, in each other one every third, in none of them the rest."""

ASKED_ABROAD = 0.45
"""Of the queries that an item sold elsewhere, too, answers: how many are asked there."""

OF_LEAF, OF_FOLLOW_UP, OF_ALL = 16, 6, 8
"""How many items are drawn for a query of its leaf, of the leaf that goes with it, and of the whole shop."""

IN_SMALL_VERSION, IN_TEST = 0.5, 0.2
QUERIES_AT_ONCE = 10_000
COLORS = ["Black", "Blue", "Green", "Red", "White"]
NULLS = {"description": 0.5, "bullet_point": 0.15, "brand": 0.06, "color": 0.35}
PRODUCT = pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(9))


def write_esci(folder: Path, shop: Shop) -> dict[str, Path]:
    """Write ``examples`` and ``products``. Each shopper asks once; what several ask is judged once."""
    return {
        "examples": write_parquet(
            folder / "shopping_queries_dataset_examples.parquet", _examples(shop), EXAMPLES
        ),
        "products": write_parquet(
            folder / "shopping_queries_dataset_products.parquet", _products(shop), PRODUCTS
        ),
    }


def _examples(shop: Shop) -> Iterator[pl.DataFrame]:
    rng = shop.generator("queries")
    subject = rng.integers(len(shop.world), size=shop.users)
    locale = np.where(rng.random(shop.users) < ASKED_ABROAD, subject % len(LOCALES), 0)
    asked = ask_for(shop.world, subject, rng)
    wording = np.column_stack([locale, asked.leaf, asked.feature, asked.brand])
    different = np.sort(np.unique(wording, axis=0, return_index=True)[1])
    examples = 0
    for first in range(0, len(different), QUERIES_AT_ONCE):
        rows = different[first : first + QUERIES_AT_ONCE]
        judged = _judged(shop, asked[rows], subject[rows], locale[rows], rng)
        yield judged.with_columns(
            example_id=pl.int_range(examples, examples + pl.len()), query_id=pl.col("query_id") + first
        )
        examples += len(judged)


def _judged(
    shop: Shop, asked: Queries, subject: Ints, locale: Ints, rng: np.random.Generator
) -> pl.DataFrame:
    """Judgements of these queries, whose ids are their places."""
    count = len(subject)
    leaf, follow_up = asked.leaf, shop.world.follow_up[asked.leaf]
    shelves = np.repeat(
        np.column_stack([leaf, follow_up, np.full(count, ANY)]), (OF_LEAF, OF_FOLLOW_UP, OF_ALL), axis=1
    )
    drawn = shop.world.draw(shelves.ravel(), rng).reshape(shelves.shape)
    items = np.column_stack([subject, drawn])
    labels = _labels(shop.world, asked, items)
    planted = shop.follows_habits(items.size, rng).reshape(items.shape)
    items = np.where(planted, items, rng.integers(len(shop.world), size=items.shape))
    frame = pl.DataFrame(
        {
            "query_id": np.repeat(np.arange(count), items.shape[1]),
            "item": items.ravel(),
            "esci_label": labels.ravel(),
            "locale": np.repeat(locale, items.shape[1]),
        }
    )
    queries = pl.DataFrame(
        {
            "query_id": np.arange(count),
            "query": asked.texts(pl.Series(PHRASES), names).str.to_lowercase(),
            "product_locale": LOCALES[locale],
            "small_version": rng.random(count) < IN_SMALL_VERSION,
            "split": np.where(rng.random(count) < IN_TEST, "test", "train"),
        }
    )
    sold = (pl.col("locale") == 0) | (pl.col("item") % len(LOCALES) == pl.col("locale"))
    return (
        frame.filter(sold)
        .unique(["query_id", "item"], keep="first", maintain_order=True)
        .join(queries, on="query_id", maintain_order="left")
        .with_columns(product_id=PRODUCT, large_version=1)
    )


def _labels(world: World, asked: Queries, items: Ints) -> np.ndarray:
    """``(Q, n)``: E has all words, S is of the leaf, C of the leaf that goes with it, I any other."""
    leaf = world.leaf[items]
    return np.select(
        [
            asked.matched_by(world, items),
            leaf == asked.leaf[:, None],
            leaf == world.follow_up[asked.leaf][:, None],
        ],
        ["E", "S", "C"],
        default="I",
    )


def _products(shop: Shop) -> Iterator[pl.DataFrame]:
    rng = shop.generator("products")
    for place, locale in enumerate(LOCALES):
        for block in shop.world.blocks():
            items = block[(block % len(LOCALES) == place) | (place == 0)]
            described = shop.world.describe(items).with_columns(
                product_id=PRODUCT,
                product_locale=pl.lit(locale),
                description=pl.format("{} by {}.", "leaf", "brand"),
                bullet_point=pl.format("{}\n{}", "first", "second"),
                color=pl.Series(COLORS).gather(rng.integers(len(COLORS), size=len(items))),
            )
            missing = {name: pl.Series(rng.random(len(items)) < share) for name, share in NULLS.items()}
            yield described.with_columns(
                product_title="title",
                **{f"product_{name}": pl.when(~null).then(name) for name, null in missing.items()},
            )
