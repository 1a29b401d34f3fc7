"""Keep benchmarks in MLflow: a run for each benchmark, and a run under it for each of its cells."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlparse

# Read when mlflow is imported. By itself it asks a server that is down for nine minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, Metric, Param, Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipelines.report.charts import score_chart
from pipelines.report.verdicts import verdicts
from pipelines.results.cell import Cell, CellName, Dataset, Failure
from pipelines.results.reading import RESULTS_FILE
from pipelines.results.rows import Results
from pipelines.tracking.database import (
    DIGEST_TAG,
    KIND_TAG,
    PARENT_TAG,
    SCORES_FILE,
    artifacts_of,
    database_of,
    embedded_uri,
    prepare,
)
from pipelines.tracking.names import accepted_names

WORKSPACE_TAG, FAILURE_TAG = "gritrec.workspace", "gritrec.failure"

# MLflow's limits: what one request may hold (of metrics twice as much), the digest of a dataset, and a tag.
_METRICS_PER_BATCH, _PARAMS_PER_BATCH, _DATASET_DIGEST_LENGTH, _TAG_LENGTH = 500, 100, 36, 5000

T = TypeVar("T")


@dataclass(frozen=True)
class Tracker:
    """Keeps one benchmark in MLflow, however often it is killed and started again.

    Runs are found by their digests, and cells also by tokenizer, retriever and seed, because cells that share
    a table of codes can share a digest. A benchmark's run is opened again. Under it, a cell that was logged
    completely is left alone; one that was not is deleted and logged anew. Cells may be logged from several
    threads.

    Attributes:
        client: A client bound to the tracking URI. MLflow's global state is neither read nor changed.
        experiment_id: The experiment named like the benchmark.
        run_id: The benchmark's run.
        dataset: Input of all its runs.
        owner: Host and workspace. The workspace is held by one process at a time, so an unfinished run of the
            same owner was left by a process that is dead.
    """

    client: MlflowClient
    experiment_id: str
    run_id: str
    dataset: Dataset
    owner: str

    @classmethod
    def open(
        cls,
        workspace: Path,
        name: str,
        digest: str,
        *,
        params: Mapping[str, Any],
        dataset: Dataset,
        tracking_uri: str | None = None,
    ) -> Tracker:
        """Begin a benchmark's run, or continue it.

        Args:
            workspace: Folder of the database and the artifacts, unless there is a ``tracking_uri``.
            name: Name of the benchmark, and so of its experiment.
            digest: Hex digits that change with anything the benchmark's result depends on.
            params: Settings, possibly nested.
            dataset: What it runs on.
            tracking_uri: Address of a server, which keeps artifacts where it is set up to.

        Raises:
            ValueError: If the experiment was deleted in MLflow.
        """
        if not tracking_uri:
            prepare(workspace)
        client = client_of(tracking_uri or embedded_uri(workspace))
        experiment_id = _experiment(client, name, None if tracking_uri else artifacts_of(workspace))
        place = f"{socket.gethostname()}:{database_of(workspace).parent}"
        owner = place if tracking_uri else "the workspace of this database"  # wherever that is moved to
        tags = {KIND_TAG: "benchmark", DIGEST_TAG: digest}
        found = _search(client, experiment_id, tags)
        run = (
            found[0]
            if found
            else client.create_run(experiment_id, tags={**tags, WORKSPACE_TAG: owner}, run_name=name)
        )
        tracker = cls(client, experiment_id, run.info.run_id, dataset, owner)
        tracker._end_runs_of_dead_processes(is_embedded=not tracking_uri)
        client.update_run(tracker.run_id, status="RUNNING")
        tracker._log_settings(run, _flat(params))
        return tracker

    def log_cell(self, cell: Cell) -> str:
        """Log a cell under the benchmark's run, unless it is there already, and return its run's id."""
        tags, kept = self._cell_tags(cell.name, cell.digest), ""
        for run in self._runs_of(tags):
            if run.info.status == "FINISHED" and (cell.scores is None or self._has_scores(run)):
                kept = str(run.info.run_id)
            elif run.data.tags.get(WORKSPACE_TAG, self.owner) == self.owner:
                self.client.delete_run(run.info.run_id)
        if kept:
            return kept

        diagnostics = cell.numeric_diagnostics()
        texts = {name: text for name, text in cell.diagnostics.items() if name not in diagnostics}
        final = {**diagnostics, **cell.quality, **(cell.scores.mean() if cell.scores else {})}
        final["seconds"] = cell.seconds
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=str(cell.name))
        run_id = str(run.info.run_id)
        self._log_settings(run, {**_flat({**cell.params, "diagnostics": texts}), **cell.name._asdict()})
        # Curves that are called like a final value are kept under another name.
        curves = {f"curve {name}" if name in final else name: curve for name, curve in cell.curves.items()}
        points = {**{name: [(0, value)] for name, value in final.items()}, **curves}
        names, now = accepted_names(points), int(time.time() * 1000)
        metrics = [
            Metric(names[name], value, now, int(step))
            for name, curve in points.items()
            for step, value in curve
        ]
        for batch in _batches(metrics, _METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=batch)
        if cell.scores:
            with tempfile.TemporaryDirectory() as folder:
                cell.scores.write(Path(folder, SCORES_FILE))
                self.client.log_artifact(run_id, str(Path(folder, SCORES_FILE)))
        self.client.set_terminated(run_id)
        return run_id

    def log_failure(self, failure: Failure) -> None:
        """Log a cell without results, as a failed run that says why, in place of an earlier one."""
        tags = self._cell_tags(failure.name, failure.digest)
        for run in self._runs_of(tags):
            self.client.delete_run(run.info.run_id)
        reason = failure.reason[:_TAG_LENGTH]
        tags |= {FAILURE_TAG: reason, "mlflow.note.content": reason}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=str(failure.name))
        self._log_settings(run, failure.name._asdict())
        self.client.set_terminated(run.info.run_id, "FAILED")

    def close(self, results: Results, report: Path) -> None:
        """Log the benchmark's tables, chart, report and verdicts, and end its run.

        Args:
            results: The results.
            report: Folder of the report, whose files are logged as they are.
        """
        if results.tokenizers:
            self._log_table(results.tokenizer_records(), "tokenizers.json")
        if results.rows:
            self._log_table(results.score_records(), "scores.json")
            if records := results.significance_records():
                self._log_table(records, "significance.json")
            self.client.log_figure(
                self.run_id, score_chart(results), "scores.html", save_kwargs={"include_plotlyjs": True}
            )
            self.client.set_tag(self.run_id, "gritrec.metric", results.metric)
            self.client.set_tag(self.run_id, "gritrec.reference", results.reference)
        for file in ("report.html", RESULTS_FILE):
            self.client.log_artifact(self.run_id, str(report / file))
        # MLflow shows this tag as the run's description.
        self.client.set_tag(self.run_id, "mlflow.note.content", "\n\n".join(verdicts(results))[:_TAG_LENGTH])
        self.client.set_terminated(self.run_id, "FAILED" if results.failures else "FINISHED")

    def fail(self) -> None:
        """Mark the benchmark's run as failed until it is opened again."""
        self.client.set_terminated(self.run_id, "FAILED")

    def _cell_tags(self, name: CellName, digest: str) -> dict[str, str]:
        """Return the tags of a cell's run."""
        names = {f"gritrec.{what}": str(value) for what, value in name._asdict().items()}
        own = {KIND_TAG: "cell", DIGEST_TAG: digest, PARENT_TAG: self.run_id, WORKSPACE_TAG: self.owner}
        return {**own, **names}

    def _runs_of(self, tags: Mapping[str, str]) -> list[Run]:
        """Return the runs of a cell by its tags, finished or not, and of whatever owner."""
        searched = {tag: tags[tag] for tag in (KIND_TAG, DIGEST_TAG, PARENT_TAG)}
        found = _search(self.client, self.experiment_id, searched)
        # Names are not part of the search, whose syntax cannot express one with quotation marks.
        own = {tag: value for tag, value in tags.items() if tag != WORKSPACE_TAG}
        return [run for run in found if own.items() <= run.data.tags.items()]

    def _has_scores(self, run: Run) -> bool:
        """Return whether a run keeps the file of its scores, which somebody may have deleted."""
        return any(file.path == SCORES_FILE for file in self.client.list_artifacts(run.info.run_id))

    def _end_runs_of_dead_processes(self, *, is_embedded: bool) -> None:
        """Mark as killed what processes that are dead have left running in this experiment."""
        for run in self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'"):
            tags = run.data.tags
            if KIND_TAG in tags and (is_embedded or tags.get(WORKSPACE_TAG) == self.owner):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _log_settings(self, run: Run, params: Mapping[str, Any]) -> None:
        """Log the dataset, and the parameters that the run lacks: MLflow refuses to change one."""
        names = accepted_names(params)
        lacking = [Param(names[k], str(v)) for k, v in params.items() if names[k] not in run.data.params]
        for batch in _batches(lacking, _PARAMS_PER_BATCH):
            self.client.log_batch(run.info.run_id, params=batch)
        data = MlflowDataset(
            name=self.dataset.name,
            digest=self.dataset.digest[:_DATASET_DIGEST_LENGTH],
            source_type="local",
            source=json.dumps({"uri": self.dataset.source}),
            profile=json.dumps(dict(self.dataset.counts)),
        )
        self.client.log_inputs(run.info.run_id, [DatasetInput(data)])

    def _log_table(self, records: Sequence[Mapping[str, Any]], file: str) -> None:
        """Log records as a table, in place of an earlier one."""
        # log_table alone would append to what an earlier close has left.
        uri = self.client.get_run(self.run_id).info.artifact_uri
        get_artifact_repository(uri, tracking_uri=self.client.tracking_uri).delete_artifacts(file)
        columns = {name: [record[name] for record in records] for name in records[0]}
        self.client.log_table(self.run_id, columns, file)


def client_of(tracking_uri: str) -> MlflowClient:
    """Return a client. A name and password in the address of a server go where MLflow looks for them."""
    parts = urlparse(tracking_uri)
    if parts.scheme in ("http", "https") and parts.password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
        tracking_uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return MlflowClient(tracking_uri)


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Return the id of the experiment, which is created if there is none."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return str(client.create_experiment(name, artifacts))
    if experiment.lifecycle_stage == "deleted":
        raise ValueError(
            f"the experiment {name!r} was deleted in MLflow: bring it back with `mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}`, or run the benchmark under another name "
            "with --set name=NAME"
        )
    return str(experiment.experiment_id)


def _search(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> list[Run]:
    """Return the runs that carry all these tags and are not deleted."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    return list(client.search_runs([experiment_id], wanted))


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested parameters with dotted names: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield parts of at most ``size`` values."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
