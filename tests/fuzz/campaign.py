"""Many rounds of fuzzing on one target.

They run in a separate process, because a reader may end the process, hang or crash it.
"""

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
"""Seconds after which a reader counts as hanging. To read a file of some KB takes milliseconds."""


class _Counts(ctypes.Structure):
    """Counters in memory that both processes share, so that they survive a crash of the reading process."""

    _fields_ = [(name, ctypes.c_int64) for name in ("round", "lines", "read", "refused", "crashes")]


@dataclass(frozen=True)
class Campaign:
    """All rounds of fuzzing on a target.

    Attributes:
        make_targets: Function of a folder that returns targets. A new process must be able to import it.
        target: Name of one of the targets.
        lines: Number of lines to mutate.
        seed: Seed. Seed, target and number of a round always give the same round.
        scratch: New folder for temporary files.
        crashes: Folder with a subfolder for each round in which the reader failed.
    """

    make_targets: Callable[[Path], list[Target]]
    target: str
    lines: int
    seed: int
    scratch: Path
    crashes: Path

    def run(self) -> Result:
        """Run rounds until enough lines are mutated; start a new process after each crash."""
        spawn = multiprocessing.get_context("spawn")
        counts: Any = spawn.Value(_Counts, lock=False)
        start = time.monotonic()
        while counts.lines < self.lines:
            process = spawn.Process(target=self.go_on, args=(counts,))
            process.start()
            process.join()
            if process.exitcode:
                output = (self.scratch / "stderr.txt").read_text(errors="replace")
                self._keep(counts, f"exit code {process.exitcode}\n{output}")
                counts.round += 1
                counts.lines += 1
        seconds = time.monotonic() - start
        return Result(
            self.target, counts.round, counts.lines, counts.read, counts.refused, counts.crashes, seconds
        )

    def go_on(self, counts: Any) -> None:
        """Run the remaining rounds in this process."""
        logging.disable()
        self.scratch.mkdir(parents=True, exist_ok=True)
        os.chdir(self.scratch)
        with Path("stderr.txt").open("a") as stderr:  # appending, so that it may be truncated
            os.dup2(stderr.fileno(), sys.stderr.fileno())
            targets = self.make_targets(self.scratch / "sound")
            target = next(target for target in targets if target.name == self.target)
            while counts.lines < self.lines:
                stderr.truncate(0)
                faulthandler.dump_traceback_later(LONGEST_READ, exit=True)
                rng = Random(f"{self.seed} {self.target} {counts.round}")  # noqa: S311
                this_round = make_round(target, rng, self.scratch / "round")
                try:
                    if this_round.is_read():
                        counts.read += 1
                    else:
                        counts.refused += 1
                except ReaderError:
                    self._keep(counts, traceback.format_exc())
                counts.lines += this_round.lines
                counts.round += 1
            faulthandler.cancel_dump_traceback_later()

    def _keep(self, counts: Any, problem: str) -> None:
        """Copy the files of the current round to the folder of crashes, with a text on the problem."""
        counts.crashes += 1
        folder = self.crashes / f"{self.target}-{counts.round}"
        shutil.copytree(self.scratch / "round", folder, dirs_exist_ok=True)
        origin = f"seed {self.seed}, target {self.target}, round {counts.round}"
        (folder / "problem.txt").write_text(f"{origin}\n\n{problem}")


@dataclass(frozen=True)
class Result:
    """Counts of all rounds on a target.

    Attributes:
        target: Name of the target.
        files: Number of mutated files, one in each round.
        lines: Number of mutated lines.
        read: Number of files that the reader read.
        refused: Number of files that the reader refused with a clean error.
        crashes: Number of rounds in which the reader failed.
        seconds: Duration.
    """

    target: str
    files: int
    lines: int
    read: int
    refused: int
    crashes: int
    seconds: float
