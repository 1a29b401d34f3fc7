import ast
import csv
import gzip
import html
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.datasets.amazon import read_amazon
from recsys.datasets.amazon.reviews import LONGEST_ID, read_events
from recsys.datasets.corpus import Corpus

DATA = (Path(__file__).parents[3] / "../shared/data").resolve()
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the Amazon files are not in ../shared/data")
RAW, AMAZON = DATA / "raw_samples", DATA / "amazon2014"

REVIEWS = [
    {"reviewerID": "U2", "asin": "B1", "unixReviewTime": 100, "overall": 5.0, "helpful": [1, 2]},
    {"reviewerID": "U1", "asin": "B2", "unixReviewTime": 300, "reviewText": "Good.", "summary": "Ok"},
    {"reviewerID": "U1", "asin": "B1", "unixReviewTime": 200, "reviewTime": "01 30, 2014"},
    {"reviewerID": "U1", "asin": "B3", "unixReviewTime": 200},
]
ROWS = [("U1", "B1", 200), ("U1", "B3", 200), ("U1", "B2", 300), ("U2", "B1", 100)]
META = [
    {
        "asin": "B2",
        "salesRank": {"Beauty": 1},
        "title": "Soap  &amp; Co",
        "brand": "Burt&#39;s",
        "price": 1.5,
    },
    {
        "asin": "B1",
        "title": 'An "8" inch',
        "brand": "Unknown",
        "categories": [["R", "X", "Y"], ["R", "Z&amp;"]],
        "description": "No part of the texts.",
    },
]
ITEMS = [
    ("B1", 'An "8" inch', "", ["R", "X", "Y", "Z&"], ""),
    ("B2", "Soap & Co", "Burt's", [], ""),
    ("B3", "", "", [], ""),
]


def write(path: Path, lines: list[str]) -> Path:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def reviews_file(folder: Path, rows: list[Any] = REVIEWS) -> Path:
    return write(folder / "reviews.json.gz", [json.dumps(row) for row in rows])


def meta_file(folder: Path, rows: list[Any] = META) -> Path:
    return write(folder / "meta.json.gz", [repr(row) for row in rows])


def json_meta_file(folder: Path, rows: list[Any]) -> Path:
    return write(folder / "meta.json.gz", [json.dumps(row) for row in rows])


def test_reads_the_release_of_2014(tmp_path: Path) -> None:
    corpus = read_amazon(reviews_file(tmp_path), meta_file(tmp_path), k_core=1)
    assert corpus.interactions.rows() == ROWS
    assert corpus.items.rows() == ITEMS
    assert corpus.skipped_lines == 0
    assert corpus.notes == {"items_without_metadata": 1, "duplicate_reviews": 0}
    assert corpus.top_categories() == ["X", None, None]


def test_reads_the_release_of_2018(tmp_path: Path) -> None:
    meta = [
        {"asin": "B9", "title": "nobody's"},
        {"asin": "B1", "title": "Loud&trade; \n one", "brand": "", "category": ["R", "X &amp; Y", "R"]},
        {"asin": "B2", "title": "var t = (new Date()).getTime();", "brand": "\n  by Me", "category": []},
        {"asin": "B3", "title": "", "brand": None, "category": None},
    ]
    for described in (meta, [*meta, ["not", "an", "object"]]):  # by polars, and line by line
        corpus = read_amazon(
            reviews_file(tmp_path),
            json_meta_file(tmp_path, described),
            release=2018,
            k_core=1,
            skip_bad_lines=True,
        )
        assert corpus.interactions.rows() == ROWS
        assert corpus.items.rows() == [
            ("B1", "Loud\u2122 one", "", ["R", "X & Y"], ""),
            ("B2", "", "by Me", [], ""),
            ("B3", "", "", [], ""),
        ]
        assert corpus.skipped_lines == len(described) - len(meta)
        assert corpus.notes == {"items_without_metadata": 0, "duplicate_reviews": 0}


def test_reads_the_release_of_2023_by_the_millisecond_in_whole_seconds(tmp_path: Path) -> None:
    reviews = [
        {"user_id": "U1", "asin": "V2", "parent_asin": "P2", "timestamp": 1588687728999, "images": []},
        {"user_id": "U1", "asin": "V1", "parent_asin": "P1", "timestamp": 1588687728923},
        {"user_id": "U1", "asin": "V3", "parent_asin": "P1", "timestamp": 1588687728924},
        {"user_id": "U0", "asin": "V1", "parent_asin": "P1", "timestamp": 0},
    ]
    meta = [
        {"parent_asin": "P1", "title": None, "store": "Zo\u00eb", "categories": ["R", "X"], "price": None}
    ]
    corpus = read_amazon(
        reviews_file(tmp_path, reviews), json_meta_file(tmp_path, meta), release=2023, k_core=1
    )
    assert corpus.interactions.rows() == [
        ("U0", "P1", 0),
        ("U1", "P1", 1588687728),
        ("U1", "P2", 1588687728),
    ]
    assert corpus.items.rows() == [("P1", "", "Zo\u00eb", ["R", "X"], ""), ("P2", "", "", [], "")]
    assert corpus.notes == {"items_without_metadata": 1, "duplicate_reviews": 1}


RATINGS: list[tuple[int, list[str]]] = [
    (2014, ["U2,B1,5.0,100", "U1,B2,4.0,300", "U1,B1,1.0,200", "U1,B3,1.0,200"]),
    (2018, ["B1,U2,5.0,100", "B2,U1,4.0,300", "B1,U1,1.0,200", "B3,U1,1.0,200"]),
    (
        2023,
        [
            "user_id,parent_asin,rating,timestamp",
            "U2,B1,5.0,100999",
            "U1,B2,4.0,300000",
            "U1,B1,1.0,200001",
            "U1,B3,1.0,200001",
        ],
    ),
]


@pytest.mark.parametrize(("release", "lines"), RATINGS)
@pytest.mark.parametrize("blank", [False, True])  # with a blank line polars cannot read it
def test_reads_files_of_ratings_only(tmp_path: Path, release: Any, lines: list[str], blank: bool) -> None:
    ratings = write(tmp_path / "ratings.csv.gz", [*lines, ""] if blank else lines)
    corpus = read_amazon(ratings, release=release, k_core=1)
    assert corpus.interactions.rows() == ROWS
    assert corpus.items.rows() == [(item, "", "", [], "") for item in ("B1", "B2", "B3")]
    assert corpus.notes == {"items_without_metadata": 3, "duplicate_reviews": 0}


def test_plain_text_and_zstd_read_like_gzip(tmp_path: Path) -> None:
    packed = reviews_file(tmp_path), meta_file(tmp_path)
    expected = read_amazon(*packed, k_core=1).digest()
    for name, pack in (("plain", bytes), ("zstd", zstd)):
        (tmp_path / name).mkdir()
        files = [tmp_path / name / file.name for file in packed]
        for source, target in zip(packed, files, strict=True):
            target.write_bytes(pack(gzip.decompress(source.read_bytes())))
        assert read_amazon(*files, k_core=1).digest() == expected


def test_only_one_of_several_reviews_of_an_item_counts(tmp_path: Path) -> None:
    again = [
        {"reviewerID": "U1", "asin": "B1", "unixReviewTime": 250},
        {"reviewerID": "U1", "asin": "B1", "unixReviewTime": 150},
    ]
    reviews = reviews_file(tmp_path, [*REVIEWS, *again])
    first, last = read_amazon(reviews, k_core=1), read_amazon(reviews, k_core=1, keep="last")
    assert first.interactions.rows() == [("U1", "B1", 150), *ROWS[1:]]
    assert last.interactions.rows() == [ROWS[1], ("U1", "B1", 250), *ROWS[2:]]
    assert first.notes["duplicate_reviews"] == last.notes["duplicate_reviews"] == 2


def test_duplicates_do_not_help_into_the_core(tmp_path: Path) -> None:
    pairs = [(user, item) for user in ("U1", "U2") for item in ("B1", "B2")]
    twice = [("U3", "B1"), ("U3", "B1")]
    rows = [
        {"reviewerID": user, "asin": item, "unixReviewTime": n}
        for n, (user, item) in enumerate(pairs + twice)
    ]
    corpus = read_amazon(reviews_file(tmp_path, rows), k_core=2)
    assert corpus.interactions.select("user_id", "item_id").rows() == pairs


BAD_REVIEWS = [
    ('{"reviewerID": "U1", "asin"', "not JSON"),
    ("{'reviewerID': 'U1', 'asin': 'B1', 'unixReviewTime': 1}", "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ("[" * 100_000, "not JSON"),
    ('{"reviewerID": "U1", "asin": "B1"}', "lacks unixReviewTime; is this the 2014 release"),
    ('{"reviewerID": null, "unixReviewTime": 1}', "lacks reviewerID, asin"),
    ('{"reviewerID": "", "asin": "B1", "unixReviewTime": 1}', "lacks reviewerID"),
    ('{"reviewerID": "U1", "asin": "B1", "unixReviewTime": "soon"}', "unixReviewTime is 'soon'"),
    ('{"reviewerID": "U1", "asin": "B1", "unixReviewTime": 1.5}', "unixReviewTime is 1.5"),
    ('{"reviewerID": "U1", "asin": "B1", "unixReviewTime": NaN}', "unixReviewTime is nan"),
    ('{"reviewerID": "U1", "asin": "B1", "unixReviewTime": 1e999}', "unixReviewTime is inf"),
    ('{"reviewerID": "U1", "asin": "B1", "unixReviewTime": true}', "unixReviewTime is True"),
    ('{"reviewerID": "U1", "asin": "B1", "unixReviewTime": -1}', "unixReviewTime is -1, not between"),
    (
        '{"reviewerID": "U1", "asin": "B1", "unixReviewTime": 1588687728923}',
        "unixReviewTime is 1588687728923",
    ),
    ('{"reviewerID": "U1", "asin": "B1", "unixReviewTime": 99999999999999999999}', "unixReviewTime is 9999"),
    ('{"reviewerID": ["U1"], "asin": "B1", "unixReviewTime": 1}', "reviewerID is .* not a name"),
    (
        '{"reviewerID": %s, "asin": "B1", "unixReviewTime": 1}' % ("[" * 900 + "]" * 900),
        "reviewerID is .* not a name",
    ),
    ('{"reviewerID": "U1", "asin": "B\\ud800", "unixReviewTime": 1}', "asin is .* not a name"),
    ('{"reviewerID": "U1", "asin": "B\\u0000", "unixReviewTime": 1}', "asin is .* not a name"),
    (
        '{"reviewerID": "U1", "asin": "%s", "unixReviewTime": 1}' % ("B" * (LONGEST_ID + 1)),
        "asin is .* not a",
    ),
]


@pytest.mark.parametrize(("line", "complaint"), BAD_REVIEWS)
def test_a_bad_review_is_named_or_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, complaint: str
) -> None:
    good, meta = [json.dumps(row) for row in REVIEWS], meta_file(tmp_path)
    bad = write(tmp_path / "bad.json.gz", [good[0], "", line, *good[1:]])
    with pytest.raises(ValueError, match=rf"bad\.json\.gz, line 3: {complaint}"):
        read_amazon(bad, meta, k_core=1)
    with caplog.at_level(logging.WARNING):
        corpus = read_amazon(bad, meta, k_core=1, skip_bad_lines=True)
    assert corpus.skipped_lines == 1
    assert "line 3: " in caplog.text
    assert corpus.digest() == read_amazon(reviews_file(tmp_path), meta, k_core=1).digest()


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(json.dumps(REVIEWS[0]).encode() + b'\n{"asin": "\xff"}\n')
    with pytest.raises(ValueError, match=r"bad\.json, line 2: not utf-8"):
        read_amazon(bad, k_core=1)


BAD_RATINGS = [
    ("B1,U3,5.0", "3 cells instead of asin,reviewerID,rating,unixReviewTime"),
    ("B1,U3,5.0,1,2", "5 cells"),
    ("B1\tU3\t5.0\t1", "1 cells"),
    ('"B1,U3,5.0,1', "not CSV"),
    (",U3,5.0,1", "asin is ''"),
    (
        "asin,reviewerID,rating,unixReviewTime",
        "unixReviewTime is 'unixReviewTime', not a whole number of seconds",
    ),
    ("B1,U3,5.0,1.5", "unixReviewTime is '1.5'"),
    ("B1,U3,5.0,nan", "unixReviewTime is 'nan'"),
    ("B1,U3,5.0,-5", "unixReviewTime is '-5'"),
    ("B1,U3,5.0,", "unixReviewTime is ''"),
    ("B1,U3,5.0,99999999999999", "unixReviewTime is 99999999999999, not between"),
]


@pytest.mark.parametrize(("line", "complaint"), BAD_RATINGS)
def test_a_bad_rating_is_named_or_skipped(tmp_path: Path, line: str, complaint: str) -> None:
    good = dict(RATINGS)[2018]
    bad = write(tmp_path / "bad.csv.gz", [good[0], line, *good[1:]])
    with pytest.raises(ValueError, match=rf"bad\.csv\.gz, line 2: {complaint}"):
        read_amazon(bad, release=2018, k_core=1)
    corpus = read_amazon(bad, release=2018, k_core=1, skip_bad_lines=True)
    assert corpus.skipped_lines == 1
    assert corpus.interactions.rows() == ROWS


def test_the_header_of_ratings_is_checked(tmp_path: Path) -> None:
    lines = ["user_id,asin,rating,timestamp", *dict(RATINGS)[2023][1:]]
    with pytest.raises(ValueError, match=r"the header must be user_id,parent_asin,rating,timestamp"):
        read_amazon(write(tmp_path / "ratings.csv.gz", lines), release=2023, k_core=1)


def test_quoted_cells_are_read_as_their_contents(tmp_path: Path) -> None:
    lines = [line.replace("U1", '"U1"') for line in dict(RATINGS)[2018]]
    assert (
        read_amazon(write(tmp_path / "r.csv.gz", lines), release=2018, k_core=1).interactions.rows() == ROWS
    )


@pytest.mark.parametrize("rating", ["", "\r", '"', '"' * 999, "é"])
def test_the_rating_itself_makes_no_difference(tmp_path: Path, rating: str) -> None:
    lines = [line.replace("5.0", rating) for line in dict(RATINGS)[2018]]
    path = tmp_path / "r.csv"
    path.write_bytes("\n".join(lines).encode())
    sound = read_amazon(path, release=2018, k_core=1)
    assert sound.interactions.rows() == ROWS
    path.write_bytes("\n".join([*lines, "broken"]).encode())
    assert read_amazon(path, release=2018, k_core=1, skip_bad_lines=True).digest() == sound.digest()


def test_lone_surrogates_and_absurd_entities_stay_the_same_with_a_broken_line(tmp_path: Path) -> None:
    reviews = reviews_file(tmp_path)
    absurd = f"&#{'9' * 5000};"
    rows = [{"asin": "B1", "title": "half \ud800 of one", "category": ["R", "\ud83d"]}]
    rows.append({"asin": "B2", "title": absurd, "brand": "A&amp;B"})
    lines = [json.dumps(row) for row in rows]
    sound = read_amazon(reviews, write(tmp_path / "m.json", lines), release=2018, k_core=1)
    items = {item: rest for item, *rest in sound.items.iter_rows()}
    assert items["B1"] == ["half ? of one", "", ["R", "?"], ""]
    assert items["B2"] == [absurd, "A&B", [], ""]
    path = write(tmp_path / "n.json", [*lines, "broken"])
    again = read_amazon(reviews, path, release=2018, k_core=1, skip_bad_lines=True)
    assert again.items.equals(sound.items)


def test_a_byte_order_mark_and_a_plus_make_no_difference_with_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    lines = [line.replace(",5.0,", ",5.0,+") for line in dict(RATINGS)[2018]]
    for more, skipped in (([], 0), (["broken"], 1)):
        path.write_text("\n".join([*lines, *more]), encoding="utf-8-sig")
        corpus = read_amazon(path, release=2018, k_core=1, skip_bad_lines=True)
        assert (corpus.skipped_lines, corpus.interactions.rows()) == (skipped, ROWS)


def test_numbers_in_place_of_texts_are_the_same_texts_with_a_broken_line(tmp_path: Path) -> None:
    reviews = reviews_file(tmp_path)
    lines = ['{"asin": "B1", "title": -0, "brand": 1.50, "category": [7, null, true]}', '{"asin": 12}']
    sound = read_amazon(reviews, write(tmp_path / "m.json", lines), release=2018, k_core=1)
    assert sound.items.row(0) == ("B1", "0", "1.5", ["7", "true"], "")
    path = write(tmp_path / "n.json", [*lines, "broken"])
    again = read_amazon(reviews, path, release=2018, k_core=1, skip_bad_lines=True)
    assert (again.skipped_lines, again.items.equals(sound.items)) == (1, True)


BAD_META = [
    ("{'asin': 'B1', 'title'", "not a Python literal"),
    ("{'asin': 'B1', 'title': open('made-by-eval', 'w')}", "not a Python literal"),
    ('{"asin": "B1", "title": null}', "not a Python literal"),
    ("{'asin': 'B1', 'title': {[]: 1}}", "not a Python literal"),
    ("{'asin': 'B1', 'title': " + "(" * 10_000, "not a Python literal"),
    ("['asin', 'B1']", "not a dict with asin"),
    ("{'title': 'no asin'}", "not a dict with asin"),
    ("{'asin': 'B1', 'title': 7}", "title and brand must be texts"),
    ("{'asin': 'B1', 'categories': ['R', 'X']}", "categories must be a list of lists"),
    ("{'asin': 'B1', 'categories': [['R', ['X']]]}", "the names in categories must be texts"),
]


@pytest.mark.parametrize(("line", "complaint"), BAD_META)
def test_a_bad_description_is_named_or_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = write(tmp_path / "bad.json.gz", [repr(META[0]), line])
    with pytest.raises(ValueError, match=rf"bad\.json\.gz, line 2: {complaint}"):
        read_amazon(reviews_file(tmp_path), bad, k_core=1)
    corpus = read_amazon(reviews_file(tmp_path), bad, k_core=1, skip_bad_lines=True)
    assert corpus.skipped_lines == 1
    assert corpus.items["title"].to_list() == ["", "Soap & Co", ""]
    assert not Path("made-by-eval").exists()


@pytest.mark.parametrize("blank", [False, True])  # with a blank line polars does not read the block
def test_a_review_with_its_item_twice_is_broken(tmp_path: Path, blank: bool) -> None:
    twice = '{"reviewerID": "U1", "asin": "B1", "asin": "B2", "unixReviewTime": 250}'
    lines = [*map(json.dumps, REVIEWS), *([""] if blank else []), twice]
    path = write(tmp_path / "reviews.json.gz", lines)
    with pytest.raises(ValueError, match=rf"line {len(lines)}: the key 'asin' is given twice"):
        read_amazon(path, k_core=1)
    assert read_amazon(path, k_core=1, skip_bad_lines=True).skipped_lines == 1


@pytest.mark.parametrize("blank", [False, True])
def test_the_first_of_two_titles_counts_but_two_ids_are_broken(tmp_path: Path, blank: bool) -> None:
    reviews, title = reviews_file(tmp_path), '{"asin": "B1", "title": "one", "title": "two"}'
    meta = write(tmp_path / "meta.json.gz", [*([""] if blank else []), title])
    assert read_amazon(reviews, meta, release=2018, k_core=1).items["title"][0] == "one"
    meta = write(tmp_path / "meta.json.gz", [*([""] if blank else []), '{"asin": "B9", "asin": "B1"}'])
    with pytest.raises(ValueError, match=rf"line {1 + blank}: the key 'asin' is given twice"):
        read_amazon(reviews, meta, release=2018, k_core=1)


@pytest.mark.parametrize(
    "line", ["{'asin': 'B1', 'title': 'one', 'title': 'two'}", "{'asin': 'B1', 'asin': 'B2'}"]
)
def test_a_literal_with_a_key_twice_is_broken(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match="line 1: a key is given twice"):
        read_amazon(reviews_file(tmp_path), write(tmp_path / "meta.json.gz", [line]), k_core=1)


def test_a_literal_that_would_fill_the_memory_is_broken(tmp_path: Path) -> None:
    meta = write(tmp_path / "meta.json.gz", ["{'asin': 'B1', 'related': [" + "[]," * 400_000 + "]}"])
    with pytest.raises(ValueError, match="line 1: longer than 1048576 bytes"):
        read_amazon(reviews_file(tmp_path), meta, k_core=1)


def test_blocks_of_a_large_file_become_one_frame(tmp_path: Path) -> None:
    # Above 16 MiB, with one line in the second block that only Python reads.
    pad = "x" * 100_000
    rows = [{"reviewerID": f"U{n % 7}", "asin": f"B{n}", "unixReviewTime": n, "pad": pad} for n in range(400)]
    lines = [json.dumps(row) for row in rows]
    lines[300] = lines[300].replace('"B300"', "300")
    corpus = read_amazon(write(tmp_path / "reviews.json.gz", lines), k_core=1)
    expected = [(f"U{n % 7}", "300" if n == 300 else f"B{n}", n) for n in range(400)]
    assert corpus.interactions.rows() == sorted(expected, key=lambda row: (row[0], row[2]))
    lines[399] = lines[399][:-1]
    with pytest.raises(ValueError, match="line 400: not JSON"):
        read_amazon(write(tmp_path / "reviews.json.gz", lines), k_core=1)


BAD_JSON_META = [
    ("{'asin': 'B1'}", "not JSON"),
    ('{"title": "no asin"}', "not a JSON object with asin"),
    ('"B1"', "not a JSON object"),
    ('{"asin": "B1", "category": "R"}', "category must be a list of names"),
    ('{"asin": "B1", "category": {"R": 1}}', "category must be a list of names"),
]


@pytest.mark.parametrize(("line", "complaint"), BAD_JSON_META)
def test_a_bad_json_description_is_named_or_skipped(tmp_path: Path, line: str, complaint: str) -> None:
    bad = write(tmp_path / "bad.json.gz", [json.dumps(META[0]), line])
    with pytest.raises(ValueError, match=rf"bad\.json\.gz, line 2: {complaint}"):
        read_amazon(reviews_file(tmp_path), bad, release=2018, k_core=1)
    corpus = read_amazon(reviews_file(tmp_path), bad, release=2018, k_core=1, skip_bad_lines=True)
    assert corpus.skipped_lines == 1
    assert corpus.items["title"].to_list() == ["", "Soap & Co", ""]


def test_lone_surrogates_in_a_text_are_replaced(tmp_path: Path) -> None:
    meta = meta_file(tmp_path, [{"asin": "B1", "title": "half \ud800", "categories": [["\udfff"]]}])
    assert read_amazon(reviews_file(tmp_path), meta, k_core=1).items.rows()[0] == (
        "B1",
        "half ?",
        "",
        ["?"],
        "",
    )


def test_descriptions_of_items_nobody_reviewed_are_left_out(tmp_path: Path) -> None:
    others = [{"asin": "B9", "title": "x"}, {"title": "asin comes last", "asin": "B8"}]
    corpus = read_amazon(reviews_file(tmp_path), meta_file(tmp_path, [*others, *META]), k_core=1)
    assert corpus.items["item_id"].to_list() == ["B1", "B2", "B3"]


def test_the_first_of_two_descriptions_counts(tmp_path: Path) -> None:
    meta = meta_file(tmp_path, [*META, {"asin": "B1", "title": "again"}])
    assert read_amazon(reviews_file(tmp_path), meta, k_core=1).items.rows() == ITEMS


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("missing_bytes", [4, 30])
@pytest.mark.parametrize(("release", "broken"), [(2014, "reviews"), (2014, "meta"), (2018, "meta")])
def test_a_cut_off_file_is_refused_even_where_bad_lines_are_skipped(
    tmp_path: Path, broken: str, missing_bytes: int, release: Any, pack: Callable[[bytes], bytes]
) -> None:
    meta = meta_file(tmp_path) if release == 2014 else json_meta_file(tmp_path, META)
    files = {"reviews": reviews_file(tmp_path), "meta": meta}
    packed = pack(gzip.decompress(files[broken].read_bytes()))
    files[broken].write_bytes(packed[:-missing_bytes])
    with pytest.raises(ValueError, match=rf"{broken}\.json\.gz: cut off or damaged"):
        read_amazon(files["reviews"], files["meta"], release=release, k_core=1, skip_bad_lines=True)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("first", ["", "{"])  # with a broken line the file is parsed line by line
def test_files_packed_in_pieces_are_read_whole(
    tmp_path: Path, pack: Callable[[bytes], bytes], first: str
) -> None:
    pieces = [first, *(json.dumps(row) for row in REVIEWS)]
    file = tmp_path / "pieces.json"
    file.write_bytes(b"".join(pack(f"{piece}\n".encode()) for piece in pieces))
    assert read_amazon(file, k_core=1, skip_bad_lines=True).interactions.rows() == ROWS


def test_files_that_are_not_there(tmp_path: Path) -> None:
    reviews, meta = reviews_file(tmp_path), meta_file(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json\.gz does not exist"):
        read_amazon(tmp_path / "nowhere.json.gz", meta)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json\.gz does not exist"):
        read_amazon(reviews, tmp_path / "nowhere.json.gz")
    with pytest.raises(IsADirectoryError, match="is a directory; give the meta file"):
        read_amazon(reviews, tmp_path)


def test_files_that_hold_nothing_of_use(tmp_path: Path) -> None:
    reviews, meta = reviews_file(tmp_path), meta_file(tmp_path)
    (tmp_path / "none.json").touch()
    with pytest.raises(ValueError, match=r"none\.json is empty"):
        read_amazon(tmp_path / "none.json", meta)
    with pytest.raises(ValueError, match=r"empty\.json\.gz: holds no reviews"):
        read_amazon(write(tmp_path / "empty.json.gz", []), meta)
    with pytest.raises(ValueError, match=r"reviews\.json\.gz: of 4 reviews nothing is left in the 5-core"):
        read_amazon(reviews, meta)
    with pytest.raises(ValueError, match=r"other\.json\.gz: describes none of the 3 items"):
        read_amazon(reviews, write(tmp_path / "other.json.gz", ["{'asin': 'B9'}"]), k_core=1)


def event(user: str, item: str, time: int) -> bytes:
    return json.dumps({"reviewerID": user, "asin": item, "unixReviewTime": time}).encode()


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=5)
LINES = st.lists(
    st.builds(event, NAMES, NAMES, st.integers(0, 2**31)) | st.binary(max_size=40) | st.just(b"{}"),
    max_size=8,
)


@settings(deadline=None, max_examples=60)  # the first call loads polars
@given(lines=LINES, release=st.sampled_from([2014, 2018, 2023]), suffix=st.sampled_from([".json", ".csv"]))
def test_any_content_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], release: Any, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    file = folder / f"any{suffix}"
    file.write_bytes(b"\n".join(lines))
    try:
        corpus = read_amazon(file, file, release=release, k_core=1, skip_bad_lines=True)
    except ValueError as error:
        assert str(error).startswith(str(file))  # noqa: PT017
    else:
        assert len(corpus.interactions) + corpus.notes["duplicate_reviews"] > 0


@settings(deadline=None, max_examples=30)
@given(st.lists(st.builds(event, NAMES, NAMES, st.integers(0, 2**31)), min_size=1, max_size=8))
def test_reading_line_by_line_gives_what_polars_gives(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    file = tmp_path_factory.mktemp("both") / "reviews.json"
    file.write_bytes(b"\n".join(lines))
    fast, none = read_events(file, 2014, skip_bad_lines=False)
    file.write_bytes(b"\n".join([b"{", *lines]))
    slow, one = read_events(file, 2014, skip_bad_lines=True)
    assert (none, one) == (0, 1)
    assert slow.rows() == fast.rows() == [tuple(json.loads(line).values()) for line in lines]


def read_sample(reviews: str, meta: str | None = None, **options: Any) -> Corpus:
    return read_amazon(RAW / reviews, RAW / meta if meta else None, k_core=1, **options)


def whole(corpus: Corpus) -> list[tuple[str, str, int]]:
    return sorted(corpus.interactions.rows())


@needs_data
@pytest.mark.parametrize(
    ("name", "release", "fields"),
    [
        ("reviews_Beauty_5.2014.sample.json", 2014, ("reviewerID", "asin", "unixReviewTime")),
        ("reviews_Sports_and_Outdoors_5.2014.sample.json", 2014, ("reviewerID", "asin", "unixReviewTime")),
        ("All_Beauty_5.2018.sample.json", 2018, ("reviewerID", "asin", "unixReviewTime")),
        ("Video_Games_5.2018.sample.json", 2018, ("reviewerID", "asin", "unixReviewTime")),
        ("All_Beauty.2023.sample.jsonl", 2023, ("user_id", "parent_asin", "timestamp")),
    ],
)
def test_true_reviews_field_by_field(name: str, release: Any, fields: tuple[str, str, str]) -> None:
    rows = [json.loads(line) for line in (RAW / name).read_text().splitlines()]
    ticks = 1000 if release == 2023 else 1
    user, item, time = fields
    assert whole(read_sample(name, release=release)) == sorted(
        (row[user], row[item], row[time] // ticks) for row in rows
    )


@needs_data
def test_true_reviews_by_hand() -> None:
    assert whole(read_sample("All_Beauty.2023.sample.jsonl", release=2023)) == [
        ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EO", 1588687728)
    ]
    assert whole(read_sample("All_Beauty_5.2018.sample.json", release=2018)) == [
        ("A3CIUOJXQ5VDQ2", "B0000530HU", 1472688000),
        ("A3H7T87S984REU", "B0000530HU", 1384387200),
    ]


@needs_data
def test_true_ratings_field_by_field() -> None:
    name = "ratings_Video_Games.2018.sample.csv"
    with (RAW / name).open(newline="") as file:
        rows = [(user, item, int(time)) for item, user, _, time in csv.reader(file)]
    assert whole(read_sample(name, release=2018)) == sorted(rows)
    assert ("A3U4E9PIZ8OWH1", "0449819906", 1383696000) in rows


TRUE_ITEMS = [
    (
        2014,
        "meta_Toys_and_Games.2014.sample.json",
        [
            (
                "0000191639",
                "Dr. Suess 19163 Dr. Seuss Puzzle 3 Pack Bundle",
                "Dr. Seuss",
                ["Toys & Games", "Puzzles", "Jigsaw Puzzles"],
                "",
            ),
            ("0005069491", "Nursery Rhymes Felt Book", "", ["Toys & Games"], ""),
            (
                "0076561046",
                "Fraction Decimal Percent Card Deck",
                "",
                ["Toys & Games", "Learning & Education", "Flash Cards"],
                "",
            ),
        ],
    ),
    (
        2018,
        "meta_All_Beauty.2018.sample.json",
        [
            (
                "0615553605",
                "Pet Qwerks Treat Cookbook with Cutters",
                "Pet Qwerks",
                ["Pet Supplies", "Dogs"],
                "",
            ),
            ("6546546450", "Loud 'N Clear\u2122 Personal Sound Amplifier", "idea village", [], ""),
        ],
    ),
    (
        2023,
        "meta_mixed.2023.sample.jsonl",
        [
            (
                "B01HYNE114",
                "Silver Triangle Earrings with Chevron Pattern",
                "Zo\u00eb Noelle Designs",
                ["Handmade Products", "Jewelry", "Earrings", "Drop & Dangle"],
                "",
            ),
            (
                "B06ZXTKYHN",
                "Amazon.com Gift Card in Gift Tag (Various Designs)",
                "Amazon",
                ["Gift Cards", "Gift Card Recipients", "For Him"],
                "",
            ),
            (
                "B08PFNJF1X",
                "Skinfix Resurface AHA Renewing Cream 0.35 fl.oz. 10 ml. Travel size New",
                "Bissport",
                [
                    "Beauty & Personal Care",
                    "Skin Care",
                    "Face",
                    "Creams & Moisturizers",
                    "Face Moisturizers",
                ],
                "",
            ),
        ],
    ),
]


@needs_data
@pytest.mark.parametrize(("release", "name", "items"), TRUE_ITEMS)
def test_true_descriptions_field_by_field(
    tmp_path: Path, release: Any, name: str, items: list[tuple[Any, ...]]
) -> None:
    item = "parent_asin" if release == 2023 else "asin"
    user, time = ("user_id", "timestamp") if release == 2023 else ("reviewerID", "unixReviewTime")
    reviews = [{user: "U", item: row[0], time: 1} for row in items]
    corpus = read_amazon(reviews_file(tmp_path, reviews), RAW / name, release=release, k_core=1)
    assert corpus.items.rows() == items
    assert corpus.notes["items_without_metadata"] == 0
    assert corpus.top_categories() == [row[3][1] if len(row[3]) > 1 else None for row in items]


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(
    ("category", "users", "items", "interactions", "mean_length"),
    [("Beauty", 22363, 12101, 198502, 8.876), ("Sports_and_Outdoors", 35598, 18357, 296337, 8.325)],
)
def test_counts_of_the_papers(
    category: str, users: int, items: int, interactions: int, mean_length: float
) -> None:
    corpus = read_amazon(AMAZON / f"reviews_{category}_5.json.gz", AMAZON / f"meta_{category}.json.gz")
    assert corpus.statistics() == {
        "users": users,
        "items": items,
        "interactions": interactions,
        "mean_length": pytest.approx(mean_length, abs=5e-4),
    }


@needs_data
def test_beauty_agrees_with_the_plainest_reading() -> None:
    corpus = read_amazon(AMAZON / "reviews_Beauty_5.json.gz", AMAZON / "meta_Beauty.json.gz")
    with gzip.open(AMAZON / "reviews_Beauty_5.json.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    rows.sort(key=lambda row: (row["reviewerID"], row["unixReviewTime"]))
    assert corpus.interactions.rows() == [tuple(row.values()) for row in rows]
    with gzip.open(AMAZON / "meta_Beauty.json.gz", "rt") as lines:
        meta = {row["asin"]: row for row in map(ast.literal_eval, lines)}
    assert corpus.items["item_id"].to_list() == sorted(meta)
    nameless = sum(row.get("brand") in (None, "Unknown") for row in meta.values())
    assert (corpus.items["brand"] == "").sum() == nameless > 0
    assert (corpus.items["brand"] == "L'Oreal Paris").sum() == 291
    titles = [" ".join(html.unescape(meta[item].get("title", "")).split()) for item in sorted(meta)]
    assert corpus.items["title"].to_list() == titles
    names = [
        list(dict.fromkeys(html.unescape(name) for path in meta[item]["categories"] for name in path))
        for item in sorted(meta)
    ]
    assert corpus.items["categories"].to_list() == names


def test_brackets_in_a_path_are_no_pattern(tmp_path: Path) -> None:
    for folder, user in (("a[1]", "right"), ("a1", "wrong")):
        (tmp_path / folder).mkdir()
        lines = [json.dumps({"reviewerID": user, "asin": "B1", "unixReviewTime": 5})]
        (tmp_path / folder / "reviews.json").write_text("\n".join(lines))
        (tmp_path / folder / "meta.json").write_text(json.dumps({"asin": "B1", "title": user}))
    corpus = read_amazon(tmp_path / "a[1]/reviews.json", tmp_path / "a[1]/meta.json", release=2018, k_core=1)
    assert corpus.interactions["user_id"].to_list() == ["right"]
    assert corpus.items["title"].to_list() == ["right"]


@pytest.mark.parametrize("broken", ["", '{"reviewerID": "v"}\n'])
def test_true_is_no_user_in_any_file(tmp_path: Path, broken: str) -> None:
    sound = '{"reviewerID": "u", "asin": "B1", "unixReviewTime": 5}\n'
    odd = '{"reviewerID": true, "asin": "B1", "unixReviewTime": 5}\n'
    (tmp_path / "reviews.json").write_text(sound + odd + broken)
    corpus = read_amazon(tmp_path / "reviews.json", k_core=1, skip_bad_lines=True)
    assert corpus.interactions["user_id"].to_list() == ["u"]
    assert corpus.skipped_lines == 1 + bool(broken)
