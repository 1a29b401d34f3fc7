"""Encodings that are not UTF-8."""

from __future__ import annotations

import pytest

from recsys.texts.encodings import is_utf16


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_wide_encodings_are_recognised(encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-32-be" else ""
    assert is_utf16((mark + '{"a": 1}').encode(encoding))


@pytest.mark.parametrize(
    "start", [b"", b"a", b'{"a"', b"\xef\xbb\xbfa", "é日本".encode(), b"a\0b", b"\0\0\0\0", b"ab\0\0"]
)
def test_other_bytes_are_no_wide_encoding(start: bytes) -> None:
    assert not is_utf16(start)
