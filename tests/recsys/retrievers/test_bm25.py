from __future__ import annotations

import unicodedata
from math import log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.examples import Examples, QueryTexts, Ragged
from recsys.retrievers import bm25
from recsys.retrievers.base import Retriever
from recsys.retrievers.bm25 import Bm25
from recsys.texts.item_texts import NO_TEXT
from semantic_ids.ids import SemanticIds

TEXTS = ["red shoe", "Red, red shoe 42!", "blue shoe with lace", NO_TEXT, "7 42"]


def ids(count: int) -> SemanticIds:
    return SemanticIds(np.zeros((count, 1), dtype=np.int64), (1,))


def ask(words: list[str]) -> Examples:
    count = len(words)
    texts = QueryTexts(words, np.zeros((count, 1), dtype=np.float32))
    return Examples(
        np.array([f"q{i:04d}" for i in range(count)]),
        Ragged.from_rows([[]] * count),
        Ragged.from_rows([[0]] * count),
        np.ones(count, dtype=np.float32),
        texts,
        np.arange(count),
    )


def fitted(texts: list[str] = TEXTS, **params: float) -> Bm25:
    return Bm25(**params).fit(ask(["x"]), ask(["x"]), ids(len(texts)), texts=texts)


def by_hand(words: list[str], texts: list[list[str]], k1: float, b: float) -> list[float]:
    """As the formula stands, a text at a time."""
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in words:
            times, holding = text.count(word), sum(word in other for other in texts)
            rarity = log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            if times:
                score += rarity * times / (times + k1 * (1 - b + b * len(text) / mean))
        scores.append(score)
    return scores


def test_scores_are_those_computed_by_hand() -> None:
    # Texts of 2, 4, 4, 0 and 2 terms, 2.4 in the mean; two of five hold "red", three "shoe".
    red, shoe = log(1 + 3.5 / 2.5), log(1 + 2.5 / 3.5)
    short, long = 1.2 * (0.25 + 0.75 * 2 / 2.4), 1.2 * (0.25 + 0.75 * 4 / 2.4)
    ranking = fitted().rank(ask(["RED shoe"]), 5)
    assert ranking.items.tolist() == [[0, 1, 2, 3, 4]]
    scores = dict(zip(ranking.items[0].tolist(), ranking.scores[0].tolist(), strict=True))
    assert scores[0] == pytest.approx((red + shoe) / (1 + short), rel=1e-6)
    assert scores[1] == pytest.approx(red * 2 / (2 + long) + shoe / (1 + long), rel=1e-6)
    assert scores[2] == pytest.approx(shoe / (1 + long), rel=1e-6)
    assert scores[3] == scores[4] == 0


WORDS = st.lists(st.sampled_from(["a", "b", "7", "cd", "ü"]), max_size=6)


@settings(deadline=None, max_examples=30)
@given(st.lists(WORDS, min_size=1, max_size=8), WORDS, st.floats(0, 3), st.floats(0, 1), st.integers(1, 9))
def test_rankings_are_those_of_the_formula(
    texts: list[list[str]], query: list[str], k1: float, b: float, k: int
) -> None:
    texts.append(["z"])
    expected = np.array(by_hand(query, texts, k1, b))
    ranking = fitted([" ".join(text) for text in texts], k1=k1, b=b).rank(ask([" ".join(query)]), k)
    width = min(k, len(texts))
    np.testing.assert_allclose(ranking.scores[0, :width], -np.sort(-expected)[:width], rtol=1e-5)
    np.testing.assert_allclose(expected[ranking.items[0, :width]], ranking.scores[0, :width], rtol=1e-5)
    assert len(set(ranking.items[0, :width].tolist())) == width


def test_equal_scores_and_no_scores_stand_by_row() -> None:
    model = fitted(["none", "same", "none", "same", "other same", "same"])
    assert model.rank(ask(["same"]), 6).items.tolist() == [[1, 3, 5, 4, 0, 2]]
    assert model.rank(ask(["same"]), 2).items.tolist() == [[1, 3]]
    assert model.rank(ask(["", "unheard-of"]), 3).items.tolist() == [[0, 1, 2]] * 2


def test_terms_may_be_numbers_and_unknown_items_have_none() -> None:
    model = fitted()
    assert model.rank(ask(["7", "unknown item"]), 1).items.tolist() == [[4], [0]]
    assert model.rank(ask(["unknown item"]), 5).scores.tolist() == [[0.0] * 5]


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 30, 5))) for _ in range(200)]
    queries = ask([" ".join(map(str, rng.integers(0, 40, 3))) for _ in range(50)])
    whole = fitted(texts).rank(queries, 20)
    monkeypatch.setattr(bm25, "_MATCHES_AT_ONCE", 100)  # a few queries at a time
    apart = fitted(texts).rank(queries, 20)
    np.testing.assert_array_equal(whole.items, apart.items)
    np.testing.assert_array_equal(whole.scores, apart.scores)


def test_what_is_loaded_answers_as_what_was_saved(tmp_path: Path) -> None:
    model = fitted(k1=0.9, b=0.4)
    model.save(tmp_path)
    queries = ask(["red 42", "shoe with", "nothing"])
    again, before = Retriever.load(tmp_path).rank(queries, 5), model.rank(queries, 5)
    np.testing.assert_array_equal(again.items, before.items)
    np.testing.assert_array_equal(again.scores, before.scores)


def test_what_cannot_be_answered_is_said_plainly() -> None:
    asked = ask(["red"])
    wordless = Examples(asked.query_ids, asked.history, asked.targets, asked.gains)
    with pytest.raises(ValueError, match="Bm25 answers queries in words"):
        Bm25().fit(wordless, wordless, ids(5), texts=TEXTS)
    with pytest.raises(ValueError, match="Bm25 answers queries in words"):
        fitted().rank(wordless, 3)
    with pytest.raises(ValueError, match="0 texts for 5 items"):
        Bm25().fit(asked, asked, ids(5))
    with pytest.raises(ValueError, match="no words in any of the texts"):
        fitted([NO_TEXT, "!", ""])
    for name, value in (("k1", -1), ("k1", float("nan")), ("b", 1.5)):
        with pytest.raises(ValueError, match=f"^{name} must be a number at least 0"):
            Bm25(**{name: value})


def test_the_names_of_fields_are_no_words_of_an_item() -> None:
    texts = ["Title: red shoe; Brand: Acme", "Title: blue shoe; Categories: Shoes > Brand new", NO_TEXT]
    ranking = fitted(texts).rank(ask(["brand", "title categories"]), 3)
    assert ranking.items[0].tolist() == [1, 0, 2]
    assert (ranking.scores[0] > 0).tolist() == [True, False, False]
    assert ranking.scores[1].tolist() == [0, 0, 0]


def test_terms_are_told_apart_in_a_large_vocabulary() -> None:
    # Of so many terms hashed to 2**20 values, hundreds would share one.
    texts = [" ".join(f"{row * 10 + place}x" for place in range(10)) for row in range(4000)]
    asked = [f"{row * 10}x" for row in range(0, 4000, 40)]
    ranking = fitted(texts).rank(ask(asked), 2)
    assert ranking.items[:, 0].tolist() == list(range(0, 4000, 40))
    assert (ranking.scores[:, 1] == 0).all()


ADJECTIVES = ["軽量", "防水", "大容量", "子供用", "業務用"]
NOUNS = ["自転車カバー", "炊飯器", "登山靴", "電気毛布", "水筒", "掃除機"]


def test_queries_in_japanese_find_the_text_that_holds_them() -> None:
    pairs = [adjective + noun for adjective in ADJECTIVES for noun in NOUNS]
    texts = [f"Title: 新型{pair}送料無料" for pair in pairs]
    spaced = [f"{adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS]
    for queries in (pairs, spaced, [unicodedata.normalize("NFD", pair) for pair in pairs]):
        assert fitted(texts).rank(ask(queries), 1).items[:, 0].tolist() == list(range(len(texts)))


def test_queries_without_accents_find_texts_with_them() -> None:
    texts = ["Title: soap", "Title: Crème Brûlée CAFÉ", "Title: tent"]
    assert fitted(texts).rank(ask(["creme", "café", "cafe"]), 1).items.tolist() == [[1], [1], [1]]
