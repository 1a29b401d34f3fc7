"""Round after round on one target in a process of its own, which a reader may end, hang or bring down."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import multiprocessing
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.harness import ReaderError, make_round
from tests.fuzz.targets import Target

LONGEST_READ = 60.0
"""Seconds; reading a file of some KB takes milliseconds."""


class _Counts(ctypes.Structure):
    """In memory that both processes see, as only this outlives a process that is brought down."""

    _fields_ = [(name, ctypes.c_int64) for name in ("round", "lines", "read", "refused", "crashes")]


@dataclass(frozen=True)
class Campaign:
    """All rounds on a target.

    Attributes:
        make_targets: importable by a new process; makes the target among others, in the folder it is given.
        target: its name.
        lines: to be mutated.
        seed: with the target and the number of a round it makes the same round again.
        scratch: a folder, new, for files that are no longer needed.
        crashes: a folder in which one is left for each round in which the reader did what it must not.
    """

    make_targets: Callable[[Path], list[Target]]
    target: str
    lines: int
    seed: int
    scratch: Path
    crashes: Path

    def run(self) -> Result:
        """Until so many lines are mutated, in one process after the other if readers bring them down."""
        spawn = multiprocessing.get_context("spawn")
        counts: Any = spawn.Value(_Counts, lock=False)
        start = time.monotonic()
        while counts.lines < self.lines:
            process = spawn.Process(target=self.go_on, args=(counts,))
            process.start()
            process.join()
            if process.exitcode:
                said = (self.scratch / "stderr.txt").read_text(errors="replace")
                self._keep(counts, f"exit code {process.exitcode}\n{said}")
                counts.round += 1
                counts.lines += 1
        seconds = time.monotonic() - start
        return Result(
            self.target, counts.round, counts.lines, counts.read, counts.refused, counts.crashes, seconds
        )

    def go_on(self, counts: Any) -> None:
        """The rounds that are left, in this process."""
        logging.disable()
        self.scratch.mkdir(parents=True, exist_ok=True)
        os.chdir(self.scratch)
        with Path("stderr.txt").open("a") as stderr:  # at its end, however often that is cut off
            os.dup2(stderr.fileno(), sys.stderr.fileno())
            targets = self.make_targets(self.scratch / "sound")
            target = next(target for target in targets if target.name == self.target)
            while counts.lines < self.lines:
                stderr.truncate(0)
                faulthandler.dump_traceback_later(LONGEST_READ, exit=True)
                rng = Random(f"{self.seed} {self.target} {counts.round}")  # noqa: S311
                made = make_round(target, rng, self.scratch / "round")
                try:
                    if made.is_read():
                        counts.read += 1
                    else:
                        counts.refused += 1
                except ReaderError:
                    self._keep(counts, traceback.format_exc())
                counts.lines += made.lines
                counts.round += 1
            faulthandler.cancel_dump_traceback_later()

    def _keep(self, counts: Any, problem: str) -> None:
        counts.crashes += 1
        folder = self.crashes / f"{self.target}-{counts.round}"
        shutil.copytree(self.scratch / "round", folder, dirs_exist_ok=True)
        told = f"seed {self.seed}, target {self.target}, round {counts.round}"
        (folder / "problem.txt").write_text(f"{told}\n\n{problem}")


@dataclass(frozen=True)
class Result:
    """What came of all rounds of a target: how many files and lines, and how many of the files were read."""

    target: str
    files: int
    lines: int
    read: int
    refused: int
    crashes: int
    seconds: float
