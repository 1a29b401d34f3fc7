"""Published codes in every format, and one clear message for each error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.amazon import read_amazon
from recsys.datasets.published_codes import read_codes

SHARED = Path(__file__).parents[3] / "../shared/data"
PUBLISHED = SHARED / "semantic_ids" / "beauty2014_semantic_ids.parquet"

ITEMS = ["a", "b", "c"]
CODES = {"c": [5, 0, 2], "other": [9, 9, 9], "a": [1, 2, 0], "b": [1, 3, 1]}
EXPECTED = [[1, 2, 0], [1, 3, 1], [5, 0, 2]]


def parquet_of_lists(folder: Path) -> Path:
    path = folder / "codes.parquet"
    pl.DataFrame({"item_id": list(CODES), "codes": list(CODES.values())}).write_parquet(path)
    return path


def parquet_of_arrays(folder: Path) -> Path:
    path = folder / "codes.parquet"
    codes = pl.Series(list(CODES.values()), dtype=pl.Array(pl.UInt8, 3))
    pl.DataFrame({"item_id": list(CODES), "codes": codes}).write_parquet(path)
    return path


def json_of_numbers(folder: Path) -> Path:
    path = folder / "codes.json"
    path.write_text(json.dumps(CODES))
    return path


def json_of_tokens(folder: Path) -> Path:
    path = folder / "Beauty.index.json"
    tokens = {
        item: [f"<{level}_{code}>" for level, code in zip("abc", codes, strict=True)]
        for item, codes in CODES.items()
    }
    path.write_text(json.dumps(tokens, indent=2))
    return path


def json_lines(folder: Path) -> Path:
    path = folder / "codes.jsonl"
    path.write_text("\n".join(json.dumps({item: codes}) for item, codes in CODES.items()))
    return path


@pytest.mark.parametrize(
    "write", [parquet_of_lists, parquet_of_arrays, json_of_numbers, json_of_tokens, json_lines]
)
def test_codes_are_put_in_the_order_of_the_items(write: Callable[[Path], Path], tmp_path: Path) -> None:
    ids = read_codes(write(tmp_path), item_ids=ITEMS)
    assert ids.codes.tolist() == EXPECTED
    assert ids.codes.dtype == np.int64
    assert ids.codes.flags.writeable  # torch.from_numpy warns of what is not
    assert ids.codebook_sizes == (6, 4, 3)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_column_a_level(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"codes.{suffix}"
    columns = dict(zip(("third", "second", "first"), zip(*CODES.values(), strict=True), strict=True))
    frame = pl.DataFrame({"asin": list(CODES), **columns})
    (frame.write_csv if suffix == "csv" else frame.write_parquet)(path)
    levels = ["third", "second", "first"]
    assert read_codes(path, item_ids=ITEMS, key="asin", column=levels).codes.tolist() == EXPECTED
    assert read_codes(path, item_ids=ITEMS, key="asin", column="second").codes.tolist() == [[2], [3], [0]]


def test_ids_of_a_csv_are_texts_also_where_they_look_like_numbers(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("item_id,codes\n0012,3\n12,4\n")
    assert read_codes(path, item_ids=["12", "0012"]).codes.tolist() == [[4], [3]]


def test_ids_that_are_numbers_are_found_by_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "codes.parquet"
    pl.DataFrame({"item_id": [10, 11], "codes": [[1, 2], [3, 4]]}).write_parquet(path)
    assert read_codes(path, item_ids=["11", "10"]).codes.tolist() == [[3, 4], [1, 2]]


def test_the_first_levels_alone(tmp_path: Path) -> None:
    ids = read_codes(json_of_numbers(tmp_path), item_ids=ITEMS, levels=2)
    assert ids.codes.tolist() == [row[:2] for row in EXPECTED]
    assert ids.codebook_sizes == (6, 4)


def test_a_codebook_size_holds_for_all_levels(tmp_path: Path) -> None:
    assert read_codes(json_of_numbers(tmp_path), item_ids=ITEMS, codebook_size=8).codebook_sizes == (8, 8, 8)


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        (
            {"b": None},
            {},
            "1 items of the catalogue have no list of codes; first: b",
        ),
        ({"a": [], "c": []}, {}, "2 items of the catalogue have no list of codes; first: a, c"),
        (
            {"b": [1, 10**12, 1]},
            {},
            "1 items of the catalogue have codes above 10,000,000, are these item IDs?",
        ),
        ({"b": [1, 3]}, {}, "1 items of the catalogue do not have 3 codes, as the first item has; first: b"),
        ({}, {"levels": 4}, "3 items of the catalogue have fewer than 4 codes; first: a, b, c"),
        ({"b": [1, -3, 1]}, {}, "1 items of the catalogue have codes that are no integers from 0; first: b"),
        (
            {"c": [1, None, 1]},
            {},
            "1 items of the catalogue have codes that are no integers from 0; first: c",
        ),
        ({}, {"codebook_size": 5}, "1 items of the catalogue have codes above 4; first: c"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "json"])
def test_wrong_codes_are_reported_with_the_first_items(
    suffix: str, changes: dict[str, Any], options: dict[str, int], expected: str, tmp_path: Path
) -> None:
    path, codes = tmp_path / f"codes.{suffix}", {**CODES, **changes}
    if suffix == "json":
        path.write_text(json.dumps(codes))
    else:
        pl.DataFrame({"item_id": list(codes), "mine": list(codes.values())}).write_parquet(path)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 — the message is looked at below
        read_codes(path, item_ids=ITEMS, column="mine", **options)
    where = f"{path}, column mine: " if suffix == "parquet" else f"{path}: "
    assert str(caught.value).startswith(where + expected)


@pytest.mark.parametrize("code", [1.5, 2.0, True, "a", "<a_>", "1 2", [1], 10**30])
def test_what_is_no_code_is_refused(code: object, tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    path.write_text(json.dumps({"a": [1], "b": [code]}))
    with pytest.raises(
        ValueError, match="1 items of the catalogue have codes that are no integers from 0; first: b"
    ):
        read_codes(path, item_ids=["a", "b"])


@pytest.mark.parametrize("suffix", ["parquet", "json", "jsonl"])
def test_an_item_that_occurs_twice_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"codes.{suffix}"
    if suffix == "parquet":
        frame = pl.DataFrame({"item_id": ["a", "x", "b", "x", "a"], "codes": [[1], [2], [3], [4], [5]]})
        frame.write_parquet(path)
    else:
        path.write_text('{"a": [1], "x": [2], "b": [3], "x": [4], "a": [5]}')
    with pytest.raises(ValueError, match=r"1 items of the catalogue have more than one row; first: a$"):
        read_codes(path, item_ids=["a", "b"])
    assert read_codes(path, item_ids=["b"]).codes.tolist() == [
        [3]
    ]  # x, which occurs twice, is not in the catalogue


def test_only_the_first_few_items_are_named(tmp_path: Path) -> None:
    path = tmp_path / "codes.json"
    path.write_text('{"0": [1]}')
    with pytest.raises(
        ValueError, match=r"100 items of the catalogue do not stand there, but '0', .*; first: i0, i1, i2$"
    ):
        read_codes(path, item_ids=[f"i{number}" for number in range(100)])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("codes.txt", "", "it must end in .parquet, .csv, .json or .jsonl"),
        ("codes.json", "{}", "there are no items"),
        ("codes.json", '{"a": "1 2"}', "1 items of the catalogue have no list of codes; first: a"),
        ("codes.json", '{"a": null}', "1 items of the catalogue have no list of codes; first: a"),
        (
            "codes.csv",
            'item_id,codes\na,"[1, 2]"\n',
            "no integers from 0 (a CSV has one column for each level)",
        ),
        ("codes.json", '{"a": [1]', "line 1: not JSON"),
        ("codes.json", "[1, 2]", "line 1: must be an object"),
        ("codes.json", '{"a": [1], "b": "\udcff"}', "line 1: not JSON (not utf-8"),
        ("codes.json", '{"a":' * 100_000, "line 1: not JSON (maximum recursion depth"),
        ("codes.jsonl", '{"\\ud800": [1]}', "a text has a lone surrogate, '\\ud800'"),
        ("codes.json", "", "is empty; give the codes file"),
        ("codes.jsonl", '{"a": [1]}\n{"b"}', "line 2: not JSON"),
        ("codes.parquet", "no table", "cannot be read as parquet"),
        ("codes.csv", "item_id,code\na,1\n", "no column is called 'codes'. Did you mean 'code'?"),
        ("codes.csv", f"item_id,codes\n{'b' * 9999},1\n", f"{'b' * 60}', for one, does; first: a"),
        ("codes.csv", "asin,codes\na,1\n", "no column is called 'item_id'."),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 — the message is looked at below
        read_codes(path, item_ids=["a"])
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)


@pytest.mark.parametrize("column", ["codes", "b"])
def test_a_column_of_codes_is_no_key(column: str, tmp_path: Path) -> None:
    path = tmp_path / "codes.parquet"
    pl.DataFrame({"codes": [[1]], "b": [2]}).write_parquet(path)
    with pytest.raises(
        ValueError, match="column 'codes' holds codes; name the column of the item IDs with key"
    ):
        read_codes(path, item_ids=["a"], key="codes", column=column)
    pl.DataFrame({"asin": [1]}).write_parquet(path)
    with pytest.raises(
        ValueError, match="column 'asin' holds codes; name the column of the item IDs with key"
    ):
        read_codes(path, item_ids=["1"], key="asin", column="asin")


def test_the_ending_may_be_in_capitals(tmp_path: Path) -> None:
    for write in (parquet_of_lists, json_lines):
        path = write(tmp_path)
        path = path.rename(path.with_suffix(path.suffix.upper()))
        assert read_codes(path, item_ids=ITEMS).codes.tolist() == EXPECTED


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    for suffix in ("parquet", "csv", "json"):
        with pytest.raises(FileNotFoundError):
            read_codes(tmp_path / f"none.{suffix}", item_ids=["a"])


@pytest.fixture(scope="module")
def beauty() -> list[str]:
    if not PUBLISHED.exists():
        pytest.skip("the published codes of Amazon Beauty are not in ../shared/data")
    raw = SHARED / "amazon2014"
    corpus = read_amazon(raw / "reviews_Beauty_5.json.gz", raw / "meta_Beauty.json.gz", k_core=5)
    return corpus.items["item_id"].to_list()


@pytest.mark.parametrize(
    ("column", "distinct", "distinct_prefixes"),
    [
        ("letter_rqvae", 12088, 11696),
        ("tiger_rqvae", 12101, 11412),
        ("tiger_rqkmeans", 12101, 7840),
        ("tiger_kmeans", 12101, 8069),
    ],
)
def test_published_codes_of_beauty(
    beauty: list[str], column: str, distinct: int, distinct_prefixes: int
) -> None:
    ids = read_codes(PUBLISHED, item_ids=beauty, key="asin", column=column)
    assert ids.codebook_sizes == (256,) * 4
    assert len(ids.leaves) == distinct
    rows = pl.read_parquet(PUBLISHED).filter(pl.col("asin") == beauty[7])
    assert ids.codes[7].tolist() == rows[column][0].to_list()
    three = read_codes(PUBLISHED, item_ids=beauty, key="asin", column=column, levels=3)
    assert len(three.leaves) == distinct_prefixes


def test_two_columns_of_codes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("item_id,code,code\na,0,9\nb,1,8\n")
    with pytest.raises(ValueError, match=r"codes\.csv: 2 columns are called 'code'"):
        read_codes(path, item_ids=["a", "b"], column=["code"])
    path.write_text("item_id,code,fine\na,0,9\nb,1,8\n")
    with pytest.raises(ValueError, match=r"codes\.csv: the column 'code' is asked for 2 times"):
        read_codes(path, item_ids=["a", "b"], column=["code", "code"])


def test_messages_do_not_obey_control_characters_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("item_id,code\na,0\n\x1b[2J,x\n")
    with pytest.raises(ValueError, match=r"first: \\x1b\[2J$"):
        read_codes(path, item_ids=["a", "\x1b[2J"], column=["code"])
