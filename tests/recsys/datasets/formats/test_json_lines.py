"""Values of JSON lines as they are written, whatever other lines hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.datasets.formats import json_lines
from recsys.datasets.formats.tables import read_columns, read_columns_in_parts


def written(folder: Path, content: str) -> Path:
    (folder / "t.jsonl").write_bytes(content.encode())
    return folder / "t.jsonl"


def read(folder: Path, *values: str) -> list[Any]:
    path = written(folder, "\n".join(f'{{"a": {value}}}' for value in values))
    return read_columns(path, "test", ["a"])["a"].to_list()


def test_numbers_keep_their_digits_next_to_any_other(tmp_path: Path) -> None:
    values = ["9007199254740993", "1.5", '"x"', "18446744073709551617", "true", "null", "1.0", "2e3", "-7"]
    assert read(tmp_path, *values) == [
        *("9007199254740993", "1.5", "x", "18446744073709551617", "true", None, "1", "2000", "-7")
    ]
    # From 2^53 on a float says that it is one.
    assert read(tmp_path, "9007199254740992.0", "1E20") == ["9007199254740992.0", "1e+20"]
    digits = "1" * 5000
    assert read(tmp_path, digits) == [digits]


def test_lists_hold_texts_too(tmp_path: Path) -> None:
    assert read(tmp_path, "null", '["x", 1, null, 2.0]', "[]") == [None, ["x", "1", None, "2"], []]
    path = written(tmp_path, '{"a": "x"}\n{"a": "y", "b": ["z"]}\n')
    assert read_columns(path, "test", ["a"], optional=["b", "c"]).rows() == [("x", None), ("y", ["z"])]


BAD = [
    ('{"a": "x"}\n\n{"a": ["y"]}', r"line 3: 'a' holds a list, but lines above hold a text or number"),
    ('{"a": ["x"]}\n{"a": 1}', r"line 2: 'a' holds a text or number, but lines above hold a list"),
    ('{"a": {"$oid": "x"}}', r"line 1: 'a' holds an object, not a text, a number or a list of them"),
    ('{"a": [["x"]]}', r"line 1: 'a' holds a list of objects or lists"),
    ('{"a": "x", "b": 1, "a": "y"}', r"line 1: the key 'a' is given twice"),
    ('{"a": NaN}', r"line 1: not a JSON object: .*NaN"),
    ('{"a": 1} {"a": 2}', r"line 1: not a JSON object"),
    ('{"a": "x"}\n{"a": "\\ud800"}', r"line 2: 'a' holds half of a surrogate pair"),
    ('{"b": 1}', r"no column is called 'a'\. Known: b"),
    ('{\n"a": 1\n}', r"line 1: not a JSON object"),
]


@pytest.mark.parametrize(("content", "complaint"), BAD)
def test_a_bad_line_is_named(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"t\.jsonl[,:] {complaint}"):
        read_columns(written(tmp_path, content), "test", ["a"])


def test_a_key_twice_does_not_matter_if_nobody_asks_for_it(tmp_path: Path) -> None:
    path = written(tmp_path, '{"a": "x", "b": 1, "b": 2, "c": {"a": 3, "a": 4}}\n')
    assert read_columns(path, "test", ["a"]).rows() == [("x",)]


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    assert read_columns(written(tmp_path, '\ufeff{"a": 1}\r\n{"a": 2}\r\n'), "test", ["a"]).rows() == [
        ("1",),
        ("2",),
    ]


def test_a_column_whose_lists_begin_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "ROWS_AT_A_TIME", 2)
    path = written(tmp_path, '{"b": 1}\n' * 5 + '{"a": ["x"], "b": 2}\n')
    parts = list(read_columns_in_parts(path, "test", ["a", "b"]))
    assert [part.schema for part in parts] == [{"a": pl.List(pl.String), "b": pl.String}] * 4
    assert pl.concat(parts)["a"].to_list() == [None] * 5 + [["x"]]


values = st.none() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(values, min_size=1), st.booleans())
def test_whatever_json_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], ascii_only: bool
) -> None:
    rows = [json.dumps({"a": value}, ensure_ascii=ascii_only) for value in values]
    path = written(tmp_path_factory.mktemp("json"), "\n".join(rows))
    expected = [None if value is None else str(value) for value in values]
    assert read_columns(path, "test", ["a"])["a"].to_list() == expected
