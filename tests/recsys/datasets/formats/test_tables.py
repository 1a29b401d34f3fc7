"""Tables of every format, with every column type that polars or pyarrow has trouble with."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.datasets.formats.tables import read_columns, read_columns_in_parts


def parquet(folder: Path, columns: dict[str, Any], name: str = "t.parquet") -> Path:
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def text(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_bytes(content.encode(errors="surrogateescape"))
    return folder / name


def test_columns_come_in_the_order_asked_for_and_others_not(tmp_path: Path) -> None:
    columns = {"a": ["x", None], "b": ["1", "2"], "c": [True, False]}
    for path in (
        parquet(tmp_path, columns),
        text(tmp_path, "t.jsonl", '{"a": "x", "b": 1, "c": true}\n{"c": false, "b": 2, "a": null}\n'),
    ):
        assert read_columns(path, "test", ["b", "a"]).rows() == [("1", "x"), ("2", None)]
        assert read_columns(path, "test", ["b"], optional=["z", "a", "b"]).columns == ["b", "a"]


@pytest.mark.parametrize("name", ["t.csv", "t.CSV.gz", "t[1].csv", "t*.tsv"])
def test_cells_of_csv_and_tsv_are_texts(tmp_path: Path, name: str) -> None:
    content = "a,b\n007,\n\n1.50,x\n".replace(",", "\t" if name.endswith("tsv") else ",")
    path = text(tmp_path, name, content)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert read_columns(path, "test", ["a", "b"]).rows() == [("007", None), ("1.50", "x")]


@pytest.mark.parametrize("name", ["t[1].jsonl", "t*.JSONL", "t.jsonl.gz"])
def test_json_lines_of_any_name(tmp_path: Path, name: str) -> None:
    path = text(tmp_path, name, '{"a": 1}\n\n{"a": 2, "b": 3}\n')
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert read_columns(path, "test", ["a"]).rows() == [("1",), ("2",)]


def test_parquet_comes_in_parts(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"a": list(range(250_000))})
    lengths = [len(part) for part in read_columns_in_parts(path, "test", ["a"])]
    assert lengths == [0, 100_000, 100_000, 50_000]
    assert read_columns(path, "test", ["a"])["a"].to_list() == list(range(250_000))


def test_a_table_without_rows_keeps_its_types(tmp_path: Path) -> None:
    path = parquet(tmp_path, {"a": pa.array([], pa.int8()), "b": pa.array([], pa.string())})
    assert read_columns(path, "test", ["b", "a"]).schema == {"b": pl.String, "a": pl.Int8}


def test_categories_are_texts_and_times_of_any_zone_are_utc(tmp_path: Path) -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    zones = ["UTC", "+02:00", "America/New_York", "Mars/Phobos"]
    columns = {zone: pa.array([int(noon.timestamp())], pa.timestamp("s", zone)) for zone in zones}
    path = parquet(tmp_path, columns | {"kind": pa.array(["x"]).dictionary_encode()})
    table = read_columns(path, "test", [*zones, "kind"])
    assert table.row(0) == (noon, noon, noon, noon, "x")
    assert table.schema["kind"] == pl.String


@pytest.mark.parametrize(
    "column",
    [
        pa.array([Decimal(10) ** 60], pa.decimal256(76, 0)),
        pa.array([b"x"]),
        pa.array([{"a": 1}]),
        pa.array([[[1]]]),
        pa.array([5], pa.time64("us")),
        pa.array([5], pa.duration("ns")),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    ],
)
def test_types_of_no_use_are_refused_before_polars_panics(
    tmp_path: Path, column: pa.Array, capfd: pytest.CaptureFixture[str]
) -> None:
    path = parquet(tmp_path, {"a": column, "b": ["x"]})
    with pytest.raises(ValueError, match=r"t\.parquet: 'a' holds .*, not texts, numbers, times or lists"):
        read_columns(path, "test", ["a"])
    assert capfd.readouterr().err == ""
    assert read_columns(path, "test", ["b"]).rows() == [("x",)], "nobody asked for a"


def test_a_column_twice_is_refused_if_it_is_asked_for(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, ["a", "a", "b"]), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: 2 columns are called 'a'; give each its own name"):
        read_columns(tmp_path / "t.parquet", "test", ["b"], optional=["a"])
    assert read_columns(tmp_path / "t.parquet", "test", ["b"]).rows() == [(1,)]


@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.tsv", "\t")])
def test_two_headers_of_one_name_are_refused_if_asked_for(tmp_path: Path, name: str, separator: str) -> None:
    path = text(tmp_path, name, "a,b,a,a_duplicated_0\n1,2,3,4\n".replace(",", separator))
    with pytest.raises(ValueError, match="2 columns are called 'a'; give each its own name"):
        read_columns(path, "test", ["a"])
    assert read_columns(path, "test", ["b", "a_duplicated_0"]).rows() == [("2", "4")]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_a_column_that_is_asked_for_twice_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    frame = pl.DataFrame({"a": [1], "b": [2]})
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[name[2:]](path)
    with pytest.raises(ValueError, match="the column 'a' is asked for 2 times"):
        read_columns(path, "test", ["a", "b", "a"])
    assert len(read_columns(path, "test", ["a"], optional=["a", "b"])) == 1


def test_polars_can_have_integers_of_128_bits_in_parquet(tmp_path: Path) -> None:
    wide = pl.DataFrame({"a": [2**100, 2**100 + 1], "b": ["x", "y"]}, schema_overrides={"a": pl.Int128})
    wide.write_parquet(tmp_path / "t.parquet")
    assert read_columns(tmp_path / "t.parquet", "test", ["b", "a"]).rows() == [
        ("x", 2**100),
        ("y", 2**100 + 1),
    ]
    with pytest.raises(ValueError, match="no column is called 'c'"):
        read_columns(tmp_path / "t.parquet", "test", ["c"])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([Decimal(12), Decimal(3)], pa.decimal32(5, 0)),
        pa.array([Decimal(12), Decimal(3)], pa.decimal64(15, 0)),
        pa.array(["12", "3"], pa.string_view()),
    ],
)
def test_types_of_newer_arrow_versions(tmp_path: Path, column: pa.Array) -> None:
    read = read_columns(parquet(tmp_path, {"a": column}), "test", ["a"])["a"]
    assert read.cast(pl.String).to_list() == ["12", "3"]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_a_column_that_is_missing_is_named_in_few_words(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({f"{'long' * 50}{place}": ["x"] for place in range(500)})
    path = tmp_path / name
    if name.endswith("sv"):
        frame.write_csv(path, separator="," if name == "t.csv" else "\t")
    else:
        (frame.write_ndjson if name == "t.jsonl" else frame.write_parquet)(path)
    with pytest.raises(
        ValueError, match=rf"{re.escape(name)}: no column is called 'a'\. Known: long"
    ) as caught:
        read_columns(path, "test", ["a"])
    assert len(str(caught.value)) < 1200


BAD_FILES = [
    ("t.txt", "a\n", "tables end in .parquet, .csv, .tsv or .jsonl"),
    ("t.csv", "", "is empty; give the test file"),
    ("t.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "`git lfs pull` fetches"),
    ("t.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 fields for 2 columns"),
    ("t.csv", "a,b\n1,2\n\n1\n", "line 4: 1 fields for 2 columns"),
    ("t.csv", 'a,b\n1,"2"\n"1"\n', "line 3: 1 fields for 2 columns"),
    ("t.csv", "a,b\n1,2,\n", "line 2: 3 fields for 2 columns"),
    ("t.csv", "a,b\r1,2\r", "line 1: not CSV in UTF-8: a carriage return within a line"),
    ("t.csv", "a,b\n1,x\ry\n", "line 2: not CSV in UTF-8: a carriage return within a line"),
    ("t.csv", "\n\n", "has only blank lines"),
    ("t.csv", "b;a\n1;2\n", "The file has ';' between its columns"),
    ("t.tsv", "b,a\n1,2\n", "The file has ',' between its columns"),
    ("t.tsv", '"a"\t"b"\n1\t2\n', 'no column is called \'a\'. Known: "a", "b".'),
    ("t.csv", "\x1b[2Jx,y\n1,2\n", "no column is called 'a'. Known: \\x1b[2Jx, y."),
    ("t.csv", 'a,b\n1,"2\n', "line 2: not CSV in UTF-8: unexpected end of data; a quoted cell"),
    ("t.csv", "a,b\n1,\udcff\n", "line 2: not CSV in UTF-8"),
    ("t.jsonl", '{"a": 1}\n{"a": 1\n', 'line 2: not a JSON object: \'{"a": 1'),
    ("t.jsonl", '{"a": 1}\n' + "[" * 100_000, "line 2: not a JSON object: '[[["),
    ("t.parquet", "PAR1", "cannot be read as parquet"),
    ("t.jsonl", "\x1f\udc8b\x08 no gzip", "cut off or damaged after line 0"),
]


@pytest.mark.parametrize(("name", "content", "complaint"), BAD_FILES)
def test_a_file_that_is_broken_is_named(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    path = text(tmp_path, name, content)
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        read_columns(path, "test", ["a"])
    assert str(caught.value).startswith(str(path))


def test_what_is_no_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; give the test file"):
        read_columns(tmp_path / "none.csv", "test", ["a"])
    with pytest.raises(IsADirectoryError, match="is a directory"):
        read_columns(tmp_path, "test", ["a"])


@settings(deadline=None)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_damaged_parquet_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, cut: bool
) -> None:
    path = parquet(tmp_path_factory.mktemp("parquet"), {"a": ["x", "y"] * 50, "b": [[1], [2, 3]] * 50})
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content[: place % len(content) + 1] if cut else content)
    refusal = str(path)
    try:
        read_columns(path, "test", ["a", "b"])
    except ValueError as error:
        refusal = str(error)
    assert refusal.startswith(str(path))
