"""Run a plan as a Prefect flow: a task for each step, and every cell in MLflow as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from prefect import Flow, Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from pipelines.config.loading import load_config
from pipelines.results.reading import read_cell, read_dataset, read_results
from pipelines.run import stages
from pipelines.run.plan import Plan, plan
from pipelines.run.progress import CONSOLE, announce
from pipelines.run.store import Step, Store
from pipelines.tracking import Tracker


@flow(name="gritrec-benchmark", persist_result=False)
def benchmark(config: str, settings: list[str] | None = None) -> str:
    """Run a benchmark file from raw data to the significance-tested comparison in MLflow.

    Steps that are done are passed over, so a killed run resumes where it was.

    Args:
        config: Path of the YAML file.
        settings: Overrides ``key=value``, as in ``gritrec run --set``.

    Returns:
        The folder of the report.
    """
    return execute(plan(load_config(config, settings or [])))


def flow_of(planned: Plan) -> Flow[[str, list[str] | None], str]:
    """Return the flow :func:`benchmark` for a plan that was laid out before.

    Its parameters are those that Prefect shows, and that a deployment would be called with.
    """

    def run(config: str, settings: list[str] | None = None) -> str:
        return execute(planned)

    return flow(run, name=benchmark.name, persist_result=False)


def execute(planned: Plan) -> str:
    """Compute all steps of a plan, keep them in MLflow, and return the folder of the report."""
    config, store = planned.config, Store(planned.config.workspace / "stages")
    run = _step_runner(store)
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
        run(replace(planned.report, work=partial(stages.report, cells=cells)))
        tracker.close(read_results(store.folder(planned.report)), store.folder(planned.report))
    except BaseException:
        tracker.fail()
        raise
    return str(store.folder(planned.report))


def _step_runner(store: Store) -> Callable[[Step], None]:
    """Return a function that runs a step and first its inputs, each once, as tasks.

    The arrows in Prefect's run graph are the inputs of a step.
    """
    states: dict[str, State[Any]] = {}

    def run(step: Step) -> None:
        if step.digest not in states:
            for source in step.inputs.values():
                run(source)
            before = [states[source.digest] for source in step.inputs.values()]
            named = make.with_options(task_run_name=step.title, tags={step.stage})
            states[step.digest] = named(store, step, wait_for=before, return_state=True)
            states[step.digest].result()

    return run


def _may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether to try again: disks and networks may recover, the same work on bad input fails again."""
    return isinstance(state.data.exception if state.data else None, OSError)


@task(retries=1, retry_delay_seconds=1, retry_condition_fn=_may_pass, cache_policy=NO_CACHE)
def make(store: Store, step: Step) -> None:
    """Compute one step's folder, unless it is there."""
    if store.done(step):
        CONSOLE.print(f"  {step.title} was done before", style="dim")
        return
    with announce(step.title):
        store.make(step)
