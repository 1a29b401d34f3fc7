"""Amazon's Shopping Queries: each with products judged Exact, Substitute, Complement or Irrelevant.

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
    checked_gains,
    items_of,
    undescribed,
)
from recsys.datasets.formats.lines import unescaped
from recsys.datasets.formats.tables import parts_of
from recsys.datasets.interactions import interactions_of
from recsys.datasets.readers import reader

Locale = Literal["us", "es", "jp"]

GAINS: Mapping[str, float] = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}
"""What a product is worth by its label: the gains with which the corpus's own task 1 is scored by nDCG."""

FLAGS = ("small_version", "large_version")
EXAMPLES = ("query", "query_id", "product_id", "product_locale", "esci_label", *FLAGS, "split")
DESCRIPTION = ("product_bullet_point", "product_description", "product_color")
PRODUCTS = ("product_id", "product_locale", "product_title", "product_brand", *DESCRIPTION)
NUMBERS = ("query_id", *FLAGS)
"""Columns that may be whole numbers; the others must be texts."""

TAG = r"(?s)<!--.*?-->|</?[A-Za-z][^<>]*>"


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
    """Read one locale of the corpus. There are no users, hence no interactions.

    The split into train and test is the official one; validation is carved out of train by query. A query
    that stands in both (the large version holds such) is a test query, with its test rows only. Of several
    rows on a query and a product the first counts. A query is left out if no product of it has a gain above
    0. HTML is taken out of the texts of products. ``notes`` counts ``items_without_metadata``,
    ``queries_without_judgement``, ``queries_in_both_splits`` and ``duplicate_judgements``.

    Args:
        examples: ``shopping_queries_dataset_examples.parquet``, or its rows as ``.csv``.
        products: ``shopping_queries_dataset_products.parquet``.
        locale: the market, and with it the language.
        version: ``small`` leaves out the queries that the publishers found easy (task 1); ``large`` is all.
        catalogue: what is searched: the products ``judged`` for any query of this locale and version, those
            without gain as well, or all of the ``locale``.
        gains: label → gain. ``{"E": 1, "S": 0, "C": 0, "I": 0}`` makes the labels binary, an exact match
            being what is usually asked for. The paper of GRIT-VQ makes them binary without saying where.
        valid_share: the part of the train queries that becomes validation. A query's lot hangs on ``seed``
            and its id alone: more queries move none.
        seed: of these lots.

    Raises:
        FileNotFoundError, IsADirectoryError: a path is not that of a file.
        ValueError: a file is not what it should be; the message names it, and the row and column if it is
            one that is wrong. Or an option is out of range, or no judgement is left.
    """
    gains = checked_gains(gains, GAINS)
    if not 0 <= valid_share < 1:
        raise ValueError(f"valid_share must be at least 0 and below 1, not {valid_share}")
    rows = _rows(examples, locale, version)
    item_ids = rows["product_id"].unique().sort()
    metadata = _metadata(products, locale, None if catalogue == "locale" else item_ids)
    without = undescribed(item_ids, metadata)
    if without == len(item_ids):
        raise ValueError(f"{products}: describes none of the {len(item_ids)} products judged: not its file?")
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
            "items_without_metadata": without,
            "queries_without_judgement": len(queries) - len(answered),
            "queries_in_both_splits": len(in_both),
            "duplicate_judgements": len(official) - len(pairs),
        },
    )


def _rows(path: Path, locale: str, version: str) -> pl.DataFrame:
    """:data:`EXAMPLES` of this locale and version, all as texts."""
    sound = {
        **{name: pl.col(name) != "" for name in ("query_id", "product_id")},
        "query": pl.col("query").is_not_null(),
        "product_locale": pl.col("product_locale").is_in(get_args(Locale)),
        "esci_label": pl.col("esci_label").is_in(list(GAINS)),
        **{flag: pl.col(flag).is_in(["0", "1"]) for flag in FLAGS},
        "split": pl.col("split").is_in(["train", "test"]),
    }
    of_these = (pl.col("product_locale") == locale) & (pl.col(f"{version}_version") == "1")
    rows = pl.concat([part.filter(of_these) for part in _checked(path, "examples", EXAMPLES, sound)])
    if rows.is_empty():
        raise ValueError(f"{path}: holds no rows of locale {locale} in the {version} version")
    return rows


def _metadata(path: Path, locale: str, wanted: pl.Series | None) -> pl.DataFrame:
    """:data:`ITEMS` of the locale, only those wanted if given, in the order of the file."""
    sound = {name: pl.col(name) != "" for name in ("product_id", "product_locale")}
    is_here = pl.col("product_locale") == locale
    if wanted is not None:
        is_here &= pl.col("product_id").is_in(wanted.implode())
    return pl.concat(
        [
            part.filter(is_here).select(
                item_id="product_id",
                title=_cleaned("product_title"),
                brand=_cleaned("product_brand"),
                categories=pl.lit([], dtype=ITEMS["categories"]),
                description=_cleaned(*DESCRIPTION),
            )
            for part in _checked(path, "products", PRODUCTS, sound)
        ]
    )


def _judgements(pairs: pl.DataFrame, gains: Mapping[str, float]) -> pl.DataFrame:
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
    """:data:`QUERIES`, those without a judgement as well."""
    queries = pairs.unique("query_id", keep="first", maintain_order=True).sort("query_id")
    lots = pl.Series([_lot(query, seed) for query in queries["query_id"]], dtype=pl.Float64)
    is_valid = (pl.col("split") == "train") & (lots < valid_share)
    return queries.select(
        "query_id",
        split=pl.when(is_valid).then(pl.lit("valid")).otherwise("split"),
        text="query",
        user_id=pl.lit(""),
        history=pl.lit(0, dtype=QUERIES["history"]),
    )


def _lot(query_id: str, seed: int) -> float:
    """At least 0 and below 1, the same on every machine."""
    digest = hashlib.blake2b(f"{seed} {query_id}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def _cleaned(*columns: str) -> pl.Expr:
    """The texts one after the other, without HTML tags, entities decoded, white space evened out."""
    text = pl.concat_str(pl.col(columns).fill_null(""), separator=" ")
    decoded = text.str.replace_all(TAG, " ").map_elements(unescaped, return_dtype=pl.String)
    return decoded.str.replace_all(r"\s+", " ").str.strip_chars()


def _checked(
    path: Path, what: str, columns: tuple[str, ...], sound: Mapping[str, pl.Expr]
) -> Iterator[pl.DataFrame]:
    """The columns as texts, part by part.

    Raises:
        ValueError: a row is not sound; the message names it and the column.
    """
    done = 0
    for part in parts_of(path, what, columns):
        _check_types(path, part.schema)
        texts = part.select(pl.col(columns).cast(pl.String))
        checks = texts.select(**{name: check.fill_null(False) for name, check in sound.items()})
        odd = checks.with_row_index().filter(~pl.all_horizontal(*sound)).head(1)
        for row, *is_sound in odd.iter_rows():
            name = list(sound)[is_sound.index(False)]
            value = texts[name][row]
            raise ValueError(
                f"{path}, row {done + row + 1}: {name} is {value and value[:60]!r}; download the file again"
            )
        done += len(texts)
        yield texts


def _check_types(path: Path, types: Mapping[str, pl.DataType]) -> None:
    for name, kind in types.items():
        if kind not in (pl.String, pl.Null) and not (name in NUMBERS and kind.is_integer()):
            wanted = "texts or whole numbers" if name in NUMBERS else "texts"
            raise ValueError(f"{path}: the column {name} must hold {wanted}, not {kind}")
