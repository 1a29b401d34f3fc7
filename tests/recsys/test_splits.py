import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.datasets.corpus import EVENTS, ITEMS, Corpus
from recsys.datasets.interactions import interactions_of
from recsys.examples import Examples, Ragged
from recsys.splits import (
    Sequences,
    check_enough,
    leave_one_out,
    read_sequences,
    sequences_of,
    write_sequences,
)

SEQUENCES = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=8), max_size=8)


def sequences(rows: list[list[int]]) -> Sequences:
    return Sequences(np.array([f"u{n}" for n in range(len(rows))], dtype=np.str_), Ragged.from_rows(rows))


def as_lists(examples: Examples) -> list[tuple[str, list[int], list[int]]]:
    return [
        (str(query), examples.history[row].tolist(), examples.targets[row].tolist())
        for row, query in enumerate(examples.names())
    ]


def test_leave_one_out_by_hand() -> None:
    split = leave_one_out(sequences([[7, 8], [1, 2, 3], [5], [9, 4, 6, 0, 3]]))
    assert as_lists(split.test) == [("u1", [1, 2], [3]), ("u3", [9, 4, 6, 0], [3])]
    assert as_lists(split.valid) == [("u1", [1], [2]), ("u3", [9, 4, 6], [0])]
    assert as_lists(split.train) == [("u3", [9], [4]), ("u3", [9, 4], [6])]
    assert split.train.gains.tolist() == [1.0, 1.0]


@given(SEQUENCES)
def test_every_item_but_the_first_is_asked_for_once_given_all_before_it(rows: list[list[int]]) -> None:
    split = leave_one_out(sequences(rows))
    asked = [example for part in (split.train, split.valid, split.test) for example in as_lists(part)]
    expected = [
        (f"u{n}", row[:place], [row[place]])
        for n, row in enumerate(rows)
        if len(row) >= 3
        for place in range(1, len(row))
    ]
    assert sorted(asked) == sorted(expected)
    assert split.valid.query_ids.tolist() == split.test.query_ids.tolist()


@given(SEQUENCES)
def test_training_never_sees_the_last_two_items(rows: list[list[int]]) -> None:
    unique = [[100 * n + place for place in range(len(row))] for n, row in enumerate(rows)]
    split = leave_one_out(sequences(unique))
    learned = {*split.train.history.flat().tolist(), *split.train.targets.flat().tolist()}
    assert learned.isdisjoint(item for row in unique for item in row[-2:])


def test_histories_share_memory_with_the_sequences() -> None:
    given_ = sequences([[1, 2, 3, 4], [5, 6, 7]])
    split = leave_one_out(given_)
    for part in (split.train, split.valid, split.test):
        assert np.shares_memory(part.history.values, given_.items.values)
        assert np.shares_memory(part.targets.values, given_.items.values)


def test_training_names_each_user_once_however_many_examples_it_has() -> None:
    train = leave_one_out(sequences([[1, 2, 3, 4, 5, 6], [7, 8, 9, 0]])).train
    assert len(train) == 4
    assert train.query_ids.tolist() == ["u0", "u1"]
    assert train.names().tolist() == ["u0", "u0", "u0", "u1"]


def test_sequences_of_a_corpus_name_items_by_their_row() -> None:
    items = pl.DataFrame([(i, "", "", [], "") for i in ("a", "b", "c", "d")], schema=ITEMS, orient="row")
    rows = [("v", "c", 0), ("u", "c", 1), ("u", "d", 2), ("u", "a", 1)]
    events = pl.DataFrame(rows, schema=EVENTS, orient="row")
    interactions = interactions_of(events, item_ids=items["item_id"])
    found = sequences_of(Corpus(items, interactions))
    assert found.user_ids.tolist() == ["u", "v"]
    assert [found.items[row].tolist() for row in range(2)] == [[2, 0, 3], [2]]


@settings(deadline=None)  # a disk may be slow
@given(rows=SEQUENCES)
def test_sequences_survive_the_disk(tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]]) -> None:
    path = tmp_path_factory.mktemp("sequences") / "sequences.parquet"
    write_sequences(sequences(rows), path)
    back = read_sequences(path)
    assert back.user_ids.tolist() == [f"u{n}" for n in range(len(rows))]
    assert [back.items[row].tolist() for row in range(len(rows))] == rows
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_overlapping_rows_are_written_as_they_read(tmp_path: Path) -> None:
    values = np.array([4, 5, 6], dtype=np.int64)
    overlapping = Ragged(values, np.array([1, 0]), np.array([3, 2]))
    write_sequences(Sequences(np.array(["a", "b"]), overlapping), tmp_path / "s.parquet")
    assert pl.read_parquet(tmp_path / "s.parquet").rows() == [("a", [5, 6]), ("b", [4, 5])]


def test_reading_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    pl.DataFrame({"user_id": ["u"]}).write_parquet(tmp_path / "columns.parquet")
    pl.DataFrame({"user_id": ["u"], "items": ["1 2"]}).write_parquet(tmp_path / "types.parquet")
    for name in ("text.parquet", "columns.parquet", "types.parquet"):
        with pytest.raises(ValueError, match=f"{name} does not hold sequences"):
            read_sequences(tmp_path / name)


@pytest.mark.parametrize(
    ("users", "complaint"),
    [(["a"], "1 users cannot have 2 sequences"), (["b", "a"], "sorted"), (["a", "a"], "unique")],
)
def test_users_that_do_not_fit_are_refused(users: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Sequences(np.array(users), Ragged.from_rows([[1], [2]]))


def test_splits_need_no_polars() -> None:
    code = "import sys, recsys.splits; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([2, 2, 2], "the corpus has 0 users with the 3 interactions that a test needs, but 2 are the least"),
        ([5, 2], "the corpus has 1 users with the 3 interactions .* lower k_core"),
        ([3, 3], "no user has the 4 interactions that training needs; take more data"),
        ([4, 3, 1], None),
    ],
)
def test_a_corpus_without_two_tests_or_any_training_is_refused(
    lengths: list[int], message: str | None
) -> None:
    events = [(f"u{user}", f"i{n}", n) for user, length in enumerate(lengths) for n in range(length)]
    interactions = interactions_of(pl.DataFrame(events, schema=EVENTS, orient="row"))
    names = [f"i{n}" for n in range(max(lengths))]
    corpus = Corpus(
        pl.DataFrame([(name, "", "", [], "") for name in names], schema=ITEMS, orient="row"), interactions
    )
    if message is None:
        check_enough(corpus)
    else:
        with pytest.raises(ValueError, match=message):
            check_enough(corpus)
