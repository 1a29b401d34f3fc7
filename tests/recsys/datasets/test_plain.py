import gzip
import inspect
import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.datasets.corpus import Corpus
from recsys.datasets.plain import read_sequence_file, read_table
from recsys.datasets.readers import READERS

PAGE = (Path(__file__).parents[3] / "docs/your-data.md").read_text()

EVENTS = {
    "user_id": ["u2", "u1", "u1", "u1"],
    "item_id": ["a", "b", "a", "b"],
    "timestamp": [30, 20, 20, 10],
}
INTERACTIONS = [("u1", "b", 10), ("u1", "a", 20), ("u2", "a", 30)]
ITEMS = {
    "item_id": ["b", "z", "a"],
    "title": ["A  \n title", "not taken", None],
    "brand": ["Acme", None, None],
    "categories": ["Shop| Tea |Shop|", None, ""],
    "description": [None, None, "One, two."],
}
DESCRIBED = [("a", "", "", [], "One, two."), ("b", "A title", "Acme", ["Shop", "Tea"], "")]

WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    "parquet": pl.DataFrame.write_parquet,
    "csv": pl.DataFrame.write_csv,
    "tsv": lambda frame, path: frame.with_columns(
        pl.col(pl.String).str.replace_all("\n", " ", literal=True)  # cells of TSV have no line breaks
    ).write_csv(path, separator="\t", quote_style="never"),
    "jsonl": pl.DataFrame.write_ndjson,
    "csv.gz": lambda frame, path: path.write_bytes(gzip.compress(frame.write_csv().encode())),
    "jsonl.gz": lambda frame, path: path.write_bytes(gzip.compress(frame.write_ndjson().encode())),
}


def table(folder: Path, columns: dict[str, Any], ending: str = "parquet", name: str = "events") -> Path:
    path = folder / f"{name}.{ending}"
    WRITERS[ending](pl.DataFrame(columns), path)
    return path


def text(folder: Path, content: str, name: str = "events.csv") -> Path:
    path = folder / name
    path.write_text(content)
    return path


def rows_of(corpus: Corpus) -> tuple[list[Any], list[Any]]:
    return corpus.interactions.rows(), corpus.items.rows()


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_reads_alike(tmp_path: Path, ending: str) -> None:
    events, items = table(tmp_path, EVENTS, ending), table(tmp_path, ITEMS, ending, "items")
    corpus = read_table(events, items, k_core=1)
    assert rows_of(corpus) == (INTERACTIONS, DESCRIBED)
    assert corpus.notes == {"items_without_metadata": 0}


def test_columns_of_other_names(tmp_path: Path) -> None:
    theirs = {"user_id": "customer", "item_id": "sku", "timestamp": "ordered at", "title": "name"}
    events = pl.DataFrame(EVENTS).rename(theirs, strict=False)
    items = pl.DataFrame(ITEMS).rename(theirs, strict=False).drop("brand").with_columns(price=pl.lit(1.5))
    events.write_csv(tmp_path / "e.csv")
    items.write_csv(tmp_path / "i.csv")
    corpus = read_table(
        tmp_path / "e.csv",
        tmp_path / "i.csv",
        user="customer",
        item="sku",
        time="ordered at",
        title="name",
        k_core=1,
    )
    assert rows_of(corpus) == (INTERACTIONS, [DESCRIBED[0], ("b", "A title", "", ["Shop", "Tea"], "")])


def test_without_items_there_are_no_texts(tmp_path: Path) -> None:
    corpus = read_table(table(tmp_path, EVENTS), k_core=1)
    assert corpus.items.rows() == [("a", "", "", [], ""), ("b", "", "", [], "")]
    assert corpus.notes == {"items_without_metadata": 2}


def test_the_last_of_several_interactions_may_count(tmp_path: Path) -> None:
    corpus = read_table(table(tmp_path, EVENTS), k_core=1, keep="last")
    assert corpus.interactions.rows() == [("u1", "b", 20), ("u1", "a", 20), ("u2", "a", 30)]


def test_the_core_is_taken(tmp_path: Path) -> None:
    crowd = {"user_id": list("uuvvw"), "item_id": list("abaab"), "timestamp": [1, 2, 1, 2, 1]}
    crowd["item_id"][3] = "b"
    assert read_table(table(tmp_path, crowd), k_core=2).statistics()["users"] == 2


IDS = [
    ([7, 8, 7, 7], ["7", "8"]),
    ([1.0, 2.0, 1.0, 1.0], ["1", "2"]),
    ([Decimal("10.00"), Decimal("2.00"), Decimal("2.00"), Decimal("2.00")], ["10", "2"]),
    (pl.Series([2**63 + 1, 5, 5, 5], dtype=pl.UInt64), ["5", "9223372036854775809"]),
    (pl.Series([2**100, 2**100 + 1, 5, 5], dtype=pl.Int128), [str(2**100), str(2**100 + 1), "5"]),
    (
        [Decimal(10**19 + 1), Decimal(10**19 + 2), Decimal(5), Decimal(5)],
        [str(10**19 + 1), str(10**19 + 2), "5"],
    ),
    ([float(2**53 - 1), 0.0, -1.0, 0.0], ["-1", "0", str(2**53 - 1)]),
    (["9007199254740991.0", "1.5", "1.2.3", "1E5"], ["1.2.3", "1.5", "1E5", "9007199254740991.0"]),
    (["007", " 7", "é", "007"], [" 7", "007", "é"]),
    (pl.Series(["x", "y", "x", "x"], dtype=pl.Categorical), ["x", "y"]),
]


@pytest.mark.parametrize(("ids", "read"), IDS)
def test_ids_of_any_type_become_texts_with_all_their_digits(
    tmp_path: Path, ids: Any, read: list[str]
) -> None:
    corpus = read_table(table(tmp_path, EVENTS | {"item_id": ids}), k_core=1)
    assert corpus.items["item_id"].to_list() == read


ROUNDED = [
    [1.0, 9007199254740992.0, 2.0, 3.0],
    [1.0, -1e20, 2.0, 3.0],
    pl.Series([1, 2**24, 2, 3], dtype=pl.Float32),
    ["1", "9007199254740992.0", "2", "3"],
    ["1", "1.2345678901234568e+19", "2", "3"],
    ["1", "9.007199254740993E15", "2", "3"],  # as Java writes it
    ["1", "1.23457E+11", "2", "3"],  # as spreadsheets write it
    ["1", "1e+16", "2", "3"],
]


@pytest.mark.parametrize("ids", ROUNDED)
@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_ids_that_were_rounded_to_floats_are_refused(
    tmp_path: Path, ids: Any, column: str, ending: str
) -> None:
    if ending != "parquet" and isinstance(ids, pl.Series):
        pytest.skip("only Parquet knows short floats")
    path = table(tmp_path, EVENTS | {column: ids}, ending)
    with pytest.raises(ValueError, match=rf"row 2: '{column}' is '.*', a number that was rounded to a float"):
        read_table(path, k_core=1)


def test_ids_that_mean_that_something_is_missing_are_said_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = table(tmp_path, EVENTS | {"user_id": ["nan", "nan", "None", "Nan Goldin"]}, "csv")
    assert read_table(path, k_core=1).statistics()["users"] == 3
    assert [record.getMessage().partition(". ")[0] for record in caplog.records] == [
        f"{path}: 'user_id' is 'nan' in 2 rows",
        f"{path}: 'user_id' is 'None' in 1 rows",
    ]


def test_one_column_cannot_be_two_things(tmp_path: Path) -> None:
    events, items = table(tmp_path, EVENTS), table(tmp_path, ITEMS, name="items")
    with pytest.raises(ValueError, match=r"events\.parquet: the column 'item_id' is asked for 2 times"):
        read_table(events, user="item_id")
    with pytest.raises(ValueError, match=r"items\.parquet: the column 'brand' is asked for 2 times"):
        read_table(events, items, title="brand", description="brand", k_core=1)
    # The column that is named for something else is not the description as well.
    corpus = read_table(events, items, title="description", k_core=1)
    assert corpus.items.select("title", "description").row(0) == ("One, two.", "")


MAY = 1_714_557_600  # 2024-05-01T10:00:00Z, by date -u -d 2024-05-01T10:00:00Z +%s
TIMES = [
    ([MAY, 0], [MAY, 0]),
    ([float(MAY), 5.0], [MAY, 5]),
    ([Decimal("5.00"), Decimal("7.00")], [5, 7]),
    ([date(2024, 5, 1), date(1970, 1, 2)], [MAY - 36_000, 86_400]),
    ([datetime(2024, 5, 1, 10), datetime(2024, 5, 1, 10, 0, 0, 999_999)], [MAY, MAY]),
    ([datetime(2024, 5, 1, 10, tzinfo=UTC), datetime(2024, 5, 1, 11, tzinfo=UTC)], [MAY, MAY + 3600]),
    (["2024-05-01", "2024-05-01T10:00"], [MAY - 36_000, MAY]),
    (["2024-05-01 10:00:00", "2024-05-01T10:00:00.75Z"], [MAY, MAY]),
    (["2024-05-01T12:00:00+02:00", "2024-05-01T05:30:00-0430"], [MAY, MAY]),
    ([f"{MAY}", "12.0"], [MAY, 12]),
]


@pytest.mark.parametrize(("times", "seconds"), TIMES)
def test_times_become_seconds(tmp_path: Path, times: list[Any], seconds: list[int]) -> None:
    events = {"user_id": ["u", "v"], "item_id": ["a", "a"], "timestamp": times}
    corpus = read_table(table(tmp_path, events), k_core=1)
    assert corpus.interactions["timestamp"].to_list() == seconds


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_parts_of_a_second_decide_what_came_first(tmp_path: Path, ending: str) -> None:
    times = [datetime(2024, 5, 1, 10, 0, 0, part) for part in (300_000, 100_000, 200_000)]
    events = {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": times}
    corpus = read_table(table(tmp_path, events, ending), k_core=1)
    assert corpus.interactions["item_id"].to_list() == ["b", "c", "a"]


BAD_CELLS: list[tuple[str, Any, str]] = [
    ("timestamp", [1, None, 2, 3], "is missing"),
    ("timestamp", [1, -5, 2, 3], "is '-5', not a time"),
    ("timestamp", [1, 1_714_557_600_000, 2, 3], "is '1714557600000', not a time .*not milliseconds"),
    ("timestamp", [1.0, float("nan"), 2.0, 3.0], "is 'nan', not a time"),
    ("timestamp", [1.0, float("inf"), 2.0, 3.0], "is 'inf', not a time"),
    ("timestamp", [1.0, 1.5, 2.0, 3.0], "is '1.5', not a time"),
    ("timestamp", ["1", "soon", "2", "3"], "is 'soon', not a time"),
    ("timestamp", ["1", "31/05/2024", "2", "3"], "is '31/05/2024', not a time"),
    ("timestamp", ["1", "2024-02-30", "2", "3"], "is '2024-02-30', not a time"),
    ("timestamp", [date(2024, 5, 1), date(1969, 5, 1)] * 2, "is '1969-05-01', not a time"),
    (
        "timestamp",
        pl.Series([0, 2**31 - 1, 0, 0], dtype=pl.Int32).cast(pl.Date),
        "is '2147483647', not a time",
    ),
    ("timestamp", pl.Series([0, 2**63 - 1] * 2).cast(pl.Datetime("us")), "is '9223372036854775807', not a"),
    (
        "timestamp",
        pl.Series([0, 2**62] * 2).cast(pl.Datetime("ms", "UTC")),
        "is '4611686018427387904', not a",
    ),
    ("user_id", ["u", None, "v", "w"], "is missing"),
    ("user_id", ["u", " ", "v", "w"], "is ' ', not an id"),
    ("item_id", [1.0, 1.5, 2.0, 3.0], "is '1.5', not an id"),
    ("item_id", [1.0, float("nan"), 2.0, 3.0], "is 'nan', not an id"),
]


@pytest.mark.parametrize(("column", "values", "complaint"), BAD_CELLS)
def test_a_bad_cell_is_named(tmp_path: Path, column: str, values: Any, complaint: str) -> None:
    path = table(tmp_path, EVENTS | {column: values})
    with pytest.raises(ValueError, match=rf"events\.parquet, row 2: '{column}' {complaint}"):
        read_table(path, k_core=1)


BAD_TABLES = [
    ({"user_id": [[1], [2], [3], [4]]}, r"'user_id' holds List\(Int64\); ids are texts or numbers"),
    (
        {"user_id": [b"a", b"b", b"c", b"d"]},
        "'user_id' holds large_binary, not texts, numbers, times or lists of them",
    ),
    ({"user_id": [date(2024, 5, 1)] * 4}, "'user_id' holds Date; ids are texts or numbers"),
    (
        {"timestamp": [True, False, True, True]},
        "'timestamp' holds Boolean; times are numbers, dates or texts",
    ),
]


@pytest.mark.parametrize(("columns", "complaint"), BAD_TABLES)
def test_a_column_of_a_type_of_no_use_is_named(
    tmp_path: Path, columns: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=rf"events\.parquet: {complaint}"):
        read_table(table(tmp_path, EVENTS | columns), k_core=1)


HEADER = "user_id,item_id,timestamp\n"
BAD_FILES = [
    ("events.csv", f"{HEADER}u,a,1\nu,b,2,3\n", "line 3: 4 fields for 3 columns"),
    ("events.csv", f'{HEADER}u,a,1\n"u,b,2\n', "line 3: not CSV in UTF-8: unexpected end of data"),
    ("events.csv", f"{HEADER}u,a\n", "line 2: 2 fields for 3 columns"),
    ("events.csv", f"{HEADER}u,a,\n", "row 1: 'timestamp' is missing"),
    ("events.csv", "user_id,item_id,timestamp,timestamp\nu,a,9,1\n", "2 columns are called 'timestamp'"),
    ("events.csv", f'{HEADER}u,"5\\" screen",1\n', "line 2: not CSV in UTF-8: text behind the end"),
    ("events.csv", f"{HEADER}u,a\x1b[2J,\x1b[2J\n", "row 1: 'timestamp' is '\\x1b[2J', not a time"),
    ("events.csv", "user,item_id,timestamp\nu,a,1\n", "no column is called 'user_id'. Did you mean 'user'?"),
    ("events.csv", "user_id;item_id;timestamp\n", "no column is called 'user_id'."),
    ("events.csv", HEADER, "of 0 interactions nothing is left in the 5-core"),
    ("events.csv", f"{HEADER}u,a,1\n", "of 1 interactions nothing is left in the 5-core"),
    ("events.tsv", f"{HEADER}u,a,1\n", "no column is called 'user_id'. Known: user_id,item_id,timestamp."),
    ("events.jsonl", '{"user_id": 1}\n\n[1]\n', "line 3: not a JSON object: '[1]"),
    ("events.parquet", "PAR1 and no more", "cannot be read as parquet"),
    ("events.xlsx", "PK", "tables end in .parquet, .csv, .tsv or .jsonl"),
    ("events.csv", "", "is empty; give the interactions file"),
]


@pytest.mark.parametrize(("name", "content", "complaint"), BAD_FILES)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    path = text(tmp_path, content, name)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}[,:]? .*{re.escape(complaint)}"):
        read_table(path)


def test_bytes_that_are_no_text_and_gzip_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(f"{HEADER}u,a,1\n".encode() + b"\xff,b,2\n")
    with pytest.raises(ValueError, match=r"events\.csv, line 3: not CSV in UTF-8"):
        read_table(path)
    packed = table(tmp_path, EVENTS, "csv.gz")
    packed.write_bytes(packed.read_bytes()[:-6])
    with pytest.raises(ValueError, match=r"events\.csv\.gz: cut off or damaged"):
        read_table(packed)


def test_blank_lines_of_a_csv_do_not_count(tmp_path: Path) -> None:
    path = text(tmp_path, f"{HEADER}u,a,1\n\nu,b,2\n\n")
    assert read_table(path, k_core=1).interactions.rows() == [("u", "a", 1), ("u", "b", 2)]


def test_categories_are_lists_too(tmp_path: Path) -> None:
    items = {"item_id": ["a", "b"], "categories": [["Shop", " Tea", None, "", "Shop"], None]}
    corpus = read_table(table(tmp_path, EVENTS), table(tmp_path, items, name="items"), k_core=1)
    assert corpus.items["categories"].to_list() == [["Shop", "Tea"], []]


BAD_ITEMS = [
    ({"item_id": ["a", "b", "a"], "title": ["x", "y", "z"]}, "rows 1 and 3 both describe the item 'a'"),
    ({"item_id": ["a", None], "title": ["x", "y"]}, "row 2: 'item_id' is missing"),
    ({"item_id": ["q", "r"], "title": ["x", "y"]}, "describes none of the 2 items, such as 'a'"),
    ({"item_id": ["a", "b"], "price": [1, 2]}, "no column is called title, brand, categories, description"),
    ({"sku": ["a", "b"], "title": ["x", "y"]}, "no column is called 'item_id'"),
    ({"item_id": ["a", "b"], "title": [["x"], ["y"]]}, r"'title' holds List\(String\), not texts"),
    ({"item_id": ["a", "b"], "categories": [1, 2]}, "'categories' holds Int64, not lists of names"),
]


@pytest.mark.parametrize(("items", "complaint"), BAD_ITEMS)
def test_bad_items_are_named(tmp_path: Path, items: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=rf"items\.parquet[,:] {complaint}"):
        read_table(table(tmp_path, EVENTS), table(tmp_path, items, name="items"), k_core=1)


def test_a_text_column_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    items = table(tmp_path, ITEMS, name="items")
    with pytest.raises(
        ValueError, match=r"items\.parquet: no column is called 'titel'. Did you mean 'title'"
    ):
        read_table(table(tmp_path, EVENTS), items, title="titel", k_core=1)


cells = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(cells, cells, st.integers(0, 10**9)), min_size=1, max_size=8))
def test_whatever_the_ids_a_csv_gives_them_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]]
) -> None:
    frame = pl.DataFrame(rows, schema=list(EVENTS), orient="row")
    path = tmp_path_factory.mktemp("ids") / "events.csv"
    frame.write_csv(path, quote_style="always")
    first: dict[tuple[str, str], int] = {}
    for user, item, time in rows:
        first[user, item] = min(time, first.get((user, item), time))
    read = read_table(path, k_core=1).interactions.rows()
    assert {(user, item): time for user, item, time in read} == first


def test_sequence_files(tmp_path: Path) -> None:
    path = text(tmp_path, "2 30 10  30\n\n1\t10\n3 20 10\n", "Beauty.txt")
    texts = text(tmp_path, '{"item_id": 10, "title": "Soap", "categories": ["Bath"]}\n', "texts.jsonl")
    corpus = read_sequence_file(path, texts)
    assert corpus.interactions.rows() == [
        ("1", "10", 1),
        ("2", "30", 1),
        ("2", "10", 2),
        ("3", "20", 1),
        ("3", "10", 2),
    ]
    assert corpus.items.rows() == [
        ("10", "Soap", "", ["Bath"], ""),
        ("20", "", "", [], ""),
        ("30", "", "", [], ""),
    ]
    assert corpus.notes == {"items_without_metadata": 2}
    assert read_sequence_file(path).items["title"].to_list() == ["", "", ""]


BAD_SEQUENCES = [
    ("9", "not a user and at least one item, separated by blanks: '9"),
    ("1,2,3", "not a user and at least one item"),
    ("1 30", "user '1' has a line above already"),
    ("9 \udcff", "not utf-8"),
]


@pytest.mark.parametrize(("line", "complaint"), BAD_SEQUENCES)
def test_a_bad_sequence_is_named_or_skipped(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "sequences.txt"
    path.write_bytes(f"1 10 20\n\n{line}\n2 10\n".encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"sequences\.txt, line 3: {complaint}"):
        read_sequence_file(path)
    corpus = read_sequence_file(path, skip_bad_lines=True)
    assert corpus.skipped_lines == 1
    assert corpus.interactions.rows() == [("1", "10", 1), ("1", "20", 2), ("2", "10", 1)]


def test_the_core_of_sequences(tmp_path: Path) -> None:
    path = text(tmp_path, "1 a b\n2 a b c\n3 c\n", "s.txt")
    assert read_sequence_file(path, k_core=2).interactions.rows() == [
        ("1", "a", 1),
        ("1", "b", 2),
        ("2", "a", 1),
        ("2", "b", 2),
    ]
    with pytest.raises(ValueError, match=r"s\.txt: of 6 interactions nothing is left in the 3-core"):
        read_sequence_file(path, k_core=3)


def test_the_page_on_your_data_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in re.findall(r"`([\w/.-]+)`:\n\n```(?:csv|text|json)\n(.*?)```", PAGE, re.DOTALL):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).write_text(content)
    benchmarks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    sections = [benchmark["data"] for benchmark in benchmarks]
    assert {section["reader"] for section in sections} == {"table", "sequences"}
    for section in sections:
        read = READERS.load(section.pop("reader"))
        raw = Path(section.pop("raw"))
        parameters = inspect.signature(read).parameters
        files = [name for name in section if "Path" in str(parameters[name].annotation)]
        corpus = read(**section | {name: raw / section[name] for name in files}, k_core=1)
        assert len(corpus.items) == 3
        assert corpus.items["title"][0]
    printed = [json.loads(line) for line in re.findall(r"^# (\{.*\})$", PAGE, re.MULTILINE)]
    said: list[Any] = []
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/your-data.md", "exec"), {"print": said.append})  # noqa: S102 — our own page
    assert said == printed


def test_categories_that_nobody_has_are_none(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,a,1\n")
    pl.DataFrame({"item_id": ["a"], "categories": [None]}).write_parquet(tmp_path / "items.parquet")
    corpus = read_table(tmp_path / "log.csv", tmp_path / "items.parquet", k_core=1)
    assert corpus.items["categories"].to_list() == [[]]
