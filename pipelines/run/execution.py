"""Run a plan: compute its steps, and keep every cell in MLflow as soon as it is done."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.results.cell import Cell, Failure
from pipelines.results.reading import read_cell, read_dataset, read_results
from pipelines.run import stages
from pipelines.run.plan import CellPlan, Plan, report_step
from pipelines.run.progress import announce
from pipelines.run.store import Step, Store
from pipelines.screen import ERR
from pipelines.signals import Stopped
from pipelines.tracking.database import is_kept
from semantic_ids.files import disk_is_unusable

if TYPE_CHECKING:
    from pipelines.tracking.logbook import Logbook

Make = Callable[[Step, list[Step]], None]
"""Computes one step, whose inputs have been computed before."""


class IncompleteError(RuntimeError):
    """A report was written, but cells failed, or MLflow could not be reached. The message says which.

    Attributes:
        report: Folder of the report.
    """

    def __init__(self, message: str, report: Path) -> None:
        super().__init__(message)
        self.report = report


def is_logged(planned: Plan) -> bool:
    """Return whether MLflow has the results of a plan. A server is not asked."""
    config = planned.config
    return not config.tracking_uri and is_kept(
        config.workspace, config.name, planned.report.digest, len(planned.cells)
    )


def execute(planned: Plan, make: Make | None = None) -> str:
    """Compute all steps of a plan, keep them in MLflow, and return the folder of the report.

    Steps that are done are passed over, so a killed run resumes where it was. A cell that fails does not
    keep the others from being tried and reported.

    Args:
        planned: The steps.
        make: Computes one step; by default in this process.

    Raises:
        IncompleteError: After the report was written, if cells failed or MLflow could not be reached.
    """
    store = Store(planned.config.workspace / "stages")
    with store.locked(planned.config.name):
        return _Execution(planned, store, make or partial(_make_here, store)).run()


class _StepFailedError(RuntimeError):
    """A step failed.

    Attributes:
        step: The step.
        error: Its error.
    """

    def __init__(self, step: Step, error: Exception | SystemExit) -> None:
        what = str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
        super().__init__(f"{step.title}: {what}")
        self.step = step
        self.error = RuntimeError(str(self)) if isinstance(error, SystemExit) else error


class _Execution:
    """The execution of one plan.

    Attributes:
        planned: The steps.
        store: Where they keep their folders.
        make: Computes one step.
        computed: Digest of every step so far, to its error if it failed.
    """

    def __init__(self, planned: Plan, store: Store, make: Make) -> None:
        self.planned, self.store, self.make = planned, store, make
        self.computed: dict[str, _StepFailedError | None] = {}

    def run(self) -> str:
        """Compute all steps, and return the folder of the report."""
        try:
            return self._run()
        except _StepFailedError as failed:
            raise failed.error from None

    def _run(self) -> str:
        """Compute all steps and log their results; raise an error only if it concerns all cells."""
        self._compute(self.planned.corpus)
        logbook = self._open_logbook()
        try:
            for step in self.planned.first:
                self._compute(step)
            cells, failures = self._compute_cells(logbook)
            report = self._report(cells, failures)
            not_logged = logbook.close(read_results(report), report)
        except BaseException:
            logbook.fail()
            raise
        tried = f"{len(failures)} of {len(self.planned.cells)} cells failed, for the reasons above"
        failed = f"{tried}; the same command tries them again" if failures else ""
        if problems := [problem for problem in (failed, not_logged) if problem]:
            raise IncompleteError("; ".join(problems), report)
        return str(report)

    def _open_logbook(self) -> Logbook:
        """Begin to log the benchmark."""
        from pipelines.tracking.logbook import Logbook  # noqa: PLC0415 — MLflow starts slowly
        from pipelines.tracking.tracker import Tracker  # noqa: PLC0415

        config = self.planned.config
        return Logbook(
            partial(
                Tracker.open,
                config.workspace,
                config.name,
                self.planned.report.digest,
                params=config.model_dump(mode="json"),
                dataset=read_dataset(config.name, self.store.checked_folder(self.planned.corpus)),
                tracking_uri=config.tracking_uri or None,
            )
        )

    def _compute_cells(self, logbook: Logbook) -> tuple[list[tuple[CellPlan, Cell]], list[Failure]]:
        """Compute and log all cells; return those with results, and those that failed."""
        cells: list[tuple[CellPlan, Cell]] = []
        failures: list[Failure] = []
        for planned in self.planned.cells:
            try:
                self._compute(planned.steps[-1])
            except _StepFailedError as failed:
                # From a full disk the other cells suffer too; another OSError may be of a plug-in alone.
                if disk_is_unusable(failed.error) or len(self.planned.cells) == 1:
                    raise
                if all(str(failed) != failure.reason for failure in failures):
                    ERR.print(f"  failed: {failed}", style="red")
                failures.append(Failure(planned.name, str(failed), planned.steps[-1].digest))
                logbook.log(failures[-1])
                continue
            folders = {step.stage: self.store.checked_folder(step) for step in planned.steps}
            cell = read_cell(planned.name, folders)
            if cell.unreachable and not any(earlier.unreachable for _, earlier in cells):
                _warn_of_unreachable(cell)
            cells.append((planned, cell))
            logbook.log(cell)
        return cells, failures

    def _report(self, cells: Sequence[tuple[CellPlan, Cell]], failures: Sequence[Failure]) -> Path:
        """Write the report on the cells that have results, and return its folder."""
        if not cells:
            raise ValueError(f"all {len(failures)} cells failed; the first one: {failures[0].reason}")
        plans, results = zip(*cells, strict=True)
        step = report_step(self.planned.config, self.planned.corpus, plans, failures)
        self._compute(replace(step, work=partial(stages.report, cells=results)))
        return self.store.checked_folder(step)

    def _compute(self, step: Step) -> None:
        """Compute a step and before it its inputs, each once. What failed is not tried again."""
        if step.digest not in self.computed:
            inputs = list(step.inputs.values())
            try:
                for source in inputs:
                    self._compute(source)
                self.make(step, inputs)
                self.computed[step.digest] = None
            except _StepFailedError as failed:  # an input
                self.computed[step.digest] = failed
            except (Exception, SystemExit) as error:  # a plug-in may fail in any way
                if isinstance(error, Stopped):
                    raise
                self.computed[step.digest] = _StepFailedError(step, error)
                if os.environ.get("GRITREC_TRACEBACK"):
                    traceback.print_exception(error)
        if failed_before := self.computed[step.digest]:
            raise failed_before


def _warn_of_unreachable(cell: Cell) -> None:
    """Say that the protocol makes answers unreachable."""
    ERR.print(
        f"  exclude_seen leaves out {cell.unreachable:,} of {cell.answers:,} test answers, which are in the "
        "history of their own user: every method misses them",
        style="yellow",
    )


def compute(store: Store, step: Step) -> None:
    """Compute one step's folder unless it is there, and say so on the screen."""
    if store.done(step):
        ERR.print(f"  {step.title} was done before", style="dim")
        return
    with announce(step.title):
        store.make(step)


def _make_here(store: Store, step: Step, inputs: list[Step]) -> None:
    """Compute one step in this process. What disks and networks do is tried a second time."""
    try:
        compute(store, step)
    except OSError:
        time.sleep(1)
        compute(store, step)
