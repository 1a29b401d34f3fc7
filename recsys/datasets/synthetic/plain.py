"""The made-up shop in the formats for your own data: lines of sequences, and Parquet tables."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa

from recsys.datasets.synthetic.files import json_lines, plain_lines, write_chunks, write_parquet
from recsys.datasets.synthetic.shoppers import Shop

INTERACTIONS = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
ITEMS = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("brand", pa.string()),
        ("categories", pa.list_(pa.string())),
    ]
)

USER, ITEM = pl.format("u{}", "user").alias("user_id"), pl.format("i{}", "item").alias("item_id")
USER_NUMBER, ITEM_NUMBER = pl.col("user") + 1, (pl.col("item") + 1).cast(pl.String)


def write_sequences(folder: Path, shop: Shop) -> dict[str, Path]:
    """Write ``sequences``, lines of ``user item item ...``, and ``texts``, JSON lines.

    Source of the format: https://github.com/RUCAIBox/CIKM2020-S3Rec.
    """
    described = map(shop.world.describe, shop.world.blocks())
    return {
        "sequences": write_chunks(folder / "Shop.txt", map(_sequences, shop.events())),
        "texts": write_chunks(folder / "Shop_texts.jsonl", map(_texts, described)),
    }


def write_table(folder: Path, shop: Shop) -> dict[str, Path]:
    """Write the Parquet tables ``interactions`` and ``items``."""
    events = (block.select(USER, ITEM, timestamp="time") for block in shop.events())
    described = map(shop.world.describe, shop.world.blocks())
    path = pl.concat_list("department", "leaf")
    items = (block.select(ITEM, "title", "brand", categories=path) for block in described)
    return {
        "interactions": write_parquet(folder / "interactions.parquet", events, INTERACTIONS),
        "items": write_parquet(folder / "items.parquet", items, ITEMS),
    }


def _sequences(events: pl.DataFrame) -> bytes:
    """Return one line for each user: the user and the items in their order."""
    by_user = events.group_by(USER_NUMBER, maintain_order=True)
    return plain_lines(by_user.agg(ITEM_NUMBER.str.join(" ")), " ")


def _texts(items: pl.DataFrame) -> bytes:
    """Return one JSON line with id and title for each item."""
    return json_lines(items.select(ITEM_NUMBER.alias("item_id"), "title"))
