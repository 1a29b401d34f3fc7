"""CSV and TSV as Python's csv module reads them, and refusal of what it would read wrongly."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.datasets.formats import delimited
from recsys.datasets.formats.tables import read_columns, read_columns_in_parts

Row = tuple[str | None, ...]


def read(folder: Path, content: str, name: str = "t.csv", columns: tuple[str, ...] = ("a", "b")) -> list[Row]:
    path = folder / name
    path.write_bytes(content.encode())
    return read_columns(path, "test", columns).rows()


GOOD = [
    (
        "inch marks in unquoted cells",
        'a,b\nx,LED 5" screen\ny,7"\n',
        [("x", 'LED 5" screen'), ("y", '7"')],
    ),
    ("doubled quotation marks", 'a,b\nx,"LED 5"" screen"\n', [("x", 'LED 5" screen')]),
    ("line breaks and separators in a cell", 'a,b\nx,"1,2\n\n3"\ny,z\n', [("x", "1,2\n\n3"), ("y", "z")]),
    ("Windows line ends", 'a,b\r\nx,"y"\r\nz,\r\n', [("x", "y"), ("z", None)]),
    ("no line end at the end", "a,b\nx,y", [("x", "y")]),
    ("a byte order mark", '\ufeff"a",b\nx,y\n', [("x", "y")]),
    ("blanks around cells", "a,b\n x,y \n", [(" x", "y ")]),
    ("a backslash at the end of a cell", 'a,b\n"C:\\",y\n', [("C:\\", "y")]),
    ("blank lines and empty cells", "\na,b\n\n,\n  \nx,\n,y\n", [("x", None), (None, "y")]),
    ("more columns, one without a name", "a,,b,\n1,2,3,\n", [("1", "3")]),
    ("texts like numbers", "a,b\n007,1e5\n1.50,NaN\n", [("007", "1e5"), ("1.50", "NaN")]),
    ("no rows", "a,b\n", []),
]


@pytest.mark.parametrize(("what", "content", "expected"), GOOD)
def test_csv_is_read_as_the_csv_module_reads_it(
    tmp_path: Path, what: str, content: str, expected: list[Row]
) -> None:
    assert read(tmp_path, content) == expected, what


ESCAPED = [
    'a,b\nx,"LED 5\\" screen"\ny,plain\nz,"also 6\\" wide"\n',
    'a,b\nx,"5\\""\ny,z\nz,"6\\""\n',
    'a,b\nx,"5\\""\ny,z\n',
    'a,b\nx,"5\\""\ny,z"\nz,w\n',
    'a,b\nx,"5\\"\\"\ny,"z"\n',
    'a,b\nx,"\\"nice\\""\ny,z\n',
    'a,b\nx,"5\\", tall"\ny,"z"\n',
]


@pytest.mark.parametrize("content", ESCAPED)
def test_quotation_marks_escaped_by_a_backslash_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValueError, match=r"t\.csv, line 2: (not CSV in UTF-8|3 fields for 2 columns)"):
        read(tmp_path, content)


def test_cells_of_tsv_are_never_quoted(tmp_path: Path) -> None:
    content = 'a\tb\tnote\nx\t1\t"nice\ny\t2\tok\nz\t"3"\tfine"\n'
    assert read(tmp_path, content, "t.tsv") == [("x", "1"), ("y", "2"), ("z", '"3"')]
    with pytest.raises(ValueError, match="line 2: 1 fields for 2 columns"):
        read(tmp_path, 'a\tb\n"x\ty"\t1\n'.replace("x\ty", "x\ny"), "t.tsv")


def test_a_long_cell_and_many_columns(tmp_path: Path) -> None:
    cell = "long, " * 100_000
    assert read(tmp_path, f'a,b\nx,"{cell}"\n') == [("x", cell)]
    names = ",".join(["a", *(f"c{index}" for index in range(5000)), "b"])
    for row, expected in ((names, ("a", "b")), (f'"x"{",5" * 5000},"y"', ("x", "y"))):
        assert read(tmp_path, f"{names}\n{row}\n") == [expected]


def test_a_file_comes_in_parts_also_where_quotation_marks_begin_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = delimited.blocks_of
    monkeypatch.setattr(delimited, "blocks_of", lambda path: blocks(path, 1000))
    plain = [(f"user {number}", f"item {number}") for number in range(30_000)]
    lines = [f"{a},{b}" for a, b in plain]
    path = tmp_path / "t.csv"
    for end, rows in (
        ([], []),
        (['"x","y"'] * 9, [("x", "y")] * 9),
        (['"x","y"', '"1\n2",3'], [("x", "y"), ("1\n2", "3")]),
    ):
        path.write_text("\n".join(["a,b", *lines, *end, *lines]))
        parts = list(read_columns_in_parts(path, "test", ["a", "b"]))
        assert len(parts) > 3
        assert pl.concat(parts).rows() == [*plain, *rows, *plain]
        path.write_text("\n".join(["a,b", *lines, *end, *lines, "1", *lines]))
        number = 2 + 2 * len(lines) + "\n".join(end).count("\n") + bool(end)
        with pytest.raises(ValueError, match=f"line {number}: 1 fields for 2 columns"):
            read_columns(path, "test", ["a"])


cells = st.text(st.sampled_from(['"', "\\", ",", "\n", "\r", " ", "x", "é", "\t", "\0"]), max_size=5)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.lists(cells, min_size=3, max_size=3), max_size=5), st.booleans())
def test_what_the_csv_module_writes_is_read_or_refused_but_never_read_otherwise(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], quote_all: bool
) -> None:
    file = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(file, quoting=quoting).writerows([["a", "b", "c"], *rows])
    expected = [tuple(cell or None for cell in row) for row in rows if "".join(row).strip(" \t\r\n")]
    try:
        assert read(tmp_path_factory.mktemp("csv"), file.getvalue(), columns=("a", "b", "c")) == expected
    except ValueError as error:
        assert '\\"' in str(error)  # noqa: PT017 — a cell that looks like an escaped quotation mark
        assert any('\\"' in "".join(row) and "\n" in "".join(row) for row in rows)
