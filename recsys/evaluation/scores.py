"""Per-query scores and their files; runs on the same evaluation set can be compared query by query."""

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

_DIGEST_KEY, _CONTENT_KEY = b"gritrec.evaluation_set", b"gritrec.content"


def evaluation_set_digest(
    examples: Examples, item_ids_digest: str, exclude_seen: bool, relevant_gain: float = 0.0
) -> str:
    """Return a digest, 64 hex digits, that two evaluations share only if their scores are comparable.

    Args:
        examples: The queries and their targets, as item rows.
        item_ids_digest: Digest of the catalogue's item ids in order, which says what the rows mean.
        exclude_seen: Whether items of a query's own history were left out of its ranking.
        relevant_gain: Smallest gain with which a target counts for Recall.
    """
    parts = [examples.digest(), item_ids_digest, exclude_seen, float(relevant_gain)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class QueryScores:
    """The scores of one run on every query of an evaluation set.

    Attributes:
        query_ids: ``(Q,)`` unicode, sorted and unique, Q ≥ 1.
        columns: Metric name to values ``(Q,)`` float64, all finite.
        evaluation_set: Digest of the evaluation set, from :func:`evaluation_set_digest`.

    Raises:
        ValueError: If the query ids or the columns do not have this form.

    Example:
        >>> scores = QueryScores(np.array(["u1", "u2"]), {"recall_at_10": np.array([0.0, 1.0])}, "c0ffee")
        >>> scores.mean()
        {'recall_at_10': 0.5}
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
        """Return the values of one metric, ``(Q,)`` float64.

        Raises:
            ValueError: If there is no metric of this name. The message lists the existing ones.
        """
        if metric not in self.columns:
            raise ValueError(f"no metric {metric!r} among the scores; there are {', '.join(self.columns)}")
        return self.columns[metric]

    def mean(self) -> dict[str, float]:
        """Return the mean over queries of every metric."""
        return {name: float(values.mean()) for name, values in self.columns.items()}

    def write(self, path: Path) -> None:
        """Write a parquet file with one row per query.

        The metadata of the schema holds the digest of the evaluation set, and one of all content, by which
        :meth:`read` notices damage.
        """
        table = pa.table({"query_id": pa.array(self.query_ids.tolist(), pa.string()), **self.columns})
        metadata = {_DIGEST_KEY: self.evaluation_set, _CONTENT_KEY: self._content_digest()}
        with atomic_write(path) as partial:
            pq.write_table(table.replace_schema_metadata(metadata), partial)

    @classmethod
    def read(cls, path: Path) -> QueryScores:
        """Read the scores that :meth:`write` wrote.

        Raises:
            ValueError: If the file holds anything else or is damaged. The message names the file. Files of
                version 0.1.0 have no digest of their content, so damage may go unnoticed there.
        """
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the file is missing, for example
            raise ValueError(f"{path} is no readable parquet file: {error}") from error
        metadata = table.schema.metadata or {}
        if _DIGEST_KEY not in metadata or table.column_names[:1] != ["query_id"]:
            raise ValueError(
                f"{path} holds no per-query scores; give a scores.parquet that a run has written"
            )
        try:
            query_ids, *columns = (column.to_numpy() for column in table.columns)
            values_by_metric = dict(zip(table.column_names[1:], columns, strict=True))
            scores = cls(query_ids.astype(np.str_), values_by_metric, metadata[_DIGEST_KEY].decode())
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        expected = {_DIGEST_KEY, _CONTENT_KEY} if len(metadata) > 1 else {_DIGEST_KEY}
        if set(metadata) != expected or metadata.get(_CONTENT_KEY, b"") not in (
            b"",
            scores._content_digest(),
        ):
            raise ValueError(
                f"{path} is damaged: the content does not have the digest that it was saved with; evaluate "
                "the run again"
            )
        return scores

    def _content_digest(self) -> bytes:
        """Return a digest of query ids, names and values of all columns, and the evaluation set."""
        sha = hashlib.sha256(json.dumps([self.evaluation_set, *self.columns, *self.query_ids]).encode())
        for values in self.columns.values():
            sha.update(np.ascontiguousarray(values, dtype=np.float64).tobytes())
        return sha.hexdigest().encode()


def check_comparable(a: QueryScores, b: QueryScores) -> None:
    """Check that two runs were evaluated on the same queries in the same way.

    Raises:
        ValueError: If they were not. The message says why a comparison query by query would mean nothing.
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
    """Average the scores of each query over the seeds of a method.

    A statistical test over queries then counts each query once, however many seeds there are.

    Args:
        runs: One run per seed, at least one; comparable, and with the same metrics.

    Raises:
        ValueError: If the runs are not comparable, see :func:`check_comparable`.
    """
    first = runs[0]
    for other in runs[1:]:
        check_comparable(first, other)
    means = {name: np.mean([run.values(name) for run in runs], axis=0) for name in first.columns}
    return QueryScores(first.query_ids, means, first.evaluation_set)
