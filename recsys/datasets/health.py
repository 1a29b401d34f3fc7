"""An overview of a corpus for one screen, which shows problems before a run meets them."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from recsys.datasets.corpus import Corpus
from recsys.datasets.formats.lines import LAST_SECOND
from recsys.datasets.interactions import interactions_of
from recsys.examples import SPLITS
from recsys.texts.item_texts import item_texts

CORES = (2, 3, 5, 10)
"""The values of k for which the overview shows the size of the k-core."""

FIRST_DATE = 315_532_800
"""The start of 1980, in seconds since 1970.

Earlier times are shown as numbers, because in some sources times are only an order.
"""

Facts = dict[str, str]
"""The label of each fact, and the text that is shown for it."""


def health(corpus: Corpus) -> dict[str, Facts]:
    """Return an overview of a corpus.

    Args:
        corpus: A corpus that was read without a k-core.

    Returns:
        Facts by heading, in the order in which they are shown:

        - ``counts``: users, items, interactions, and duplicates;
        - ``queries``: the queries and answers of each split (search only);
        - ``k-core survival``: the users, items and interactions that are left in k-cores;
        - ``times``: the first and the last time, and the share of equal times;
        - ``texts``: the share of items with each field, and the length of item texts;
        - ``left out or counted``: the broken lines, and the counts in the reader's ``notes``.

        Without interactions ``k-core survival`` and ``times`` are missing.
    """
    overview = {"counts": _counts(corpus)}
    if corpus.queries is not None and corpus.judgements is not None:
        overview["queries"] = _queries(corpus.queries, corpus.judgements)
    if len(corpus.interactions):
        overview["k-core survival"] = {f"{k}-core": _survival(corpus.interactions, k) for k in CORES}
        overview["times"] = _times(corpus.interactions)
    overview["texts"] = _texts(corpus)
    counts = {"broken lines": corpus.skipped_lines, **corpus.notes}
    overview["left out or counted"] = {name.replace("_", " "): f"{count:,}" for name, count in counts.items()}
    return overview


def _counts(corpus: Corpus) -> Facts:
    """Return the sizes of the corpus, and the number of interactions whose user-item pair repeats."""
    statistics = corpus.statistics()
    mean_length = statistics.pop("mean_length")
    facts = {name: f"{count:,}" for name, count in statistics.items()}
    if len(corpus.interactions):
        facts["interactions per user"] = f"{mean_length:.2f} on average"
        repeated = corpus.interactions.select("user_id", "item_id").is_duplicated().sum()
        facts["of repeated user-item pairs"] = f"{repeated:,}"
    return facts


def _queries(queries: pl.DataFrame, judgements: pl.DataFrame) -> Facts:
    """Return the numbers of queries, distinct texts, histories and answers of each split, and the gains."""
    judged = judgements.join(queries.select("query_id", "split"), on="query_id")
    facts = {}
    for split in SPLITS:
        own_queries, answers = queries.filter(split=split), judged.filter(split=split)
        with_history = (own_queries["history"] > 0).sum()
        facts[split] = (
            f"{len(own_queries):,} ({own_queries['text'].n_unique():,} distinct texts, "
            f"{with_history:,} with a history), {len(answers) / max(1, len(own_queries)):.1f} answers each"
        )
    gains = judgements["gain"].value_counts().sort("gain", descending=True).iter_rows()
    facts["gains"] = ", ".join(f"{gain:g}: {count:,}" for gain, count in gains)
    return facts


def _survival(interactions: pl.DataFrame, k: int) -> str:
    """Return the numbers of users, items and distinct user-item pairs in the k-core."""
    core = interactions_of(interactions.cast({"user_id": pl.String, "item_id": pl.String}), k_core=k)
    users, items = core["user_id"].n_unique(), core["item_id"].n_unique()
    share = len(core) / interactions.select("user_id", "item_id").n_unique()
    return f"{users:,} users, {items:,} items, {len(core):,} interactions ({share:.1%})"


def _times(interactions: pl.DataFrame) -> Facts:
    """Return the first and the last time, and the share of interactions that only the file orders."""
    user, times = interactions["user_id"].to_physical(), interactions["timestamp"]
    tied = ((user == user.shift()) & (times == times.shift())).mean()
    first, last = times.min(), times.max()
    return {
        "first": _date_or_number(int(first)),  # type: ignore[arg-type]
        "last": _date_or_number(int(last)),  # type: ignore[arg-type]
        "same time as the one before": f"{tied:.1%}, ordered as data.ties says",
    }


def _date_or_number(seconds: int) -> str:
    """Return a time as date and number, or only as number if it is not between 1980 and 9999."""
    if not FIRST_DATE <= seconds <= LAST_SECOND:
        return str(seconds)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} ({seconds})"


def _texts(corpus: Corpus) -> Facts:
    """Return the share of items that have each field, and the length of item texts in words."""
    items = corpus.items
    shares = {name: (items[name] != "").mean() for name in ("title", "brand", "description")}
    shares["categories"] = (items["categories"].list.len() > 0).mean()
    facts = {name: f"{share:.1%} of items" for name, share in shares.items()}
    lengths = pl.Series([len(text.split()) for text in item_texts(items)])
    facts["words in an item's text"] = f"{lengths.median():.0f} (median), {lengths.max()} (maximum)"
    return facts
