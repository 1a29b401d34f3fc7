"""What there is in a corpus, on one screen: what a run would stumble over is seen before it starts."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from recsys.datasets.corpus import Corpus
from recsys.datasets.formats.lines import LAST_SECOND
from recsys.datasets.interactions import interactions_of
from recsys.examples import SPLITS
from recsys.texts.item_texts import item_texts

CORES = (2, 3, 5, 10)
"""The k for which k-core survival is told."""

FIRST_DATE = 315_532_800
"""Seconds since 1970; a time before 1980 is shown as a number, for some sources only tell the order."""

Facts = dict[str, str]
"""What is told → as it is shown."""


def health(corpus: Corpus) -> dict[str, Facts]:
    """Heading → facts on a corpus that was read without a k-core.

    ``counts``; ``queries`` of each split (search only); ``k-core survival``: what is left of users, items
    and interactions; ``texts``: the share of items with each field, and how long item texts are; ``times``;
    and ``left out``: what the reader counted on its way.
    """
    found = {"counts": _counts(corpus)}
    if corpus.queries is not None and corpus.judgements is not None:
        found["queries"] = _queries(corpus.queries, corpus.judgements)
    if len(corpus.interactions):
        found["k-core survival"] = {f"{k}-core": _survival(corpus.interactions, k) for k in CORES}
        found["times"] = _times(corpus.interactions)
    found["texts"] = _texts(corpus)
    counted = {"broken lines": corpus.skipped_lines, **corpus.notes}
    found["left out or counted"] = {name.replace("_", " "): f"{count:,}" for name, count in counted.items()}
    return found


def _counts(corpus: Corpus) -> Facts:
    numbers = corpus.statistics()
    mean_length = numbers.pop("mean_length")
    shown = {name: f"{count:,}" for name, count in numbers.items()}
    if len(corpus.interactions):
        shown["interactions a user"] = f"{mean_length:.2f} on average"
        pairs = corpus.interactions.select("user_id", "item_id").is_duplicated().sum()
        shown["of a user with an item again"] = f"{pairs:,}"
    return shown


def _queries(queries: pl.DataFrame, judgements: pl.DataFrame) -> Facts:
    answers = judgements.join(queries.select("query_id", "split"), on="query_id")
    shown = {}
    for split in SPLITS:
        asked, found = queries.filter(split=split), answers.filter(split=split)
        with_history = (asked["history"] > 0).sum()
        shown[split] = (
            f"{len(asked):,} ({asked['text'].n_unique():,} texts, {with_history:,} after a history), "
            f"{len(found) / max(1, len(asked)):.1f} answers each"
        )
    gains = judgements["gain"].value_counts().sort("gain", descending=True).iter_rows()
    shown["gains"] = ", ".join(f"{gain:g}: {count:,}" for gain, count in gains)
    return shown


def _survival(interactions: pl.DataFrame, k: int) -> str:
    """What is left of users, items and pairs of them."""
    left = interactions_of(interactions.cast({"user_id": pl.String, "item_id": pl.String}), k_core=k)
    users, items = left["user_id"].n_unique(), left["item_id"].n_unique()
    share = len(left) / interactions.select("user_id", "item_id").n_unique()
    return f"{users:,} users, {items:,} items, {len(left):,} interactions ({share:.1%})"


def _times(interactions: pl.DataFrame) -> Facts:
    user, times = interactions["user_id"].to_physical(), interactions["timestamp"]
    tied = ((user == user.shift()) & (times == times.shift())).mean()
    first, last = times.min(), times.max()
    return {
        "first": _moment(int(first)),  # type: ignore[arg-type]
        "last": _moment(int(last)),  # type: ignore[arg-type]
        "at the time of the event before": f"{tied:.1%}, whose order is that of the file",
    }


def _moment(seconds: int) -> str:
    if not FIRST_DATE <= seconds <= LAST_SECOND:
        return str(seconds)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} ({seconds})"


def _texts(corpus: Corpus) -> Facts:
    items = corpus.items
    shares = {name: (items[name] != "").mean() for name in ("title", "brand", "description")}
    shares["categories"] = (items["categories"].list.len() > 0).mean()
    shown = {name: f"{share:.1%} of items" for name, share in shares.items()}
    lengths = pl.Series([len(text.split()) for text in item_texts(items)])
    shown["words in an item's text"] = f"{lengths.median():.0f} in the middle, {lengths.max()} at the most"
    return shown
