"""Per-query scores as the currency: whatever is scored on the same questions can be compared later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.evaluation.metrics import Scores
from recsys.examples import Examples
from semantic_ids.files import atomic_write

_DIGEST_KEY = b"gritrec.evaluation_set"


def evaluation_set_digest(
    examples: Examples, item_ids_digest: str, exclude_seen: bool, relevant_gain: float = 0.0
) -> str:
    """64 hex digits that two evaluations share only if their scores may be compared query by query.

    Args:
        examples: the questions and their answers, as item rows.
        item_ids_digest: what the rows stand for: a digest of the catalogue's item ids in order.
        exclude_seen: whether items of a query's own history were left out of its ranking.
        relevant_gain: from which gain on a target counted for Recall.
    """
    parts = [examples.digest(), item_ids_digest, exclude_seen, float(relevant_gain)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class QueryScores:
    """What one run scored on every query of an evaluation set.

    Attributes:
        query_ids: ``(Q,)`` unicode, sorted and unique, Q ≥ 1.
        columns: metric name → ``(Q,)`` float64, finite.
        evaluation_set: the digest of :func:`evaluation_set_digest`.

    Raises:
        ValueError: an attribute is not as said above.
    """

    query_ids: npt.NDArray[np.str_]
    columns: Mapping[str, Scores]
    evaluation_set: str

    def __post_init__(self) -> None:
        if len(self.query_ids) == 0:
            raise ValueError("scores need at least one query")
        if not (self.query_ids[1:] > self.query_ids[:-1]).all():
            raise ValueError("query ids of scores must be sorted and unique")
        for name, values in self.columns.items():
            if values.shape != self.query_ids.shape:
                raise ValueError(
                    f"{name} has shape {values.shape}, but there are {len(self.query_ids)} queries"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds NaN or infinite scores")

    def values(self, metric: str) -> Scores:
        """``(Q,)`` float64 of one metric, or a :class:`ValueError` that names those there are."""
        if metric not in self.columns:
            raise ValueError(f"no metric {metric!r} among the scores; there are {', '.join(self.columns)}")
        return self.columns[metric]

    def mean(self) -> dict[str, float]:
        """The mean over queries of every metric."""
        return {name: float(values.mean()) for name, values in self.columns.items()}

    def write(self, path: Path) -> None:
        """Write a parquet file: one row a query, the digest in the schema's metadata."""
        table = pa.table({"query_id": pa.array(self.query_ids.tolist(), pa.string()), **self.columns})
        with atomic_write(path) as partial:
            pq.write_table(table.replace_schema_metadata({_DIGEST_KEY: self.evaluation_set}), partial)

    @classmethod
    def read(cls, path: Path) -> QueryScores:
        """Read what :meth:`write` wrote; a :class:`ValueError` names a file that holds anything else."""
        try:
            table = pq.ParquetFile(path).read()
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is no readable parquet file: {error}") from error
        digest = (table.schema.metadata or {}).get(_DIGEST_KEY)
        if digest is None or table.column_names[:1] != ["query_id"]:
            raise ValueError(
                f"{path} holds no per-query scores; give a scores.parquet that a run has written"
            )
        query_ids, *columns = (column.to_numpy() for column in table.columns)
        named = dict(zip(table.column_names[1:], columns, strict=True))
        return cls(query_ids.astype(np.str_), named, digest.decode())


def check_comparable(a: QueryScores, b: QueryScores) -> None:
    """Refuse two runs that did not answer the same questions.

    Raises:
        ValueError: says why a comparison query by query would mean nothing.
    """
    sizes = f"{len(a.query_ids)} and {len(b.query_ids)} queries"
    if a.evaluation_set != b.evaluation_set:
        raise ValueError(
            f"cannot compare scores on different evaluation sets ({a.evaluation_set[:12]}… and "
            f"{b.evaluation_set[:12]}…, {sizes}): the queries, their targets, the catalogue, exclude_seen or "
            "relevant_gain differ, so a difference in score would not be the method's; evaluate both runs on "
            "one set"
        )
    if not np.array_equal(a.query_ids, b.query_ids):
        raise ValueError(
            f"cannot compare scores of different queries ({sizes}) though both name the evaluation set "
            f"{a.evaluation_set[:12]}…: one of them is incomplete; evaluate it again"
        )


def mean_over_seeds(runs: Sequence[QueryScores]) -> QueryScores:
    """The mean over runs of every query's score, so that a query counts once however many seeds ran.

    Args:
        runs: one for each seed, at least one, comparable and with the same metrics.
    """
    first = runs[0]
    for other in runs[1:]:
        check_comparable(first, other)
    means = {name: np.mean([run.values(name) for run in runs], axis=0) for name in first.columns}
    return QueryScores(first.query_ids, means, first.evaluation_set)
