import ast
import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from recsys.datasets.amazon import read_amazon2014

DATA = Path(__file__).parents[2] / "../shared/data/amazon2014"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the Amazon 2014 files are not in ../shared/data")

REVIEWS = [
    {"reviewerID": "U2", "asin": "B1", "unixReviewTime": 100, "overall": 5.0, "helpful": [1, 2]},
    {"reviewerID": "U1", "asin": "B2", "unixReviewTime": 300, "reviewText": "Good.", "summary": "Ok"},
    {"reviewerID": "U1", "asin": "B1", "unixReviewTime": 200, "reviewTime": "01 30, 2014"},
    {"reviewerID": "U1", "asin": "B3", "unixReviewTime": 200},
]
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
    },
]


def write(path: Path, lines: list[str]) -> Path:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def reviews_file(folder: Path, rows: list[Any] = REVIEWS) -> Path:
    return write(folder / "reviews.json.gz", [json.dumps(row) for row in rows])


def meta_file(folder: Path, rows: list[Any] = META) -> Path:
    return write(folder / "meta.json.gz", [repr(row) for row in rows])


def test_reads_the_original_format(tmp_path: Path) -> None:
    corpus = read_amazon2014(reviews_file(tmp_path), meta_file(tmp_path), k_core=1)
    assert corpus.interactions.rows() == [
        ("U1", "B1", 200),
        ("U1", "B3", 200),
        ("U1", "B2", 300),
        ("U2", "B1", 100),
    ]
    assert corpus.items.rows() == [
        ("B1", 'An "8" inch', "", ["R", "X", "Y", "Z&"]),
        ("B2", "Soap & Co", "Burt's", []),
        ("B3", "", "", []),
    ]
    assert corpus.skipped_lines == 0


def test_plain_text_reads_like_gzip(tmp_path: Path) -> None:
    packed = reviews_file(tmp_path), meta_file(tmp_path)
    plain = tmp_path / "reviews.json", tmp_path / "meta.json"
    for source, target in zip(packed, plain, strict=True):
        target.write_bytes(gzip.decompress(source.read_bytes()))
    assert read_amazon2014(*plain, k_core=1).digest() == read_amazon2014(*packed, k_core=1).digest()


def test_a_second_review_of_an_item_does_not_count(tmp_path: Path) -> None:
    again = {"reviewerID": "U1", "asin": "B1", "unixReviewTime": 150}
    corpus = read_amazon2014(reviews_file(tmp_path, [*REVIEWS, again]), meta_file(tmp_path), k_core=1)
    assert corpus.interactions.rows()[0] == ("U1", "B1", 150)
    assert len(corpus.interactions) == len(REVIEWS)


BAD_REVIEWS = [
    ('{"reviewerID": "U1", "asin"', "not JSON"),
    ("{'reviewerID': 'U1', 'asin': 'B1', 'unixReviewTime': 1}", "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ('{"reviewerID": "U1", "asin": "B1"}', "lacks unixReviewTime"),
    ('{"reviewerID": null, "unixReviewTime": 1}', "lacks reviewerID, asin"),
    ('{"reviewerID": "U1", "asin": "B1", "unixReviewTime": "soon"}', "unixReviewTime is 'soon'"),
    ('{"reviewerID": "U1", "asin": "B1", "unixReviewTime": 1.5}', "unixReviewTime is 1.5"),
]


@pytest.mark.parametrize(("line", "complaint"), BAD_REVIEWS)
def test_a_bad_review_is_named_or_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, complaint: str
) -> None:
    good, meta = [json.dumps(row) for row in REVIEWS], meta_file(tmp_path)
    bad = write(tmp_path / "bad.json.gz", [good[0], "", line, *good[1:]])
    with pytest.raises(ValueError, match=rf"bad\.json\.gz, line 3: {complaint}"):
        read_amazon2014(bad, meta, k_core=1)
    with caplog.at_level(logging.WARNING):
        corpus = read_amazon2014(bad, meta, k_core=1, skip_bad_lines=True)
    assert corpus.skipped_lines == 1
    assert f"line 3: {complaint}" in caplog.text
    assert corpus.digest() == read_amazon2014(reviews_file(tmp_path), meta, k_core=1).digest()


BAD_META = [
    ("{'asin': 'B1', 'title'", "not a Python literal"),
    ("{'asin': 'B1', 'title': open('made-by-eval', 'w')}", "not a Python literal"),
    ('{"asin": "B1", "title": null}', "not a Python literal"),
    ("['asin', 'B1']", "not a dict with an asin"),
    ("{'title': 'no asin'}", "not a dict with an asin"),
    ("{'asin': 'B1', 'title': 7}", "title and brand must be texts"),
    ("{'asin': 'B1', 'categories': ['R', 'X']}", "categories must be a list of lists"),
]


@pytest.mark.parametrize(("line", "complaint"), BAD_META)
def test_a_bad_description_is_named_or_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = write(tmp_path / "bad.json.gz", [repr(META[0]), line])
    with pytest.raises(ValueError, match=rf"bad\.json\.gz, line 2: {complaint}"):
        read_amazon2014(reviews_file(tmp_path), bad, k_core=1)
    corpus = read_amazon2014(reviews_file(tmp_path), bad, k_core=1, skip_bad_lines=True)
    assert corpus.skipped_lines == 1
    assert corpus.items["title"].to_list() == ["", "Soap & Co", ""]
    assert not Path("made-by-eval").exists()


def test_descriptions_of_items_nobody_reviewed_are_left_out(tmp_path: Path) -> None:
    others = [{"asin": "B9", "title": "x"}, {"title": "asin comes last", "asin": "B8"}]
    corpus = read_amazon2014(reviews_file(tmp_path), meta_file(tmp_path, [*others, *META]), k_core=1)
    assert corpus.items["item_id"].to_list() == ["B1", "B2", "B3"]


@pytest.mark.parametrize("broken", ["reviews", "meta"])
@pytest.mark.parametrize("missing_bytes", [4, 30])
def test_a_cut_off_file_is_refused_even_where_bad_lines_are_skipped(
    tmp_path: Path, broken: str, missing_bytes: int
) -> None:
    files = {"reviews": reviews_file(tmp_path), "meta": meta_file(tmp_path)}
    files[broken].write_bytes(files[broken].read_bytes()[:-missing_bytes])
    with pytest.raises(ValueError, match=rf"{broken}\.json\.gz: cut off or damaged"):
        read_amazon2014(files["reviews"], files["meta"], k_core=1, skip_bad_lines=True)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    reviews, meta = reviews_file(tmp_path), meta_file(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json\.gz does not exist"):
        read_amazon2014(tmp_path / "nowhere.json.gz", meta)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json\.gz does not exist"):
        read_amazon2014(reviews, tmp_path / "nowhere.json.gz")
    with pytest.raises(IsADirectoryError, match="is a directory; give the meta file"):
        read_amazon2014(reviews, tmp_path)


def test_files_that_hold_nothing_of_use(tmp_path: Path) -> None:
    reviews, meta = reviews_file(tmp_path), meta_file(tmp_path)
    with pytest.raises(ValueError, match=r"empty\.json\.gz: holds no reviews"):
        read_amazon2014(write(tmp_path / "empty.json.gz", []), meta)
    with pytest.raises(ValueError, match=r"reviews\.json\.gz: of 4 reviews nothing is left in the 5-core"):
        read_amazon2014(reviews, meta)
    with pytest.raises(ValueError, match=r"other\.json\.gz: describes none of the 3 items"):
        read_amazon2014(reviews, write(tmp_path / "other.json.gz", ["{'asin': 'B9'}"]), k_core=1)


@needs_data
@pytest.mark.parametrize(
    ("category", "users", "items", "interactions", "mean_length"),
    [("Beauty", 22363, 12101, 198502, 8.876), ("Sports_and_Outdoors", 35598, 18357, 296337, 8.325)],
)
def test_counts_of_the_papers(
    category: str, users: int, items: int, interactions: int, mean_length: float
) -> None:
    corpus = read_amazon2014(DATA / f"reviews_{category}_5.json.gz", DATA / f"meta_{category}.json.gz")
    assert corpus.statistics() == {
        "users": users,
        "items": items,
        "interactions": interactions,
        "mean_length": pytest.approx(mean_length, abs=5e-4),
    }


@needs_data
def test_beauty_agrees_with_the_plainest_reading() -> None:
    corpus = read_amazon2014(DATA / "reviews_Beauty_5.json.gz", DATA / "meta_Beauty.json.gz")
    with gzip.open(DATA / "reviews_Beauty_5.json.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    rows.sort(key=lambda row: (row["reviewerID"], row["unixReviewTime"]))
    assert corpus.interactions.rows() == [tuple(row.values()) for row in rows]
    with gzip.open(DATA / "meta_Beauty.json.gz", "rt") as lines:
        meta = {row["asin"]: row for row in map(ast.literal_eval, lines)}
    assert corpus.items["item_id"].to_list() == sorted(meta)
    nameless = sum(row.get("brand") in (None, "Unknown") for row in meta.values())
    assert (corpus.items["brand"] == "").sum() == nameless > 0
    assert (corpus.items["brand"] == "L'Oreal Paris").sum() == 291
    assert "&amp;" not in "".join(corpus.items["title"])
