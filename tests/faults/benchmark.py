"""A small benchmark that takes seconds, and what must hold of its workspace after whatever happened to it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

FILE = """
name: faults
data: {reader: amazon, shop: {users: 150, items: 120}}
text: {dimensions: 16}
semantic_ids: {levels: 2, codebook_size: 8, steps: 200, batch_size: 64}
tokenizers: [rq-vae, rq-kmeans]
retrievers:
  - kind: dual-encoder
    params:
      {width: 16, heads: 2, feed_forward: 16, training: {steps: 100, batch_size: 32, evaluate_every: 10}}
  - popularity
evaluation: {cutoffs: [10], reference: rq-vae}
"""

LIMIT = 300.0
"""Seconds after which a run counts as hanging."""

RUNS = """
SELECT runs.status, parent.value IS NOT NULL FROM runs
LEFT JOIN tags AS parent ON parent.run_uuid = runs.run_uuid AND parent.key = 'mlflow.parentRunId'
WHERE runs.lifecycle_stage = 'active'
"""


@dataclass
class Benchmark:
    """The benchmark in a workspace of its own.

    Attributes:
        workspace: Its workspace.
        settings: What ``--set`` gets besides.
        environment: Variables besides those of this process.
    """

    workspace: Path
    settings: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        """Start ``gritrec run`` as the leader of a new session.

        Args:
            before: Called in the new process before it runs the command.
        """
        file = Path(tempfile.gettempdir(), "gritrec-faults.yaml")
        file.write_text(FILE)
        settings = [f"workspace={self.workspace}", *self.settings]
        command = [sys.executable, "-m", "pipelines.cli", "run", str(file)]
        command += [part for setting in settings for part in ("--set", setting)]
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW"))
        }
        return subprocess.Popen(
            command,
            env={**own, "OMP_NUM_THREADS": "1", **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=before,  # noqa: PLW1509 — this process has one thread
        )

    def run(self) -> tuple[int, str]:
        """Run to the end, and return the exit code and what was printed."""
        return ended(self.start())

    def problems(self, scores: Mapping[str, bytes]) -> list[str]:
        """Return what does not hold of a workspace in which the benchmark has ended.

        Args:
            scores: The scores of an undisturbed run.
        """
        found = []
        if self.scores() != scores:
            found.append("scores differ")
        if left := list(self.workspace.rglob("*partial*")):
            found.append(f"half a file is left: {left[0].name}")
        runs = self.logged()
        cells = [status for status, is_cell in runs if is_cell]
        benchmarks = [status for status, is_cell in runs if not is_cell]
        if cells != ["FINISHED"] * len(scores) or benchmarks != ["FINISHED"]:
            found.append(f"MLflow has {benchmarks} and under it {cells}")
        code, output = self.run()
        if code or "Nothing to do" not in output:
            found.append(f"is not done: {output[-300:]}")
        return found

    def scores(self) -> dict[str, bytes]:
        """Return the scores of every cell."""
        found = (self.workspace / "stages" / "score").glob("*/scores.parquet")
        return {path.parent.name: path.read_bytes() for path in found if ".partial-" not in path.parent.name}

    def logged(self) -> list[tuple[str, int]]:
        """Return the status of every run in MLflow, and whether it is that of a cell."""
        with closing(sqlite3.connect(self.workspace / "mlflow.db")) as database:
            return database.execute(RUNS).fetchall()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process; return its exit code and what it printed. What hangs is killed, with code 99."""
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        kill(process)
        return 99, "hangs"
    return process.returncode, output


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process with SIGKILL, and read what it has printed."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def session_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the ids of the processes that live in a process's session."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,sid=,stat="], capture_output=True, text=True, check=True)
    lines = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, session, state in lines if int(session) == process.pid and state[0] != "Z"]
