"""Characters that must not reach a terminal, and encodings that are not UTF-8."""

from __future__ import annotations

import pytest

from recsys.texts.characters import is_utf16, visible


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_wide_encodings_are_recognised(encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-32-be" else ""
    assert is_utf16((mark + '{"a": 1}').encode(encoding))


@pytest.mark.parametrize(
    "start", [b"", b"a", b'{"a"', b"\xef\xbb\xbfa", "é日本".encode(), b"a\0b", b"\0\0\0\0", b"ab\0\0"]
)
def test_other_bytes_are_no_wide_encoding(start: bytes) -> None:
    assert not is_utf16(start)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J\x7f\r", r"\x9b2J\x7f\r"),
        ("abc\u202edcba", r"abc\u202edcba"),
        ("\ud800", r"\ud800"),
        ("zero\u200bwidth\u2028line", r"zero\u200bwidth\u2028line"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["", "plain", "two\n\tlines", "café 日本　語 😀 \xa0"])
def test_other_texts_stay(text: str) -> None:
    assert visible(text) == text
