"""JDsearch: the published sample field by field, and every rule on made-up lines."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.datasets.corpus import Corpus
from recsys.datasets.formats import tabbed
from recsys.datasets.jdsearch import BEHAVIOR, GAINS, PRODUCTS, read_jdsearch

DATA = Path(__file__).parents[3] / "../shared/data/jdsearch"
in_shared_data = pytest.mark.skipif(not DATA.is_dir(), reason="JDsearch's sample is not in ../shared/data")

ANNA = "5\x186 a_b_c 3.0_0.0_1.0 1\x182_1\x182_-1_1\x182_3 d_e_d_f_a ORD_CLICK_CART_FLW_CLICK 0_10_0_5_7_100"
BERT = "9 a_g 0.0_0.0 4_4_4 d_d_h CLICK_ORD_CART 3_1_1_9"
CARA = "7 h_h 1.0_2.0    0"


def lines_of(*users: str) -> bytes:
    return "".join(user.replace(" ", "\t") + "\n" for user in users).encode()


def product(wid: str, name: str = "", brand: str = "", *categories: str) -> str:
    names = [*categories, "", "", "", ""][:4]
    levels = [cell for level, name in enumerate(names) for cell in (str(level), name)]
    return "\t".join([wid, name, "77", brand, *levels, "88"]) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "behavior.txt"
    path.write_bytes(lines_of(ANNA, BERT, CARA))
    return path


def queries_of(corpus: Corpus) -> dict[str, tuple[str, str, str, int]]:
    """Return split, text, user and history of each query."""
    assert corpus.queries is not None
    return {query: tuple(rest) for query, *rest in corpus.queries.iter_rows()}  # type: ignore[misc]


def answers_of(corpus: Corpus) -> dict[str, dict[str, float]]:
    assert corpus.judgements is not None
    answers: dict[str, dict[str, float]] = {}
    for query, item, gain in corpus.judgements.iter_rows():
        answers.setdefault(query, {})[item] = gain
    return answers


def events_of(corpus: Corpus, user: str) -> list[tuple[str, int]]:
    own = corpus.interactions.filter(pl.col("user_id").cast(pl.String) == user)
    return own.select(pl.col("item_id").cast(pl.String), "timestamp").rows()


def test_lines_become_interactions_queries_and_judgements(path: Path) -> None:
    corpus = read_jdsearch(path)
    anna, bert, cara = "u0000001", "u0000002", "u0000003"
    assert events_of(corpus, anna) == [("d", 0), ("e", 10), ("d", 10), ("f", 15), ("a", 22)]
    assert events_of(corpus, bert) == [("d", 3), ("d", 4), ("h", 5)]
    assert queries_of(corpus) == {
        f"{anna}.0001": ("train", "1 2", anna, 0),
        f"{anna}.0002": ("valid", "3", anna, 4),
        f"{anna}.test": ("test", "5 6", anna, 5),
        f"{bert}.0001": ("valid", "4", bert, 0),
        f"{cara}.test": ("test", "7", cara, 0),
    }
    assert answers_of(corpus) == {
        f"{anna}.0001": {"d": 3, "e": 1, "f": 1},
        f"{anna}.0002": {"a": 1},
        f"{anna}.test": {"a": 3, "c": 1},
        f"{bert}.0001": {"d": 3, "h": 2},
        f"{cara}.test": {"h": 2},
    }
    assert corpus.items["item_id"].to_list() == ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert corpus.term_ids
    assert corpus.notes == {"items_without_metadata": 8, "users_without_test_query": 1}


def test_header_line_ends_packing_and_blocks_make_no_difference(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, lines = read_jdsearch(path).digest(), path.read_bytes()
    header = "\t".join(BEHAVIOR).encode() + b"\n"
    for content in (header + lines, lines.replace(b"\n", b"\r\n"), gzip.compress(header + lines)):
        path.write_bytes(content)
        assert read_jdsearch(path).digest() == expected
    monkeypatch.setattr(tabbed, "BLOCK", 1)
    assert read_jdsearch(path).digest() == expected


def test_products_give_the_texts(path: Path, tmp_path: Path) -> None:
    products = tmp_path / "products.txt"
    lines = [
        product("h", "10\x1811", "12", "13", "", "14\x1815", "16"),
        product("h", "99"),
        product("unseen", "1"),
        product("a", "20"),
    ]
    products.write_text("\t".join(PRODUCTS) + "\n" + "".join(lines))
    corpus = read_jdsearch(path, products)
    texts = {item: tuple(rest) for item, *rest in corpus.items.iter_rows()}
    assert texts["h"] == ("10 11", "12", ["13", "14 15", "16"], "")
    assert texts["a"] == ("20", "", [], "")
    assert texts["b"] == ("", "", [], "")
    assert "unseen" not in texts
    assert corpus.notes["items_without_metadata"] == 6


def test_only_what_is_described_can_be_the_catalogue(path: Path, tmp_path: Path) -> None:
    products = tmp_path / "products.txt"
    products.write_text("".join(product(wid) for wid in "abdfz"))
    corpus = read_jdsearch(path, products, catalogue="described")
    assert corpus.items["item_id"].to_list() == ["a", "b", "d", "f"]
    assert events_of(corpus, "u0000001") == [("d", 0), ("d", 10), ("f", 15), ("a", 22)], "the times stay"
    assert queries_of(corpus)["u0000001.0002"] == ("valid", "3", "u0000001", 3)
    assert answers_of(corpus) == {
        "u0000001.0001": {"d": 3, "f": 1},
        "u0000001.0002": {"a": 1},
        "u0000001.test": {"a": 3},
        "u0000002.0001": {"d": 3},
    }
    assert corpus.notes == {
        "undescribed_events": 2,
        "undescribed_candidates": 4,
        "items_without_metadata": 0,
        "users_without_test_query": 2,
    }


def test_gains_of_0_are_no_answers(path: Path) -> None:
    corpus = read_jdsearch(path, gains={"CLICK": 0, "CART": 0, "ORD": 1, "FLW": 0})
    assert answers_of(corpus) == {
        "u0000001.0001": {"d": 1},
        "u0000001.test": {"a": 1},
        "u0000002.0001": {"d": 1},
    }
    assert queries_of(corpus)["u0000001.0001"][0] == "valid", "the last that has an answer"
    assert len(corpus.interactions) == 8


def test_queries_without_text_are_none(path: Path) -> None:
    path.write_bytes(lines_of("-1 a 1.0 -1_ b_c CLICK_CLICK 0_1_2", " a 1.0 5 b CLICK 0_1"))
    corpus = read_jdsearch(path)
    assert queries_of(corpus) == {"u0000002.0001": ("valid", "5", "u0000002", 0)}
    assert len(corpus.interactions) == 3


def test_a_pool_holds_the_test_queries_drawn_and_their_users_alone(path: Path, tmp_path: Path) -> None:
    users = [f"{n} x{n}_y 1.0_0.0 {n} z{n} ORD 0_1" for n in range(100)]
    path.write_bytes(lines_of(*users))
    corpus, same, other = (read_jdsearch(path, pool=10, seed=seed) for seed in (0, 0, 1))
    assert corpus.digest() == same.digest() != other.digest()
    drawn = [text for split, text, _, _ in queries_of(corpus).values() if split == "test"]
    assert len(drawn) == 10
    assert set(corpus.items["item_id"]) == {"y"} | {kind + text for kind in "xz" for text in drawn}
    assert corpus.statistics()["users"] == 10
    products = tmp_path / "products.txt"
    products.write_text("".join(product(f"x{n}") for n in range(0, 100, 2)))
    described = read_jdsearch(path, products, catalogue="described", pool=50)
    assert described.items["item_id"].to_list() == sorted(f"x{n}" for n in range(0, 100, 2))
    assert [user for _, _, user, _ in queries_of(corpus).values()] == [
        f"u{int(text) + 1:07d}" for text in sorted(drawn, key=int) for _ in range(2)
    ]
    for pool in (0, 101):
        with pytest.raises(ValueError, match="pool must be from 1 to 100"):
            read_jdsearch(path, pool=pool)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("9 a 1.0 4 d CLICK", "has 6 columns separated by tabs, not 7"),
        ("9 a 1.0_1.0 4 d CLICK 0_1", "candidate_label_list must have as many as .* have 2 and 1 elements"),
        ("9 a 1.0 4_4 d CLICK 0_1", "history_qry_list must have as many as .* have 2 and 1 elements"),
        ("9 a 1.0 4 d CLICK_ORD 0_1", "history_type_list must have as many as .* have 2 and 1 elements"),
        ("9 a 1.0 4 d CLICK 0", "history_time_list must have 1 more than .* have 1 and 1 elements"),
        ("9 a 4.0 4 d CLICK 0_1", "candidate_label_list holds 4.0, but labels are 0, 1, 2 or 3"),
        ("9 a nan 4 d CLICK 0_1", "candidate_label_list holds nan"),
        ("9 a 1.0 4 d VIEW 0_1", "history_type_list holds VIEW, but types are CLICK, CART, ORD, FLW"),
        ("9 a 1.0 4 d CLICK 0_soon", "history_time_list holds soon, but intervals are whole numbers"),
        ("9 a 1.0 4 d CLICK -3_1", "history_time_list holds -3"),
        ("9 a 1.0 4 d CLICK 0_99999999999999", "history_time_list holds 99999999999999"),
        ("9 a 1.0 4_4 d_ CLICK_ORD 0_1_1", "history_wid_list holds , but ids are not empty"),
        ("9 a_ 1.0_1.0 4 d CLICK 0_1", "candidate_wid_list holds , but ids are not empty"),
    ],
)
def test_a_broken_line_is_named_or_left_out(path: Path, line: str, message: str) -> None:
    sound = read_jdsearch(path)
    path.write_bytes(lines_of(ANNA, BERT, CARA, line))
    with pytest.raises(ValueError, match=f"behavior.txt, line 4: {message}"):
        read_jdsearch(path)
    corpus = read_jdsearch(path, skip_bad_lines=True)
    assert corpus.digest() == sound.digest()
    assert corpus.skipped_lines == 1


def test_users_keep_their_names_where_lines_before_them_are_left_out(path: Path) -> None:
    header = "\t".join(BEHAVIOR).encode() + b"\n"
    path.write_bytes(header + b"\xff\xfe\n" + lines_of(BERT))
    with pytest.raises(ValueError, match="line 2: is not UTF-8"):
        read_jdsearch(path)
    assert list(queries_of(read_jdsearch(path, skip_bad_lines=True))) == ["u0000002.0001"]


def test_odd_files_and_options_are_refused(path: Path, tmp_path: Path) -> None:
    products = tmp_path / "products.txt"
    with pytest.raises(FileNotFoundError, match="give the products file"):
        read_jdsearch(path, products)
    products.write_text(product("z"))
    with pytest.raises(ValueError, match="describes none of the 8 products touched or shown"):
        read_jdsearch(path, products)
    products.write_text(product("a") + product(""))
    with pytest.raises(ValueError, match="line 2: wid is empty"):
        read_jdsearch(path, products)
    assert read_jdsearch(path, products, skip_bad_lines=True).skipped_lines == 1
    with pytest.raises(ValueError, match="'described' needs the products file"):
        read_jdsearch(path, catalogue="described")
    with pytest.raises(ValueError, match="gains must give each of CLICK, CART, ORD, FLW"):
        read_jdsearch(path, gains={"CLICK": 1})
    with pytest.raises(ValueError, match="no query has a product with a gain above 0"):
        read_jdsearch(path, gains=dict.fromkeys(GAINS, 0))
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed[:-12])
    with pytest.raises(ValueError, match="cut off or damaged"):
        read_jdsearch(path)
    path.write_text("\t".join(BEHAVIOR) + "\n")
    with pytest.raises(ValueError, match="holds no users"):
        read_jdsearch(path)


@in_shared_data
def test_the_sample_is_read_field_by_field() -> None:
    corpus = read_jdsearch(DATA / "user_behavior_data_sample.txt", DATA / "product_meta_data_sample.txt")
    assert corpus.statistics()["users"] == 3
    assert len(corpus.interactions) == 182 + 46 + 2
    assert corpus.notes == {"items_without_metadata": 12, "users_without_test_query": 0}
    assert len(corpus.items) == 409 + 12
    assert events_of(corpus, "u0000003") == [("8133925", 0), ("59478082", 27)]
    queries, answers = queries_of(corpus), answers_of(corpus)
    assert [query for query in queries if query.startswith("u0000003")] == ["u0000003.test"], "no other asks"
    assert queries["u0000001.test"] == ("test", "63995226 60257419 61002446 25575117", "u0000001", 182)
    assert queries["u0000003.test"] == ("test", "2437437 60677689 39206305", "u0000003", 2)
    assert answers["u0000001.test"] == {"36098226": 1}
    assert answers["u0000003.test"] == {"42155506": 1, "90092899": 1}
    assert queries["u0000001.0001"] == ("train", "68784030", "u0000001", 3), (
        "three events without a query first"
    )
    assert queries["u0000001.0002"] == ("train", "36547097 60257419 3663289", "u0000001", 4)
    assert queries["u0000001.0003"] == ("train", "95922913 98423633", "u0000001", 5)
    asked_again = ("21056095", "62869065", "88037503", "84804423", "32306199", "98889975")
    assert answers["u0000001.0003"] == dict.fromkeys(asked_again, 2), "events 5 to 7, and 21 to 23"
    assert len(queries) == 26 + 11 + 3, "different ones of the first and second user, and a test query each"
    item = corpus.items.row(by_predicate=pl.col("item_id") == "9227588", named=True)
    assert item["title"].startswith("64817571 60257419 46968562 60257419 82278140 ")
    assert item["title"].endswith(" 64880503 14665946 37052718")
    assert item["brand"] == "64817571 41787705 46968562 59865766"
    kind = "6942514 33857956 88024364"
    assert item["categories"] == ["223100", "29891364 52614330", kind, kind]


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=20), share=st.floats(0, 1), skip=st.booleans())
def test_whatever_the_bytes_only_clear_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, share: float, skip: bool
) -> None:
    path = tmp_path_factory.mktemp("jdsearch") / "behavior.txt"
    lines = lines_of(ANNA, BERT, CARA)
    at = int(share * len(lines))
    path.write_bytes(lines[:at] + junk + lines[at + len(junk) :])
    problem = ""
    try:
        read_jdsearch(path, skip_bad_lines=skip)
    except (ValueError, OSError) as error:
        problem = str(error)
    assert not problem or problem.startswith(str(path))
