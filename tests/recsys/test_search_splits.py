"""What was asked and what answers it, from a corpus to examples and through files."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.corpus import EVENTS, ITEMS, JUDGEMENTS, QUERIES, Corpus
from recsys.datasets.interactions import interactions_of
from recsys.splits import check_enough, read_split, write_split


def corpus(queries: list[tuple], judgements: list[tuple], events: list[tuple] = ()) -> Corpus:
    items = pl.DataFrame([(name, name, "", [], "") for name in "abcd"], schema=ITEMS, orient="row")
    found = interactions_of(
        pl.DataFrame(list(events), schema=EVENTS, orient="row"), keep="all", item_ids=items["item_id"]
    )
    return Corpus(
        items,
        found,
        pl.DataFrame(queries, schema=QUERIES, orient="row"),
        pl.DataFrame(judgements, schema=JUDGEMENTS, orient="row"),
    )


def test_queries_come_with_their_words_their_answers_and_what_their_user_took_before(tmp_path: Path) -> None:
    found = corpus(
        [
            ("q1", "train", "red tea", "v", 1),
            ("q2", "test", "green tea", "v", 3),
            ("q3", "train", "red tea", "", 0),
            ("q4", "valid", "cups", "u", 0),
        ],
        [("q1", "c", 1.0), ("q2", "a", 0.1), ("q2", "d", 3.0), ("q3", "b", 1.0), ("q4", "a", 2.0)],
        [("v", "b", 1), ("v", "c", 2), ("v", "b", 3), ("u", "d", 9), ("w", "a", 0)],
    )
    write_split(found, tmp_path)
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    split = read_split(tmp_path, vectors)

    train = split.train
    assert train.query_ids.tolist() == ["q1", "q3"]
    assert [train.history[row].tolist() for row in range(2)] == [[1], []]
    assert [train.targets[row].tolist() for row in range(2)] == [[2], [1]]
    assert [train.texts.words[row] for row in train.text_rows] == ["red tea", "red tea"]
    assert split.test.history[0].tolist() == [1, 2, 1]
    assert split.test.targets[0].tolist() == [0, 3]
    assert split.test.gains.tolist() == pytest.approx([0.1, 3.0])
    assert [split.test.texts.words[row] for row in split.test.text_rows] == ["green tea"]
    assert split.valid.history[0].tolist() == []
    assert split.valid.texts.vectors is vectors
    assert sorted(split.valid.texts.words) == ["cups", "green tea", "red tea"]


def test_a_corpus_without_users_has_queries_without_a_history(tmp_path: Path) -> None:
    found = corpus([("q1", "test", "tea", "", 0)], [("q1", "d", 1.0)])
    write_split(found, tmp_path)
    split = read_split(tmp_path, np.ones((1, 2), dtype=np.float32))
    assert (len(split.train), len(split.valid), len(split.test)) == (0, 0, 1)
    assert split.test.history[0].tolist() == []


@pytest.mark.parametrize("vectors", [None, np.ones((3, 2), dtype=np.float32)])
def test_vectors_that_are_not_those_of_the_texts_are_refused(vectors, tmp_path: Path) -> None:
    write_split(corpus([("q1", "test", "tea", "", 0)], [("q1", "d", 1.0)]), tmp_path)
    with pytest.raises(ValueError, match=r"holds 1 texts of queries, but there are (none|3) embeddings"):
        read_split(tmp_path, vectors)


@pytest.mark.parametrize(
    ("queries", "judgements", "expected"),
    [
        ([("q1", "dev", "tea", "", 0)], [("q1", "a", 1.0)], "must be one of train, valid, test, not 'dev'"),
        ([("q1", "test", "tea", "", 0)], [("q2", "a", 1.0)], "every query must have a judgement"),
        ([("q1", "test", "tea", "", 0)], [("q1", "z", 1.0)], "first: 'z'"),
        ([("q1", "test", "tea", "", 0)], [("q1", "a", 0.0)], "gains must be finite and above 0"),
        ([("q1", "test", "tea", "", 0)], [("q1", "a", 1.0), ("q1", "a", 2.0)], "each pair once"),
        ([("q1", "test", "tea", "u", 1)], [("q1", "a", 1.0)], "not longer than its user's interactions"),
        ([("q2", "test", "t", "", 0), ("q1", "test", "t", "", 0)], [("q1", "a", 1.0)], "sorted by query_id"),
    ],
)
def test_frames_that_are_not_as_described_are_refused(queries, judgements, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        corpus(queries, judgements)


def test_targets_below_a_gain_are_left_out_of_training_and_unanswered_queries_of_evaluation(
    tmp_path: Path,
) -> None:
    answers = [("q1", "a", 0.1), ("q1", "b", 1.0), ("q2", "c", 0.1), ("q3", "a", 1.0), ("q3", "d", 0.01)]
    queries = [(name, "train", name, "", 0) for name in ("q1", "q2", "q3")]
    write_split(corpus(queries, answers), tmp_path)
    train = read_split(tmp_path, np.eye(3, dtype=np.float32)).train

    learned = train.at_least(1.0)
    assert learned.query_ids.tolist() == ["q1", "q3"]
    assert [learned.targets[row].tolist() for row in range(2)] == [[1], [0]]
    assert learned.gains.tolist() == [1.0, 1.0]
    assert [learned.texts.words[row] for row in learned.text_rows] == ["q1", "q3"]

    evaluated = train.answered(1.0)
    assert evaluated.query_ids.tolist() == ["q1", "q3"]
    assert [evaluated.targets[row].tolist() for row in range(2)] == [[0, 1], [0, 3]]
    assert len(train.answered(0.1)) == 3  # 0.1 in float32 is a little more than 0.1


def test_what_a_user_took_is_one_sequence_however_often_they_asked(tmp_path: Path) -> None:
    found = corpus(
        [
            ("u.1", "train", "x", "u", 0),
            ("u.2", "train", "y", "u", 2),
            ("v.1", "train", "x", "v", 1),
            ("w.1", "train", "x", "", 0),
            ("w.2", "train", "y", "", 0),
        ],
        [("u.1", "a", 1.0), ("u.2", "c", 1.0), ("v.1", "b", 1.0), ("w.1", "d", 1.0), ("w.2", "c", 1.0)],
        [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("v", "d", 1), ("v", "b", 2)],
    )
    write_split(found, tmp_path)
    rows = read_split(tmp_path, np.eye(2, dtype=np.float32)).train.sequences()
    assert sorted(rows[number].tolist() for number in range(len(rows))) == [[0, 1, 2], [2], [3], [3, 1]]


def test_one_test_query_is_too_few_to_compare_anything() -> None:
    queries = [("q1", "test", "tea", "", 0), ("q2", "train", "cup", "", 0), ("q3", "test", "tea", "", 0)]
    answers = [("q1", "d", 1.0), ("q2", "a", 1.0), ("q3", "d", 1.0)]
    check_enough(corpus(queries, answers))
    with pytest.raises(ValueError, match="the corpus has 1 test queries with an answer, but 2 are the least"):
        check_enough(corpus(queries[:2], answers[:2]))
