"""The faults: each is a generator that disturbs benchmarks and yields what did not hold after each trial."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path

from tests.faults.benchmark import Benchmark, ended, kill, session_of
from tests.helpers import flip

Problems = Iterator[list[str]]
"""What did not hold, for each trial."""


@dataclass(frozen=True)
class Arena:
    """Where faults happen.

    Attributes:
        folder: An empty folder.
        done: The workspace of an undisturbed run.
        scores: Its scores.
        seconds: The time that it took.
        rng: For times at which things happen.
    """

    folder: Path
    done: Path
    scores: dict[str, bytes]
    seconds: float
    rng: random.Random

    def fresh(self, *settings: str, **environment: str) -> Benchmark:
        """Return a benchmark in a workspace that does not exist yet."""
        workspace = self.folder / f"workspace-{self.rng.randrange(10**9)}"
        return Benchmark(workspace, settings, environment)

    def copied(self) -> Benchmark:
        """Return a benchmark in a copy of the workspace of the undisturbed run."""
        benchmark = self.fresh()
        shutil.copytree(self.done, benchmark.workspace)
        return benchmark

    def mended(self, benchmark: Benchmark) -> list[str]:
        """Run a benchmark to its end, and return what does not hold then."""
        code, output = benchmark.run()
        found = [f"exit code {code}: {output[-300:]}"] if code else benchmark.problems(self.scores)
        shutil.rmtree(benchmark.workspace, ignore_errors=True)
        return found


def killed_at_random(arena: Arena) -> Problems:
    """SIGKILL at a random time, up to three times before a run may end."""
    for _ in range(34):
        benchmark = arena.fresh()
        for number in range(3):
            process = benchmark.start()
            time.sleep(arena.rng.uniform(0, arena.seconds))
            kill(process)
            found = [f"left processes {left}"] if (left := session_of(process)) else []
            yield found + (arena.mended(benchmark) if number == 2 else [])


def killed_at_boundaries(arena: Arena) -> Problems:
    """SIGKILL as soon as a step begins or ends."""
    benchmark = arena.fresh()
    seen: set[Path] = set()
    while True:
        process = benchmark.start()
        while process.poll() is None:
            new = {
                path
                for path in benchmark.workspace.glob("stages/*/*")
                if _name(path) not in seen and ".checkpoint" not in path.name
            }
            if new:
                seen |= {_name(path) for path in new}
                break
            time.sleep(0.0005)
        if process.poll() is not None:
            process.communicate()
            break
        kill(process)
        yield []
    yield arena.mended(benchmark)


def _name(path: Path) -> Path:
    """Return the path of a step's folder without what differs between attempts."""
    return (
        path.with_name(f"{path.name.rpartition('.partial-')[0]}.partial")
        if ".partial-" in path.name
        else path
    )


def told_to_end(number: signal.Signals) -> Callable[[Arena], Problems]:
    """Return the fault of a signal that asks a run to end, which must take at most five seconds."""

    def disturb(arena: Arena) -> Problems:
        for _ in range(8):
            benchmark = arena.fresh()
            process = benchmark.start()
            time.sleep(arena.rng.uniform(0.5, arena.seconds))
            process.send_signal(number)
            began = time.monotonic()
            code, output = ended(process)
            found = []
            if code not in (0, 128 + number):
                found.append(f"exit code {code}: {output[-300:]}")
            if (took := time.monotonic() - began) > 6:
                found.append(f"took {took:.1f} s to end")
            if left := session_of(process):
                found.append(f"left processes {left}")
            yield found + arena.mended(benchmark)

    disturb.__doc__ = f"{number.name} at a random time; the run ends within seconds and says how to go on."
    return disturb


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a disk of a size in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def disk_full(arena: Arena) -> Problems:
    """A disk that is too small, at six sizes; afterwards it is large enough."""
    for size in ("100k", "300k", "600k", "1m", "1500k", "2m"):
        with small_disk(arena.folder / f"disk-{size}", size) as disk:
            benchmark = Benchmark(disk / "workspace")
            code, output = benchmark.run()
            found = (
                [] if "No space left" in output or "disk is full" in output or not code else [output[-300:]]
            )
            subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
            yield found + arena.mended(benchmark)


def read_only(arena: Arena) -> Problems:
    """A workspace on a disk that is read-only: what is done is shown, what is not is refused in one line."""
    with small_disk(arena.folder / "read-only", "200m") as disk:
        done, empty = Benchmark(disk / "done"), Benchmark(disk / "empty")
        shutil.copytree(arena.done, done.workspace)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code, output = done.run()
        yield [] if not code and "Nothing to do" in output else [output[-300:]]
        code, output = empty.run()
        yield [] if code == 1 and output.count("\n") <= 3 and "Read-only" in output else [output[-300:]]
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        yield arena.mended(empty)


def damaged(arena: Arena) -> Problems:
    """A bit flipped, a file cut or deleted: each kind of file, one of every stage at once."""
    kinds: dict[str, dict[tuple[str, ...], Path]] = {}
    for path in sorted(arena.done.glob("stages/*/*/**/*")):
        if path.is_file() and path.stat().st_size and not path.name.startswith("."):
            stage, _, *parts = path.relative_to(arena.done / "stages").parts
            kinds.setdefault(stage, {})[tuple(parts)] = path.relative_to(arena.done)
    for files in zip_longest(*(of_stage.values() for of_stage in kinds.values())):
        for damage in (_flip, _cut, Path.unlink):
            benchmark = arena.copied()
            together = [file for file in files if file]
            for file in together:
                damage(benchmark.workspace / file)
            yield arena.mended(benchmark)
            yield from ([] for _ in together[1:])


def _flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    flip(path, 8 * (path.stat().st_size // 2))


def _cut(path: Path) -> None:
    """Take the second half of a file away."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def together(arena: Arena) -> Problems:
    """Two runs at once in one workspace: of the same benchmark, and of different ones."""
    for settings in ((), ("name=other",), ("semantic_ids.steps=150",)):
        first = arena.fresh()
        second = Benchmark(first.workspace, settings)
        processes = [first.start(), second.start()]
        codes = [ended(process) for process in processes]
        found = [output[-300:] for code, output in codes if code]
        if settings == ():
            yield found + first.problems(arena.scores)
        else:
            missing = arena.scores.keys() - first.scores().keys()
            left = [status for status, _ in first.logged() if status != "FINISHED"]
            yield found + [f"missing {missing}"] * bool(missing) + [f"left {left}"] * bool(left)


def database_locked(arena: Arena) -> Problems:
    """MLflow's database locked by another program for a minute."""
    benchmark = arena.fresh()
    process = benchmark.start()
    path = benchmark.workspace / "mlflow.db"
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)
    with closing(sqlite3.connect(path, isolation_level="EXCLUSIVE", timeout=60)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(60)
    code, output = ended(process)
    yield ([] if not code else [output[-300:]]) + arena.mended(benchmark)


def server_down(arena: Arena) -> Problems:
    """An MLflow server that is down while a run ends, and up when it is started again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    benchmark = arena.fresh(f"tracking_uri={uri}")
    code, output = benchmark.run()
    found = [] if code == 1 and "the same command logs what is missing" in output else [output[-300:]]
    if benchmark.scores() != arena.scores:
        found.append("scores differ")
    store = f"sqlite:///{benchmark.workspace / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
    artifacts = ["--artifacts-destination", str(benchmark.workspace / "server"), "--workers", "1"]
    with subprocess.Popen(
        [*command, *artifacts], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as server:
        _wait_for(f"{uri}/health")
        code, output = benchmark.run()
        os.killpg(server.pid, signal.SIGTERM)
    statuses = sorted(benchmark.logged())
    if code or statuses != [("FINISHED", 0), *[("FINISHED", 1)] * len(arena.scores)]:
        found.append(f"exit code {code}, MLflow has {statuses}")
    yield found


def _wait_for(url: str) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)


def prefect_dead(arena: Arena) -> Problems:
    """A Prefect server that does not answer: one line at once, and without it the run goes on."""
    benchmark = arena.fresh(PREFECT_API_URL="http://127.0.0.1:9/api")
    began = time.monotonic()
    code, output = benchmark.run()
    found = [] if code == 1 and "127.0.0.1:9" in output and output.count("\n") < 5 else [output[-300:]]
    if (took := time.monotonic() - began) > 20:
        found.append(f"took {took:.0f} s")
    yield found + arena.mended(Benchmark(benchmark.workspace))


def moved(arena: Arena) -> Problems:
    """A workspace renamed after a run, and one renamed after half a run."""
    benchmark = arena.copied()
    place = arena.folder / "another place?"
    benchmark.workspace.rename(place)
    yield arena.mended(Benchmark(place))
    benchmark = arena.fresh()
    process = benchmark.start()
    time.sleep(arena.seconds * 0.7)
    kill(process)
    if benchmark.workspace.exists():
        benchmark.workspace.rename(place)
    yield arena.mended(Benchmark(place))


def clock_moved(arena: Arena) -> Problems:
    """Files whose times lie ten years ahead or back, as after a clock was set."""
    for years in (10, -10):
        benchmark = arena.copied()
        when = time.time() + years * 365 * 86400
        for path in benchmark.workspace.rglob("*"):
            os.utime(path, (when, when))
        yield arena.mended(benchmark)


def memory_limit(arena: Arena) -> Problems:
    """A limit of memory, at four sizes: the run ends, in success or not, and goes on without the limit."""
    for gigabytes in (0.6, 1.0, 1.5, 2.5):
        size = int(gigabytes * 2**30)
        benchmark = arena.fresh()
        code, _ = ended(benchmark.start(partial(resource.setrlimit, resource.RLIMIT_AS, (size, size))))
        yield (["hangs"] if code == 99 else []) + arena.mended(benchmark)


FAULTS: dict[str, Callable[[Arena], Problems]] = {
    "killed at random": killed_at_random,
    "killed at boundaries": killed_at_boundaries,
    "SIGINT": told_to_end(signal.SIGINT),
    "SIGTERM": told_to_end(signal.SIGTERM),
    "disk full": disk_full,
    "read-only disk": read_only,
    "damaged files": damaged,
    "two at once": together,
    "database locked": database_locked,
    "MLflow server down": server_down,
    "Prefect server dead": prefect_dead,
    "moved workspace": moved,
    "clock moved": clock_moved,
    "memory limit": memory_limit,
}
