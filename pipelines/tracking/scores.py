"""Read the scores that a cell's run keeps, and the results that a benchmark's run keeps, for comparisons."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowException

from pipelines.results.reading import RESULTS_FILE, read_results
from pipelines.results.rows import Results
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
    with tempfile.TemporaryDirectory() as folder:
        hint = "the run of one tokenizer, retriever and seed, which stands under its benchmark's run"
        return QueryScores.read(_artifact(run_id, SCORES_FILE, hint, Path(folder), workspace, tracking_uri))


def results_at(place: str, workspace: Path, tracking_uri: str = "") -> Results:
    """Return the results of a benchmark.

    Args:
        place: A folder with a report, its ``results.json``, or MLflow's id of the benchmark's run.
        workspace: Folder of MLflow's database, unless there is a ``tracking_uri``.
        tracking_uri: Address of a server.

    Raises:
        ValueError: If there are none.
    """
    path = Path(place)
    if path.exists():
        folder = path if path.is_dir() else path.parent
        if not (folder / RESULTS_FILE).is_file():
            raise ValueError(f"{folder} holds no {RESULTS_FILE}; give the folder of a benchmark's report")
        return read_results(folder)
    return results_of_run(place, workspace, tracking_uri)


def results_of_run(run_id: str, workspace: Path, tracking_uri: str = "") -> Results:
    """Return the results that a benchmark's run keeps.

    For the arguments and errors see :func:`scores_of_run`.
    """
    with tempfile.TemporaryDirectory() as folder:
        hint = "the run of a whole benchmark"
        return read_results(
            _artifact(run_id, RESULTS_FILE, hint, Path(folder), workspace, tracking_uri).parent
        )


def _artifact(run_id: str, name: str, hint: str, folder: Path, workspace: Path, tracking_uri: str) -> Path:
    """Return the copy, in ``folder``, of a file that a run keeps; ``hint`` says which runs keep one."""
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
    if name not in kept:
        raise ValueError(f"run {run_id} keeps no {name}; give {hint}")
    return Path(client.download_artifacts(run_id, name, str(folder)))
