from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.datasets.corpus import INTERACTIONS, ITEMS, Corpus, first_interactions, items_of, k_core


def interactions(*rows: tuple[str, str, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def items(*ids: str) -> pl.DataFrame:
    return pl.DataFrame([(i, f"title of {i}", "", []) for i in ids], schema=ITEMS, orient="row")


def peeled(pairs: list[tuple[str, str]], k: int) -> list[tuple[str, str]]:
    """The k-core by its definition: take one that has too few away, until none has."""
    while True:
        counts = Counter(u for u, _ in pairs) + Counter(i for _, i in pairs)
        few = next((name for name, count in counts.items() if count < k), None)
        if few is None:
            return pairs
        pairs = [pair for pair in pairs if few not in pair]


PAIRS = st.sets(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz"))).map(sorted)


@given(PAIRS, st.integers(1, 4))
def test_k_core_is_what_peeling_one_by_one_leaves(pairs: list[tuple[str, str]], k: int) -> None:
    core = k_core(interactions(*((u, i, n) for n, (u, i) in enumerate(pairs))), k)
    assert core.select("user_id", "item_id").rows() == peeled(pairs, k)


def test_k_core_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        k_core(interactions(("u", "a", 1)), 0)


def test_the_first_of_several_interactions_counts_and_ties_keep_the_order_of_the_source() -> None:
    events = interactions(("v", "a", 5), ("u", "c", 2), ("u", "a", 9), ("u", "b", 2), ("u", "a", 1))
    assert first_interactions(events, 1).rows() == [
        ("u", "a", 1),
        ("u", "c", 2),
        ("u", "b", 2),
        ("v", "a", 5),
    ]


def test_items_are_those_interacted_with_described_as_far_as_known() -> None:
    metadata = pl.DataFrame(
        [("c", "C", None, ["x"]), ("a", "A", "brand", None), ("z", "Z", "", []), ("a", "again", "", [])],
        schema=ITEMS,
        orient="row",
    )
    found = items_of(interactions(("u", "c", 1), ("u", "a", 2), ("u", "b", 3)), metadata)
    assert found.rows() == [("a", "A", "brand", []), ("b", "", "", []), ("c", "C", "", ["x"])]


def test_statistics_by_hand() -> None:
    corpus = Corpus(items("a", "b"), interactions(("u", "a", 1), ("u", "b", 1), ("v", "a", 0)))
    assert corpus.statistics() == {"users": 2, "items": 2, "interactions": 3, "mean_length": 1.5}


@pytest.mark.parametrize(
    ("catalogue", "events", "complaint"),
    [
        (items("a").drop("brand"), interactions(), "items must have the columns"),
        (items("a"), interactions().cast({"timestamp": pl.Int32}), "interactions must have the columns"),
        (items("a"), interactions(("u", "a", None)), "nulls in the column timestamp"),
        (items("b", "a"), interactions(), "sorted by item_id"),
        (items("a", "a"), interactions(), "sorted by item_id"),
        (items("a"), interactions(("u", "b", 1)), "1 interactions are with items not in items, first 'b'"),
        (items("a"), interactions(("v", "a", 1), ("u", "a", 1)), "sorted by user_id"),
        (items("a", "b"), interactions(("u", "a", 2), ("u", "b", 1)), "then timestamp"),
    ],
)
def test_a_broken_corpus_is_refused(catalogue: pl.DataFrame, events: pl.DataFrame, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Corpus(catalogue, events)


def test_digest_tells_every_cell_apart_and_nothing_else() -> None:
    catalogue, events = items("a", "b"), interactions(("u", "a", 1), ("u", "b", 2))
    digests = [
        Corpus(catalogue, events).digest(),
        Corpus(catalogue, interactions(("u", "a", 1), ("u", "b", 3))).digest(),
        Corpus(catalogue, interactions(("u", "a", 1), ("v", "b", 2))).digest(),
        Corpus(catalogue.with_columns(title=pl.lit("new")), events).digest(),
        Corpus(catalogue.with_columns(categories=pl.lit(["x"])), events).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert Corpus(pl.concat([items("a"), items("b")]), events.clone(), skipped_lines=3).digest() == digests[0]
