"""Run a plan: compute its steps, and keep every cell in MLflow as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.results.cell import Cell
from pipelines.results.reading import read_cell, read_dataset, read_results
from pipelines.run import stages
from pipelines.run.plan import Plan
from pipelines.run.progress import CONSOLE, announce
from pipelines.run.store import Step, Store
from pipelines.tracking import Tracker

Make = Callable[[Step, list[Step]], None]
"""Computes one step, whose inputs have been computed before."""


def execute(planned: Plan, make: Make | None = None) -> str:
    """Compute all steps of a plan, keep them in MLflow, and return the folder of the report.

    Steps that are done are passed over, so a killed run resumes where it was.

    Args:
        planned: The steps.
        make: Computes one step; by default in this process.
    """
    config, store = planned.config, Store(planned.config.workspace / "stages")
    run = _inputs_first(make or partial(_make_here, store))
    for step in planned.first:
        run(step)
    tracker = Tracker.open(
        config.workspace,
        config.name,
        planned.report.digest,
        params=config.model_dump(mode="json"),
        dataset=read_dataset(config.name, store.folder(planned.corpus)),
        tracking_uri=config.tracking_uri or None,
    )
    try:
        cells = []
        for planned_cell in planned.cells:
            run(planned_cell.steps[-1])
            folders = {step.stage: store.folder(step) for step in planned_cell.steps}
            cells.append(read_cell(planned_cell.name, folders))
            tracker.log_cell(cells[-1])
        report = store.folder(planned.report)
        if store.done(planned.report):  # but MLflow may be another one than before
            tracker.close(read_results(report), report)
        run(replace(planned.report, work=partial(_report_and_close, cells, tracker)))
    except BaseException:
        tracker.fail()
        raise
    return str(report)


def _report_and_close(
    cells: Sequence[Cell], tracker: Tracker, config: Mapping[str, Any], inputs: Mapping[str, Path], out: Path
) -> None:
    """Write the report and end the run in MLflow, so that a finished report means that MLflow has it too."""
    stages.report(config, inputs, out, cells=cells)
    tracker.close(read_results(out), out)


def compute(store: Store, step: Step) -> None:
    """Compute one step's folder unless it is there, and say so on the screen."""
    if store.done(step):
        CONSOLE.print(f"  {step.title} was done before", style="dim")
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


def _inputs_first(make: Make) -> Callable[[Step], None]:
    """Return a function that computes a step and before it its inputs, each once."""
    computed: set[str] = set()

    def run(step: Step) -> None:
        if step.digest not in computed:
            inputs = list(step.inputs.values())
            for source in inputs:
                run(source)
            make(step, inputs)
            computed.add(step.digest)

    return run
