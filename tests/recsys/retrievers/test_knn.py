"""Item-kNN, content-kNN and their sum, against sums written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.examples import Examples, Ragged
from recsys.retrievers import knn
from recsys.retrievers.base import Retriever
from recsys.retrievers.knn import ContentKnn, ItemKnn, KnnSum, NearestItems
from recsys.retrievers.transitions import TransitionKnn
from recsys.splits import Sequences, Split, leave_one_out
from semantic_ids.ids import SemanticIds

TEXTS = ["red tea", "green tea", "sponge cake", "Unknown item", "Unknown item", "tea cake"]
TAKEN = [[0, 1, 2], [0, 1], [1, 2], [1, 4]]
"""What each user took in training; nobody took items 3 and 5."""


def split(taken: list[list[int]]) -> Split:
    """Two more items end each sequence, for validation and test."""
    users = np.array([f"u{user:03d}" for user in range(len(taken))])
    return leave_one_out(Sequences(users, Ragged.from_rows([[*row, 5, 5] for row in taken])))


def ask(history: list[list[int]]) -> Examples:
    targets, ones = Ragged.from_rows([[0]] * len(history)), np.ones(len(history), dtype=np.float32)
    return Examples(
        np.array([f"q{i}" for i in range(len(history))]), Ragged.from_rows(history), targets, ones
    )


def fitted(retriever: NearestItems, taken: list[list[int]] = TAKEN, items: int = 6) -> NearestItems:
    data = split(taken)
    ids = SemanticIds(np.arange(items)[:, None], (items,))
    return retriever.fit(data.train, data.valid, ids, texts=TEXTS[:items])


def test_item_knn_adds_decayed_cosines_and_fills_up_by_popularity() -> None:
    # Users of 0, 1, 2 and 4: {a, b}, {a, b, c, d}, {a, c}, {d}.
    ranking = fitted(ItemKnn(decay=0.25)).rank(ask([[0, 2]]), 6)
    cosine_01, cosine_02, cosine_12 = 2 / 8**0.5, 1 / 4**0.5, 2 / 8**0.5
    scores = [cosine_12 + 0.25 * cosine_01, cosine_02, 0.25 * cosine_02, 0, 0, 0]
    # Item 4 was taken once, items 3 and 5 never.
    assert ranking.items.tolist() == [[1, 0, 2, 4, 3, 5]]
    np.testing.assert_allclose(ranking.scores[0], scores, rtol=1e-6)


def test_items_that_nobody_took_with_the_history_follow_in_order_of_popularity() -> None:
    taken = [[0, 1], [0, 1], [4, 2], [4, 2], [4, 3]]
    assert fitted(ItemKnn(), taken).rank(ask([[0], []]), 6).items.tolist() == [
        [1, 4, 0, 2, 3, 5],
        [4, 0, 1, 2, 3, 5],
    ]


def test_of_equal_scores_the_smaller_row_leads_even_if_less_popular() -> None:
    taken = [[0, 1], [0, 2], [0, 2], [2, 3], [2, 3]]
    ranking = fitted(ItemKnn(), taken).rank(ask([[0]]), 3)
    assert ranking.items.tolist() == [[1, 2, 0]]
    # 1 of the user sets of sizes 3 and 1 is common, 2 of those of sizes 3 and 4.
    np.testing.assert_allclose(ranking.scores, [[3**-0.5, 3**-0.5, 0]], rtol=1e-6)
    assert ranking.scores[0, 0] == ranking.scores[0, 1]


@pytest.mark.parametrize("users", range(1, 12))
def test_an_item_without_neighbours_scores_nothing_at_all(users: int) -> None:
    # Subtracting an item's likeness to itself must leave no rounding error that would rank before nothing.
    ranking = fitted(ItemKnn(decay=0.3), [[0, 0]] * users + [[2, 2]] * 12).rank(ask([[0, 3]]), 6)
    assert ranking.items.tolist() == [[2, 0, 1, 3, 4, 5]]
    assert ranking.scores.tolist() == [[0.0] * 6]


def test_an_item_taken_twice_by_a_user_counts_once_but_weighs_twice_in_a_history() -> None:
    once, twice = (fitted(ItemKnn(), [first, [0, 2]]) for first in ([0, 1], [0, 1, 0]))
    for history in ([[0]], [[1, 2]]):
        np.testing.assert_array_equal(once.rank(ask(history), 3).scores, twice.rank(ask(history), 3).scores)
    scores = once.rank(ask([[0], [0, 0]]), 1).scores[:, 0]
    np.testing.assert_allclose(scores[1], 1.5 * scores[0], rtol=1e-6)


def test_content_knn_compares_words_and_knows_nothing_of_items_without_text() -> None:
    retriever = fitted(ContentKnn())
    near_tea, near_nothing = retriever.rank(ask([[0], [3]]), 6).items.tolist()
    # "cake", in two texts, is a smaller part of item 5 than "green", in one, is of item 1.
    assert near_tea == [5, 1, 0, 2, 4, 3]
    # Items 3 and 4 share the text that says nothing is known: that makes them no neighbours.
    assert near_nothing == [1, 0, 2, 4, 3, 5]
    # Words rarer than "tea", which 3 of the 4 texts have, count for more.
    cake, tea = retriever.rank(ask([[5]]), 6), retriever.rank(ask([[0]]), 6)
    assert cake.items[0, 0] == 2
    assert cake.scores[0, 0] > tea.scores[0, 0] > 0


def test_content_knn_compares_words_of_languages_without_blanks_and_of_one_letter() -> None:
    texts = ["防水登山靴", "軽量電気毛布", "子供用登山靴", "防水CAFÉバッグ", "cafe 7", "size 7"]
    data, ids = split(TAKEN), SemanticIds(np.arange(6)[:, None], (6,))
    retriever = ContentKnn().fit(data.train, data.valid, ids, texts=texts)
    ranking = retriever.rank(ask([[0], [4]]), 6)
    assert ranking.items[0, :2].tolist() == [2, 3]
    assert set(ranking.items[1, :2].tolist()) == {3, 5}
    assert (ranking.scores > 0).sum(axis=1).tolist() == [2, 2]


def test_the_sum_adds_the_weighted_cosine_of_the_texts() -> None:
    def by_item(retriever: NearestItems) -> np.ndarray:
        ranking = retriever.rank(ask([[0, 2], [5, 1, 4]]), 6)
        return np.take_along_axis(ranking.scores, ranking.items.argsort(axis=1), axis=1)

    item, content = by_item(fitted(ItemKnn(decay=0.3))), by_item(fitted(ContentKnn(decay=0.3)))
    both = by_item(fitted(KnnSum(content=0.7, decay=0.3)))
    assert (content > 0).sum() > 3
    np.testing.assert_allclose(both, item + 0.7 * content, rtol=1e-5)
    np.testing.assert_array_equal(by_item(fitted(KnnSum(content=0, decay=0.3))), item)


item = st.integers(0, 5)


@given(
    taken=st.lists(st.lists(item, min_size=2, max_size=6), min_size=1, max_size=8),
    history=st.lists(st.lists(item, max_size=6), min_size=1, max_size=5),
    decay=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_scores_are_those_of_the_definition(
    taken: list[list[int]], history: list[list[int]], decay: float
) -> None:
    ranking = fitted(ItemKnn(decay=decay), taken).rank(ask(history), 6)
    users = [{user for user, row in enumerate(taken) if i in row} for i in range(6)]
    for row, asked in enumerate(history):
        assert sorted(ranking.items[row].tolist()) == list(range(6))
        assert (np.diff(ranking.scores[row]) <= 0).all()
        for i, score in zip(ranking.items[row], ranking.scores[row], strict=True):
            expected = sum(
                decay**back * len(users[i] & users[h]) / (len(users[i]) * len(users[h])) ** 0.5
                for back, h in enumerate(reversed(asked))
                if h != i and users[i] and users[h]
            )
            assert score == pytest.approx(expected, abs=1e-6)
            assert (score > 0) == (expected > 0)


def test_answers_do_not_depend_on_how_many_are_scored_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    retriever = fitted(KnnSum())
    queries = ask([[0], [1, 2], [], [5, 3], [4], [2, 0, 1], [3]])
    whole = retriever.rank(queries, 6)
    monkeypatch.setattr(knn, "_SCORES_AT_ONCE", 12)
    in_blocks = retriever.rank(queries, 6)
    np.testing.assert_array_equal(in_blocks.items, whole.items)
    np.testing.assert_array_equal(in_blocks.scores, whole.scores)


@pytest.mark.parametrize(
    "retriever", [ItemKnn(decay=0.4), ContentKnn(decay=0.4), KnnSum(content=2, decay=0.4)]
)
def test_a_saved_one_answers_alike(retriever: NearestItems, tmp_path: Path) -> None:
    fitted(retriever).save(tmp_path)
    queries = ask([[0, 2], [5], []])
    again, expected = Retriever.load(tmp_path).rank(queries, 6), retriever.rank(queries, 6)
    np.testing.assert_array_equal(again.items, expected.items)
    np.testing.assert_array_equal(again.scores, expected.scores)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"decay must be a number at least 0 and at most 1, not 1\.5"):
        ItemKnn(decay=1.5)
    with pytest.raises(ValueError, match="content must be a number at least 0, not -1"):
        KnnSum(content=-1)
    data, ids = split(TAKEN), SemanticIds(np.arange(6)[:, None], (6,))
    with pytest.raises(ValueError, match="0 texts for 6 items"):
        KnnSum().fit(data.train, data.valid, ids)
    with pytest.raises(ValueError, match="no words"):
        ContentKnn().fit(data.train, data.valid, ids, texts=["Unknown item"] * 6)
    none = data.train.select(np.array([], dtype=np.int64))
    with pytest.raises(ValueError, match="no training examples"):
        ItemKnn().fit(none, data.valid, ids)


def test_transition_knn_counts_what_follows_and_half_of_what_comes_before() -> None:
    # Training sequences 0 1 2, 0 1, 1 2 and 1 4: 0, 1, 2 and 4 were taken 2, 4, 2 and 1 times.
    knn = fitted(TransitionKnn(shrinkage=1.0, fade=0.5, decay=0.25))
    ranking = knn.rank(ask([[0, 2]]), 6)
    n = np.array([2, 4, 2, 0, 1, 0]) + 1.0
    after_2 = {1: 0.5 * 2, 0: 0.5 * 0.5}  # before 2 stand 1, twice, and 0 at a distance of 2, once
    after_0 = {1: 2.0, 2: 0.5}
    scores = np.zeros(6)
    for weight, item, found in ((1.0, 2, after_2), (0.25, 0, after_0)):
        for other, count in found.items():
            scores[other] += weight * count / np.sqrt(n[item] * n[other])
    order = sorted(range(6), key=lambda item: (-scores[item], item))
    assert ranking.items[0, :3].tolist() == order[:3] == [1, 0, 2]
    np.testing.assert_allclose(ranking.scores[0], scores[ranking.items[0]], rtol=1e-6)
    near = fitted(TransitionKnn(shrinkage=1.0, fade=0.5, decay=0.25, window=1)).rank(ask([[2]]), 2)
    assert near.items[0, 0] == 1
    assert near.scores[0, 1] == 0  # 0 stands two places before


@pytest.mark.parametrize("wrong", [{"shrinkage": -1.0}, {"fade": 1.5}, {"window": 0}, {"decay": 2.0}])
def test_transition_knn_refuses_what_is_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TransitionKnn(**wrong)


def test_transition_knn_is_saved_whole(tmp_path: Path) -> None:
    before = fitted(TransitionKnn())
    before.save(tmp_path)
    queries = ask([[0, 2], [], [1, 1]])
    left, right = before.rank(queries, 6), Retriever.load(tmp_path).rank(queries, 6)
    np.testing.assert_array_equal(left.items, right.items)
    np.testing.assert_array_equal(left.scores, right.scores)
