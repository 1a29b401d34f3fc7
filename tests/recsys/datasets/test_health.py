"""The overview of small corpora, counted by hand."""

import polars as pl

from recsys.datasets.corpus import EVENTS, ITEMS, JUDGEMENTS, QUERIES, Corpus
from recsys.datasets.health import health
from recsys.datasets.interactions import interactions_of

CATALOGUE = pl.DataFrame(
    [("a", "red tea pot", "B", ["x"], ""), ("b", "", "", [], ""), ("c", "cup", "", [], "small")],
    schema=ITEMS,
    orient="row",
)


def test_a_corpus_of_sequences() -> None:
    events = [
        ("u", "a", 0),
        ("u", "b", 0),
        ("v", "a", 1000086400),
        ("v", "b", 1000090000),
        ("v", "a", 1000090000),
        ("w", "c", 5),
    ]
    interactions = interactions_of(
        pl.DataFrame(events, schema=EVENTS, orient="row"), keep="all", item_ids=CATALOGUE["item_id"]
    )
    overview = health(Corpus(CATALOGUE, interactions, skipped_lines=4, notes={"duplicate_reviews": 2}))
    assert overview["counts"] == {
        "users": "3",
        "items": "3",
        "interactions": "6",
        "interactions per user": "2.00 on average",
        "of repeated user-item pairs": "2",
    }
    # w and c are not in the core. The two events of v with a count once, in numerator and denominator.
    assert overview["k-core survival"]["2-core"] == "2 users, 2 items, 4 interactions (80.0%)"
    assert overview["k-core survival"]["3-core"] == "0 users, 0 items, 0 interactions (0.0%)"
    assert overview["times"]["first"] == "0"
    assert overview["times"]["last"] == "2001-09-10 02:46 (1000090000)"
    assert overview["texts"]["title"] == "66.7% of items"
    assert overview["texts"]["categories"] == overview["texts"]["brand"] == "33.3% of items"
    assert overview["left out or counted"] == {"broken lines": "4", "duplicate reviews": "2"}


def test_a_search_corpus_without_users() -> None:
    nobody = interactions_of(pl.DataFrame(schema=EVENTS), item_ids=CATALOGUE["item_id"])
    queries = [("1", "train", "tea", "", 0), ("2", "test", "cup", "", 0)]
    answers = [("1", "a", 1.0), ("1", "c", 0.5), ("2", "c", 1.0)]
    overview = health(
        Corpus(
            CATALOGUE,
            nobody,
            pl.DataFrame(queries, schema=QUERIES, orient="row"),
            pl.DataFrame(answers, schema=JUDGEMENTS, orient="row"),
        )
    )
    assert "times" not in overview
    assert overview["queries"]["train"] == "1 (1 distinct texts, 0 with a history), 2.0 answers each"
    assert overview["queries"]["valid"] == "0 (0 distinct texts, 0 with a history), 0.0 answers each"
    assert overview["queries"]["gains"] == "1: 2, 0.5: 1"
