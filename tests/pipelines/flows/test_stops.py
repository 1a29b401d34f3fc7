"""Runs that are told to end while they import, log or train."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

LINES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
LAUNCHED = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "10.255.255.1"}
"""What a pod or a batch system sets, and what no process answers to."""


def group_of(process: int) -> list[str]:
    """The processes of a process group."""
    listed = subprocess.check_output(["ps", "-A", "-o", "pgid=,args="], text=True)
    return [line for line in listed.splitlines() if int(line.split()[0]) == process]


@pytest.mark.slow
@pytest.mark.parametrize("is_served", [False, True], ids=["alone", "with Prefect"])
@pytest.mark.parametrize("reached", ["nothing", "ingest", "tokenize"])
@pytest.mark.parametrize("number", LINES, ids=lambda number: number.name)
def test_a_run_ends_within_seconds_with_one_line(
    number: signal.Signals,
    reached: str,
    is_served: bool,
    served: Mapping[str, str],
    environment: Mapping[str, str],
    tiny: Path,
    tmp_path: Path,
) -> None:
    settings = [f"workspace={tmp_path / 'workspace'}", "semantic_ids.steps=100000"]
    command = [sys.executable, "-m", "pipelines.cli", "run", str(tiny)]
    command += [part for setting in settings for part in ("--set", setting)]
    variables = {**(served if is_served else environment), **LAUNCHED}
    run = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while reached != "nothing" and not list((tmp_path / "workspace").glob(f"stages/{reached}/*")):
            assert run.poll() is None, "ended before it was told to"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.5 if reached == "nothing" else 0)
        run.send_signal(number)
        told = time.monotonic()
        _, printed = run.communicate(timeout=60)
        assert time.monotonic() - told < 8  # 5, on a machine that does nothing else
        assert run.returncode == 128 + number
        last = printed.splitlines()[-1]
        assert last == f"{LINES[number]}; the same command goes on where this one was"
        assert "Traceback" not in printed
        assert group_of(run.pid) == []
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
