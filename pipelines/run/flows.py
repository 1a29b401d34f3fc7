"""Run a plan as a Prefect flow with a task for each step: for schedules, and where a server is to show it."""

from __future__ import annotations

from typing import Any

from prefect import Flow, Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from pipelines.config.loading import load_config
from pipelines.config.settings import ConfigError
from pipelines.redaction import redact_error, redacted
from pipelines.run.execution import compute, execute
from pipelines.run.plan import Plan, plan
from pipelines.run.store import Step, Store
from pipelines.screen import survive_any_terminal


@flow(name="gritrec-benchmark", persist_result=False)
def benchmark(config: str, settings: list[str] | None = None) -> str:
    """Run a benchmark file from raw data to the significance-tested comparison in MLflow.

    Args:
        config: Path of the YAML file.
        settings: Overrides ``key=value``, as in ``gritrec run --set``.

    Returns:
        The folder of the report.

    Raises:
        ConfigError: If a setting holds a secret, because Prefect keeps and shows it.
    """
    for setting in settings or []:
        if redacted(setting) != setting:
            raise ConfigError(
                f"--set {redacted(setting)}: Prefect keeps the settings of every run, so no secret may be in "
                "them; give it in the environment (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"
            )
    survive_any_terminal()
    return _execute_as_tasks(plan(load_config(config, settings or [])))


def flow_of(planned: Plan) -> Flow[[str, list[str] | None], str]:
    """Return the flow :func:`benchmark` for a plan that was laid out before.

    Its parameters are those that Prefect shows. They are not read, so secrets may be hidden in them.
    """

    def run(config: str, settings: list[str] | None = None) -> str:
        return _execute_as_tasks(planned)

    return flow(run, name=benchmark.name, persist_result=False)


def _execute_as_tasks(planned: Plan) -> str:
    """Run a plan, where each step is a task. The arrows in the run graph are the inputs of a step."""
    store = Store(planned.config.workspace / "stages")
    states: dict[str, State[Any]] = {}

    def make_as_task(step: Step, inputs: list[Step]) -> None:
        before = [states[source.digest] for source in inputs]
        named = make.with_options(task_run_name=step.title, tags={step.stage})
        states[step.digest] = named(store, step, wait_for=before, return_state=True)
        states[step.digest].result()

    try:
        return execute(planned, make_as_task)
    except Exception as error:  # Prefect keeps and shows it
        redact_error(error)
        raise


def _may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether to try again: disks and networks may recover, the same work on bad input fails again."""
    return isinstance(state.data.exception if state.data else None, OSError)


@task(retries=1, retry_delay_seconds=1, retry_condition_fn=_may_pass, cache_policy=NO_CACHE)
def make(store: Store, step: Step) -> None:
    """Compute one step's folder, unless it is there."""
    try:
        compute(store, step)
    except Exception as error:  # Prefect keeps and shows it
        redact_error(error)
        raise
