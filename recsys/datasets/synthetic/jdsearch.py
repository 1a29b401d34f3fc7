r"""The made-up shop in the files of JDsearch: what shoppers took, and what they asked for.

Before some events a shopper asks for words of an item, and clicks other answers before the item itself.
All texts are term ids, ``\x18`` between those of one text and ``_`` between the elements of a list.

Source of the format: J. Liu et al., *JDsearch*, SIGIR 2023, https://github.com/rucliujn/JDsearch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from recsys.datasets.synthetic.files import plain_lines, write_chunks
from recsys.datasets.synthetic.queries import ask_for
from recsys.datasets.synthetic.shoppers import Shop
from recsys.datasets.synthetic.words import DEPARTMENTS, FEATURES, LEAVES, PHRASES
from recsys.datasets.synthetic.world import ANY
from semantic_ids.types import Ints

BEHAVIOR = [
    "query",
    "candidate_wid_list",
    "candidate_label_list",
    "history_qry_list",
    "history_wid_list",
    "history_type_list",
    "history_time_list",
]
CATEGORIES = [f"cate_{what}_{level}" for level in (1, 2, 3, 4) for what in ("id", "name")]
PRODUCTS = ["wid", "name", "brand_id", "brand_name", *CATEGORIES, "shop_id"]

TERM = "\x18"
NO_QUERY = "-1"
ASKS = 0.5
"""Before how many events a shopper asks; the last one, which is the test, always answers a query."""

MOST_CLICKS, SAME_AGAIN, BETWEEN_CLICKS = 2, 0.3, 40
"""Of other answers before the item taken; how often they are that item itself; seconds between them."""

TYPES, TYPE_SHARES = np.array(["ORD", "CART", "CLICK", "FLW"]), (0.35, 0.35, 0.25, 0.05)
CLICK = 2
LABELS = np.array([3.0, 2.0, 1.0, 1.0])
"""What the types are worth among candidates: purchase, cart, click; a follow begins with a click."""

LEAST_OTHERS, MEAN_OTHERS, MOST_OTHERS = 10, 60, 200 - 1 - MOST_CLICKS
"""Candidates that the shopper did not touch."""

OF_LEAF = 0.5
"""How many of them are of the leaf that was asked for; the rest is of the whole shop."""

WITHOUT_ANSWER, WITHOUT_METADATA, WITHOUT_BRAND, WITHOUT_SHOP = 0.02, 0.05, 0.05, 0.05

ID_SPACE, MULTIPLIER, OFFSET = 10**8, 87_420_489, 12_345_677
"""Ids below 10^8 that tell nothing of the numbers they stand for: ``MULTIPLIER`` has no factor in common."""

WORDS = list(dict.fromkeys(word for phrase in [*PHRASES, *DEPARTMENTS] for word in phrase.lower().split()))
"""All that are not names."""


def ids(numbers: Ints) -> pl.Series:
    """``(n,)`` numbers below 10^8 → ``(n,)`` ids as texts, a different one for each number."""
    return pl.Series((numbers * MULTIPLIER + OFFSET) % ID_SPACE).cast(pl.String)


def _terms(phrases: list[str]) -> pl.Series:
    """Of each phrase the term ids: a word has its place in :data:`WORDS`, names come behind."""
    of_word = dict(zip(WORDS, ids(np.arange(len(WORDS))), strict=True))
    return pl.Series([TERM.join(of_word[word] for word in phrase.lower().split()) for phrase in phrases])


def _name_terms(numbers: Ints) -> pl.Series:
    return ids(len(WORDS) + numbers)


PHRASE_TERMS, DEPARTMENT_TERMS = _terms(PHRASES), _terms(list(DEPARTMENTS))
LEAF_TERMS, FEATURE_TERMS = PHRASE_TERMS[: len(LEAVES)], PHRASE_TERMS[len(LEAVES) :]


def write_jdsearch(folder: Path, shop: Shop, *, header: bool) -> dict[str, Path]:
    """Write ``behavior`` and ``products``, with or without a line that names the columns."""
    return {
        "behavior": write_chunks(
            folder / "user_behavior_data.txt", _with_header(header, BEHAVIOR, _behavior(shop))
        ),
        "products": write_chunks(
            folder / "product_meta_data.txt", _with_header(header, PRODUCTS, _products(shop))
        ),
    }


def _with_header(header: bool, columns: list[str], blocks: Iterator[bytes]) -> Iterator[bytes]:
    if header:
        yield ("\t".join(columns) + "\n").encode()
    yield from blocks


def _behavior(shop: Shop) -> Iterator[bytes]:
    rng = shop.generator("searches")
    for events in shop.events():
        doings = _doings(shop, events, rng)
        past, answers = doings.filter(~pl.col("test")), doings.filter("test")
        tests = answers.group_by("user", maintain_order=True)
        columns = [
            tests.agg(pl.col("query").first()),
            _candidates(shop, answers, rng),
            _per_user(past, ["query", "wid", "type"]).rename({"wid": "past_wid", "query": "past_query"}),
            _intervals(doings),
        ]
        lines = pl.concat([frame.drop("user") for frame in columns], how="horizontal")
        yield plain_lines(lines, "\t")


def _doings(shop: Shop, events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """The events, with the clicks before them.

    Returns:
        ``user``, ``item``, ``wid``, ``time``, ``type``, ``label``, ``query``; ``subject`` (the item that
        the query is about) and ``test`` (whether it answers the user's last query).
    """
    world = shop.world
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    test = np.append(user[1:] != user[:-1], True)
    asks = test | (rng.random(len(user)) < ASKS)
    subject = np.where(shop.follows_habits(len(user), rng), item, rng.integers(len(world), size=len(user)))
    query = ask_for(world, subject, rng).texts(PHRASE_TERMS, _name_terms, separator=TERM)
    doings = np.where(asks, rng.integers(1, MOST_CLICKS + 2, size=len(user)), 1)
    event = np.repeat(np.arange(len(user)), doings)
    clicks_left = np.cumsum(doings)[event] - 1 - np.arange(len(event))
    habit, again = shop.follows_habits(len(event), rng), rng.random(len(event)) < SAME_AGAIN
    other = world.draw(np.where(habit, world.leaf[subject[event]], ANY), rng)
    shown = np.where((clicks_left > 0) & ~(habit & again), other, item[event])
    kind = np.where(clicks_left > 0, CLICK, rng.choice(len(TYPES), p=TYPE_SHARES, size=len(event)))
    return pl.DataFrame(
        {
            "user": user[event],
            "item": shown,
            "wid": ids(shown),
            "time": events["time"].to_numpy()[event] - clicks_left * BETWEEN_CLICKS,
            "type": TYPES[kind],
            "label": LABELS[kind],
            "query": query.set(pl.Series(~asks), NO_QUERY).gather(event),
            "subject": subject[event],
            "test": test[event],
        }
    )


def _candidates(shop: Shop, answers: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """``wid`` and ``label``: what a user took and clicked, then others; to some only others are shown."""
    world = shop.world
    asked = answers.group_by("user", maintain_order=True).agg(pl.col("subject").first())
    others = LEAST_OTHERS + rng.geometric(1 / (MEAN_OTHERS - LEAST_OTHERS), size=len(asked))
    row = np.repeat(np.arange(len(asked)), np.minimum(others, MOST_OTHERS))
    of_leaf = shop.follows_habits(len(row), rng) & (rng.random(len(row)) < OF_LEAF)
    drawn = world.draw(np.where(of_leaf, world.leaf[asked["subject"].to_numpy()[row]], ANY), rng)
    untouched = pl.DataFrame({"user": asked["user"].to_numpy()[row], "item": drawn, "wid": ids(drawn)})
    seen = asked.filter(rng.random(len(asked)) >= WITHOUT_ANSWER)
    touched = answers.join(seen, on="user", how="semi", maintain_order="left").reverse()
    candidates = pl.concat(
        [touched.select("user", "item", "wid", "label"), untouched.with_columns(label=0.0)]
    )
    once = candidates.unique(["user", "item"], keep="first", maintain_order=True)
    return _per_user(once.sort("user", maintain_order=True), ["wid", "label"])


def _intervals(doings: pl.DataFrame) -> pl.DataFrame:
    """Seconds since the doing before: of those in the past, and of the test."""
    answers_left = pl.col("test").cast(pl.Int64).cum_sum().over("user")
    times = doings.filter(answers_left <= 1).select("user", "time")
    return _per_user(times.select("user", pl.col("time").diff().over("user").fill_null(0)), ["time"])


def _per_user(frame: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """``user`` and the columns' values, joined."""
    joined = [pl.col(column).cast(pl.String).str.join("_") for column in columns]
    return frame.group_by("user", maintain_order=True).agg(joined)


def _products(shop: Shop) -> Iterator[bytes]:
    rng = shop.generator("products")
    world = shop.world
    for block in world.blocks():
        items = block[rng.random(len(block)) >= WITHOUT_METADATA]
        leaf, brand, feature = world.leaf[items], world.brand[items], world.features[items]
        brand_terms, leaf_terms = _name_terms(brand), LEAF_TERMS.gather(leaf)
        first, second = FEATURE_TERMS.gather(feature[:, 0]), FEATURE_TERMS.gather(feature[:, 1])
        narrow = leaf * len(FEATURES) + feature[:, 0]
        texts = [brand_terms, _name_terms(world.brands + items), first, second, leaf_terms]
        columns = {
            "wid": ids(items),
            "name": _joined(texts),
            "brand_id": ids(brand),
            "brand_name": brand_terms.set(pl.Series(rng.random(len(items)) < WITHOUT_BRAND), ""),
            "cate_id_1": ids(10_000 + world.department[items]),
            "cate_name_1": DEPARTMENT_TERMS.gather(world.department[items]),
            "cate_id_2": ids(20_000 + leaf),
            "cate_name_2": leaf_terms,
            "cate_id_3": ids(30_000 + narrow),
            "cate_name_3": _joined([first, leaf_terms]),
            "cate_id_4": ids(40_000 + narrow),
            "cate_name_4": _joined([first, leaf_terms]),
            "shop_id": ids(brand).set(pl.Series(rng.random(len(items)) < WITHOUT_SHOP), ""),
        }
        yield plain_lines(pl.DataFrame(columns).select(PRODUCTS), "\t")


def _joined(texts: list[pl.Series]) -> pl.Series:
    frame = pl.DataFrame([text.alias(str(place)) for place, text in enumerate(texts)])
    return frame.select(pl.concat_str(pl.all(), separator=TERM)).to_series()
