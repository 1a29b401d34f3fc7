"""Read the per-query scores that a cell's run keeps, for the comparison of any two runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowException

from pipelines.tracking.database import SCORES_FILE, database_of, embedded_uri, prepare
from pipelines.tracking.tracker import client_of
from recsys.evaluation.scores import QueryScores


def scores_of_run(run_id: str, workspace: Path, tracking_uri: str = "") -> QueryScores:
    """Return the per-query scores that a cell's run keeps.

    Args:
        run_id: MLflow's id of the run.
        workspace: Folder of the database, unless there is a ``tracking_uri``.
        tracking_uri: Address of a server.

    Raises:
        ValueError: If there is no such run, or if it keeps no scores.
    """
    if not tracking_uri:
        if not database_of(workspace).exists():  # MLflow would make an empty one
            raise ValueError(
                f"there is no {database_of(workspace)}; say where the benchmark ran with --workspace"
            )
        prepare(workspace)  # the workspace may have been moved
    client = client_of(tracking_uri or embedded_uri(workspace))
    try:
        kept = [file.path for file in client.list_artifacts(run_id)]
    except MlflowException as error:
        where = tracking_uri or database_of(workspace)
        raise ValueError(f"no run {run_id} at {where}: {error.message}") from error
    if SCORES_FILE not in kept:
        raise ValueError(
            f"run {run_id} keeps no {SCORES_FILE}; give the run of one tokenizer, retriever and seed, "
            "which stands under its benchmark's run"
        )
    with tempfile.TemporaryDirectory() as folder:
        return QueryScores.read(Path(client.download_artifacts(run_id, SCORES_FILE, folder)))
