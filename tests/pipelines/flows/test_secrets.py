"""A password in a benchmark is in no file after a run: not in the workspace, nor in MLflow's or Prefect's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient

Gritrec = Callable[..., "subprocess.CompletedProcess[str]"]
SECRET = "hunter2isnotmypassword"  # noqa: S105 — made up


def files_with_the_secret(*folders: Path) -> list[Path]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Host and port of an MLflow server, and the folder where it keeps everything."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", host.partition(":")[2], "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    try:
        deadline = time.monotonic() + 120
        while not is_up(f"http://{host}/health"):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield host, folder
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 — on loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.slow
def test_a_password_in_the_tracking_address_is_used_but_kept_nowhere(
    mlflow_server: tuple[str, Path],
    served: Mapping[str, str],
    tiny: Path,
    gritrec_process: Gritrec,
    tmp_path: Path,
) -> None:
    host, store = mlflow_server
    file = tmp_path / "benchmark.yaml"
    file.write_text(tiny.read_text().replace("name: tiny", "name: secretive"))
    settings = [f"workspace={tmp_path / 'workspace'}", f"tracking_uri=http://alice:{SECRET}@{host}"]
    options = [part for setting in settings for part in ("--set", setting)]
    done = gritrec_process("run", file, *options, PREFECT_API_URL=served["PREFECT_API_URL"])
    assert SECRET not in done.stdout + done.stderr
    assert f"  'http://***@{host}'\n" in done.stdout

    client = MlflowClient(f"http://{host}")
    runs = client.search_runs([client.get_experiment_by_name("secretive").experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["tracking_uri"] == f"http://***@{host}"
    prefect = Path(served["PREFECT_HOME"])
    assert b"secretive" in b"".join(path.read_bytes() for path in prefect.glob("prefect.db*"))
    assert files_with_the_secret(tmp_path / "workspace", store, prefect) == []


@pytest.mark.slow
def test_an_error_that_repeats_a_password_is_kept_without_it(
    served: Mapping[str, str], tiny: Path, gritrec_process: Gritrec, tmp_path: Path
) -> None:
    (tmp_path / "leaky.py").write_text(
        "from recsys.datasets.readers import reader\n\n\n"
        "@reader\ndef read(*, k_core: int = 1):\n"
        "    try:\n"
        f"        raise OSError('no answer from ftp://alice:{SECRET}@host')\n"
        "    except OSError as error:\n"
        f"        raise ValueError('leaky: cannot read ftp://alice:{SECRET}@host') from error\n"
    )
    workspace = tmp_path / "workspace"
    settings = [f"workspace={workspace}", f"data={{reader: 'leaky:read', raw: {tmp_path}}}"]
    options = [part for setting in settings for part in ("--set", setting)]
    failed = gritrec_process(
        "run",
        tiny,
        *options,
        exit_code=1,
        PREFECT_API_URL=served["PREFECT_API_URL"],
        PYTHONPATH=str(tmp_path),
    )
    assert "leaky: cannot read ftp://***@host" in failed.stderr
    assert SECRET not in failed.stdout + failed.stderr
    prefect = Path(served["PREFECT_HOME"])
    assert b"leaky: cannot read" in b"".join(path.read_bytes() for path in prefect.glob("prefect.db*"))
    assert files_with_the_secret(workspace, prefect) == []


@pytest.mark.slow
def test_a_deployment_refuses_settings_with_secrets(
    served: Mapping[str, str], tiny: Path, environment: Mapping[str, str]
) -> None:
    script = (
        "from pipelines.run.flows import benchmark\n"
        f"benchmark({str(tiny)!r}, ['tracking_uri=http://alice:{SECRET}@host'])"
    )
    failed = subprocess.run(
        [sys.executable, "-c", script], env=dict(served), capture_output=True, check=False
    )
    assert failed.returncode == 1
    assert b"Prefect keeps the settings of every run, so no secret may be in them" in failed.stderr
