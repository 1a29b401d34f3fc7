r"""The made-up shop in the files of JDsearch: the events of shoppers, and their queries.

Before some events a shopper asks for words of an item, and clicks other items before taking one. All texts
are term ids. ``\x18`` separates the terms of a text, and ``_`` separates the elements of a list.

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
CATEGORIES = [f"cate_{field}_{level}" for level in (1, 2, 3, 4) for field in ("id", "name")]
PRODUCTS = ["wid", "name", "brand_id", "brand_name", *CATEGORIES, "shop_id"]

TERM = "\x18"
NO_QUERY = "-1"

QUERY_SHARE = 0.5
"""Share of events with a query. The last event of a shopper, which is the test, always has one."""

MAX_CLICKS, SAME_ITEM_SHARE, SECONDS_BETWEEN_CLICKS = 2, 0.3, 40
"""Clicks before an event with a query: their largest number, and the share on the item of the event."""

TYPES, TYPE_SHARES = np.array(["ORD", "CART", "CLICK", "FLW"]), (0.35, 0.35, 0.25, 0.05)
CLICK = 2
LABELS = np.array([3.0, 2.0, 1.0, 1.0])
"""Label of a candidate for each type. A follow has the label of a click, because it begins with one."""

MIN_IGNORED, MEAN_IGNORED, MAX_IGNORED = 10, 60, 200 - 1 - MAX_CLICKS
"""Numbers of candidates that a shopper ignored."""

SAME_LEAF_SHARE = 0.5
"""Share of the ignored candidates that are of the query's leaf. The others are of the whole shop."""

WITHOUT_ANSWER, WITHOUT_METADATA, WITHOUT_BRAND, WITHOUT_SHOP = 0.02, 0.05, 0.05, 0.05
"""Shares of test queries without an answer, and of products without metadata, brand name and shop id."""

ID_SPACE, MULTIPLIER, OFFSET = 10**8, 87_420_489, 12_345_677
"""Constants of :func:`ids`. ``MULTIPLIER`` and ``ID_SPACE`` have no common factor, so that ids are unique."""

WORDS = list(dict.fromkeys(word for phrase in [*PHRASES, *DEPARTMENTS] for word in phrase.lower().split()))
"""All words except names."""


def ids(numbers: Ints) -> pl.Series:
    """Return an id for each number, which reveals nothing about the number.

    Args:
        numbers: ``(n,)`` numbers from 0 to 10^8 - 1.

    Returns:
        ``(n,)`` texts of digits, a different one for each different number.

    Example:
        >>> ids(np.array([0, 1])).to_list()
        ['12345677', '99766166']
    """
    return pl.Series((numbers * MULTIPLIER + OFFSET) % ID_SPACE).cast(pl.String)


def _terms(phrases: list[str]) -> pl.Series:
    """Return the term ids of phrases. The term number of a word is its index in :data:`WORDS`."""
    word_ids = dict(zip(WORDS, ids(np.arange(len(WORDS))), strict=True))
    return pl.Series([TERM.join(word_ids[word] for word in phrase.lower().split()) for phrase in phrases])


def _name_terms(numbers: Ints) -> pl.Series:
    """Return the term ids of numbered names. Their term numbers come after those of :data:`WORDS`."""
    return ids(len(WORDS) + numbers)


PHRASE_TERMS, DEPARTMENT_TERMS = _terms(PHRASES), _terms(list(DEPARTMENTS))
LEAF_TERMS, FEATURE_TERMS = PHRASE_TERMS[: len(LEAVES)], PHRASE_TERMS[len(LEAVES) :]


def write_jdsearch(folder: Path, shop: Shop, *, header: bool) -> dict[str, Path]:
    """Write ``behavior`` and ``products``, with or without a header."""
    return {
        "behavior": write_chunks(
            folder / "user_behavior_data.txt", _with_header(header, BEHAVIOR, _behavior(shop))
        ),
        "products": write_chunks(
            folder / "product_meta_data.txt", _with_header(header, PRODUCTS, _products(shop))
        ),
    }


def _with_header(header: bool, columns: list[str], blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the blocks, after a line with the column names if ``header`` is True."""
    if header:
        yield ("\t".join(columns) + "\n").encode()
    yield from blocks


def _behavior(shop: Shop) -> Iterator[bytes]:
    """Yield blocks of lines of the behavior file, one line for each shopper."""
    rng = shop.generator("searches")
    for events in shop.events():
        actions = _actions(shop, events, rng)
        past, answers = actions.filter(~pl.col("test")), actions.filter("test")
        by_user = answers.group_by("user", maintain_order=True)
        columns = [
            by_user.agg(pl.col("query").first()),
            _candidates(shop, answers, rng),
            _per_user(past, ["query", "wid", "type"]).rename({"wid": "past_wid", "query": "past_query"}),
            _intervals(actions),
        ]
        lines = pl.concat([frame.drop("user") for frame in columns], how="horizontal")
        yield plain_lines(lines, "\t")


def _actions(shop: Shop, events: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Draw queries for events, and add the clicks before the events with a query.

    Args:
        shop: The shop.
        events: A block of :meth:`~recsys.datasets.synthetic.shoppers.Shop.events`.
        rng: Random numbers.

    Returns:
        One row for each click and event: ``user``, ``item``, ``wid``, ``time``, ``type``, ``label``,
        ``query``, ``subject`` (the item that the query is about) and ``test`` (whether the action belongs
        to the user's last query).
    """
    world = shop.world
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    test = np.append(user[1:] != user[:-1], True)
    has_query = test | (rng.random(len(user)) < QUERY_SHARE)
    subject = np.where(shop.follows_habits(len(user), rng), item, rng.integers(len(world), size=len(user)))
    query = ask_for(world, subject, rng).texts(PHRASE_TERMS, _name_terms, separator=TERM)
    actions_of_event = np.where(has_query, rng.integers(1, MAX_CLICKS + 2, size=len(user)), 1)
    event = np.repeat(np.arange(len(user)), actions_of_event)
    clicks_left = np.cumsum(actions_of_event)[event] - 1 - np.arange(len(event))
    habit, same_item = shop.follows_habits(len(event), rng), rng.random(len(event)) < SAME_ITEM_SHARE
    other = world.draw(np.where(habit, world.leaf[subject[event]], ANY), rng)
    touched = np.where((clicks_left > 0) & ~(habit & same_item), other, item[event])
    action_type = np.where(clicks_left > 0, CLICK, rng.choice(len(TYPES), p=TYPE_SHARES, size=len(event)))
    return pl.DataFrame(
        {
            "user": user[event],
            "item": touched,
            "wid": ids(touched),
            "time": events["time"].to_numpy()[event] - clicks_left * SECONDS_BETWEEN_CLICKS,
            "type": TYPES[action_type],
            "label": LABELS[action_type],
            "query": query.set(pl.Series(~has_query), NO_QUERY).gather(event),
            "subject": subject[event],
            "test": test[event],
        }
    )


def _candidates(shop: Shop, answers: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Draw the candidates of each shopper's test query.

    Args:
        shop: The shop.
        answers: The rows of :func:`_actions` that belong to test queries.
        rng: Random numbers.

    Returns:
        ``user``, ``wid`` and ``label``, one row for each shopper: first the items that the shopper took or
        clicked, then ignored items. Some shoppers see ignored items only.
    """
    world = shop.world
    tests = answers.group_by("user", maintain_order=True).agg(pl.col("subject").first())
    num_ignored = MIN_IGNORED + rng.geometric(1 / (MEAN_IGNORED - MIN_IGNORED), size=len(tests))
    row = np.repeat(np.arange(len(tests)), np.minimum(num_ignored, MAX_IGNORED))
    same_leaf = shop.follows_habits(len(row), rng) & (rng.random(len(row)) < SAME_LEAF_SHARE)
    drawn = world.draw(np.where(same_leaf, world.leaf[tests["subject"].to_numpy()[row]], ANY), rng)
    ignored = pl.DataFrame({"user": tests["user"].to_numpy()[row], "item": drawn, "wid": ids(drawn)})
    answered = tests.filter(rng.random(len(tests)) >= WITHOUT_ANSWER)
    touched = answers.join(answered, on="user", how="semi", maintain_order="left").reverse()
    candidates = pl.concat([touched.select("user", "item", "wid", "label"), ignored.with_columns(label=0.0)])
    once = candidates.unique(["user", "item"], keep="first", maintain_order=True)
    return _per_user(once.sort("user", maintain_order=True), ["wid", "label"])


def _intervals(actions: pl.DataFrame) -> pl.DataFrame:
    """Return the seconds since the action before, for past actions and the first action of the test."""
    test_actions_so_far = pl.col("test").cast(pl.Int64).cum_sum().over("user")
    times = actions.filter(test_actions_so_far <= 1).select("user", "time")
    return _per_user(times.select("user", pl.col("time").diff().over("user").fill_null(0)), ["time"])


def _per_user(frame: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Return one row for each user, with the values of each column joined by ``_``."""
    joined = [pl.col(column).cast(pl.String).str.join("_") for column in columns]
    return frame.group_by("user", maintain_order=True).agg(joined)


def _products(shop: Shop) -> Iterator[bytes]:
    """Yield blocks of lines of the products file."""
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
    """Return the texts of several columns, row by row, as one text of terms."""
    frame = pl.DataFrame([text.alias(str(index)) for index, text in enumerate(texts)])
    return frame.select(pl.concat_str(pl.all(), separator=TERM)).to_series()
