"""Reader of MovieLens, ratings of films, in the files of all releases from 100k to 32M.

Source: F. M. Harper, J. A. Konstan, *The MovieLens Datasets: History and Context*, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recsys.datasets.corpus import EVENTS, ITEMS, Corpus, check_metadata, count_undescribed, items_of
from recsys.datasets.formats.blocks import blocks_of
from recsys.datasets.formats.lines import LAST_SECOND, checked_file, decoded, excerpt, lines_of, parsed
from recsys.datasets.interactions import check_core, interactions_of, item_ids_of
from recsys.datasets.readers import reader

Movie = tuple[str, str, str, list[str], str]
"""A row of a frame with the columns :data:`~recsys.datasets.corpus.ITEMS`."""

RATINGS = {"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
"""Columns of ratings while they are read."""

LOWEST_RATING, HIGHEST_RATING = 0.5, 5.0
"""Range of the ratings of all releases."""

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
"""Genres in the order of the flags at the end of a line of ``u.item``. ``unknown`` means no genre."""

ARTICLES = (
    *("The", "A", "An"),
    *("Le", "La", "Les", "L'", "Un", "Une"),
    *("Il", "Lo", "I", "Gli", "Uno", "Una"),
    *("El", "Los", "Las"),
    *("Der", "Die", "Das", "Ein", "Eine"),
    *("De", "Den", "Det", "Het", "En", "Ett"),
)
"""Articles that MovieLens moves behind the title, as in ``Matrix, The``."""

MOVED_ARTICLE = re.compile(
    rf"(^|\()(?!a\.k\.a\.)([^()]+), ({'|'.join(map(re.escape, ARTICLES))})(?=\)| \(|$)"
)
"""A title, also in brackets, with its article behind it; not in brackets that begin with ``a.k.a.``."""

WHOLE_NUMBER = re.compile(r"[ \t]*(\+?0*[0-9]{1,18}|-0+)\s*")
RATING = re.compile(r"[ \t]*\+?([0-9]+\.?[0-9]*|\.[0-9]+)(e[0-9])?\s*")
"""Numbers that polars reads.

If a file has a broken line, it is parsed line by line with these patterns. They accept what polars accepts,
so that the other lines are still read.
"""


@reader
def read_movielens(
    ratings: Path, movies: Path, *, min_rating: float = 0, k_core: int = 5, skip_bad_lines: bool = False
) -> Corpus:
    r"""Read any release of MovieLens, from plain or compressed files.

    The first lines decide which release it is:

    ======================================  =================================================
    100k                                    ``u.data`` (tabs) and ``u.item`` (``|``)
    1M, 10M                                 ``ratings.dat`` and ``movies.dat`` (``::``)
    20M, 25M, 32M, latest, latest-small     ``ratings.csv`` and ``movies.csv``
    ======================================  =================================================

    Ids are the numbers of the source as texts. Titles keep their year. Articles behind a title move to its
    front, in brackets too: ``Postman, The (Postino, Il) (1994)`` becomes ``The Postman (Il Postino) (1994)``.
    Brackets that begin with ``a.k.a.`` do not change. ``categories`` are the genres in the order of the
    source, which has no meaning. Films without ratings are left out. Rated films that ``movies`` does not
    contain are kept and counted in ``notes`` as ``items_without_metadata``. If a user rated a film several
    times, the first rating by time is used.

    Args:
        ratings: File with user, film, rating from 0.5 to 5, and time in seconds since 1970.
        movies: File with film, title and genres, in UTF-8; in the releases up to 10M also in Latin-1.
        min_rating: Smallest rating that is an interaction; 0 keeps all ratings.
        k_core: Smallest number of interactions of a user and of a film; 1 keeps all.
        skip_bad_lines: Whether to leave broken lines out, count them and log the first, instead of raising
            an error.

    Returns:
        The corpus, without queries.

    Raises:
        OSError: If a file is missing or cannot be read.
        ValueError: If a file is of no release or the files are of different releases; if a line is broken;
            if a file is empty or incomplete; if nothing is left in the k-core; or if ``movies`` describes
            other films.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n7,1,4.5,900000000\n")
        >>> _ = (folder / "movies.csv").write_text(
        ...     'movieId,title,genres\n1,"Matrix, The (1999)",Action|Sci-Fi\n'
        ... )
        >>> corpus = read_movielens(folder / "ratings.csv", folder / "movies.csv", k_core=1)
        >>> corpus.items.rows()
        [('1', 'The Matrix (1999)', '', ['Action', 'Sci-Fi'], '')]
    """
    ratings, movies = checked_file(ratings, "ratings"), checked_file(movies, "movies")
    release = _find_release(ratings, "ratings")
    if _find_release(movies, "movies") is not release:
        raise ValueError(f"{movies} and {ratings} are of different releases of MovieLens; give two of one")
    rated, bad_ratings = _read_ratings(ratings, release, skip_bad_lines)
    liked = rated.filter(pl.col("rating") >= min_rating)
    interactions = interactions_of(liked.select(list(EVENTS)).cast(EVENTS), k_core=k_core)
    read = f"{len(rated)} ratings, {len(liked)} of them {min_rating:g} or more,"
    check_core(ratings, interactions, k_core, read)
    films, bad_movies = _read_movies(movies, release, skip_bad_lines)
    item_ids = item_ids_of(interactions)
    check_metadata(movies, item_ids, films, f"films of {ratings}")
    return Corpus(
        items_of(item_ids, films),
        interactions,
        skipped_lines=bad_ratings + bad_movies,
        notes={"items_without_metadata": count_undescribed(item_ids, films)},
    )


class _Release(NamedTuple):
    """The file format of a family of releases.

    Attributes:
        ratings: Bytes in the first line of the ratings file; for CSV its header.
        movies: Bytes in the first line of the films file.
        separator: Separator of the fields of a rating.
        has_header: Whether the first lines of both files are headers.
        parse_movie: Function that splits a line of the films file into number, title and genres.
    """

    ratings: bytes
    movies: bytes
    separator: str
    has_header: bool
    parse_movie: Callable[[bytes], tuple[str, str, list[str]]]


def _find_release(path: Path, what: str) -> _Release:
    """Return the family of releases whose ``ratings`` or ``movies`` begin like this file."""
    first = next((line for _, line in lines_of(path)), b"")
    for release in RELEASES:
        if getattr(release, what) in first:
            return release
    raise ValueError(f"{path} begins with {excerpt(first)}, unlike the {what} of any MovieLens release")


def _read_ratings(path: Path, release: _Release, skip_bad_lines: bool) -> tuple[pl.DataFrame, int]:
    """Return the ratings, with the columns :data:`RATINGS` in file order, and the number of skipped lines."""
    skipped = 0
    try:
        rated = _read_valid_ratings(path, release)
    except (pl.exceptions.PolarsError, OSError, ValueError):
        # Slower, but it knows the numbers of broken lines.
        rows, skipped = parsed(
            path,
            lambda line: _parse_rating(line, release.separator),
            skip_bad_lines=skip_bad_lines,
            header=release.has_header,
        )
        rated = pl.DataFrame(rows, schema=RATINGS, orient="row")
    if rated.is_empty():
        raise ValueError(f"{path}: holds no ratings ({skipped} broken lines skipped)")
    return rated, skipped


def _read_valid_ratings(path: Path, release: _Release) -> pl.DataFrame:
    """Return the ratings of a file without broken lines; for other files raise any error, without details."""
    parts = [pl.DataFrame(schema=RATINGS)]
    for number, block in blocks_of(path):
        lines = block.partition(b"\n")[2] if number == 1 and release.has_header else block
        if lines:
            parts.append(_read_valid_lines(lines, release))
    return pl.concat(parts)


def _read_valid_lines(lines: bytes, release: _Release) -> pl.DataFrame:
    """Return the ratings of lines without broken ones; for other lines raise any error, without details."""
    columns: dict[str, object] = {}
    for name, dtype in RATINGS.items():
        columns[name] = dtype
        if release.separator == "::" and name != "timestamp":  # polars knows separators of one byte only
            columns[f"nothing after {name}"] = pl.String
    table = pl.read_csv(
        lines, separator=release.separator[0], has_header=False, schema=columns, quote_char=None
    )
    rated = table.select(list(RATINGS))
    between = table.drop(list(RATINGS))
    if len(table) != lines.count(b"\n") + (not lines.endswith(b"\n")):
        raise ValueError("not every line is a row")
    if rated.null_count().sum_horizontal().item() or any(
        column.null_count() < len(table) for column in between
    ):
        raise ValueError("a line has too few fields")
    if not _in_range(rated):
        raise ValueError("a number is out of range")
    return rated


def _in_range(rated: pl.DataFrame) -> bool:
    """Return whether all ids, ratings and times are in the ranges that :func:`_parse_rating` accepts."""
    if not rated["rating"].is_between(LOWEST_RATING, HIGHEST_RATING).all():
        return False
    ids = rated.select(pl.col("user_id", "item_id").is_between(0, 10**18 - 1).all())
    return all(ids.row(0)) and rated["timestamp"].is_between(0, LAST_SECOND).all()


def _parse_rating(line: bytes, separator: str) -> tuple[int, int, float, int]:
    """Return user, film, rating and time of a line, or raise a ValueError with the problem."""
    fields = decoded(line).split(separator)
    if len(fields) != len(RATINGS):
        raise ValueError(f"{len(fields)} fields, not user, movie, rating and time: {excerpt(line)}")
    user, movie, rating, time = fields
    if not _is_rating(rating):
        raise ValueError(
            f"the rating is {rating[:60]!r}, not a number from {LOWEST_RATING} to {HIGHEST_RATING:g}"
        )
    seconds = _whole_number("time", time)
    if seconds > LAST_SECOND:
        raise ValueError(f"the time is {time[:60]!r}, not seconds since 1970")
    return _whole_number("user", user), _whole_number("movie", movie), float(rating), seconds


def _is_rating(text: str) -> bool:
    """Return whether a text is a number in the range of ratings."""
    return bool(RATING.fullmatch(text)) and LOWEST_RATING <= float(text) <= HIGHEST_RATING


def _whole_number(field: str, text: str) -> int:
    """Return a text as a number from 0 to 10^18 - 1, or raise a ValueError that names the field."""
    if not WHOLE_NUMBER.fullmatch(text):
        raise ValueError(f"the {field} is {text[:60]!r}, not a whole number from 0")
    return int(text)


def _read_movies(path: Path, release: _Release, skip_bad_lines: bool) -> tuple[pl.DataFrame, int]:
    """Return the films, with the columns :data:`ITEMS` in file order, and the number of skipped lines."""
    seen: set[str] = set()

    def parse(line: bytes) -> Movie:
        number, title, genres = release.parse_movie(line)
        item = str(_whole_number("movie", number))
        if item in seen:
            raise ValueError(f"movie {item} has a line above already")
        seen.add(item)
        return item, _clean_title(title), "", [genre for genre in genres if genre and genre != NO_GENRES], ""

    rows, skipped = parsed(path, parse, skip_bad_lines=skip_bad_lines, header=release.has_header)
    return pl.DataFrame(rows, schema=ITEMS, orient="row"), skipped


def _clean_title(title: str) -> str:
    """Return a title with its articles in front and single spaces.

    Example:
        >>> _clean_title("Matrix, The  (1999)")
        'The Matrix (1999)'
    """
    return MOVED_ARTICLE.sub(_article_first, " ".join(title.split()))


def _article_first(match: re.Match[str]) -> str:
    """Return the text of a match of :data:`MOVED_ARTICLE` with the article in front."""
    before, name, article = match.groups()
    return before + article + ("" if article.endswith("'") else " ") + name


def _parse_csv_movie(line: bytes) -> tuple[str, str, list[str]]:
    """Return number, title and genres of a line of ``movies.csv``."""
    try:
        fields = next(csv.reader([decoded(line)], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"not CSV ({error}): {excerpt(line)}") from error
    return _movie_fields(fields, line)


def _parse_dat_movie(line: bytes) -> tuple[str, str, list[str]]:
    """Return number, title and genres of a line of ``movies.dat``."""
    return _movie_fields(_utf8_or_latin1(line).split("::"), line)


def _movie_fields(fields: list[str], line: bytes) -> tuple[str, str, list[str]]:
    """Return number, title and split genres, or raise a ValueError if there are not three fields."""
    if len(fields) != 3:
        raise ValueError(f"{len(fields)} fields, not movie, title and genres: {excerpt(line)}")
    number, title, genres = fields
    return number, title, genres.split("|")


def _parse_item_movie(line: bytes) -> tuple[str, str, list[str]]:
    """Return number, title and genres of a line of ``u.item``, where genres are flags."""
    fields = _utf8_or_latin1(line).split("|")
    flags = fields[5:]
    if len(flags) != len(GENRES_100K) or not set(flags) <= {"0", "1"}:
        raise ValueError(f"not movie, title, dates, URL and 19 flags of 0 or 1: {excerpt(line)}")
    genres = [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]
    return fields[0], fields[1], [genre for genre in genres if genre != "unknown"]


def _utf8_or_latin1(line: bytes) -> str:
    """Return a line as text, from UTF-8 as in 10M, or from Latin-1 as in 100k and 1M.

    The accents of Latin-1 titles are not valid UTF-8, so the two cannot be confused.
    """
    try:
        return decoded(line)
    except ValueError:
        return decoded(line, "latin-1")


RELEASES = (
    _Release(b"userId,movieId,rating,timestamp", b"movieId,title,genres", ",", True, _parse_csv_movie),
    _Release(b"::", b"::", "::", False, _parse_dat_movie),
    _Release(b"\t", b"|", "\t", False, _parse_item_movie),
)
"""All families of releases. The last marks are the least specific, so the order matters."""
