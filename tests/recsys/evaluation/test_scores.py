from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.evaluation.scores import (
    QueryScores,
    check_comparable,
    evaluation_set_digest,
    mean_over_seeds,
)
from recsys.examples import Examples, Ragged


def scores_of(values: list[float], ids: list[str] | None = None, digest: str = "d" * 64) -> QueryScores:
    ids = ids or [f"q{i}" for i in range(len(values))]
    return QueryScores(np.array(ids), {"recall_at_10": np.array(values, dtype=np.float64)}, digest)


def examples_of(target: int) -> Examples:
    return Examples(
        query_ids=np.array(["u1"]),
        history=Ragged.from_rows([[0, 1]]),
        targets=Ragged.from_rows([[target]]),
        gains=np.ones(1, dtype=np.float32),
    )


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    third = 1 / 3  # not exact in fewer bits than float64
    written = QueryScores(
        np.array(["a", "ß", "語"]),
        {"recall_at_10": np.array([0, 1, third]), "ndcg_at_10": np.array([0, 0.5, third])},
        "c0ffee",
    )
    written.write(tmp_path / "scores.parquet")
    read = QueryScores.read(tmp_path / "scores.parquet")
    assert read.query_ids.tolist() == ["a", "ß", "語"]
    assert list(read.columns) == ["recall_at_10", "ndcg_at_10"]
    assert read.columns["ndcg_at_10"].tolist() == [0, 0.5, third]
    assert read.columns["ndcg_at_10"].dtype == np.float64
    assert read.evaluation_set == "c0ffee"
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


def test_a_file_is_one_row_a_query_for_any_parquet_reader(tmp_path: Path) -> None:
    scores_of([0.25, 0.75]).write(tmp_path / "scores.parquet")
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert rows == [{"query_id": "q0", "recall_at_10": 0.25}, {"query_id": "q1", "recall_at_10": 0.75}]


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "seed=1"
    folder.mkdir()
    scores_of([0.25, 0.75]).write(folder / "scores.parquet")
    assert list(QueryScores.read(folder / "scores.parquet").columns) == ["recall_at_10"]


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query_id": ["a"], "recall_at_10": [1.0]}), tmp_path / "foreign.parquet")
    (tmp_path / "text.parquet").write_text("no parquet at all")
    with pytest.raises(ValueError, match=r"foreign\.parquet holds no per-query scores"):
        QueryScores.read(tmp_path / "foreign.parquet")
    with pytest.raises(ValueError, match=r"text\.parquet is no readable parquet file"):
        QueryScores.read(tmp_path / "text.parquet")


@pytest.mark.parametrize(
    ("values", "ids", "message"),
    [
        ([], [], "at least one query"),
        ([1, 0], ["b", "a"], "sorted and unique"),
        ([1, 0], ["a", "a"], "sorted and unique"),
        ([1, 0], ["a"], "2,.* there are 1 queries"),
        ([1, np.nan], ["a", "b"], "recall_at_10 holds NaN"),
    ],
)
def test_malformed_scores_are_refused(values: list[float], ids: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QueryScores(np.array(ids, dtype=np.str_), {"recall_at_10": np.array(values, dtype=np.float64)}, "d")


def test_mean_is_over_queries() -> None:
    assert scores_of([0, 0, 0.5, 1]).mean() == {"recall_at_10": 0.375}


def test_an_unknown_metric_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no metric 'ndcg@10'.* recall_at_10"):
        scores_of([1]).values("ndcg@10")


def test_the_mean_over_seeds_is_taken_for_each_query() -> None:
    mean = mean_over_seeds([scores_of([0, 1]), scores_of([1, 1]), scores_of([0.5, 0.25])])
    assert mean.columns["recall_at_10"].tolist() == [0.5, 0.75]
    assert mean.query_ids.tolist() == ["q0", "q1"]
    assert mean.evaluation_set == "d" * 64


def test_scores_on_other_questions_are_refused_with_the_reason() -> None:
    check_comparable(scores_of([0, 1]), scores_of([1, 0]))
    with pytest.raises(ValueError, match=r"different evaluation sets .*exclude_seen"):
        check_comparable(scores_of([0, 1]), scores_of([0, 1], digest="e" * 64))
    with pytest.raises(ValueError, match=r"2 and 1 queries.*incomplete"):
        check_comparable(scores_of([0, 1]), scores_of([0]))
    with pytest.raises(ValueError, match="different evaluation sets"):
        mean_over_seeds([scores_of([0, 1]), scores_of([0, 1]), scores_of([0, 1], digest="e" * 64)])


def test_the_digest_tells_evaluation_sets_apart() -> None:
    digest = evaluation_set_digest(examples_of(2), "catalogue", exclude_seen=False)
    assert digest == evaluation_set_digest(examples_of(2), "catalogue", exclude_seen=False)
    others = {
        evaluation_set_digest(examples_of(3), "catalogue", exclude_seen=False),
        evaluation_set_digest(examples_of(2), "another catalogue", exclude_seen=False),
        evaluation_set_digest(examples_of(2), "catalogue", exclude_seen=True),
    }
    assert len(others - {digest}) == 3


def test_a_flipped_bit_and_a_cut_file_change_no_score(tmp_path: Path) -> None:
    scores = scores_of([0.0, 1.0, 0.25, 0.5] * 5, [f"q{i:02d}" for i in range(20)])
    file, draws = tmp_path / "scores.parquet", random.Random(0)  # noqa: S311 — no secret
    scores.write(file)
    content, noticed, unharmed = file.read_bytes(), 0, 0
    for _ in range(1000):
        changed = bytearray(content)
        changed[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        file.write_bytes(changed)
        try:
            read = QueryScores.read(file)
        except ValueError as error:
            noticed += str(file) in str(error)
        else:  # of a statistic, for example, which nothing reads
            assert read.query_ids.tolist() == scores.query_ids.tolist()
            assert read.values("recall_at_10").tolist() == scores.values("recall_at_10").tolist()
            assert (read.evaluation_set, list(read.columns)) == (scores.evaluation_set, ["recall_at_10"])
            unharmed += 1
    assert noticed + unharmed == 1000
    assert noticed > 300
    for size in range(0, len(content) - 1, 50):
        file.write_bytes(content[:size])
        with pytest.raises(ValueError, match=re.escape(str(file))):
            QueryScores.read(file)


def test_scores_of_version_0_1_0_have_no_digest_of_their_content(tmp_path: Path) -> None:
    table = pa.table({"query_id": ["u1", "u2"], "recall_at_10": [0.0, 1.0]})
    pq.write_table(table.replace_schema_metadata({"gritrec.evaluation_set": "c0ffee"}), tmp_path / "old")
    assert QueryScores.read(tmp_path / "old").mean() == {"recall_at_10": 0.5}


def test_a_file_that_is_missing_is_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        QueryScores.read(tmp_path / "scores.parquet")
