from collections import Counter
from pathlib import Path
from typing import Literal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.datasets.corpus import (
    EVENTS,
    ITEMS,
    JUDGEMENTS,
    QUERIES,
    Corpus,
    check_metadata,
    checked_gains,
    items_of,
)
from recsys.datasets.interactions import distinct_events, interactions_of, item_ids_of

Event = tuple[str, str, int]


def events(*rows: Event) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=EVENTS, orient="row")


def items(*ids: str) -> pl.DataFrame:
    return pl.DataFrame([(i, f"title of {i}", "", [], "") for i in ids], schema=ITEMS, orient="row")


def corpus(*rows: Event, catalogue: tuple[str, ...] = ("a", "b")) -> Corpus:
    described = items(*catalogue)
    return Corpus(described, interactions_of(events(*rows), keep="all", item_ids=described["item_id"]))


def peeled(pairs: list[tuple[str, str]], k: int) -> list[tuple[str, str]]:
    """Return the k-core by its definition: remove one user or item with too few, until there is none."""
    while True:
        counts = Counter(u for u, _ in pairs) + Counter(i for _, i in pairs)
        few = next((name for name, count in counts.items() if count < k), None)
        if few is None:
            return pairs
        pairs = [pair for pair in pairs if few not in pair]


def settled(rows: list[Event], keep: Literal["first", "last"]) -> list[Event]:
    """Return one event for each pair by its definition; ``sorted`` is stable, so ties keep their order."""
    by_time = sorted(rows, key=lambda row: row[2])
    chosen = {row[:2]: row for row in (by_time if keep == "last" else reversed(by_time))}
    return list(chosen.values())


PAIRS = st.sets(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz"))).map(sorted)
ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("uvw"), st.integers(0, 3)), max_size=30)


@given(PAIRS, st.integers(1, 4))
def test_k_core_is_what_peeling_one_by_one_leaves(pairs: list[tuple[str, str]], k: int) -> None:
    core = interactions_of(events(*((u, i, n) for n, (u, i) in enumerate(pairs))), k_core=k)
    assert core.select("user_id", "item_id").rows() == peeled(pairs, k)


def test_k_core_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        interactions_of(events(("u", "a", 1)), k_core=0)


TWICE = [("v", "a", 5), ("u", "c", 2), ("u", "a", 9), ("u", "b", 2), ("u", "a", 1)]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("first", [("u", "a", 1), ("u", "c", 2), ("u", "b", 2), ("v", "a", 5)]),
        ("last", [("u", "c", 2), ("u", "b", 2), ("u", "a", 9), ("v", "a", 5)]),
        ("all", [("u", "a", 1), ("u", "c", 2), ("u", "b", 2), ("u", "a", 9), ("v", "a", 5)]),
    ],
)
def test_which_of_several_events_counts_and_ties_keep_the_order_of_the_source(
    keep: Literal["first", "last", "all"], expected: list[Event]
) -> None:
    assert interactions_of(events(*TWICE), keep=keep).rows() == expected


@given(ROWS, st.sampled_from(["first", "last"]))
def test_distinct_events_are_those_of_the_definition_in_the_order_of_the_source(
    rows: list[Event], keep: Literal["first", "last"]
) -> None:
    # A fourth value distinguishes equal events.
    numbered = events(*rows).with_row_index("row")
    kept = distinct_events(numbered, keep)
    assert kept["row"].is_sorted()
    expected = settled([(*row, n) for n, row in enumerate(rows)], keep)
    assert sorted(kept.select("user_id", "item_id", "timestamp", "row").rows()) == sorted(expected)


@given(ROWS)
def test_categorical_ids_give_what_texts_give(rows: list[Event]) -> None:
    texts = events(*rows)
    # Codes in another order than the names, and names that no event has.
    kinds = {name: pl.Categorical(pl.Categories.random()) for name in ("user_id", "item_id")}
    for kind in kinds.values():
        pl.Series(list("zwvucba")).cast(kind)
    from_categorical = interactions_of(texts.cast(kinds), k_core=2)
    expected = interactions_of(texts, k_core=2)
    assert from_categorical.rows() == expected.rows()
    assert from_categorical.schema == expected.schema


def test_ids_are_enums_of_the_users_that_are_left_and_of_the_catalogue() -> None:
    rows = [("w", "a", 1), ("v", "c", 1), ("v", "a", 2), ("u", "z", 0)]
    core = interactions_of(events(*rows[:3]), item_ids=pl.Series(["a", "b", "c"]))
    assert core.schema["user_id"] == pl.Enum(["v", "w"])
    assert item_ids_of(core).to_list() == ["a", "b", "c"]
    assert core["item_id"].to_physical().to_list() == [2, 0, 0]
    assert item_ids_of(interactions_of(events(*rows))).to_list() == ["a", "c", "z"]
    with pytest.raises(ValueError, match="events have 1 items that are not in the catalogue; first: 'z'"):
        interactions_of(events(*rows), item_ids=pl.Series(["a", "b", "c"]))


def test_no_events_are_no_interactions() -> None:
    for none in (events(), events().cast({"user_id": pl.Categorical, "item_id": pl.Categorical})):
        empty = interactions_of(none, k_core=5, item_ids=pl.Series(["a", "b"]))
        assert Corpus(items("a", "b"), empty).statistics()["interactions"] == 0


def test_a_source_is_not_changed() -> None:
    source = events(*TWICE)
    interactions_of(source, k_core=1)
    assert source.rows() == TWICE


def test_items_are_described_as_far_as_known() -> None:
    metadata = pl.DataFrame(
        [
            ("c", "C", None, ["x"], "a text"),
            ("a", "A", "brand", None, None),
            ("z", "Z", "", [], ""),
            ("a", "again", "", [], ""),
        ],
        schema=ITEMS,
        orient="row",
    )
    assert items_of(pl.Series(["a", "b", "c"]), metadata).rows() == [
        ("a", "A", "brand", [], ""),
        ("b", "", "", [], ""),
        ("c", "C", "", ["x"], "a text"),
    ]


def test_metadata_of_another_corpus_is_refused_in_few_words() -> None:
    path, item_ids = Path("meta.csv"), pl.Series(["a" * 20_000, "b"])
    with pytest.raises(ValueError, match=r"meta\.csv: describes none of the 2 films, such as 'a{60}'; is it"):
        check_metadata(path, item_ids, items("z"), "films")
    check_metadata(path, item_ids, items("b", "z"), "films")
    check_metadata(path, item_ids[:0], items("z"), "films")


def test_statistics_by_hand() -> None:
    assert corpus(("u", "a", 1), ("u", "b", 1), ("v", "a", 0)).statistics() == {
        "users": 2,
        "items": 2,
        "interactions": 3,
        "mean_length": 1.5,
    }


def test_top_categories_are_those_at_the_level_of_the_corpus() -> None:
    catalogue = items("a", "b", "c").with_columns(
        categories=pl.Series([["Beauty", "Hair"], ["Beauty"], []], dtype=pl.List(pl.String))
    )
    none = interactions_of(events(), item_ids=catalogue["item_id"])
    assert Corpus(catalogue, none, category_level=1).top_categories() == ["Hair", None, None]
    assert Corpus(catalogue, none).top_categories() == ["Beauty", "Beauty", None]


GOOD = interactions_of(events(("u", "a", 1), ("u", "b", 2), ("v", "a", 1)))


@pytest.mark.parametrize(
    ("catalogue", "rows", "complaint"),
    [
        (items("a", "b").drop("brand"), GOOD, "items must have the columns"),
        (items("a", "b"), GOOD.cast({"timestamp": pl.Int32}), "interactions must have the columns"),
        (
            items("a", "b"),
            GOOD.with_columns(timestamp=pl.lit(None, pl.Int64)),
            "nulls in the column timestamp",
        ),
        (items("a", "b"), GOOD.cast({"user_id": pl.String}), "must be Enum; interactions_of makes them"),
        (items("b", "a"), GOOD, "sorted by item_id"),
        (items("a", "a"), GOOD, "sorted by item_id"),
        (items("a", "c"), GOOD, "Enum of exactly the items' ids"),
        (items("a", "b", "c"), GOOD, "Enum of exactly the items' ids"),
        (items("a", "b"), GOOD[[2, 0, 1]], "sorted by user_id"),
        (items("a", "b"), GOOD[[1, 0, 2]], "sorted by user_id, then timestamp"),
    ],
)
def test_a_broken_corpus_is_refused(catalogue: pl.DataFrame, rows: pl.DataFrame, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Corpus(catalogue, rows)


def queries(*rows: tuple[str, str, str, str, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=QUERIES, orient="row")


def judgements(*rows: tuple[str, str, float]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=JUDGEMENTS, orient="row")


GOOD_QUERIES = queries(("q1", "train", "soap", "u", 2), ("q2", "test", "comb", "", 0))
GOOD_JUDGEMENTS = judgements(("q1", "a", 1.0), ("q1", "b", 0.1), ("q2", "b", 1.0))


@pytest.mark.parametrize(
    ("asked", "judged", "complaint"),
    [
        (None, GOOD_JUDGEMENTS, "come together"),
        (GOOD_QUERIES.reverse(), GOOD_JUDGEMENTS, "sorted by query_id"),
        (
            GOOD_QUERIES.with_columns(split=pl.lit("dev")),
            GOOD_JUDGEMENTS,
            "must be one of train, valid, test, not 'dev'",
        ),
        (GOOD_QUERIES, GOOD_JUDGEMENTS.reverse(), "sorted by query_id, then item_id"),
        (GOOD_QUERIES, GOOD_JUDGEMENTS[[0, 0, 2]], "each pair once"),
        (GOOD_QUERIES, GOOD_JUDGEMENTS[:2], "every query must have a judgement"),
        (GOOD_QUERIES[:1], GOOD_JUDGEMENTS, "every judgement a query"),
        (GOOD_QUERIES, GOOD_JUDGEMENTS.with_columns(gain=pl.lit(0, pl.Float32)), "above 0"),
        (
            GOOD_QUERIES,
            judgements(("q1", "a", 1.0), ("q2", "z", 1.0)),
            "items that items does not contain; first: 'z'",
        ),
        (
            GOOD_QUERIES.with_columns(history=pl.lit(3, pl.Int64)),
            GOOD_JUDGEMENTS,
            "longer than its user's interactions",
        ),
    ],
)
def test_broken_queries_are_refused(asked: pl.DataFrame | None, judged: pl.DataFrame, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Corpus(items("a", "b"), GOOD, asked, judged)


def test_digest_tells_every_cell_apart_and_nothing_else() -> None:
    catalogue = items("a", "b")
    digests = [
        corpus(("u", "a", 1), ("u", "b", 2)).digest(),
        corpus(("u", "a", 1), ("u", "b", 3)).digest(),
        corpus(("u", "a", 1), ("v", "b", 2)).digest(),
        corpus(("u", "a", 1), ("u", "b", 2), ("v", "b", 2)).digest(),
        corpus(("u", "b", 1), ("u", "a", 2)).digest(),
        corpus(("t", "a", 1), ("u", "b", 2)).digest(),
        Corpus(catalogue.with_columns(title=pl.lit("new")), GOOD).digest(),
        Corpus(catalogue.with_columns(categories=pl.lit(["x"])), GOOD).digest(),
        Corpus(catalogue, GOOD).digest(),
        Corpus(catalogue, GOOD, GOOD_QUERIES, GOOD_JUDGEMENTS).digest(),
        Corpus(
            catalogue, GOOD, GOOD_QUERIES, GOOD_JUDGEMENTS.with_columns(gain=pl.lit(0.5, pl.Float32))
        ).digest(),
    ]
    assert len(set(digests)) == len(digests)
    # These are no cells: unused users of the Enum, the number of chunks of a frame, and skipped lines.
    more_users = GOOD.with_columns(pl.col("user_id").cast(pl.String).cast(pl.Enum(["s", "u", "v"])))
    in_chunks = pl.concat([items("a"), items("b")], rechunk=False)
    assert Corpus(in_chunks, more_users, skipped_lines=3).digest() == Corpus(catalogue, GOOD).digest()


def test_gains_are_numbers_for_all_labels() -> None:
    assert checked_gains({"E": 1, "S": 0.1}, ("E", "S")) == {"E": 1.0, "S": 0.1}
    for gains in ({"E": 1}, {"E": 1, "S": -1}, {"E": 1, "S": float("nan")}, {"E": 1, "S": 1e39}):
        with pytest.raises(ValueError, match="gains must give each of E, S a finite number of at least 0"):
            checked_gains(gains, ("E", "S"))
