"""The made-up shop's files, read with json, ast, csv and pyarrow only, have the formats of the corpora."""

from __future__ import annotations

import ast
import csv
import gzip
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.datasets.movielens import GENRES_100K
from recsys.datasets.readers import READERS
from recsys.datasets.synthetic import DEPARTMENTS, LEAVES, write_shop
from recsys.datasets.synthetic.files import write_chunks
from recsys.datasets.synthetic.shoppers import Shop
from recsys.datasets.synthetic.world import make_world

Rows = list[dict[str, Any]]
Write = Callable[..., dict[str, Path]]

DATA = Path(__file__).parents[3] / "../shared/data"
NEEDS_DATA = pytest.mark.skipif(not DATA.is_dir(), reason="the corpora's samples are not in ../shared/data")

USERS, ITEMS = 500, 400
PATHS = {("Shop", *leaf) for leaf in LEAVES}


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Return a function that writes the same shop as any corpus."""
    return lambda corpus, **options: write_shop(
        tmp_path_factory.mktemp("shop"), corpus, **({"users": USERS, "items": ITEMS} | options)
    )


@pytest.fixture(scope="module")
def truth() -> list[tuple[int, int, int]]:
    """Return user, item and day of all events of that shop."""
    shop = Shop(make_world(ITEMS, np.random.default_rng(0)), USERS, seed=0, signal=1.0)
    return [
        (user, item, time // 86_400) for block in shop.events() for user, item, time, _ in block.iter_rows()
    ]


def json_lines(path: Path, parse: Callable[[str], Any] = json.loads) -> Rows:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [parse(line) for line in lines]


def number(text: str) -> int:
    return int(re.sub(r"\D", "", text))


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise OSError("disk full")

    (tmp_path / "old.txt").write_text("whole")
    for name in ("new.gz", "old.txt"):
        with pytest.raises(OSError, match="disk full"):
            write_chunks(tmp_path / name, chunks())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.txt", "whole")]


# Amazon


@pytest.mark.parametrize(
    ("release", "sample", "left_out"),
    [
        (2014, "reviews_Beauty_5.2014.sample.json", set()),
        (2018, "Video_Games_5.2018.sample.json", set()),
        (2023, "All_Beauty.2023.sample.jsonl", {"images"}),
    ],
)
@NEEDS_DATA
def test_reviews_have_the_fields_of_the_release(
    write: Write, release: int, sample: str, left_out: set[str]
) -> None:
    review = json_lines(write("amazon", release=release)["reviews"])[0]
    with (DATA / "raw_samples" / sample).open() as lines:
        real = {name: value for name, value in json.loads(next(lines)).items() if name not in left_out}
    assert list(review) == list(real)
    assert [type(value) for value in review.values()] == [type(value) for value in real.values()]


@pytest.mark.parametrize("release", [2014, 2018])
def test_reviews_are_the_events(write: Write, truth: list[tuple[int, int, int]], release: int) -> None:
    reviews = json_lines(write("amazon", release=release)["reviews"])
    assert truth == [
        (number(row["reviewerID"]), number(row["asin"]), row["unixReviewTime"] // 86_400) for row in reviews
    ]
    for row in reviews:
        date = datetime.fromtimestamp(row["unixReviewTime"], UTC)
        assert row["reviewTime"] == f"{date.month:02d} {date.day}, {date.year}"
    assert {(row["overall"], row["summary"]) for row in reviews} == {(3, "Fine"), (4, "Good"), (5, "Great")}


def test_reviews_of_2023_are_of_variants_in_milliseconds(
    write: Write, truth: list[tuple[int, int, int]]
) -> None:
    files = write("amazon", release=2023)
    reviews = json_lines(files["reviews"])
    assert truth == [
        (number(row["user_id"]), number(row["parent_asin"]), row["timestamp"] // 86_400_000)
        for row in reviews
    ]
    parents = {row["parent_asin"] for row in json_lines(files["meta"])}
    parents_of: dict[str, set[str]] = {}
    for row in reviews:
        parents_of.setdefault(row["asin"], set()).add(row["parent_asin"])
    assert all(len(own) == 1 for own in parents_of.values())
    assert np.mean([row["asin"] in parents for row in reviews]) == pytest.approx(1 / 3, abs=0.03)


def test_meta_of_2014_are_python_literals(write: Write) -> None:
    meta = json_lines(write("amazon", release=2014)["meta"], ast.literal_eval)
    assert [row["asin"] for row in meta] == [f"B{item:09d}" for item in range(ITEMS)]
    assert {tuple(path) for row in meta for path in row["categories"]} == PATHS
    for row in meta:
        assert row["title"].startswith(row["brand"])
        assert row["title"].endswith(row["categories"][0][-1])


def test_meta_of_2018_have_flat_categories_and_gaps(write: Write) -> None:
    meta = json_lines(write("amazon", release=2018)["meta"])
    assert len({row["asin"] for row in meta}) == ITEMS
    assert {tuple(row["category"]) for row in meta} == PATHS
    assert np.mean(["brand" not in row for row in meta]) == pytest.approx(0.2, abs=0.06)
    assert all(row["title"].startswith(row.get("brand", "")) for row in meta)
    assert re.fullmatch(r"\$\d+\.\d\d", meta[0]["price"])


def test_meta_of_2023_have_stores_lists_and_nulls(write: Write) -> None:
    meta = json_lines(write("amazon", release=2023)["meta"])
    assert len({row["parent_asin"] for row in meta}) == ITEMS
    assert {tuple(row["categories"]) for row in meta} == PATHS
    assert {type(row["store"]) for row in meta} == {str, type(None)}
    assert {type(row["price"]) for row in meta} == {float, type(None)}
    assert all(row["title"].startswith(row["store"] or "") for row in meta)
    assert all(feature in row["title"] for row in meta for feature in row["features"])


# ESCI


@pytest.fixture(scope="module")
def esci(write: Write) -> tuple[Rows, dict[tuple[str, str], dict[str, Any]]]:
    """Return the examples, and the products by locale and id."""
    files = write("esci")
    products = pq.read_table(files["products"]).to_pylist()
    by_key = {(row["product_locale"], row["product_id"]): row for row in products}
    assert len(by_key) == len(products)
    return pq.read_table(files["examples"]).to_pylist(), by_key


def test_esci_tables_have_the_owners_columns(write: Write) -> None:
    files = write("esci")
    examples, products = (pq.read_schema(files[name]) for name in ("examples", "products"))
    whole_numbers = {"example_id", "query_id", "small_version", "large_version"}
    assert examples.names == [
        "example_id",
        "query",
        "query_id",
        "product_id",
        "product_locale",
        "esci_label",
        "small_version",
        "large_version",
        "split",
    ]
    assert examples.types == [pa.int64() if name in whole_numbers else pa.string() for name in examples.names]
    assert products.names == [
        "product_id",
        "product_title",
        "product_description",
        "product_bullet_point",
        "product_brand",
        "product_color",
        "product_locale",
    ]
    assert set(products.types) == {pa.string()}


def test_every_judged_product_is_sold_in_the_query_s_locale(esci: tuple[Rows, dict]) -> None:
    examples, products = esci
    assert all((row["product_locale"], row["product_id"]) in products for row in examples)
    assert {row["product_locale"] for row in examples} == {"us", "es", "jp"}
    assert Counter(locale for locale, _ in products) == {"us": 400, "es": 133, "jp": 133}  # 1 mod 3, 2 mod 3


def test_a_query_is_judged_once_in_one_locale_and_split(esci: tuple[Rows, dict]) -> None:
    examples, _ = esci
    assert [row["example_id"] for row in examples] == list(range(len(examples)))
    by_query: dict[int, Rows] = {}
    for row in examples:
        by_query.setdefault(row["query_id"], []).append(row)
    asked = set()
    for rows in by_query.values():
        whole = {
            tuple(row[name] for name in ("query", "product_locale", "split", "small_version")) for row in rows
        }
        assert len(whole) == 1
        asked.add(whole.pop()[:2])
        assert len({row["product_id"] for row in rows}) == len(rows)
    assert len(asked) == len(by_query)
    tests = [rows[0]["split"] == "test" for rows in by_query.values()]
    assert np.mean(tests) == pytest.approx(0.2, abs=0.06)


def test_labels_tell_how_words_and_leaves_agree(esci: tuple[Rows, dict]) -> None:
    examples, products = esci
    follow_up: dict[str, set[str]] = {}
    nouns = {leaf.lower() for _, leaf in LEAVES}
    for row in examples:
        title = products[row["product_locale"], row["product_id"]]["product_title"].lower()
        asked = next(noun for noun in nouns if noun in row["query"])
        match row["esci_label"]:
            case "E":
                assert set(row["query"].split()) <= set(title.split())
            case "S":
                assert title.endswith(asked)
                assert not set(row["query"].split()) <= set(title.split())
            case "C":
                follow_up.setdefault(asked, set()).update(noun for noun in nouns if title.endswith(noun))
            case "I":
                assert not title.endswith(asked)
    assert {row["esci_label"] for row in examples} == set("ESCI")
    assert len(follow_up) > 30
    assert all(len(leaves) == 1 for leaves in follow_up.values())
    assert set().union(*follow_up.values()) <= nouns


def test_some_product_fields_are_null(esci: tuple[Rows, dict]) -> None:
    for field, share in {"description": 0.5, "bullet_point": 0.15, "brand": 0.06, "color": 0.35}.items():
        nulls = [row[f"product_{field}"] is None for row in esci[1].values()]
        assert np.mean(nulls) == pytest.approx(share, abs=0.06)


def test_without_signal_judgements_are_random_items(write: Write) -> None:
    files = write("esci", users=2000, signal=0)
    titles = {row["product_id"]: row["product_title"] for row in pq.read_table(files["products"]).to_pylist()}
    exact = [row for row in pq.read_table(files["examples"]).to_pylist() if row["esci_label"] == "E"]
    nouns = [next(leaf for _, leaf in LEAVES if leaf.lower() in row["query"]) for row in exact]
    of_leaf = [titles[row["product_id"]].endswith(noun) for row, noun in zip(exact, nouns, strict=True)]
    assert len(exact) > 2000
    assert np.mean(of_leaf) == pytest.approx(1 / 40, abs=4 * np.sqrt(1 / 40 / len(exact)))


# JDsearch

BEHAVIOR = [
    "query",
    "candidate_wid_list",
    "candidate_label_list",
    "history_qry_list",
    "history_wid_list",
    "history_type_list",
    "history_time_list",
]


def tab_lines(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().removesuffix("\n").split("\n")]


@pytest.fixture(scope="module")
def jd(write: Write) -> tuple[Rows, dict[str, dict[str, str]]]:
    """Return the behavior with split lists, and the products by wid."""
    files = write("jdsearch")
    header, *lines = tab_lines(files["behavior"])
    assert header == BEHAVIOR
    rows = [dict(zip(header, (field.split("_") for field in line), strict=True)) for line in lines]
    header, *lines = tab_lines(files["products"])
    return rows, {line[0]: dict(zip(header, line, strict=True)) for line in lines}


@NEEDS_DATA
def test_jdsearch_files_have_the_owners_columns(write: Write) -> None:
    files = write("jdsearch")
    for parameter, sample in {
        "behavior": "user_behavior_data_sample.txt",
        "products": "product_meta_data_sample.txt",
    }.items():
        assert tab_lines(files[parameter])[0] == tab_lines(DATA / "jdsearch" / sample)[0]


def test_jdsearch_files_may_lack_the_header(write: Write) -> None:
    with_header, without = write("jdsearch"), write("jdsearch", header=False)
    for parameter, path in without.items():
        assert path.read_bytes() == with_header[parameter].read_bytes().partition(b"\n")[2]


def test_lists_of_a_user_are_as_long_as_they_must_be(jd: tuple[Rows, dict]) -> None:
    rows, _ = jd
    assert len(rows) == USERS
    for row in rows:
        (asked,) = row["query"]
        assert re.fullmatch(r"\d+(\x18\d+)*", asked)
        events = len(row["history_wid_list"])
        assert len(row["history_qry_list"]) == len(row["history_type_list"]) == events
        assert len(row["history_time_list"]) == events + 1
        times = [int(time) for time in row["history_time_list"]]
        assert times[0] == 0
        assert min(times[1:]) > 0
        assert set(row["history_type_list"]) <= {"ORD", "CLICK", "CART", "FLW"}
        assert 4 <= events <= 3 * 39
    types = Counter(kind for row in rows for kind in row["history_type_list"])
    assert len(types) == 4
    unasked = [query == "-1" for row in rows for query in row["history_qry_list"]]
    # half the events have no query; with one there are two events on average
    assert np.mean(unasked) == pytest.approx(0.5 / (0.5 + 0.5 * 2), abs=0.03)


def test_candidates_hold_what_was_taken(jd: tuple[Rows, dict]) -> None:
    rows, products = jd
    for row in rows:
        candidates = row["candidate_wid_list"]
        assert len(set(candidates)) == len(candidates) == len(row["candidate_label_list"]) <= 200
        assert set(row["candidate_label_list"]) <= {"0.0", "1.0", "2.0", "3.0"}
        touched = [label != "0.0" for label in row["candidate_label_list"]]
        assert sum(touched) <= 3
    without = [set(row["candidate_label_list"]) == {"0.0"} for row in rows]
    assert 0 < np.mean(without) < 0.05
    answers = [
        (row["query"][0], products[wid]["name"])
        for row in rows
        for wid, label in zip(row["candidate_wid_list"], row["candidate_label_list"], strict=True)
        if label in ("2.0", "3.0") and wid in products
    ]
    assert len(answers) > 0.6 * USERS
    assert all(set(query.split("\x18")) <= set(name.split("\x18")) for query, name in answers)


def test_one_query_is_followed_by_several_events(jd: tuple[Rows, dict]) -> None:
    rows, products = jd
    answers = again = clicks = 0
    for row in rows:
        asked = zip(row["history_qry_list"], row["history_wid_list"], row["history_type_list"], strict=True)
        for query, group in itertools.groupby(asked, key=lambda event: event[0]):
            events = list(group)
            if query == "-1" or len(events) < 2:
                continue
            answers += 1
            again += len({wid for _, wid, _ in events}) < len(events)
            leaves = {products[wid]["cate_name_2"] for _, wid, _ in events if wid in products}
            assert len(leaves) <= 1
            clicks += events[0][2] == "CLICK"
    assert answers > USERS
    assert again > 0.2 * answers
    assert clicks > 0.9 * answers  # a few ask the same twice in a row


def test_products_lack_some_metadata(jd: tuple[Rows, dict], write: Write) -> None:
    rows, products = jd
    assert {number(wid) < 10**8 for wid in products} == {True}
    assert len(products) == pytest.approx(0.95 * ITEMS, abs=0.03 * ITEMS)
    taken = {wid for row in rows for wid in row["history_wid_list"]}
    assert taken - set(products)
    for field in ("brand_name", "shop_id"):
        assert 0 < np.mean([row[field] == "" for row in products.values()]) < 0.12
    names = {row["brand_id"]: row["brand_name"] for row in products.values() if row["brand_name"]}
    for row in products.values():
        terms = row["name"].split("\x18")
        assert terms[0] == names.get(row["brand_id"], terms[0])
        assert row["name"].endswith(row["cate_name_2"])
        assert set(row["cate_name_3"].split("\x18")) <= set(terms)
    for level, count in ((1, len(DEPARTMENTS)), (2, len(LEAVES))):
        texts = {row[f"cate_id_{level}"]: row[f"cate_name_{level}"] for row in products.values()}
        assert len(texts) == len(set(texts.values())) == count
    other_seed = tab_lines(write("jdsearch", seed=1)["products"])
    leaf = other_seed[0].index("cate_name_2")
    assert {line[leaf] for line in other_seed[1:]} == {row["cate_name_2"] for row in products.values()}


def test_without_signal_answers_are_random_items(write: Write) -> None:
    files = write("jdsearch", users=4000, signal=0)
    products = {line[0]: line for line in tab_lines(files["products"])}
    agree, counts = [], Counter[str]()
    for line in tab_lines(files["behavior"])[1:]:
        row = dict(zip(BEHAVIOR, line, strict=True))
        counts.update(row["history_wid_list"].split("_"))
        for query, wid in zip(
            row["history_qry_list"].split("_"), row["history_wid_list"].split("_"), strict=True
        ):
            if query != "-1" and wid in products:
                agree.append(products[wid][7] in query)  # the leaf's terms
    assert np.mean(agree) == pytest.approx(1 / 40, abs=4 * np.sqrt(1 / 40 / len(agree)))
    drawn = np.array(list(counts.values()))
    assert len(drawn) == ITEMS
    assert drawn.std() < 1.2 * np.sqrt(drawn.mean())  # as Poisson's law has it


# MovieLens

FILM = re.compile(r"(Café )?[\w' -]+?(, The)? \((19|20)\d\d\)")


def movielens_lines(path: Path, separator: str, encoding: str) -> list[list[str]]:
    return [line.split(separator) for line in path.read_text(encoding=encoding).splitlines()]


@pytest.mark.parametrize("release", ["25m", "latest-small"])
def test_movielens_in_csv(write: Write, truth: list[tuple[int, int, int]], release: str) -> None:
    files = write("movielens", release=release)
    tables = {}
    for parameter, path in files.items():
        with path.open(newline="", encoding="utf-8") as lines:
            tables[parameter] = list(csv.reader(lines))
        assert path.read_bytes().count(b"\r\n") == len(tables[parameter])
    assert tables["ratings"][0] == ["userId", "movieId", "rating", "timestamp"]
    ratings = [
        (int(user) - 1, int(film) - 1, int(time) // 86_400) for user, film, _, time in tables["ratings"][1:]
    ]
    assert ratings == sorted(truth)  # by film within a user, not by time
    assert {rating for _, _, rating, _ in tables["ratings"][1:]} == {"3.0", "4.0", "5.0"}
    assert tables["movies"][0] == ["movieId", "title", "genres"]
    films = tables["movies"][1:]
    assert [int(film) for film, _, _ in films] == list(range(1, ITEMS + 1))
    assert all(FILM.fullmatch(title) for _, title, _ in films)
    assert np.mean([", The (" in title for _, title, _ in films]) == pytest.approx(0.3, abs=0.07)
    assert len({genres for _, _, genres in films}) == len(LEAVES)
    assert "Children" in {genre for _, _, genres in films for genre in genres.split("|")}


def test_movielens_1m(write: Write, truth: list[tuple[int, int, int]]) -> None:
    files = write("movielens", release="1m")
    ratings = movielens_lines(files["ratings"], "::", "ascii")
    assert truth == [(int(user) - 1, int(film) - 1, int(time) // 86_400) for user, film, _, time in ratings]
    assert {rating for _, _, rating, _ in ratings} == {"3", "4", "5"}
    films = movielens_lines(files["movies"], "::", "latin-1")
    assert [int(film) for film, _, _ in films] == list(range(1, ITEMS + 1))
    assert all(FILM.fullmatch(title) for _, title, _ in films)
    with pytest.raises(UnicodeDecodeError):
        files["movies"].read_text(encoding="utf-8")


def test_movielens_100k(write: Write, truth: list[tuple[int, int, int]]) -> None:
    files = write("movielens", release="100k")
    ratings = movielens_lines(files["ratings"], "\t", "ascii")
    events = [(int(user) - 1, int(film) - 1, int(time) // 86_400) for user, film, _, time in ratings]
    assert events != truth
    assert sorted(events) == sorted(truth)
    films = movielens_lines(files["movies"], "|", "latin-1")
    in_csv = write("movielens")["movies"].read_text(encoding="utf-8").splitlines()[1:]
    for fields, (film, title, genres) in zip(films, csv.reader(in_csv), strict=True):
        assert len(fields) == 5 + 19
        assert fields[:5] == [film, title, f"01-Jan-{title[-5:-1]}", "", ""]
        flagged = {genre for genre, flag in zip(GENRES_100K, fields[5:], strict=True) if flag == "1"}
        assert {genre.replace("Children's", "Children") for genre in flagged} == set(genres.split("|"))


# Lines of sequences, and tables


def test_sequences_and_texts(write: Write, truth: list[tuple[int, int, int]]) -> None:
    files = write("sequences")
    lines = [list(map(int, line.split(" "))) for line in files["sequences"].read_text().splitlines()]
    assert [(user - 1, item - 1) for user, *items in lines for item in items] == [
        event[:2] for event in truth
    ]
    texts = [json.loads(line) for line in files["texts"].read_text().splitlines()]
    titles = [row["title"] for row in json_lines(write("amazon")["meta"], ast.literal_eval)]
    assert texts == [{"item_id": str(item), "title": title} for item, title in enumerate(titles, 1)]


def test_tables(write: Write, truth: list[tuple[int, int, int]]) -> None:
    files = write("table")
    interactions, items = pq.read_table(files["interactions"]), pq.read_table(files["items"])
    assert interactions.schema.names == ["user_id", "item_id", "timestamp"]
    assert truth == [
        (number(row["user_id"]), number(row["item_id"]), row["timestamp"] // 86_400)
        for row in interactions.to_pylist()
    ]
    assert items.schema.names == ["item_id", "title", "brand", "categories"]
    assert items["item_id"].to_pylist() == [f"i{item}" for item in range(ITEMS)]
    assert {tuple(path) for path in items["categories"].to_pylist()} == set(LEAVES)


# The readers


@pytest.mark.parametrize(
    ("corpus", "options"),
    [
        ("amazon", {"release": 2014}),
        ("amazon", {"release": 2018}),
        ("amazon", {"release": 2023}),
        ("movielens", {}),
        ("sequences", {}),
        ("table", {}),
    ],
)
def test_readers_find_every_event_and_every_title(
    write: Write, truth: list[tuple[int, int, int]], corpus: str, options: dict[str, Any]
) -> None:
    from_files = READERS.load(corpus)(**write(corpus, **options), **options, k_core=1)
    users, items, _ = (set(numbers) for numbers in zip(*truth, strict=True))
    assert len(from_files.interactions) == len(truth)
    assert from_files.interactions["user_id"].n_unique() == len(users)
    assert len(from_files.items) == len(items)
    assert "" not in from_files.items["title"]


@pytest.mark.parametrize("corpus", ["esci", "jdsearch"])
def test_readers_find_queries_that_titles_answer(write: Write, corpus: str) -> None:
    from_files = READERS.load(corpus)(**write(corpus))
    assert from_files.queries is not None
    assert from_files.judgements is not None
    assert set(from_files.queries["split"]) == {"train", "valid", "test"}
    best = from_files.judgements.sort("gain", descending=True).unique(
        "query_id", keep="first", maintain_order=True
    )
    pairs = best.join(from_files.queries, on="query_id").join(from_files.items, on="item_id")
    described = pairs.filter(pl.col("title") != "")
    agree = [
        set(query.lower().split()) <= set(title.lower().split())
        for query, title in described.select("text", "title").iter_rows()
    ]
    assert len(agree) > 50
    assert np.mean(agree) > 0.5
