"""How benchmarks measure: CPU seconds of one thread, in turn, pair by pair; memory as the OS sees it.

What is compared runs in turn, in one process, on the same inputs, and is compared pair by pair, so
that a machine whose speed drifts does not decide.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

REPETITIONS = 7


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def in_turn(*works: Callable[[], object], repetitions: int = REPETITIONS) -> list[list[float]]:
    """Seconds of each, called in turn after a warm-up; the inner lists pair up."""
    for work in works:
        work()
    rounds = [[seconds(work) for work in works] for _ in range(repetitions)]
    return [list(times) for times in zip(*rounds, strict=True)]


def ratio(peer: list[float], ours: list[float]) -> str:
    """How many times as long the peer takes: the median of the pairs."""
    return f"{statistics.median(p / o for p, o in zip(peer, ours, strict=True)):.2f}"


def milliseconds(times: list[float]) -> str:
    """The median."""
    return f"{statistics.median(times) * 1e3:.2f}"


def peak_growth(work: Callable[[], object]) -> float:
    """MB by which the process's resident memory grows at the most during one call (Linux, glibc)."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work freed goes back, or growth would hide in it
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
