"""The command ``gritrec``. Heavy libraries are imported where a command needs them, so that help is fast."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pipelines.audit_cli import audit
from pipelines.data_cli import data
from pipelines.paths import user_path
from pipelines.redaction import redacted
from pipelines.screen import ERR, OUT, survive_any_terminal, words
from pipelines.signals import EndingOnSignals

if TYPE_CHECKING:
    from pipelines.report.overview import Overview

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which tokenizer gives the semantic IDs that recommend best, and is the difference real?",
)
app.add_typer(data, name="data")
app.command()(audit)
SIGNALS = EndingOnSignals()
_PREFECT_FAILED = "Failed to reach API"

Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the file: data.raw=FOLDER.")
]
Workspace = Annotated[
    Path, typer.Option(parser=user_path, metavar="FOLDER", help="The workspace of a benchmark.")
]
TrackingUri = Annotated[str, typer.Option(help="Of an MLflow server; overrides --workspace.")]


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="A benchmark file (YAML).")],
    settings: Settings = None,
    skip_bad_lines: Annotated[
        bool, typer.Option(help="Leave malformed lines out and count them, instead of stopping at one.")
    ] = False,
    until_decided: Annotated[
        bool, typer.Option("--until-decided", help="Add seeds until the best tokenizer's lead is decided.")
    ] = False,
    at_most: Annotated[int, typer.Option(help="The greatest number of seeds for --until-decided.")] = 8,
) -> None:
    """Run a benchmark: data → semantic IDs → retrievers → paired tests, all kept in MLflow.

    Steps that are done are not repeated, so a run that was stopped resumes where it was. Where
    PREFECT_API_URL is set, that Prefect server shows the run.
    """
    SIGNALS.advice = "the same command goes on where this one was"
    settings = [*(settings or []), *(["data.skip_bad_lines=true"] if skip_bad_lines else [])]
    if not until_decided:
        _run(config, settings)
        return
    from pipelines.config.loading import load_config  # noqa: PLC0415
    from pipelines.run.sequential import looks, run_until_decided  # noqa: PLC0415

    planned = looks(load_config(config, settings), settings, at_most)
    run_until_decided(lambda of_look: _run(config, of_look), planned)


def _run(config: Path, settings: list[str]) -> Path:
    """Run a benchmark, show its results, and return the folder of its report."""
    from pipelines.run.finished import Memory  # noqa: PLC0415
    from pipelines.run.servers import check_prefect, reach_this_machine_directly  # noqa: PLC0415

    memory = Memory(config, settings)
    if finished := memory.recall():
        OUT.print(f"Nothing to do: all {finished.steps} steps of {finished.name} were done before.")
        _show(finished.overview, finished.report, finished.workspace)
        return finished.report
    reach_this_machine_directly()
    if api := os.environ.get("PREFECT_API_URL"):
        check_prefect(api)

    from pipelines.config.loading import load_config  # noqa: PLC0415
    from pipelines.report.console import console_report  # noqa: PLC0415
    from pipelines.results.reading import read_results  # noqa: PLC0415
    from pipelines.run.execution import IncompleteError, execute, is_logged  # noqa: PLC0415
    from pipelines.run.plan import plan  # noqa: PLC0415
    from pipelines.run.store import Store  # noqa: PLC0415

    chosen = load_config(config, settings)
    memory.look_at_raw_files(chosen)
    planned, store = plan(chosen), Store(chosen.workspace / "stages")
    is_done = [store.done(step) for step in planned.steps()]
    todo, done = is_done.count(False), is_done.count(True)
    problem = ""
    if not todo and store.done(planned.report) and is_logged(planned):
        report = store.checked_folder(planned.report)
        OUT.print(f"Nothing to do: all {done} steps of {chosen.name} were done before.")
    else:
        steps = f": {todo} steps to do, {done} done before, in {chosen.workspace}"
        OUT.print(words((chosen.name, "bold"), steps), soft_wrap=True)
        started = time.monotonic()
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        try:
            if api:
                # An error is printed once, at the end, and not with every attempt.
                os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
                from pipelines.run.flows import flow_of  # noqa: PLC0415 — starts slowly

                report = Path(flow_of(planned)(str(config), [*map(redacted, settings)]))
            else:
                report = Path(execute(planned))
        except IncompleteError as incomplete:
            report, problem = incomplete.report, str(incomplete)
        OUT.print(f"Done in {time.monotonic() - started:.0f} s.")

    overview = console_report(read_results(report))
    _show(overview, report, chosen.workspace, chosen.tracking_uri)
    if problem:
        ERR.print(words(("Error: ", "bold red"), problem))
        raise typer.Exit(1)
    memory.remember(planned, store, overview)
    return report


def _show(overview: Overview, report: Path, workspace: Path, tracking_uri: str = "") -> None:
    """Print the tables and verdicts of a benchmark, and where there is more."""
    from pipelines.tracking.database import embedded_uri  # noqa: PLC0415

    OUT.print(overview.drawn())
    OUT.print("\nLook next:", style="bold")
    OUT.print(f"  {shlex.quote(str(report / 'report.html'))}", soft_wrap=True)
    database = shlex.quote(redacted(tracking_uri or embedded_uri(workspace)))
    is_server = tracking_uri.startswith("http")
    OUT.print(f"  {'' if is_server else 'mlflow ui --backend-store-uri '}{database}", soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="MLflow run ids of two cells; with --across of benchmarks, or folders."),
    ],
    workspace: Workspace = Path("workspace"),
    tracking_uri: TrackingUri = "",
    across: Annotated[
        bool, typer.Option("--across", help="Rank methods over several benchmarks, or folders of reports.")
    ] = False,
) -> None:
    """Compare two runs on the same queries: a paired t-test for every metric that both have.

    With --across, give benchmarks instead: mean ranks and Bradley-Terry strengths of the methods in all.
    """
    if across:
        _compare_across(runs, workspace, tracking_uri)
        return
    if len(runs) != 2:
        raise ValueError(f"give two runs to compare, not {len(runs)}; or several benchmarks with --across")
    from pipelines.report.formatting import decimal, interval, p_value  # noqa: PLC0415
    from pipelines.tracking.scores import scores_of_run  # noqa: PLC0415
    from recsys.evaluation.hypothesis_tests import paired_t_test  # noqa: PLC0415
    from recsys.evaluation.scores import check_comparable  # noqa: PLC0415

    a, b = (scores_of_run(run, workspace, tracking_uri) for run in runs)
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
    OUT.print(
        f"{len(a.query_ids)} queries; p of the paired two-sided t-test, not adjusted. It is about these two "
        "trainings: other seeds of the same methods may differ by as much."
    )


def _compare_across(places: list[str], workspace: Path, tracking_uri: str) -> None:
    """Print the standings of methods over several benchmarks."""
    from pipelines.report.across import FEW_BENCHMARKS, across_table  # noqa: PLC0415
    from pipelines.tracking.scores import results_at  # noqa: PLC0415

    rows = across_table([results_at(place, workspace, tracking_uri) for place in places])
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    OUT.print(table)
    OUT.print(
        f"{len(places)} benchmarks, each of which counts once. Strength: log-odds of beating a method of "
        "average strength on a benchmark."
    )
    if len(places) < FEW_BENCHMARKS:
        OUT.print(
            f"With fewer than {FEW_BENCHMARKS} benchmarks the intervals are too narrow.", style="yellow"
        )


@app.command()
def verify(
    workspace: Workspace = Path("workspace"),
) -> None:
    """Read every file of a workspace again, and set aside the steps whose files are damaged.

    The next run makes them again. (A run checks every file of the steps that it builds on, and of all others
    their sizes and times.)
    """
    from pipelines.run.store import Store  # noqa: PLC0415

    folder = workspace / "stages"
    if not folder.is_dir():
        raise ValueError(f"there is no {folder}; say where the benchmark ran with --workspace")
    damaged = list(Store(folder).damaged())
    for what in damaged:
        OUT.print(f"damaged: {what}")
    if damaged:
        raise ValueError(
            f"{len(damaged)} steps are damaged and were moved to {folder / 'damaged'}; run again"
        )
    OUT.print("All files are as they were written.")


@app.command()
def retrievers() -> None:
    """List the retrievers that a benchmark can name, plug-ins included."""
    from recsys.retrievers.registry import RETRIEVERS  # noqa: PLC0415
    from semantic_ids.plugins import first_line  # noqa: PLC0415

    table = Table("name", "what it does", "uses semantic IDs")
    for name, retriever in RETRIEVERS.all().items():
        table.add_row(name, first_line(retriever), "yes" if retriever.uses_ids else "no")
    OUT.print(table)


@app.command()
def metrics() -> None:
    """List the metrics that a benchmark can name, plug-ins included."""
    from recsys.evaluation.metrics import METRICS  # noqa: PLC0415
    from semantic_ids.plugins import first_line  # noqa: PLC0415

    table = Table("name", "label", "what it measures")
    for name, metric in METRICS.all().items():
        table.add_row(name, metric.label, first_line(metric.function).removeprefix("Return "))
    OUT.print(table)


@app.command()
def tokenizers() -> None:
    """List the tokenizers that a benchmark can name, plug-ins included."""
    from semantic_ids.registry import recipes  # noqa: PLC0415

    table = Table("name", "what it is", "source")
    for name, recipe in recipes().items():
        table.add_row(name, recipe.summary, recipe.source)
    OUT.print(table)


def main() -> None:
    """Run the command; an error that a user can fix is one message, not a traceback."""
    survive_any_terminal()
    sys.path.append(os.getcwd())  # a plug-in named as module:Class may lie in the current folder
    try:
        with SIGNALS:
            app()
    except Exception as error:
        if os.environ.get("GRITREC_TRACEBACK"):
            raise
        ERR.print(words(("Error: ", "bold red"), _explained(error)))
        sys.exit(1)


def _explained(error: Exception) -> str:
    """Return what an error says, and how to find out where it was raised if it is none of a user's making."""
    if type(error).__module__.partition(".")[0] in ("httpx", "httpcore") or _PREFECT_FAILED in str(error):
        return f"Prefect's server did not answer ({error}); the same command goes on where this one was"
    if isinstance(error, (ValueError, OSError, ImportError)):
        return str(error)
    return f"{type(error).__name__}: {error} (GRITREC_TRACEBACK=1 says where)"


if __name__ == "__main__":
    main()
