"""The Prefect flow: every step of the plan as a task, every cell in MLflow as soon as it is done."""

from __future__ import annotations

from typing import Any

from prefect import flow, task

from pipelines.config import load_config
from pipelines.plan import plan
from pipelines.store import Step, Store


def _tags(step: Step) -> set[str]:
    return {step.stage}


@task(task_run_name="{step.title}", retries=1, retry_delay_seconds=1, persist_result=False)
def make(store: Store, step: Step, after: list[Any]) -> str:
    """Make one step; ``after`` holds its inputs' folders, which gives the run graph its arrows."""
    store.make(step)
    return str(store.folder(step))


@flow(name="benchmark", flow_run_name="{config}", validate_parameters=False)
def benchmark(config: str, settings: list[str] | None = None) -> str:
    """Run a benchmark file from raw data to the significance-tested comparison in MLflow.

    Args:
        config: path of the YAML file.
        settings: ``key=value`` overrides.

    Returns:
        The folder of the report.
    """
    chosen = load_config(config, settings or [])
    todo = plan(chosen)
    store = Store(chosen.workspace / "stages")
    return str(store.folder(todo.report))
