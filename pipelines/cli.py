"""The command ``gritrec``. Heavy libraries are imported where a command needs them, so that help is quick."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.data_cli import data

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which tokenizer gives the semantic IDs that recommend best, and is the difference real?",
)
app.add_typer(data, name="data")
OUT = Console(highlight=False)

Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the file: data.raw=FOLDER.")
]
Workspace = Annotated[Path, typer.Option(help="Where a benchmark keeps MLflow's database.")]
TrackingUri = Annotated[str, typer.Option(help="Of an MLflow server; overrides --workspace.")]


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="A benchmark file (YAML).")],
    settings: Settings = None,
    skip_bad_lines: Annotated[
        bool, typer.Option(help="Leave malformed lines out and count them, instead of stopping at one.")
    ] = False,
) -> None:
    """Run a benchmark: data → semantic IDs → retrievers → paired tests, all kept in MLflow.

    What was made before is not made again; a run that was stopped goes on where it was.
    """
    from pipelines.config.benchmark import load_config  # noqa: PLC0415
    from pipelines.report.html import console_report  # noqa: PLC0415
    from pipelines.results.reading import read_results  # noqa: PLC0415
    from pipelines.run.plan import plan  # noqa: PLC0415
    from pipelines.run.store import Store  # noqa: PLC0415

    settings = [*(settings or []), *(["data.skip_bad_lines=true"] if skip_bad_lines else [])]
    chosen = load_config(config, settings)
    steps, store = plan(chosen), Store(chosen.workspace / "stages")
    made = [store.done(step) for step in steps.steps()]
    todo, done = made.count(False), made.count(True)
    tracked = chosen.tracking_uri or (chosen.workspace / "mlflow.db").exists()
    if not todo and store.done(steps.report) and tracked:
        OUT.print(f"Nothing to do: all {done} steps of {chosen.name} were done before.")
    else:
        OUT.print(
            f"[bold]{chosen.name}[/bold]: {todo} steps to do, {done} done before, in {chosen.workspace}"
        )
        started = time.monotonic()
        # What goes wrong is said once, at the end, and not with every attempt.
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        # A plain SIGTERM would end Python without its exit handlers, one of which stops Prefect's server.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        from pipelines.run.flows import benchmark  # noqa: PLC0415 — starts slowly

        benchmark(str(config), settings)
        OUT.print(f"Done in {time.monotonic() - started:.0f} s.")

    OUT.print(console_report(read_results(steps.report.config, store.inputs(steps.report))))
    where = chosen.tracking_uri or f"sqlite:///{chosen.workspace / 'mlflow.db'}"
    OUT.print("\nLook next:", style="bold")
    OUT.print(f"  {store.folder(steps.report) / 'report.html'}", soft_wrap=True)
    OUT.print(f"  mlflow ui --backend-store-uri {where}", soft_wrap=True)


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(help="MLflow run id of the first cell.")],
    run_b: Annotated[str, typer.Argument(help="MLflow run id of the second cell.")],
    workspace: Workspace = Path("workspace"),
    tracking_uri: TrackingUri = "",
) -> None:
    """Test two runs on the same users: a paired t-test for every metric that both have."""
    from pipelines.report.formatting import decimal, interval, p_value  # noqa: PLC0415
    from pipelines.tracking import embedded_uri, scores_of_run  # noqa: PLC0415
    from recsys.evaluation.scores import check_comparable  # noqa: PLC0415
    from recsys.evaluation.significance import paired_t_test  # noqa: PLC0415

    uri = tracking_uri or embedded_uri(workspace)
    a, b = scores_of_run(run_a, uri), scores_of_run(run_b, uri)
    check_comparable(a, b)
    table = Table("metric", "A", "B", "B - A", "95 % interval", "p", "effect size")
    for metric in a.columns:
        if metric in b.columns:
            test = paired_t_test(a.values(metric), b.values(metric))
            table.add_row(
                metric,
                decimal(test.mean_a),
                decimal(test.mean_b),
                decimal(test.difference, sign=True),
                interval(test.low, test.high),
                p_value(test.p_value),
                decimal(test.effect_size, 3, sign=True),
            )
    OUT.print(table)
    OUT.print(f"{len(a.query_ids)} queries; p of the paired two-sided t-test, not adjusted.")


@app.command()
def tokenizers() -> None:
    """List the tokenizers that a benchmark can name, plug-ins included."""
    from semantic_ids.registry import recipes  # noqa: PLC0415

    table = Table("name", "what it is", "source")
    for name, recipe in recipes().items():
        table.add_row(name, recipe.summary, recipe.source)
    OUT.print(table)


def main() -> None:
    """Entry point: what a user can mend is one message, not a traceback."""
    sys.path.append(os.getcwd())  # a plug-in named as module:Class may lie in the current folder
    try:
        app()
    except Exception as error:
        if os.environ.get("GRITREC_TRACEBACK"):
            raise
        expected = isinstance(error, (ValueError, OSError, ImportError))
        what = str(error) if expected else f"{type(error).__name__}: {error} (GRITREC_TRACEBACK=1 says where)"
        if type(error).__module__.partition(".")[0] in ("httpx", "httpcore"):
            what = f"Prefect's server did not answer ({error}); the same command goes on where this one was"
        message = f"[bold red]Error:[/bold red] {escape(what)}"
        Console(stderr=True, highlight=False).print(message, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
