"""ESCI: real rows against the file, and every rule on made-up rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.datasets.corpus import Corpus
from recsys.datasets.esci import EXAMPLES, PRODUCTS, read_esci

DATA = Path(__file__).parents[3] / "../shared/data/esci"
Row = tuple[str, int, str, str, str, int, int, str]

ROWS: list[Row] = [
    ("red shoe", 7, "A", "us", "E", 1, 1, "train"),
    ("red shoe", 7, "B", "us", "S", 1, 1, "train"),
    ("red shoe", 7, "C", "us", "I", 1, 1, "train"),
    ("blue hat", 8, "B", "us", "C", 0, 1, "test"),
    ("zapato", 9, "A", "es", "E", 1, 1, "test"),
]


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return Raw(tmp_path)


class Raw:
    """Two made-up files."""

    def __init__(self, folder: Path) -> None:
        self.examples, self.products = folder / "examples.parquet", folder / "products.parquet"
        self.write_products([{"product_id": name, "product_title": f"thing {name}"} for name in "ABC"])

    def write_products(self, products: list[dict[str, str]]) -> None:
        rows = [{"product_locale": "us"} | product for product in products]
        pl.DataFrame(rows, schema=dict.fromkeys(PRODUCTS, pl.String)).write_parquet(self.products)

    def read(self, rows: list[Row], **options: object) -> Corpus:
        pl.DataFrame(rows, schema=list(EXAMPLES), orient="row").write_parquet(self.examples)
        return read_esci(self.examples, self.products, **options)  # type: ignore[arg-type]


def judged(corpus: Corpus, query: str) -> dict[str, float]:
    assert corpus.judgements is not None
    of_query = corpus.judgements.filter(pl.col("query_id") == query)
    return {item: round(gain, 6) for _, item, gain in of_query.iter_rows()}


def splits(corpus: Corpus) -> dict[str, str]:
    assert corpus.queries is not None
    return dict(corpus.queries.select("query_id", "split").iter_rows())


@pytest.mark.skipif(not DATA.is_dir(), reason="the rows of ESCI are not in ../shared/data")
def test_true_rows_are_read_as_they_stand_in_the_file(raw: Raw) -> None:
    raw.write_products([{"product_id": "B08L3B9B9P", "product_title": "Tire"}])
    path = DATA / "examples_us.real_rows.sample.csv"
    small = read_esci(path, raw.products, valid_share=0)
    assert small.queries is not None
    assert small.queries.rows() == [
        ("1", "train", "!awnmower tires without rims", "", 0),
        ("2", "test", "!qscreen fence without holes", "", 0),
    ]
    assert judged(small, "1") == {
        "B01DBGLLUC": 0.1,
        "B01M3SJ699": 0.01,
        "B06XX6BM2R": 1,
        "B077QMNXTS": 1,
        "B07C1WZG12": 1,
        "B07P4CF3DP": 0.1,
        "B08L3B9B9P": 1,
    }
    assert judged(small, "2") == {
        "B0019Y6TTC": 1,
        "B001OJXVKW": 1,
        "B0079GH6J6": 0.01,
        "B018JYCD80": 1,
        "B018JYCD9Y": 0.1,
        "B01N4AMZ8Y": 0.1,
        "B077Z8Z8D8": 1,
    }
    assert len(small.items) == 28  # 10 judged for the first, 18 for the second query
    assert small.notes["items_without_metadata"] == 27
    large = read_esci(path, raw.products, version="large", valid_share=0)
    assert len(large.items) == 32
    assert judged(large, "0") == {"B003O0MNGC": 1, "B001E6DMKY": 1, "B01N5Y6002": 1}


def test_a_locale_and_a_version_are_read_alone(raw: Raw) -> None:
    raw.write_products(
        [
            {"product_id": "A", "product_title": "zapato rojo", "product_locale": "es"},
            {"product_id": "A", "product_title": "red shoe", "product_locale": "us"},
        ]
    )
    small, large = raw.read(ROWS, valid_share=0), raw.read(ROWS, version="large", valid_share=0)
    spanish = raw.read(ROWS, locale="es")
    assert splits(small) == {"7": "train"}
    assert splits(large) == {"7": "train", "8": "test"}
    assert splits(spanish) == {"9": "test"}
    assert small.items["title"].to_list() == ["red shoe", "", ""]
    assert spanish.items.select("item_id", "title").rows() == [("A", "zapato rojo")]


def test_texts_lose_their_html(raw: Raw) -> None:
    raw.write_products(
        [
            {
                "product_id": "A",
                "product_title": " Tom &amp; Jerry&#39;s  <b>mug</b>, 3 < 4 ",
                "product_brand": "B&amp;B",
                "product_description": "<p>one<br/>two</p><!-- no\n<i> -->",
                "product_bullet_point": "first\nsecond",
                "product_color": "red",
            }
        ]
    )
    corpus = raw.read(ROWS)
    assert corpus.items.row(0) == ("A", "Tom & Jerry's mug , 3 < 4", "B&B", [], "first second one two red")
    assert corpus.items.row(1) == ("B", "", "", [], "")
    absurd = f"&#{'9' * 5000};"
    raw.write_products([{"product_id": "A", "product_title": absurd}])
    assert raw.read(ROWS).items["title"][0] == absurd


def test_gains_follow_the_map_and_queries_without_any_are_left_out(raw: Raw) -> None:
    corpus = raw.read(ROWS, version="large", gains={"E": 1, "S": 1, "C": 0, "I": 0})
    assert judged(corpus, "7") == {"A": 1, "B": 1}
    assert list(splits(corpus)) == ["7"]
    assert corpus.notes["queries_without_judgement"] == 1
    assert corpus.items["item_id"].to_list() == ["A", "B", "C"], "what has no gain is searched all the same"


def test_there_are_no_users(raw: Raw) -> None:
    corpus = raw.read(ROWS)
    assert corpus.statistics() == {"users": 0, "items": 3, "interactions": 0, "mean_length": 0, "queries": 1}


def test_the_split_of_a_query_does_not_depend_on_others(raw: Raw) -> None:
    rows: list[Row] = [("q", number, "A", "us", "E", 1, 1, "train") for number in range(1000)]
    tests: list[Row] = [("q", 5000 + number, "A", "us", "E", 1, 1, "test") for number in range(50)]
    all_of_them = splits(raw.read(rows + tests, valid_share=0.2))
    half = splits(raw.read(rows[::2], valid_share=0.2))
    other = splits(raw.read(rows, valid_share=0.2, seed=1))
    assert half.items() <= all_of_them.items()
    assert 150 < list(all_of_them.values()).count("valid") < 250
    assert list(all_of_them.values()).count("test") == 50
    assert other != {query: all_of_them[query] for query in other}


def test_a_query_of_both_splits_is_a_test_query_without_its_train_rows(raw: Raw) -> None:
    corpus = raw.read([*ROWS, ("red shoe", 7, "C", "us", "E", 1, 1, "test")])
    assert splits(corpus) == {"7": "test"}
    assert judged(corpus, "7") == {"C": 1}
    assert corpus.notes["queries_in_both_splits"] == 1


def test_of_two_judgements_of_a_pair_the_first_counts(raw: Raw) -> None:
    corpus = raw.read([*ROWS, ("red shoe", 7, "A", "us", "I", 1, 1, "train")])
    assert judged(corpus, "7") == {"A": 1, "B": 0.1}
    assert corpus.notes["duplicate_judgements"] == 1


def test_the_catalogue_can_be_all_of_the_locale(raw: Raw) -> None:
    raw.write_products(
        [{"product_id": "A"}, {"product_id": "Z"}, {"product_id": "Y", "product_locale": "jp"}]
    )
    assert raw.read(ROWS).items["item_id"].to_list() == ["A", "B", "C"]
    corpus = raw.read(ROWS, catalogue="locale")
    assert corpus.items["item_id"].to_list() == ["A", "B", "C", "Z"]
    assert corpus.notes["items_without_metadata"] == 2


def test_categoricals_of_pandas_and_texts_for_numbers_are_fine(raw: Raw) -> None:
    expected = raw.read(ROWS).digest()
    kinds = {"product_locale": pl.Categorical, "split": pl.Enum(["train", "test"]), "query_id": pl.String}
    pl.read_parquet(raw.examples).cast(kinds).write_parquet(raw.examples)
    assert read_esci(raw.examples, raw.products).digest() == expected


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (1, None, "row 6: query_id is None"),
        (2, "", "row 6: product_id is ''"),
        (3, "fr", "row 6: product_locale is 'fr'"),
        (4, "X", "row 6: esci_label is 'X'"),
        (4, "X" * 9999, f"row 6: esci_label is '{'X' * 60}'; download"),
        (5, 2, "row 6: small_version is '2'"),
        (7, "dev", "row 6: split is 'dev'"),
    ],
)
def test_an_odd_value_is_named_with_its_row(raw: Raw, at: int, value: object, message: str) -> None:
    row = [*ROWS[0][:at], value, *ROWS[0][at + 1 :]]
    with pytest.raises(ValueError, match=f"examples.parquet, {message}"):
        raw.read([*ROWS, tuple(row)])  # type: ignore[list-item]


def test_odd_files_are_named(raw: Raw, tmp_path: Path) -> None:
    raw.read(ROWS)
    sound = raw.products.read_bytes()
    with pytest.raises(FileNotFoundError, match="parquet does not exist"):
        read_esci(tmp_path / "none.parquet", raw.products)
    with pytest.raises(IsADirectoryError, match="give the products file"):
        read_esci(raw.examples, tmp_path)
    for content, message in [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (sound[:-100], "products.parquet cannot be read as parquet .* download it again"),
        (b"no parquet\n", "products.parquet cannot be read"),
    ]:
        raw.products.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_esci(raw.examples, raw.products)


def test_columns_and_their_types_are_checked(raw: Raw) -> None:
    raw.read(ROWS)
    frame = pl.read_parquet(raw.examples)
    frame.drop("split").write_parquet(raw.examples)
    with pytest.raises(ValueError, match="no column is called 'split'"):
        read_esci(raw.examples, raw.products)
    frame.with_columns(small_version=pl.lit(1.0)).write_parquet(raw.examples)
    with pytest.raises(
        ValueError, match="the column small_version must hold texts or whole numbers, not Float64"
    ):
        read_esci(raw.examples, raw.products)
    frame.with_columns(product_id=pl.lit(12)).write_parquet(raw.examples)
    with pytest.raises(ValueError, match="the column product_id must hold texts, not Int"):
        read_esci(raw.examples, raw.products)


def test_nothing_left_is_an_error(raw: Raw) -> None:
    with pytest.raises(ValueError, match="holds no rows of locale jp in the small version"):
        raw.read(ROWS, locale="jp")
    with pytest.raises(ValueError, match="no product has a gain above 0"):
        raw.read(ROWS, gains={"E": 0, "S": 0, "C": 1, "I": 0})
    raw.write_products([{"product_id": "Z"}])
    with pytest.raises(ValueError, match="describes none of the 3 products judged"):
        raw.read(ROWS)


@pytest.mark.parametrize(
    "gains", [{"E": 1}, {"E": -1, "S": 0, "C": 0, "I": 0}, dict.fromkeys("ESCI", float("nan"))]
)
def test_options_out_of_range_are_refused(raw: Raw, gains: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="gains must give each of E, S, C, I"):
        raw.read(ROWS, gains=gains)
    with pytest.raises(ValueError, match="valid_share must be at least 0 and below 1"):
        raw.read(ROWS, valid_share=1)


@settings(max_examples=60, deadline=None)
@given(junk=st.binary(max_size=40), share=st.floats(0, 1))
def test_whatever_the_bytes_only_clear_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, share: float
) -> None:
    raw = Raw(tmp_path_factory.mktemp("esci"))
    path = raw.examples.with_suffix(".csv")
    text = pl.DataFrame(ROWS, schema=list(EXAMPLES), orient="row").write_csv().encode()
    at = int(share * len(text))
    path.write_bytes(text[:at] + junk + text[at + len(junk) :])
    problem = ""
    try:
        read_esci(path, raw.products)
    except (ValueError, OSError) as error:
        problem = str(error)
    assert not problem or problem.startswith((str(path), str(raw.products)))
