"""A tiny benchmark and a Prefect server, shared by all tests here: each takes seconds to come up."""

from __future__ import annotations

import contextlib
import io
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

import pipelines  # turns Prefect's and MLflow's telemetry off, before any test imports them
import pipelines.cli
import pipelines.screen

TINY = """
name: tiny
data: {reader: amazon, shop: {users: 150, items: 120}}
text: {dimensions: 16}
semantic_ids: {levels: 2, codebook_size: 8, steps: 20, batch_size: 64}
tokenizers: [rq-vae, rq-kmeans]
retrievers:
  - kind: dual-encoder
    params: {width: 16, heads: 2, feed_forward: 16, training: {steps: 20, batch_size: 32, evaluate_every: 10}}
  - popularity
evaluation: {cutoffs: [10], reference: rq-vae}
"""

Gritrec = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For commands that are to find nothing of the machine's own Prefect, and no narrow terminal."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return own | {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "COLUMNS": "200",
    }


@pytest.fixture(scope="session")
def prefect_server(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API's address of a Prefect server on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as file:
        server = subprocess.Popen(
            [*command, "--no-ui"], env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not _healthy(api):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield api
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=5) as answer:  # noqa: S310 — on loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="session")
def served(environment: Mapping[str, str], prefect_server: str) -> dict[str, str]:
    """The environment of commands that use the server."""
    return {**environment, "PREFECT_API_URL": prefect_server}


@pytest.fixture(scope="session")
def gritrec_process(environment: Mapping[str, str]) -> Gritrec:
    """Runs the command ``gritrec`` in a process of its own, as a user does, and returns what it printed."""

    def run(*arguments: str | Path, exit_code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *map(str, arguments)],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def gritrec() -> Gritrec:
    """Runs the command ``gritrec`` in this process: a short run mostly imports what is imported here."""

    def run(*arguments: str | Path, exit_code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        command, code = ["gritrec", *map(str, arguments)], 0
        handler = signal.getsignal(signal.SIGTERM)
        printed, complained = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(complained),
        ):
            patch.setattr(sys, "argv", command)
            patch.setattr(sys, "path", [*filter(None, [variables.get("PYTHONPATH")]), *sys.path])
            patch.setattr(pipelines.screen.OUT, "_width", 200)
            for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_"))]:
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(name, value)
            try:
                pipelines.cli.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                signal.signal(signal.SIGTERM, handler)
        output = printed.getvalue(), complained.getvalue()
        assert code == exit_code, "".join(output)
        return subprocess.CompletedProcess(command, code, *output)

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a benchmark of two tokenizers that takes a second."""
    path = tmp_path_factory.mktemp("benchmark") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def finished(tiny: Path, gritrec: Gritrec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace in which the tiny benchmark was run to its end."""
    workspace = tmp_path_factory.mktemp("finished") / "workspace"
    gritrec("run", tiny, "--set", f"workspace={workspace}")
    return workspace
