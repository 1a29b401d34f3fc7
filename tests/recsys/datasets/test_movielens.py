import contextlib
import csv
import gzip
import io
import logging
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.datasets.movielens import read_movielens

DATA = Path(__file__).parents[3] / "../shared/data/movielens/ml-latest-small"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="ml-latest-small is not in ../shared/data")

RATINGS = [("2", "10", "3", "300"), ("1", "20", "4", "200"), ("1", "10", "5", "200"), ("1", "30", "1", "100")]
INTERACTIONS = [("1", "30", 100), ("1", "20", 200), ("1", "10", 200), ("2", "10", 300)]
ITEMS = [
    ("10", "The Postman (Il Postino) (1994)", "", ["Drama", "Romance"], ""),
    ("20", "Léon (1994)", "", ["Thriller"], ""),
    ("30", "Nameless", "", [], ""),
]
TITLES = {"10": "Postman, The (Postino, Il) (1994)", "20": "Léon (1994)", "30": "Nameless"}
DRAMA_ROMANCE, THRILLER, UNKNOWN = (
    "|".join("1" if place in on else "0" for place in range(19)) for on in ((8, 14), (16,), (0,))
)
CSV_RATINGS = "\n".join(["userId,movieId,rating,timestamp", *map(",".join, RATINGS), ""])
CSV_MOVIES = (
    "movieId,title,genres\n"
    f'20,Léon (1994),Thriller\n10,"{TITLES["10"]}",Drama|Romance\n30,Nameless,(no genres listed)\n'
    "99,Nobody Rated It (1999),Drama\n"
)

Release = tuple[str, bytes, str, bytes]
RELEASES: dict[str, Release] = {
    "25M": ("ratings.csv", CSV_RATINGS.encode(), "movies.csv", CSV_MOVIES.encode()),
    "1M": (
        "ratings.dat",
        "".join("::".join(row) + "\n" for row in RATINGS).encode(),
        "movies.dat",
        f"20::Léon (1994)::Thriller\n10::{TITLES['10']}::Drama|Romance\n30::Nameless::\n".encode("latin-1"),
    ),
    "100k": (
        "u.data",
        "".join("\t".join(row) + "\n" for row in RATINGS).encode(),
        "u.item",
        (
            f"20|Léon (1994)|01-Jan-1994||http://there|{THRILLER}\n"
            f"10|{TITLES['10']}|01-Jan-1994|||{DRAMA_ROMANCE}\n30|Nameless||||{UNKNOWN}\n"
        ).encode("latin-1"),
    ),
}
RELEASES["10M"] = (
    *RELEASES["1M"][:3],
    RELEASES["1M"][3].decode("latin-1").encode(),
)


def write(folder: Path, release: Release) -> tuple[Path, Path]:
    paths = folder / release[0], folder / release[2]
    for path, content in zip(paths, release[1::2], strict=True):
        path.write_bytes(content)
    return paths


def csv_files(folder: Path, ratings: str = CSV_RATINGS, movies: str = CSV_MOVIES) -> tuple[Path, Path]:
    return write(folder, ("ratings.csv", ratings.encode(), "movies.csv", movies.encode()))


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_reads_alike(tmp_path: Path, name: str) -> None:
    corpus = read_movielens(*write(tmp_path, RELEASES[name]), k_core=1)
    assert corpus.interactions.rows() == INTERACTIONS, "equal times in the order of the file"
    assert corpus.items.rows() == ITEMS
    assert corpus.notes == {"items_without_metadata": 0}


@pytest.mark.parametrize("name", RELEASES)
def test_compressed_files_of_any_name_read_alike(tmp_path: Path, name: str) -> None:
    _, ratings, _, movies = RELEASES[name]
    paths = write(tmp_path, ("a", gzip.compress(ratings), "b", gzip.compress(movies)))
    assert read_movielens(*paths, k_core=1).items.rows() == ITEMS


@pytest.mark.parametrize("name", RELEASES)
def test_a_file_with_a_broken_line_reads_like_the_file_without_it(tmp_path: Path, name: str) -> None:
    rating_file, ratings, movie_file, movies = RELEASES[name]
    broken = ratings + b"1 2 3\n", movies + b"40\n"
    paths = write(tmp_path, (rating_file, broken[0], movie_file, broken[1]))
    corpus = read_movielens(*paths, k_core=1, skip_bad_lines=True)
    assert corpus.skipped_lines == 2
    assert (corpus.interactions.rows(), corpus.items.rows()) == (INTERACTIONS, ITEMS)


TITLE_CASES = [
    ("Matrix, The (1999)", "The Matrix (1999)"),
    ("Beautiful Mind, A (2001)", "A Beautiful Mind (2001)"),
    ("Misérables, Les (1995)", "Les Misérables (1995)"),
    ("Atalante, L' (1934)", "L'Atalante (1934)"),
    ("Boot, Das (Boat, The) (1981)", "Das Boot (The Boat) (1981)"),
    (
        "Good, the Bad and the Ugly, The (Buono, il brutto, il cattivo, Il) (1966)",
        "The Good, the Bad and the Ugly (Il Buono, il brutto, il cattivo) (1966)",
    ),
    ("Macbeth (a.k.a. Tragedy of Macbeth, The) (1971)", "Macbeth (a.k.a. Tragedy of Macbeth, The) (1971)"),
    ("I, Robot (2004)", "I, Robot (2004)"),
    ("Paris, Texas (1984)", "Paris, Texas (1984)"),
    ("Blind Side, The  (2009)", "The Blind Side (2009)"),
    ("Cleopatra, The", "The Cleopatra"),
]


@pytest.mark.parametrize(("written", "read"), TITLE_CASES)
def test_articles_return_to_the_front(tmp_path: Path, written: str, read: str) -> None:
    files = csv_files(
        tmp_path, "userId,movieId,rating,timestamp\n1,7,3,5\n", f'movieId,title,genres\n7,"{written}",\n'
    )
    assert read_movielens(*files, k_core=1).items["title"].to_list() == [read]


def test_ratings_below_the_least_are_no_interactions(tmp_path: Path) -> None:
    corpus = read_movielens(*csv_files(tmp_path), min_rating=4, k_core=1)
    assert corpus.interactions.rows() == [("1", "20", 200), ("1", "10", 200)]


def test_of_two_ratings_of_a_film_the_first_by_time_counts(tmp_path: Path) -> None:
    corpus = read_movielens(*csv_files(tmp_path, CSV_RATINGS + "2,10,1,250\n"), k_core=1)
    assert corpus.interactions.rows() == [*INTERACTIONS[:3], ("2", "10", 250)]


def test_a_film_that_movies_lack_is_kept_and_counted(tmp_path: Path) -> None:
    corpus = read_movielens(*csv_files(tmp_path, CSV_RATINGS + "2,777,1,250\n"), k_core=1)
    assert corpus.items.row(3) == ("777", "", "", [], "")
    assert corpus.notes == {"items_without_metadata": 1}


@pytest.mark.parametrize(
    "line", ["3, 40,+4.50,007", f"3,{'0' * 30}40,4.5,7", "3,40,4.5e0,7", " 3,+40,04.5,7\r"]
)
def test_what_reads_in_a_sound_file_reads_beside_a_broken_line(tmp_path: Path, line: str) -> None:
    for content, skipped in ((f"{CSV_RATINGS}{line}\n", 0), (f"{CSV_RATINGS}{line}\nbroken\n", 1)):
        corpus = read_movielens(*csv_files(tmp_path, content), min_rating=4.5, k_core=1, skip_bad_lines=True)
        assert corpus.interactions.rows()[-1] == ("3", "40", 7)
        assert corpus.skipped_lines == skipped


BAD_RATINGS = [
    ("1,2,3", "3 fields, not user, movie, rating and time"),
    ("1,2,3,4,5", "5 fields"),
    ("1;2;3;4", "1 fields"),
    ('"1",2,3,4', "the user is '\"1\"', not a whole number"),
    (",2,3,4", "the user is ''"),
    ("1,-2,3,4", "the movie is '-2'"),
    ("1,2.5,3,4", "the movie is '2.5'"),
    ("1,2,0,4", "the rating is '0', not a number from 0.5 to 5"),
    ("1,2,5.5,4", "the rating is '5.5'"),
    ("1,2,nan,4", "the rating is 'nan'"),
    ("1,2,,4", "the rating is ''"),
    ("1,2,3,-4", "the time is '-4'"),
    ("1,2,3,inf", "the time is 'inf'"),
    ("1,2,3,soon", "the time is 'soon'"),
    (f"1,2,3,{'9' * 30}", "the time is '9999"),
    ("1,2,3,9223372036854775807", "the time is '9223372036854775807', not a whole number"),
    ("1,2,3,1700000000000", "the time is '1700000000000', not seconds since 1970"),
    ("1,1000000000000000000,3,4", "the movie is '1000000000000000000'"),
]


@pytest.mark.parametrize(("line", "complaint"), BAD_RATINGS)
def test_a_bad_rating_is_named_or_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str, complaint: str
) -> None:
    header, *rows = CSV_RATINGS.splitlines(keepends=True)
    files = csv_files(tmp_path, "".join([header, rows[0], "\n", f"{line}\n", *rows[1:]]))
    with pytest.raises(ValueError, match=rf"ratings\.csv, line 4: {complaint}"):
        read_movielens(*files, k_core=1)
    with caplog.at_level(logging.WARNING):
        corpus = read_movielens(*files, k_core=1, skip_bad_lines=True)
    assert corpus.skipped_lines == 1
    assert f"line 4: {complaint}" in caplog.text
    assert corpus.interactions.rows() == INTERACTIONS


def test_a_bad_byte_in_a_rating_is_named(tmp_path: Path) -> None:
    files = csv_files(tmp_path)
    files[0].write_bytes(CSV_RATINGS.encode() + b"1,2\xff,3,4\n")
    with pytest.raises(ValueError, match=r"ratings\.csv, line 6: not utf-8"):
        read_movielens(*files, k_core=1)


BAD_MOVIES = [
    ("25M", "40,Title", "2 fields, not movie, title and genres"),
    ("25M", '40,"Title', "not CSV"),
    ("25M", "x,Title,Drama", "the movie is 'x'"),
    ("25M", "20,Title,Drama", "movie 20 has a line above already"),
    ("1M", "40::Title", "2 fields"),
    ("100k", f"40|Title||||{THRILLER}|0", "not movie, title, dates, URL and 19 flags"),
    ("100k", f"40|Title||||{THRILLER[:-1]}2", "not movie, title, dates, URL and 19 flags"),
]


@pytest.mark.parametrize(("name", "line", "complaint"), BAD_MOVIES)
def test_a_bad_film_is_named(tmp_path: Path, name: str, line: str, complaint: str) -> None:
    ratings, movies = write(tmp_path, RELEASES[name])
    number = len(movies.read_bytes().splitlines()) + 1
    movies.write_bytes(movies.read_bytes() + line.encode())
    with pytest.raises(ValueError, match=rf"{movies.name}, line {number}: {complaint}"):
        read_movielens(ratings, movies, k_core=1)


def test_latin_1_in_a_csv_is_refused(tmp_path: Path) -> None:
    ratings, movies = csv_files(tmp_path)
    movies.write_bytes(CSV_MOVIES.encode("latin-1"))
    with pytest.raises(ValueError, match=r"movies\.csv, line 2: not utf-8"):
        read_movielens(ratings, movies, k_core=1)


def test_files_of_no_release_or_of_two(tmp_path: Path) -> None:
    ratings, movies = csv_files(tmp_path)
    old_ratings, _ = write(tmp_path, RELEASES["1M"])
    with pytest.raises(ValueError, match=r"movies\.csv begins with .* unlike the ratings of any"):
        read_movielens(movies, ratings)
    with pytest.raises(ValueError, match="are of different releases"):
        read_movielens(old_ratings, movies)


def test_files_that_are_not_there_or_hold_nothing_of_use(tmp_path: Path) -> None:
    ratings, movies = csv_files(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; give the ratings file"):
        read_movielens(tmp_path / "nowhere", movies)
    with pytest.raises(IsADirectoryError, match="give the movies file"):
        read_movielens(ratings, tmp_path)
    with pytest.raises(ValueError, match="of 4 ratings, 4 of them 0 or more, nothing is left in the 5-core"):
        read_movielens(ratings, movies)
    ratings.write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(ValueError, match=r"ratings\.csv: holds no ratings"):
        read_movielens(ratings, movies)
    csv_files(tmp_path, movies="movieId,title,genres\n555,Other,\n")
    with pytest.raises(ValueError, match="describes none of the 3 films"):
        read_movielens(ratings, csv_files(tmp_path, movies="movieId,title,genres\n5,Other,\n")[1], k_core=1)


@pytest.mark.parametrize("broken", [0, 1])
def test_a_cut_off_file_is_refused(tmp_path: Path, broken: int) -> None:
    files = write(
        tmp_path, ("a", gzip.compress(CSV_RATINGS.encode()), "b", gzip.compress(CSV_MOVIES.encode()))
    )
    files[broken].write_bytes(files[broken].read_bytes()[:-6])
    with pytest.raises(ValueError, match="cut off or damaged"):
        read_movielens(*files, k_core=1, skip_bad_lines=True)


@settings(deadline=None)
@given(
    name=st.sampled_from(list(RELEASES)),
    broken=st.integers(0, 1),
    change=st.tuples(st.floats(0, 1), st.integers(0, 5), st.binary(max_size=6)),
)
def test_whatever_the_bytes_only_value_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, name: str, broken: int, change: tuple[float, int, bytes]
) -> None:
    files = write(tmp_path_factory.mktemp("changed"), RELEASES[name])
    place, removed, inserted = change
    content = files[broken].read_bytes()
    at = round(place * len(content))
    files[broken].write_bytes(content[:at] + inserted + content[at + removed :])
    for skip_bad_lines in (False, True):
        with contextlib.suppress(ValueError):
            corpus = read_movielens(*files, k_core=1, skip_bad_lines=skip_bad_lines)
            assert len(corpus.interactions) <= len(RATINGS) + inserted.count(b"\n")


def rows_of(name: str) -> list[dict[str, str]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(io.StringIO(file.read())))


@needs_data
def test_the_small_release_holds_what_it_says() -> None:
    corpus = read_movielens(DATA / "ratings.csv.gz", DATA / "movies.csv.gz", k_core=1)
    assert len(rows_of("movies.csv.gz")) == 9742
    assert corpus.statistics() == {
        "users": 610,
        "items": 9724,
        "interactions": 100_836,
        "mean_length": pytest.approx(100_836 / 610),
    }
    assert corpus.notes == {"items_without_metadata": 0}
    titles = dict(zip(corpus.items["item_id"], corpus.items["title"], strict=True))
    assert titles["2571"] == "The Matrix (1999)"
    assert titles["29"] == "The City of Lost Children (La Cité des enfants perdus) (1995)"
    ungenred = sum(
        row["genres"] == "(no genres listed)" for row in rows_of("movies.csv.gz") if row["movieId"] in titles
    )
    assert (corpus.items["categories"].list.len() == 0).sum() == ungenred > 0


@needs_data
def test_the_5_core_of_the_small_release_is_that_of_a_plain_loop() -> None:
    left = [(row["userId"], row["movieId"], int(row["timestamp"])) for row in rows_of("ratings.csv.gz")]
    before = 0
    while len(left) != before:
        before = len(left)
        users, movies = Counter(row[0] for row in left), Counter(row[1] for row in left)
        left = [row for row in left if users[row[0]] >= 5 and movies[row[1]] >= 5]
    corpus = read_movielens(DATA / "ratings.csv.gz", DATA / "movies.csv.gz")
    assert corpus.interactions.rows() == sorted(left, key=lambda row: (row[0], row[2]))
    assert corpus.statistics() == {
        "users": 610,
        "items": 3650,
        "interactions": 90_274,
        "mean_length": pytest.approx(90_274 / 610),
    }


def test_brackets_in_a_path_are_no_pattern(tmp_path: Path) -> None:
    for folder in ("ml[1]", "ml1"):
        (tmp_path / folder).mkdir()
    ratings, movies = csv_files(tmp_path / "ml[1]")
    expected = read_movielens(ratings, movies, k_core=1).digest()
    csv_files(tmp_path / "ml1", CSV_RATINGS.splitlines()[0] + "\n9,1,4.0,5\n")
    assert read_movielens(ratings, movies, k_core=1).digest() == expected
