"""Both ways in which blocks of Amazon's files are read, by polars and line by line, give the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys.datasets.amazon import read_amazon

GOOD = b'{"reviewerID": "U1", "asin": "B1", "unixReviewTime": 5}'
ODD_FIELDS = [
    b'"asin": "B2", "asin": "B3"',
    b'"asin": "B2", "\\u0061sin": null',
    b'"asin": "B2", "title": "one", "title": "two"',
    b'"asin": "B2", "title": null, "title": "two"',
    b'"asin": "B2", "brand": NaN',
    b'"asin": "B2", "other": -Infinity',
    b'"asin": "B2", "other": 1e400',
    b'"asin": "B2", "other": 123456789012345678901234567890',
    b'"asin": "B2", "other": ' + b"9" * 5000,
    b'"asin": 123456789012345678901234567890',
    b'"asin": 2.0',
    b'"asin": 1e3',
    b'"asin": -0',
    b'"asin": 007',
    b'"asin": true',
    b'"asin": null',
    b'"asin": ["B2"]',
    b'"asin": {"q": "B2"}',
    b'"asin": ""',
    b'"asin": "B 2"',
    b'"asin": "\\ud800"',
    b'"asin": "\\ud83d\\ude00"',
    b'"asin": "B\\u0000"',
    b'"asin": "B\x012"',
    b'"asin": "B\xff"',
    b'"asin": "B\xed\xa0\x80"',
    b'"asin": "B\xe2\x80\xa82"',
    b'"asin": "B2", "title": "\\ud800 x"',
    b'"asin": "B2", "title": "\\u0000"',
    b'"asin": "B2", "title": 5',
    b'"asin": "B2", "title": 5.0',
    b'"asin": "B2", "title": false',
    b'"asin": "B2", "title": ["a", "b"]',
    b'"asin": "B2", "title": {"a": 1}',
    b'"asin": "B2", "category": "a"',
    b'"asin": "B2", "category": [["a"]]',
    b'"asin": "B2", "category": [null, "a", 7, true]',
    b'"asin": "B2", "other": {"asin": "B3", "unixReviewTime": 7}',
    b'"asin": "B2", "other": ' + b"[" * 500 + b"]" * 500,
    b'"asin": "B2", "other": ' + b"[" * 100_000 + b"]" * 100_000,
    b'"asin": "B2",',
    b'"asin": "B2", "asin"',
    b'"asin"::"B2"',
    b'asin: "B2"',
    b'"ASIN": "B2"',
    b'"asin":\x0c"B2"',
    b'"asin":\xc2\xa0"B2"',
    b'"asin": "B\\q"',
]
ODD_LINES = [
    b"",
    b"null",
    b"5",
    b'"asin"',
    b"[1]",
    b"{}",
    b"[" + GOOD + b"]",
    GOOD + b",",
    GOOD + GOOD,
    GOOD + b" " + GOOD,
    GOOD + b"\r" + GOOD,
    GOOD + b"\x0b" + GOOD,
    GOOD + b"\x00",
    GOOD + b" // more",
    GOOD + b"\r",
    b"  " + GOOD + b"\t",
    b"\xef\xbb\xbf" + GOOD,
    GOOD[:-1],
    GOOD.replace(b'"', b"'"),
    GOOD.replace(b", ", b",\n"),
    GOOD.replace(b"5}", b"5.0}"),
    GOOD.replace(b"5}", b'"5"}'),
    GOOD.replace(b"5}", b"-1}"),
    GOOD.replace(b"5}", b"-0}"),
    GOOD.replace(b"5}", b"1e3}"),
    GOOD.replace(b"5}", b"253402300800}"),
    GOOD.replace(b"5}", b"9223372036854775808}"),
]


def outcome(path: Path, lines: list[bytes], **files: Any) -> tuple[Any, ...]:
    """Return all that is read from lines, or the type of the error if none is good."""
    path.write_bytes(b"\n".join(lines))
    try:
        corpus = read_amazon(**files, release=2018, k_core=1, skip_bad_lines=True)
    except ValueError as error:
        return (type(error).__name__, "holds no reviews" in str(error))
    return corpus.interactions.rows(), corpus.items.rows(), corpus.skipped_lines


@pytest.mark.parametrize("line", [*ODD_LINES, *ODD_FIELDS], ids=lambda line: ascii(line[:40]))
def test_reviews(tmp_path: Path, line: bytes) -> None:
    if line in ODD_FIELDS:
        line = b'{"reviewerID": "U2", "unixReviewTime": 6, ' + line + b"}"
    path = tmp_path / "reviews.json"
    assert outcome(path, [GOOD, line], reviews=path) == outcome(path, [GOOD, b"", line], reviews=path)


@pytest.mark.parametrize("line", [*ODD_LINES, *ODD_FIELDS], ids=lambda line: ascii(line[:40]))
def test_items(tmp_path: Path, line: bytes) -> None:
    if line in ODD_FIELDS:
        line = b"{" + line + b"}"
    (tmp_path / "reviews.json").write_bytes(GOOD + b"\n" + GOOD.replace(b"B1", b"B2"))
    path = tmp_path / "meta.json"
    files = {"reviews": tmp_path / "reviews.json", "meta": path}
    item = b'{"asin": "B1", "title": "one"}'
    assert outcome(path, [item, line], **files) == outcome(path, [item, b"", line], **files)


CELLS = [
    b"U2",
    b'"U2"',
    b"",
    b" U2",
    b"U\xff",
    b"U\x00",
    b'U"2',
    b"true",
    b"x" * 101,
    b"U2,7",
    b"U\r",
    "Ü".encode(),
]


@pytest.mark.parametrize("cell", CELLS, ids=ascii)
@pytest.mark.parametrize("place", range(4))
def test_ratings(tmp_path: Path, cell: bytes, place: int) -> None:
    cells = [b"U2", b"B2", b"4.0", b"7"]
    cells[place] = cell
    path = tmp_path / "ratings.csv"

    def read(lines: list[bytes]) -> Any:
        path.write_bytes(b"\n".join(lines))
        corpus = read_amazon(path, k_core=1, skip_bad_lines=True)
        return corpus.interactions.rows(), corpus.skipped_lines

    good = b"U1,B1,5.0,3"
    assert read([good, b",".join(cells)]) == read([good, b"", b",".join(cells)])
