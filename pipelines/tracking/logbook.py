"""Log a benchmark while it runs, and go on while MLflow cannot be reached: the workspace has all results."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

from mlflow import MlflowException

from pipelines.results.cell import Cell, Failure
from pipelines.results.rows import Results
from pipelines.screen import ERR
from pipelines.tracking.tracker import Tracker
from semantic_ids.files import disk_is_unusable

_WAITS = (5, 10, 20, 40)
"""Seconds between the attempts to log what is missing at the end. MLflow itself waits, too."""


class Logbook:
    """Keeps what MLflow could not be told, and tells it later.

    Args:
        open_tracker: Connects with MLflow.

    Raises:
        ValueError: If the experiment was deleted.
        MlflowException: If MLflow refuses, for example a wrong password; asking again would not help.
        OSError: If the disk is full.
    """

    def __init__(self, open_tracker: Callable[[], Tracker]) -> None:
        self._open = open_tracker
        self._tracker: Tracker | None = None
        self._waiting: list[Cell | Failure] = []
        self._tell()

    def log(self, result: Cell | Failure) -> None:
        """Log a result now, or later if MLflow cannot be reached."""
        self._waiting.append(result)
        self._tell()

    def close(self, results: Results, report: Path) -> str:
        """Log all that is missing and the report, patiently, and end the run.

        Args:
            results: The results.
            report: Folder of the report.

        Returns:
            Why MLflow lacks results; empty if it has all.
        """
        for wait in (*_WAITS, None):
            try:
                self._log_waiting().close(results, report)
                return ""
            except Exception as error:
                reason = _first_line(error)
                if wait is None or _is_refusal(error) or _is_of_the_disk(error):
                    break
                ERR.print(f"  MLflow cannot be reached; trying again in {wait} s", style="yellow")
                time.sleep(wait)
        return f"MLflow lacks results ({reason}); the same command logs what is missing"

    def fail(self) -> None:
        """Mark the run as failed, if MLflow can be reached; never raise an error of its own."""
        try:
            if self._tracker:
                self._tracker.fail()
        except Exception as error:
            ERR.print(f"  MLflow shows the run as running ({_first_line(error)})", style="yellow")

    def _tell(self) -> None:
        """Log what is waiting. If MLflow cannot be reached, say so and go on."""
        try:
            self._log_waiting()
        except Exception as error:
            if _is_of_the_disk(error) or (self._tracker is None and _is_refusal(error)):
                raise
            ERR.print(
                f"  MLflow cannot be reached; logging later ({_first_line(error)})",
                style="yellow",
            )

    def _log_waiting(self) -> Tracker:
        """Connect if that was not done yet, log what is waiting, and return the tracker."""
        self._tracker = self._tracker or self._open()
        while self._waiting:
            result = self._waiting[0]
            if isinstance(result, Failure):
                self._tracker.log_failure(result)
            else:
                self._tracker.log_cell(result)
            del self._waiting[0]
        return self._tracker


def _is_of_the_disk(error: Exception) -> bool:
    """Return whether the workspace's disk is full or cannot be written, which ends the run anyway."""
    return disk_is_unusable(error) or "disk is full" in str(error)  # as SQLite says it


def _is_refusal(error: Exception) -> bool:
    """Return whether asking again would give the same error, as far as that can be known."""
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code()) not in (408, 429, *range(500, 600))
    return isinstance(error, ValueError)


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return shorten(f"{type(error).__name__}: {error}".partition("\n")[0], 300, placeholder=" …")
