"""The made-up shop in the files of MovieLens: its items are films, and their categories are genres.

Source of the formats: the README files at https://grouplens.org/datasets/movielens/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from recsys.datasets.movielens import GENRES_100K
from recsys.datasets.synthetic.files import csv_lines, plain_lines, write_chunks
from recsys.datasets.synthetic.shoppers import Shop
from recsys.datasets.synthetic.words import DEPARTMENTS, LEAVES_EACH

FIRST_YEAR, LAST_YEAR = 1930, 2011
"""Range of the films' years."""

THE_SHARE, ACCENT_SHARE = 0.3, 0.1
"""Shares of titles with the article "The", and with a word that has an accent."""

USER, MOVIE = pl.col("user") + 1, pl.col("item") + 1


def write_movielens(folder: Path, shop: Shop, *, release: str) -> dict[str, Path]:
    """Write ``ratings`` and ``movies`` in the format and with the file names of a release."""
    return {"100k": _write_100k, "1m": _write_1m}.get(release, _write_csv)(folder, shop)


def _write_csv(folder: Path, shop: Shop) -> dict[str, Path]:
    """Write the CSV files of the releases from 20M on."""

    def ratings() -> Iterator[bytes]:
        yield b"userId,movieId,rating,timestamp\r\n"
        for events in shop.events():
            by_movie = events.sort("user", "item")
            yield csv_lines(by_movie.select(USER, MOVIE, pl.col("rating").cast(pl.Float64), "time"))

    def movies() -> Iterator[bytes]:
        yield b"movieId,title,genres\r\n"
        for films in _films(shop):
            genres = pl.col("genres").list.join("|").str.replace("Children's", "Children", literal=True)
            yield csv_lines(films.select(MOVIE, "title", genres))

    return {
        "ratings": write_chunks(folder / "ratings.csv", ratings()),
        "movies": write_chunks(folder / "movies.csv", movies()),
    }


def _write_1m(folder: Path, shop: Shop) -> dict[str, Path]:
    """Write the files of 1M, with ``::`` between fields."""
    ratings = (plain_lines(events.select(USER, MOVIE, "rating", "time"), "::") for events in shop.events())
    columns = [MOVIE, pl.col("title"), pl.col("genres").list.join("|")]
    movies = (plain_lines(films.select(columns), "::", "latin-1") for films in _films(shop))
    return {
        "ratings": write_chunks(folder / "ratings.dat", ratings),
        "movies": write_chunks(folder / "movies.dat", movies),
    }


def _write_100k(folder: Path, shop: Shop) -> dict[str, Path]:
    """Write the files of 100k, with ratings in random order and genres as flags."""
    rng = shop.generator("order of ratings")
    shuffled = (events[rng.permutation(len(events))] for events in shop.events())
    ratings = (plain_lines(events.select(USER, MOVIE, "rating", "time"), "\t") for events in shuffled)
    columns = [
        MOVIE,
        pl.col("title"),
        pl.format("01-Jan-{}", "year"),
        pl.lit("").alias("video release"),
        pl.lit("").alias("address"),
        *(pl.col("genres").list.contains(genre).cast(pl.Int8).alias(genre) for genre in GENRES_100K),
    ]
    movies = (plain_lines(films.select(columns), "|", "latin-1") for films in _films(shop))
    return {
        "ratings": write_chunks(folder / "u.data", ratings),
        "movies": write_chunks(folder / "u.item", movies),
    }


def _films(shop: Shop) -> Iterator[pl.DataFrame]:
    """Yield blocks of ``item``, ``title``, ``year`` and ``genres``, two genres that identify the leaf."""
    rng = shop.generator("films")
    world = shop.world
    genres = pl.Series(GENRES_100K[1:])
    for items in world.blocks():
        year = rng.integers(FIRST_YEAR, LAST_YEAR + 1, size=len(items))
        accent, the = rng.random(len(items)) < ACCENT_SHARE, rng.random(len(items)) < THE_SHARE
        department, leaf = world.department[items], world.leaf[items] % LEAVES_EACH
        yield world.describe(items).select(
            "item",
            title=pl.format(
                "{}{}{} ({})",
                pl.Series(np.where(accent, "Café ", "")),
                "title",
                pl.Series(np.where(the, ", The", "")),
                pl.Series(year),
            ),
            year=pl.Series(year),
            genres=pl.concat_list(genres.gather(department), genres.gather(len(DEPARTMENTS) + leaf)),
        )
