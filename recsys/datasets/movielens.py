"""MovieLens: ratings of films, in the files of all releases from 100k to 32M.

Source: F. M. Harper, J. A. Konstan, *The MovieLens Datasets: History and Context*, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys.datasets.corpus import EVENTS, ITEMS, Corpus, items_of, undescribed
from recsys.datasets.formats.lines import LAST_SECOND, checked_file, decoded, excerpt, lines_of, parsed
from recsys.datasets.interactions import interactions_of, item_ids_of
from recsys.datasets.readers import reader

Movie = tuple[str, str, str, list[str], str]
"""A row of :data:`ITEMS`."""

RATINGS = {"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
LOWEST, HIGHEST = 0.5, 5.0
"""Of the year 9999."""

NO_GENRES = "(no genres listed)"
GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
"""What the flags at the end of a line of ``u.item`` stand for; ``unknown`` is no genre."""

ARTICLES = (
    *("The", "A", "An"),
    *("Le", "La", "Les", "L'", "Un", "Une"),
    *("Il", "Lo", "I", "Gli", "Uno", "Una"),
    *("El", "Los", "Las"),
    *("Der", "Die", "Das", "Ein", "Eine"),
    *("De", "Den", "Det", "Het", "En", "Ett"),
)
MOVED_ARTICLE = re.compile(
    rf"(^|\()(?!a\.k\.a\.)([^()]+), ({'|'.join(map(re.escape, ARTICLES))})(?=\)| \(|$)"
)
WHOLE = re.compile(r"[ \t]*(\+?0*[0-9]{1,18}|-0+)\s*")
RATING = re.compile(r"[ \t]*\+?([0-9]+\.?[0-9]*|\.[0-9]+)(e[0-9])?\s*")
"""Both as lenient as polars, so that a line which is read stays so beside a broken one."""


@reader
def read_movielens(
    ratings: Path, movies: Path, *, min_rating: float = 0, k_core: int = 5, skip_bad_lines: bool = False
) -> Corpus:
    """Read any release, plain or compressed; which one it is, the first lines tell.

    ======================================  =================================================
    100k                                    ``u.data`` (tabs) and ``u.item`` (``|``)
    1M, 10M                                 ``ratings.dat`` and ``movies.dat`` (``::``)
    20M, 25M, 32M, latest, latest-small     ``ratings.csv`` and ``movies.csv``
    ======================================  =================================================

    Ids are the numbers of the source as texts. Titles keep their year, and get back the articles that
    stand behind them, in brackets too: ``Postman, The (Postino, Il) (1994)`` becomes ``The Postman (Il
    Postino) (1994)``; brackets that begin with ``a.k.a.`` stay as they are. ``categories`` are the genres,
    in the order of the source, which means nothing. Films that nobody rated are left out; rated ones that
    ``movies`` does not have are kept and counted as ``items_without_metadata``. Of several ratings of a film
    by a user the first by time counts.

    Args:
        ratings: user, film, rating from .5 to 5, and seconds since 1970.
        movies: film, title and genres. UTF-8, or Latin-1 in the releases up to 10M.
        min_rating: ratings below it are no interactions; 0 takes them all.
        k_core: keep users and items with this many interactions at least; 1 keeps all.
        skip_bad_lines: leave broken lines out, count them and log the first, instead of raising.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is of no release, or the two are of different ones; a line is broken; a file
            is empty or cut off; nothing is left of the k-core; ``movies`` describes other films.
    """
    ratings, movies = checked_file(ratings, "ratings"), checked_file(movies, "movies")
    release = _release(ratings, "ratings")
    if _release(movies, "movies") is not release:
        raise ValueError(f"{movies} and {ratings} are of different releases of MovieLens; give two of one")
    rated, bad_ratings = _read_ratings(ratings, release, skip_bad_lines)
    liked = rated.filter(pl.col("rating") >= min_rating)
    interactions = interactions_of(liked.select(list(EVENTS)).cast(EVENTS), k_core=k_core)
    if interactions.is_empty():
        raise ValueError(
            f"{ratings}: of {len(rated)} ratings, {len(liked)} of them {min_rating:g} or more, "
            f"nothing is left in the {k_core}-core"
        )
    films, bad_movies = _read_movies(movies, release, skip_bad_lines)
    item_ids = item_ids_of(interactions)
    without = undescribed(item_ids, films)
    if without == len(item_ids):
        raise ValueError(f"{movies}: describes none of the {without} films of {ratings}: not its file?")
    return Corpus(
        items_of(item_ids, films),
        interactions,
        skipped_lines=bad_ratings + bad_movies,
        notes={"items_without_metadata": without},
    )


class _Release(NamedTuple):
    """How files of a family of releases look.

    Attributes:
        ratings: what the first line of the ratings holds; for CSV the header.
        movies: the same of the films.
        separator: between the fields of a rating.
        has_header: whether the first lines are headers.
        fields: of a line on a film: number, title, genres.
    """

    ratings: bytes
    movies: bytes
    separator: str
    has_header: bool
    fields: Callable[[bytes], tuple[str, str, list[str]]]


def _release(path: Path, what: str) -> _Release:
    first = next((line for _, line in lines_of(path)), b"")
    for release in RELEASES:
        if getattr(release, what) in first:
            return release
    raise ValueError(f"{path} begins with {excerpt(first)}, unlike the {what} of any MovieLens release")


def _read_ratings(path: Path, release: _Release, skip_bad_lines: bool) -> tuple[pl.DataFrame, int]:
    """:data:`RATINGS` in the order of the file, and the number of lines skipped."""
    skipped = 0
    try:
        rated = _ratings_at_once(path, release)
    except (pl.exceptions.PolarsError, OSError, ValueError):  # the slow way knows the number of each line
        rows, skipped = parsed(
            path,
            lambda line: _rating(line, release.separator),
            skip_bad_lines=skip_bad_lines,
            header=release.has_header,
        )
        rated = pl.DataFrame(rows, schema=RATINGS, orient="row")
    if rated.is_empty():
        raise ValueError(f"{path}: holds no ratings ({skipped} broken lines skipped)")
    return rated, skipped


def _ratings_at_once(path: Path, release: _Release) -> pl.DataFrame:
    """As :func:`_read_ratings`; any error means that not all lines are sound."""
    columns: dict[str, object] = {}
    for name, kind in RATINGS.items():
        columns[name] = kind
        if release.separator == "::" and name != "timestamp":  # polars knows separators of one byte only
            columns[f"nothing after {name}"] = pl.String
    table = pl.read_csv(
        path,
        separator=release.separator[0],
        has_header=False,
        skip_rows=int(release.has_header),
        schema=columns,
        quote_char=None,
        glob=False,
    )
    rated = table.select(list(RATINGS))
    between = table.drop(list(RATINGS))
    if rated.null_count().sum_horizontal().item() or any(
        column.null_count() < len(table) for column in between
    ):
        raise ValueError(f"{path}: a line has too few fields")
    if not rated["rating"].is_between(LOWEST, HIGHEST).all() or not _in_range(rated):
        raise ValueError(f"{path}: a number is out of range")
    return rated


def _in_range(rated: pl.DataFrame) -> bool:
    ids = rated.select(pl.col("user_id", "item_id").is_between(0, 10**18 - 1).all())
    return all(ids.row(0)) and rated["timestamp"].is_between(0, LAST_SECOND).all()


def _rating(line: bytes, separator: str) -> tuple[int, int, float, int]:
    fields = decoded(line).split(separator)
    if len(fields) != len(RATINGS):
        raise ValueError(f"{len(fields)} fields, not user, movie, rating and time: {excerpt(line)}")
    user, movie, rating, time = fields
    if not _is_rating(rating):
        raise ValueError(f"the rating is {rating[:60]!r}, not a number from {LOWEST} to {HIGHEST:g}")
    seconds = _whole("time", time)
    if seconds > LAST_SECOND:
        raise ValueError(f"the time is {time[:60]!r}, not seconds since 1970")
    return _whole("user", user), _whole("movie", movie), float(rating), seconds


def _is_rating(text: str) -> bool:
    return bool(RATING.fullmatch(text)) and LOWEST <= float(text) <= HIGHEST


def _whole(what: str, text: str) -> int:
    if not WHOLE.fullmatch(text):
        raise ValueError(f"the {what} is {text[:60]!r}, not a whole number from 0")
    return int(text)


def _read_movies(path: Path, release: _Release, skip_bad_lines: bool) -> tuple[pl.DataFrame, int]:
    """:data:`ITEMS` in the order of the file, and the number of lines skipped."""
    seen: set[str] = set()

    def movie(line: bytes) -> Movie:
        number, title, genres = release.fields(line)
        item = str(_whole("movie", number))
        if item in seen:
            raise ValueError(f"movie {item} stands in a line above already")
        seen.add(item)
        return item, _title(title), "", [genre for genre in genres if genre and genre != NO_GENRES], ""

    rows, skipped = parsed(path, movie, skip_bad_lines=skip_bad_lines, header=release.has_header)
    return pl.DataFrame(rows, schema=ITEMS, orient="row"), skipped


def _title(title: str) -> str:
    """``Matrix, The (1999)`` → ``The Matrix (1999)``, and white space evened out."""
    return MOVED_ARTICLE.sub(_with_article, " ".join(title.split()))


def _with_article(found: re.Match[str]) -> str:
    before, name, article = found.groups()
    return before + article + ("" if article.endswith("'") else " ") + name


def _csv_fields(line: bytes) -> tuple[str, str, list[str]]:
    try:
        fields = next(csv.reader([decoded(line)], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"not CSV ({error}): {excerpt(line)}") from error
    return _three(fields, line)


def _dat_fields(line: bytes) -> tuple[str, str, list[str]]:
    return _three(_old_text(line).split("::"), line)


def _three(fields: list[str], line: bytes) -> tuple[str, str, list[str]]:
    if len(fields) != 3:
        raise ValueError(f"{len(fields)} fields, not movie, title and genres: {excerpt(line)}")
    number, title, genres = fields
    return number, title, genres.split("|")


def _flag_fields(line: bytes) -> tuple[str, str, list[str]]:
    fields = _old_text(line).split("|")
    flags = fields[5:]
    if len(flags) != len(GENRES_100K) or not set(flags) <= {"0", "1"}:
        raise ValueError(f"not movie, title, dates, URL and 19 flags of 0 or 1: {excerpt(line)}")
    genres = [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]
    return fields[0], fields[1], [genre for genre in genres if genre != "unknown"]


def _old_text(line: bytes) -> str:
    """UTF-8 as in 10M, else Latin-1 as in 100k and 1M: the accents of Latin-1 titles are no UTF-8."""
    try:
        return decoded(line)
    except ValueError:
        return decoded(line, "latin-1")


RELEASES = (
    _Release(b"userId,movieId,rating,timestamp", b"movieId,title,genres", ",", True, _csv_fields),
    _Release(b"::", b"::", "::", False, _dat_fields),
    _Release(b"\t", b"|", "\t", False, _flag_fields),
)
