"""The made-up shop in the files of Amazon's releases of 2014, 2018 and 2023.

Source of the formats: J. McAuley's Amazon product data, https://cseweb.ucsd.edu/~jmcauley/datasets.html.
Fields that no reader needs (pictures, ranks, ...) are left out. The others are in the order of the releases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.datasets.synthetic.files import json_lines, write_chunks
from recsys.datasets.synthetic.shoppers import DAY, RATINGS, Shop
from recsys.datasets.synthetic.words import ROOT

Fields = dict[str, Any]

SUMMARIES, TEXTS = ("Fine", "Good", "Great"), ("It does its job.", "Good for the price.", "I love it.")
"""Texts of a review for each rating."""

VARIANTS = 3
"""Number of variants of an item, such as colours. In 2023 ``asin`` is the variant's id."""

WITHOUT_BRAND = 0.2
WITHOUT_STORE, WITHOUT_PRICE = 0.1, 0.5
"""Shares of items without brand (2018), without store and without price (2023)."""

ASIN = pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(9))
USER = pl.format("A{}", pl.col("user").cast(pl.String).str.zfill(13))
DATE = pl.from_epoch("time").dt.strftime("%m %-d, %Y")
RATING = pl.col("rating").cast(pl.Float64)
SUMMARY = pl.col("rating").replace_strict(RATINGS, SUMMARIES)
TEXT = pl.col("rating").replace_strict(RATINGS, TEXTS)
NAME = pl.format("Shopper {}", pl.col("user") + 1)


def write_amazon(folder: Path, shop: Shop, *, release: int) -> dict[str, Path]:
    """Write ``reviews`` and ``meta`` in the format and with the file names of a release."""
    reviews, meta, review_fields, meta_line = {
        2014: ("reviews_Shop_5.json.gz", "meta_Shop.json.gz", _reviews_2014, _meta_2014),
        2018: ("Shop_5.json.gz", "meta_Shop.json.gz", _reviews_2018, _meta_2018),
        2023: ("Shop.jsonl.gz", "meta_Shop.jsonl.gz", _reviews_2023, _meta_2023),
    }[release]
    rng = shop.generator("reviews")
    blocks = (json_lines(review_fields(events, rng)) for events in shop.events())
    return {
        "reviews": write_chunks(folder / reviews, blocks),
        "meta": write_chunks(folder / meta, _meta_lines(shop, meta_line)),
    }


def _reviews_2014(events: pl.DataFrame, _: np.random.Generator) -> pl.DataFrame:
    """Return the fields of 2014 reviews."""
    return events.select(
        reviewerID=USER,
        asin=ASIN,
        reviewerName=NAME,
        helpful=pl.lit([0, 0]),
        reviewText=TEXT,
        overall=RATING,
        summary=SUMMARY,
        unixReviewTime="time",
        reviewTime=DATE,
    )


def _reviews_2018(events: pl.DataFrame, _: np.random.Generator) -> pl.DataFrame:
    """Return the fields of 2018 reviews."""
    return events.select(
        overall=RATING,
        verified=True,
        reviewTime=DATE,
        reviewerID=USER,
        asin=ASIN,
        reviewerName=NAME,
        reviewText=TEXT,
        summary=SUMMARY,
        unixReviewTime="time",
    )


def _reviews_2023(events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Return the fields of 2023 reviews, with random variants and times of day."""
    variant = pl.Series(rng.integers(VARIANTS, size=len(events)))
    milliseconds = pl.Series(rng.integers(DAY * 1000, size=len(events)))
    variant_asin = pl.format("C{}", (pl.col("item") * VARIANTS + variant).cast(pl.String).str.zfill(9))
    return events.select(
        rating=RATING,
        title=SUMMARY,
        text=TEXT,
        asin=pl.when(variant == 0).then(ASIN).otherwise(variant_asin),
        parent_asin=ASIN,
        user_id=USER,
        timestamp=pl.col("time") * 1000 + milliseconds,
        helpful_vote=0,
        verified_purchase=True,
    )


def _meta_lines(shop: Shop, line: Callable[[Fields, np.random.Generator], str]) -> Iterator[bytes]:
    """Yield the metadata line of every item, formatted by ``line``."""
    rng = shop.generator("meta")
    for items in shop.world.blocks():
        described = shop.world.describe(items).with_columns(asin=ASIN)
        for fields in described.iter_rows(named=True):
            yield f"{line(fields, rng)}\n".encode()


def _meta_2014(item: Fields, rng: np.random.Generator) -> str:
    """Return the metadata of an item as a Python literal, as in the release of 2014."""
    return repr(
        {
            "asin": item["asin"],
            "title": item["title"],
            "price": _price(rng),
            "brand": item["brand"],
            "categories": [[ROOT, item["department"], item["leaf"]]],
        }
    )


def _meta_2018(item: Fields, rng: np.random.Generator) -> str:
    """Return the metadata of an item as JSON of 2018."""
    brand = {"brand": item["brand"]} if rng.random() >= WITHOUT_BRAND else {}
    return json.dumps(
        {
            "category": [ROOT, item["department"], item["leaf"]],
            "description": [_description(item)],
            "title": item["title"],
            **brand,
            "feature": [item["first"], item["second"]],
            "main_cat": ROOT,
            "price": f"${_price(rng):.2f}",
            "asin": item["asin"],
        }
    )


def _meta_2023(item: Fields, rng: np.random.Generator) -> str:
    """Return the metadata of an item as JSON of 2023."""
    return json.dumps(
        {
            "main_category": ROOT,
            "title": item["title"],
            "features": [item["first"], item["second"]],
            "description": [_description(item)],
            "price": None if rng.random() < WITHOUT_PRICE else _price(rng),
            "store": None if rng.random() < WITHOUT_STORE else item["brand"],
            "categories": [ROOT, item["department"], item["leaf"]],
            "parent_asin": item["asin"],
            "bought_together": None,
        }
    )


def _description(item: Fields) -> str:
    """Return a sentence on an item."""
    return f"{item['leaf']} by {item['brand']}."


def _price(rng: np.random.Generator) -> float:
    """Draw a price in dollars, rounded to cents."""
    return round(rng.lognormal(2.5, 0.8), 2)
