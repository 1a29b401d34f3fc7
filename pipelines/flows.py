"""The Prefect flow: every step of the plan as a task, every cell in MLflow as soon as it is done."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.states import State

from pipelines.cells import read_cell, read_dataset, read_results
from pipelines.config import load_config
from pipelines.plan import plan
from pipelines.progress import CONSOLE
from pipelines.store import Step, Store
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
            before = [states[source.digest] for source in step.inputs.values()]
            run = make.with_options(task_run_name=step.title, tags={step.stage})
            states[step.digest] = run(store, step, wait_for=before, return_state=True)
            states[step.digest].result()

    made(steps.corpus)
    tracker = Tracker.open(
        chosen.workspace,
        chosen.name,
        steps.report.digest,
        params=chosen.model_dump(mode="json"),
        dataset=read_dataset(chosen.name, store.folder(steps.corpus)),
        tracking_uri=chosen.tracking_uri or None,
    )
    for cell in steps.cells:
        for step in cell.steps:
            for source in step.inputs.values():
                made(source)
            made(step)
        names = (cell.tokenizer, cell.retriever, cell.seed)
        tracker.log_cell(read_cell(names, {step.stage: store.folder(step) for step in cell.steps}))
    tracker.close(read_results(steps.report.config, store.inputs(steps.report)))
    made(steps.report)
    return str(store.folder(steps.report))


@task(retries=1, retry_delay_seconds=1, persist_result=False)
def make(store: Store, step: Step) -> None:
    """Make one step's folder, unless it is there."""
    if not store.make(step):
        CONSOLE.print(f"  {step.title}: done before", style="dim")
