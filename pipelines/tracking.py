"""Keep benchmarks in MLflow: a run for each benchmark, and a run under it for each of its cells."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

from mlflow import MlflowClient, MlflowException
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, Metric, Param, Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipelines.report.charts import score_chart
from pipelines.report.verdicts import verdicts
from pipelines.results.cell import Cell, Dataset
from pipelines.results.reading import RESULTS_FILE
from pipelines.results.summary import Results
from recsys.evaluation.scores import QueryScores

DIGEST_TAG, KIND_TAG, PARENT_TAG = "gritrec.digest", "gritrec.kind", "mlflow.parentRunId"
SCORES_FILE = "scores.parquet"

# MLflow's limits: what one request may hold (of metrics twice as much), and a dataset's digest.
_METRICS_PER_BATCH, _PARAMS_PER_BATCH, _DATASET_DIGEST_LENGTH = 500, 100, 36

T = TypeVar("T")


def embedded_uri(workspace: Path) -> str:
    """Return the tracking URI of the database in a workspace, which needs no server."""
    return f"sqlite:///{workspace.resolve() / 'mlflow.db'}"


def scores_of_run(run_id: str, tracking_uri: str) -> QueryScores:
    """Return the per-query scores that a cell's run keeps.

    Args:
        run_id: MLflow's id of the run.
        tracking_uri: Where the run is kept.

    Raises:
        ValueError: If there is no such run, or if it keeps no scores.
    """
    database = Path(tracking_uri.removeprefix("sqlite:///"))
    if tracking_uri.startswith("sqlite:") and not database.exists():  # MLflow would make an empty one
        raise ValueError(f"there is no {database}; say where the benchmark ran with --workspace")
    client = MlflowClient(tracking_uri)
    try:
        kept = [file.path for file in client.list_artifacts(run_id)]
    except MlflowException as error:
        raise ValueError(f"no run {run_id} at {tracking_uri}: {error.message}") from error
    if SCORES_FILE not in kept:
        raise ValueError(
            f"run {run_id} keeps no {SCORES_FILE}; give the run of one tokenizer, retriever and seed, "
            "which stands under its benchmark's run"
        )
    with tempfile.TemporaryDirectory() as folder:
        return QueryScores.read(Path(client.download_artifacts(run_id, SCORES_FILE, folder)))


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
    """

    client: MlflowClient
    experiment_id: str
    run_id: str
    dataset: Dataset

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
        """
        client = MlflowClient(tracking_uri or embedded_uri(workspace))
        experiment = client.get_experiment_by_name(name)
        if experiment:
            experiment_id = experiment.experiment_id
        else:
            artifacts = None if tracking_uri else (workspace / "mlartifacts").resolve().as_uri()
            experiment_id = client.create_experiment(name, artifacts)
        tags = {KIND_TAG: "benchmark", DIGEST_TAG: digest}
        found = _search(client, experiment_id, tags)
        run = found[0] if found else client.create_run(experiment_id, tags=tags, run_name=name)
        tracker = cls(client, experiment_id, run.info.run_id, dataset)
        client.update_run(tracker.run_id, status="RUNNING")
        tracker._log_settings(run, _flat(params))
        return tracker

    def log_cell(self, cell: Cell) -> str:
        """Log a cell under the benchmark's run, unless it is there already, and return its run's id.

        Raises:
            ValueError: If two of its scores, qualities, diagnostics and curves have the same name.
        """
        scores = cell.scores.mean() if cell.scores else {}
        diagnostics = cell.numeric_diagnostics()
        texts = {name: text for name, text in cell.diagnostics.items() if name not in diagnostics}
        final = {**scores, **cell.quality, **diagnostics, "seconds": cell.seconds}
        counts = Counter([*scores, *cell.quality, *diagnostics, "seconds", *cell.curves])
        if clash := sorted(name for name, count in counts.items() if count > 1):
            raise ValueError(
                f"curves, diagnostics and final metrics must be named differently: {', '.join(clash)}"
            )
        tags = {KIND_TAG: "cell", DIGEST_TAG: cell.digest, PARENT_TAG: self.run_id}
        names = {f"gritrec.{what}": str(value) for what, value in cell.name._asdict().items()}
        for run in _search(self.client, self.experiment_id, tags):
            # Not part of the search, whose syntax cannot express a name with quotation marks.
            if not names.items() <= run.data.tags.items():
                continue
            if run.info.status == "FINISHED":
                return str(run.info.run_id)
            self.client.delete_run(run.info.run_id)

        run = self.client.create_run(self.experiment_id, tags={**tags, **names}, run_name=str(cell.name))
        run_id = str(run.info.run_id)
        self._log_settings(run, {**_flat({**cell.params, "diagnostics": texts}), **cell.name._asdict()})
        now = int(time.time() * 1000)
        points = {**{name: [(0, value)] for name, value in final.items()}, **cell.curves}
        metrics = [Metric(key, value, now, step) for key, curve in points.items() for step, value in curve]
        for batch in _batches(metrics, _METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=batch)
        if cell.scores:
            with tempfile.TemporaryDirectory() as folder:
                cell.scores.write(Path(folder, SCORES_FILE))
                self.client.log_artifact(run_id, str(Path(folder, SCORES_FILE)))
        self.client.set_terminated(run_id)
        return run_id

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
        self.client.set_tag(self.run_id, "mlflow.note.content", "\n\n".join(verdicts(results)))
        self.client.set_terminated(self.run_id)

    def fail(self) -> None:
        """Mark the benchmark's run as failed until it is opened again."""
        self.client.set_terminated(self.run_id, "FAILED")

    def _log_settings(self, run: Run, params: Mapping[str, Any]) -> None:
        """Log the dataset, and the parameters that the run lacks: MLflow refuses to change one."""
        lacking = [Param(k, str(v)) for k, v in params.items() if k not in run.data.params]
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
