"""The scheduled benchmark, on a real Prefect server with a real worker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.responses import DeploymentResponse

from pipelines.config.loading import load_config
from pipelines.tracking.database import embedded_uri

ROOT = Path(__file__).parents[3]
FILE = Path("pipelines", "prefect.yaml")
Prefect = Callable[..., str]
Gritrec = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def prefect(served: Mapping[str, str]) -> Prefect:
    """Runs the command ``prefect`` in the repository root, as the documentation says."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=ROOT,
            env=served,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(api=prefect_server) as client:
        yield client


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nightly") / "workspace"


@pytest.fixture(scope="module")
def deployment(prefect: Prefect, client: SyncPrefectClient) -> DeploymentResponse:
    """As the server knows it when it has just been deployed."""
    prefect("work-pool", "create", "gritrec", "--type", "process")
    prefect("--no-prompt", "deploy", "--prefect-file", str(FILE), "--all")
    return client.read_deployment_by_name("gritrec-benchmark/nightly")


@pytest.fixture(scope="module")
def flow_run(
    prefect: Prefect, client: SyncPrefectClient, deployment: DeploymentResponse, tiny: Path, workspace: Path
) -> FlowRun:
    """A run of the deployment, triggered by hand with the tiny benchmark and done by a worker."""
    # Else the worker would do the scheduled run as well, if it happens to be two o'clock.
    (schedule,) = deployment.schedules
    client.update_deployment_schedule(deployment.id, schedule.id, active=False)
    parameters = {"config": str(tiny), "settings": [f"workspace={workspace}"]}
    given = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    prefect("worker", "start", "--pool", "gritrec", "--type", "process", "--run-once")
    return client.read_flow_run(given.id)


def task_runs(client: SyncPrefectClient, flow_run: FlowRun) -> dict[UUID, TaskRun]:
    found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])))
    return {run.id: run for run in found}


def test_the_file_names_no_machine_and_a_benchmark_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (deployment,) = yaml.safe_load(FILE.read_text())["deployments"]
    assert not re.search(r"(^|\s|['\"])[/~]", FILE.read_text())
    assert "pull" not in deployment
    assert load_config(deployment["parameters"]["config"]).name == "demo"


@pytest.mark.slow
def test_it_is_deployed_with_its_schedule(deployment: DeploymentResponse) -> None:
    assert deployment.work_pool_name == "gritrec"
    (schedule,) = deployment.schedules
    assert schedule.active
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 2 * * *", "UTC")
    assert deployment.parameters == {"config": "pipelines/experiments/demo.yaml", "settings": []}


@pytest.mark.slow
def test_a_worker_runs_it_to_the_end(flow_run: FlowRun, workspace: Path) -> None:
    assert flow_run.state is not None
    assert flow_run.state.name == "Completed", flow_run.state.message
    client = MlflowClient(embedded_uri(workspace))
    found = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    assert parent.info.status == "FINISHED"
    assert "rq-kmeans" in parent.data.tags["mlflow.note.content"]
    children = [run for run in found if run is not parent]
    assert len(children) == 3
    for run in children:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert 0 <= run.data.metrics["ndcg_at_10"] <= 1


@pytest.mark.slow
def test_each_step_is_a_task_after_those_that_it_reads(
    client: SyncPrefectClient, flow_run: FlowRun, workspace: Path
) -> None:
    runs = task_runs(client, flow_run)
    arrows = {
        run.name: {runs[given.id].name for given in run.task_inputs.get("wait_for", [])}
        for run in runs.values()
    }
    assert arrows["ingest tiny"] == set()
    assert arrows["embed tiny lsa"] == {"ingest tiny"}
    assert arrows["tokenize rq-vae seed 0"] == {"ingest tiny", "embed tiny lsa"}
    assert arrows["fit dual-encoder rq-vae seed 0"] == {"ingest tiny", "tokenize rq-vae seed 0"}
    assert arrows["score dual-encoder rq-vae seed 0"] == {"ingest tiny", "fit dual-encoder rq-vae seed 0"}
    assert arrows["fit popularity seed 0"] == {"ingest tiny"}
    assert arrows == from_manifests(workspace)
    assert {run.state.name for run in runs.values() if run.state} == {"Completed"}


@pytest.mark.slow
def test_the_server_that_is_named_shows_a_run_from_the_command_line(
    client: SyncPrefectClient, prefect_server: str, gritrec_process: Gritrec, tiny: Path, tmp_path: Path
) -> None:
    settings = [f"workspace={tmp_path}", "retrievers=[popularity]", "tokenizers=[]", "semantic_ids={}"]
    options = [part for setting in settings for part in ("--set", setting)]
    gritrec_process("run", tiny, *options, PREFECT_API_URL=prefect_server)
    shown = {str(run.parameters["settings"]): run for run in client.read_flow_runs()}
    run = shown[str(settings)]
    assert (run.parameters["config"], run.state.name) == (str(tiny), "Completed")
    names = {task.name for task in task_runs(client, run).values()}
    assert names == {"ingest tiny", "fit popularity seed 0", "score popularity seed 0", "report tiny"}


def from_manifests(workspace: Path) -> dict[str, set[str]]:
    """The same arrows, from what the steps' folders say of themselves."""
    manifests: list[dict[str, Any]] = [
        json.loads(path.read_text()) for path in (workspace / "stages").glob("*/*/manifest.json")
    ]
    titles = {manifest["digest"]: f"{manifest['stage']} {manifest['label']}" for manifest in manifests}
    return {titles[m["digest"]]: {titles[source] for source in m["inputs"].values()} for m in manifests}
