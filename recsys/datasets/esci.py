"""Reader of Amazon's Shopping Queries (ESCI): products labelled exact, substitute, complement, irrelevant.

Source: C. K. Reddy et al., *Shopping Queries Dataset: A Large-Scale ESCI Benchmark for Improving Product
Search*, 2022, arXiv:2206.06588.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from recsys.datasets.corpus import (
    EVENTS,
    ITEMS,
    JUDGEMENTS,
    QUERIES,
    Corpus,
    check_metadata,
    checked_gains,
    count_undescribed,
    items_of,
)
from recsys.datasets.formats.lines import unescaped
from recsys.datasets.formats.tables import read_columns_in_parts
from recsys.datasets.interactions import interactions_of
from recsys.datasets.readers import reader

Locale = Literal["us", "es", "jp"]

GAINS: Mapping[str, float] = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}
"""Gain of a product by its label, as in the nDCG of the corpus's own task 1."""

FLAGS = ("small_version", "large_version")
EXAMPLES = ("query", "query_id", "product_id", "product_locale", "esci_label", *FLAGS, "split")
DESCRIPTION = ("product_bullet_point", "product_description", "product_color")
PRODUCTS = ("product_id", "product_locale", "product_title", "product_brand", *DESCRIPTION)
NUMBERS = ("query_id", *FLAGS)
"""Columns that may have whole numbers; the others must have texts."""

TAG = r"(?s)<!--.*?-->|</?[A-Za-z][^<>]*>"
"""An HTML comment or tag."""


@reader(search=True)
def read_esci(
    examples: Path,
    products: Path,
    *,
    locale: Locale = "us",
    version: Literal["small", "large"] = "small",
    catalogue: Literal["judged", "locale"] = "judged",
    gains: Mapping[str, float] = GAINS,
    valid_share: float = 0.1,
    seed: int = 0,
) -> Corpus:
    """Read one locale of the corpus. It has no users, so there are no interactions.

    The split into train and test is the official one. Validation queries are drawn from the train queries.
    A query in both splits (the large version has some) is a test query, with its test rows only. If several
    rows have the same query and product, the first row is used. A query is left out if none of its products
    has a gain above 0. HTML is removed from the texts of products. ``notes`` counts
    ``items_without_metadata``, ``queries_without_judgement``, ``queries_in_both_splits`` and
    ``duplicate_judgements``.

    Args:
        examples: ``shopping_queries_dataset_examples.parquet``, or its rows as ``.csv``.
        products: ``shopping_queries_dataset_products.parquet``.
        locale: The market, which also decides the language.
        version: ``small`` is without the queries that the publishers found easy (task 1); ``large`` has all.
        catalogue: The products to search. ``judged``: all products that are judged for a query of this
            locale and version, also those with gain 0. ``locale``: all products of the locale.
        gains: Gain by label. ``{"E": 1, "S": 0, "C": 0, "I": 0}`` makes the labels binary, with exact
            matches as the only answers, which is the usual choice. The paper of GRIT-VQ makes the labels
            binary without saying which ones count.
        valid_share: Share of the train queries that become validation queries, at least 0 and below 1. The
            choice depends on ``seed`` and the id of each query alone, so more queries do not change it.
        seed: Seed of that choice.

    Returns:
        The corpus, with queries and judgements.

    Raises:
        FileNotFoundError: If a file does not exist.
        IsADirectoryError: If a path is a directory.
        ValueError: If a file has errors (the message names the file, and the row and column if there is
            one), if an option is out of range, or if no judgement is left.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from recsys.datasets.synthetic import write_shop
        >>> with TemporaryDirectory() as folder:
        ...     corpus = read_esci(**write_shop(folder, "esci", users=100, items=100))
        >>> sorted(corpus.queries["split"].unique())
        ['test', 'train', 'valid']
    """
    gains = checked_gains(gains, GAINS)
    if not 0 <= valid_share < 1:
        raise ValueError(f"valid_share must be at least 0 and below 1, not {valid_share}")
    rows = _read_examples(examples, locale, version)
    item_ids = rows["product_id"].unique().sort()
    metadata = _read_products(products, locale, None if catalogue == "locale" else item_ids)
    check_metadata(products, item_ids, metadata, f"products judged in {examples}")
    without_metadata = count_undescribed(item_ids, metadata)
    if catalogue == "locale":
        item_ids = pl.concat([item_ids, metadata["item_id"]]).unique().sort()

    in_both = (
        rows.group_by("query_id").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)["query_id"]
    )
    official = rows.filter((pl.col("split") == "test") | ~pl.col("query_id").is_in(in_both.implode()))
    pairs = official.unique(["query_id", "product_id"], keep="first", maintain_order=True)
    judgements = _judgements(pairs, gains)
    queries = _queries(pairs, valid_share, seed)
    answered = queries.join(judgements, on="query_id", how="semi", maintain_order="left")
    if answered.is_empty():
        raise ValueError(f"{examples}: no product has a gain above 0 with the gains {dict(gains)}")
    return Corpus(
        items=items_of(item_ids, metadata),
        interactions=interactions_of(pl.DataFrame(schema=EVENTS), item_ids=item_ids),
        queries=answered,
        judgements=judgements,
        notes={
            "items_without_metadata": without_metadata,
            "queries_without_judgement": len(queries) - len(answered),
            "queries_in_both_splits": len(in_both),
            "duplicate_judgements": len(official) - len(pairs),
        },
    )


def _read_examples(path: Path, locale: str, version: str) -> pl.DataFrame:
    """Return the rows of a locale and version, with the columns :data:`EXAMPLES`, all as texts."""
    checks = {
        **{name: pl.col(name) != "" for name in ("query_id", "product_id")},
        "query": pl.col("query").is_not_null(),
        "product_locale": pl.col("product_locale").is_in(get_args(Locale)),
        "esci_label": pl.col("esci_label").is_in(list(GAINS)),
        **{flag: pl.col(flag).is_in(["0", "1"]) for flag in FLAGS},
        "split": pl.col("split").is_in(["train", "test"]),
    }
    is_chosen = (pl.col("product_locale") == locale) & (pl.col(f"{version}_version") == "1")
    rows = pl.concat([part.filter(is_chosen) for part in _checked(path, "examples", EXAMPLES, checks)])
    if rows.is_empty():
        raise ValueError(f"{path}: holds no rows of locale {locale} in the {version} version")
    return rows


def _read_products(path: Path, locale: str, wanted: pl.Series | None) -> pl.DataFrame:
    """Return the products of a locale, with the columns :data:`ITEMS`, in the order of the file.

    Args:
        path: The products file.
        locale: The market.
        wanted: Ids of the products to return; None returns all.
    """
    checks = {name: pl.col(name) != "" for name in ("product_id", "product_locale")}
    is_chosen = pl.col("product_locale") == locale
    if wanted is not None:
        is_chosen &= pl.col("product_id").is_in(wanted.implode())
    return pl.concat(
        [
            part.filter(is_chosen).select(
                item_id="product_id",
                title=_cleaned("product_title"),
                brand=_cleaned("product_brand"),
                categories=pl.lit([], dtype=ITEMS["categories"]),
                description=_cleaned(*DESCRIPTION),
            )
            for part in _checked(path, "products", PRODUCTS, checks)
        ]
    )


def _judgements(pairs: pl.DataFrame, gains: Mapping[str, float]) -> pl.DataFrame:
    """Return the judgements with a gain above 0 from rows of :data:`EXAMPLES`, one row for each pair."""
    return (
        pairs.select(
            "query_id",
            item_id="product_id",
            gain=pl.col("esci_label").replace_strict(dict(gains), return_dtype=JUDGEMENTS["gain"]),
        )
        .filter(pl.col("gain") > 0)
        .sort("query_id", "item_id")
    )


def _queries(pairs: pl.DataFrame, valid_share: float, seed: int) -> pl.DataFrame:
    """Return all queries, also those without a judgement; draw the validation queries."""
    queries = pairs.unique("query_id", keep="first", maintain_order=True).sort("query_id")
    draws = pl.Series([_draw(query, seed) for query in queries["query_id"]], dtype=pl.Float64)
    is_valid = (pl.col("split") == "train") & (draws < valid_share)
    return queries.select(
        "query_id",
        split=pl.when(is_valid).then(pl.lit("valid")).otherwise("split"),
        text="query",
        user_id=pl.lit(""),
        history=pl.lit(0, dtype=QUERIES["history"]),
    )


def _draw(query_id: str, seed: int) -> float:
    """Return a number from 0 to below 1 that depends on the arguments alone, on every machine."""
    digest = hashlib.blake2b(f"{seed} {query_id}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def _cleaned(*columns: str) -> pl.Expr:
    """Return an expression that joins texts, without HTML tags and entities, and with single spaces."""
    text = pl.concat_str(pl.col(columns).fill_null(""), separator=" ")
    decoded = text.str.replace_all(TAG, " ").map_elements(unescaped, return_dtype=pl.String)
    return decoded.str.replace_all(r"\s+", " ").str.strip_chars()


def _checked(
    path: Path, what: str, columns: tuple[str, ...], checks: Mapping[str, pl.Expr]
) -> Iterator[pl.DataFrame]:
    """Read columns as texts, some rows at a time, and check their values.

    Args:
        path: Path of the table.
        what: What the table contains, in a word for error messages.
        columns: The columns to read.
        checks: Boolean expression by column; null means that the value is wrong.

    Yields:
        Frames with the columns as texts.

    Raises:
        ValueError: If a check fails. The message names the row and the column.
    """
    rows_before = 0
    for part in read_columns_in_parts(path, what, columns):
        _check_types(path, part.schema)
        texts = part.select(pl.col(columns).cast(pl.String))
        passed = texts.select(**{name: check.fill_null(False) for name, check in checks.items()})
        first_failed = passed.with_row_index().filter(~pl.all_horizontal(*checks)).head(1)
        for row, *results in first_failed.iter_rows():
            name = list(checks)[results.index(False)]
            value = texts[name][row]
            raise ValueError(
                f"{path}, row {rows_before + row + 1}: {name} is {value and value[:60]!r}; "
                "download the file again"
            )
        rows_before += len(texts)
        yield texts


def _check_types(path: Path, types: Mapping[str, pl.DataType]) -> None:
    """Raise a ValueError unless columns have texts, or whole numbers where they may."""
    for name, dtype in types.items():
        if dtype not in (pl.String, pl.Null) and not (name in NUMBERS and dtype.is_integer()):
            wanted = "texts or whole numbers" if name in NUMBERS else "texts"
            raise ValueError(f"{path}: the column {name} must hold {wanted}, not {dtype}")
