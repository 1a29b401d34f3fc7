from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.texts.embedding import embed_texts
from recsys.texts.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red, red shoe 42!", ["red", "red", "shoe", "42"]),
        ("size_7 x-large", ["size_7", "x", "large"]),
        ("", []),
        ("!?… 👍", []),
        ("自転車カバー", ["自転", "転車", "車カ", "カバ", "バー"]),
        ("水", ["水"]),
        ("大 小", ["大", "小"]),
        ("iPhone15ケース", ["iphone15", "ケー", "ース"]),
        ("100%オーガニックcotton", ["100", "オー", "ーガ", "ガニ", "ニッ", "ック", "cotton"]),
        ("電池、単3。", ["電池", "単", "3"]),
        ("传统手工", ["传统", "统手", "手工"]),
        ("𠮷野家", ["𠮷野", "野家"]),
        ("여름 원피스", ["여름", "원피", "피스"]),
        ("ที่นอน 5ฟุต", ["ที่น", "นอ", "อน", "5", "ฟุต"]),
        ("ລາວ", ["ລາ", "າວ"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("தமிழ்", ["தமிழ்"]),
    ],
)
def test_words_of_many_languages(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("CAFÉ", "cafe"),
        ("cafe\u0301", "café"),
        ("Straße", "STRASSE"),
        ("İstanbul", "istanbul"),
        ("ΟΔΟΣ", "οδός"),
        ("Ｌｅｄ１５", "led15"),
        ("ﾊﾝﾄﾞｸﾘｰﾑ", "ハンドクリーム"),
        ("か\u3099", "が"),
        (unicodedata.normalize("NFD", "한국어"), "한국어"),
        ("2㎏", "2kg"),
        ("5½ inch", "5 1/2 inch"),
        ("Kindle™", "kindle"),
        ("Wasch\u00admaschine", "waschmaschine"),
        ("葛\U000e0100城", "葛城"),
        ("שָׁלוֹם", "שלום"),
        ("كِتَاب", "كتاب"),
        ("ทดสอบ\u200bคำ", "ทดสอบ คำ"),
    ],
)
def test_texts_that_have_the_same_words(first: str, second: str) -> None:
    assert words(first) == words(second) != []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("か", "が"),
        ("ハ", "パ"),
        ("ﾊ", "ﾊﾟ"),
        ("한", "하"),
        ("दी", "दा"),
        ("के", "क"),
        ("ตา", "ตี"),
        ("한", "힌"),
    ],
)
def test_letters_that_differ_by_more_than_an_accent_stay_apart(first: str, second: str) -> None:
    assert words(first) != words(second)


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_texts_have_the_words_that_a_regular_expression_finds(text: str) -> None:
    assert words(text) == re.findall(r"\w+", text.lower(), flags=re.ASCII)


@given(st.text(), st.text())
def test_texts_with_a_blank_between_them_have_the_words_of_both(first: str, second: str) -> None:
    assert words(f"{first} {second}") == words(first) + words(second)


@given(st.text(st.characters(categories=["L", "Nd"], exclude_characters="\u0640"), min_size=1))
def test_letters_and_digits_of_all_scripts_are_in_words(text: str) -> None:
    assert words(text)


@given(st.text(st.sampled_from("山川水車自転カバーケース新"), min_size=2, max_size=9), st.integers(0, 7))
def test_a_part_of_a_run_has_words_of_the_run(run: str, start: int) -> None:
    start = min(start, len(run) - 2)
    assert set(words(run[start : start + 3])) <= set(words(run))


def test_lsa_finds_japanese_products_that_share_a_noun() -> None:
    adjectives, nouns = ["軽量", "防水", "大容量", "子供用"], ["自転車カバー", "炊飯器", "登山靴", "電気毛布"]
    texts = [f"新型{adjective}{noun}送料無料" for adjective in adjectives for noun in nouns]
    items, queries = embed_texts(texts, "lsa", queries=nouns, dimensions=16)
    likeness = queries @ items.T
    for row in range(len(nouns)):
        best = set(np.argsort(-likeness[row])[: len(adjectives)].tolist())
        assert best == set(range(row, len(texts), len(nouns)))
