"""The Prefect flow: every step of the plan as a task, every cell in MLflow as soon as it is done."""

from __future__ import annotations

from typing import Any

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from pipelines.config.benchmark import load_config
from pipelines.results.reading import read_cell, read_dataset, read_results
from pipelines.run.plan import plan
from pipelines.run.progress import CONSOLE, announce
from pipelines.run.store import Step, Store
from pipelines.tracking import Tracker


@flow(name="gritrec-benchmark", persist_result=False)
def benchmark(config: str, settings: list[str] | None = None) -> str:
    """Run a benchmark file from raw data to the significance-tested comparison in MLflow.

    Steps that are done are passed over, so a killed run goes on where it was.

    Args:
        config: path of the YAML file.
        settings: ``key=value`` overrides, as ``gritrec run --set``.

    Returns:
        The folder of the report.
    """
    chosen = load_config(config, settings or [])
    steps = plan(chosen)
    store = Store(chosen.workspace / "stages")
    states: dict[str, State[Any]] = {}

    def made(step: Step) -> None:
        """Make a step as a task whose arrows in the run graph are its inputs."""
        if step.digest not in states:
            for source in step.inputs.values():
                made(source)
            before = [states[source.digest] for source in step.inputs.values()]
            run = make.with_options(task_run_name=step.title, tags={step.stage})
            states[step.digest] = run(store, step, wait_for=before, return_state=True)
            states[step.digest].result()

    for step in steps.first:
        made(step)
    tracker = Tracker.open(
        chosen.workspace,
        chosen.name,
        steps.report.digest,
        params=chosen.model_dump(mode="json"),
        dataset=read_dataset(chosen.name, store.folder(steps.corpus)),
        tracking_uri=chosen.tracking_uri or None,
    )
    try:
        for cell in steps.cells:
            made(cell.steps[-1])
            names = (cell.tokenizer, cell.retriever, cell.seed)
            tracker.log_cell(read_cell(names, {step.stage: store.folder(step) for step in cell.steps}))
        tracker.close(read_results(steps.report.config, store.inputs(steps.report)))
    except BaseException:
        tracker.fail()
        raise
    made(steps.report)
    return str(store.folder(steps.report))


def _may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Only what disks and networks do is worth a second try; the same work on bad input fails again."""
    return isinstance(state.data.exception if state.data else None, OSError)


@task(retries=1, retry_delay_seconds=1, retry_condition_fn=_may_pass, cache_policy=NO_CACHE)
def make(store: Store, step: Step) -> None:
    """Make one step's folder, unless it is there."""
    if store.done(step):
        CONSOLE.print(f"  {step.title} was done before", style="dim")
        return
    with announce(step.title):
        store.make(step)
