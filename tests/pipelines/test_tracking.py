"""Against a real SQLite store: creating one takes seconds, so all tests share it, a benchmark each."""

from __future__ import annotations

import json
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run

from pipelines.names import NO_TOKENIZER
from pipelines.report.html import html_report
from pipelines.report.verdicts import verdicts
from pipelines.results.cell import Cell, CellIds, CellName, Dataset, Failure
from pipelines.results.reading import read_results, write_results
from pipelines.results.rows import Results
from pipelines.results.summary import summarise
from pipelines.tracking.database import database_of, is_kept
from pipelines.tracking.logbook import Logbook
from pipelines.tracking.names import accepted_names
from pipelines.tracking.scores import scores_of_run
from pipelines.tracking.tracker import Tracker
from recsys.evaluation.scores import QueryScores

DATASET = Dataset("made-up-shop", "0123456789abcdef" * 4, "data/raw", {"users": 40, "items": 9})
PARAMS = {"seeds": 2, "protocol": {"exclude_seen": True, "cutoffs": [5, 10]}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


def cell(tokenizer: str, seed: int, retriever: str = "tiger") -> Cell:
    rng = np.random.default_rng([len(tokenizer), seed])
    ids = np.array([f"u{i:02}" for i in range(40)])
    baseline = tokenizer == NO_TOKENIZER
    return Cell(
        name=CellName(tokenizer, retriever, seed),
        ids=None if baseline else CellIds(f"{tokenizer}-{seed}", {"collision_rate": 0.25}, "shared"),
        scores=QueryScores(ids, {"recall_at_10": rng.random(40), "ndcg_at_10": rng.random(40)}, "d"),
        seconds=1.5,
        digest=f"{tokenizer}-{retriever}-{seed}",
        curves={"retriever/loss": [(step, 1 / step) for step in range(1, 1201)]},
        params={"retriever": {"training": {"steps": 1200}}},
    )


def cells() -> list[Cell]:
    baseline = cell(NO_TOKENIZER, 0, "popularity")
    return [*(cell(tokenizer, seed) for tokenizer in ("rq-vae", "grit-vq") for seed in (0, 1)), baseline]


def opened(workspace: Path, name: str) -> Tracker:
    return Tracker.open(workspace, name, "be7c", params=PARAMS, dataset=DATASET)


def runs_of(tracker: Tracker) -> tuple[list[Run], list[Run]]:
    """The benchmark's runs and the runs under them, as MLflow's own search finds them."""
    runs = tracker.client.search_runs([tracker.experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return [run for run in runs if run not in children], children


def close(tracker: Tracker, results: Results, folder: Path) -> None:
    """End a benchmark with its report, as the last stage writes it."""
    write_results(results, folder)
    (folder / "report.html").write_text(html_report(results))
    tracker.close(results, folder)


def artifact(tracker: Tracker, name: str, folder: Path) -> str:
    return Path(tracker.client.download_artifacts(tracker.run_id, name, str(folder))).read_text()


def records(tracker: Tracker, name: str, folder: Path) -> list[dict[str, Any]]:
    found = json.loads(artifact(tracker, name, folder))
    return [dict(zip(found["columns"], line, strict=True)) for line in found["data"]]


def test_a_benchmark_is_a_run_with_a_run_under_it_for_each_cell(workspace: Path, tmp_path: Path) -> None:
    tracker = opened(workspace, "whole")
    for one in cells():
        tracker.log_cell(one)
    results = summarise("whole", DATASET, "leave-one-out", cells(), reference="rq-vae")
    close(tracker, results, tmp_path)

    (parent,), children = runs_of(tracker)
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {
        "seeds": "2",
        "protocol.exclude_seen": "True",
        "protocol.cutoffs": "[5, 10]",
    }
    assert parent.data.tags["gritrec.digest"] == "be7c"
    assert parent.data.tags["mlflow.note.content"] == "\n\n".join(verdicts(results))
    assert len(children) == 5
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.data.tags["gritrec.digest"] for run in children} == {one.digest for one in cells()}
    assert (workspace / "mlartifacts").is_dir()

    tables = {name: records(tracker, name, tmp_path) for name in ("scores.json", "significance.json")}
    assert [r["ndcg_at_10"] for r in tables["scores.json"]] == pytest.approx(
        [row.means["ndcg_at_10"] for row in results.rows]
    )
    kept = tables["significance.json"]
    assert [(t["tokenizer"], t["reference"]) for t in kept] == [
        ("grit-vq", "rq-vae"),
        *((row.tokenizer, "popularity") for row in results.rows[:2]),
    ]
    for name in ("t_test_p_holm", "wilcoxon_p_holm", "permutation_p_holm", "users_p", "detectable"):
        assert [t[name] for t in kept] == pytest.approx([t[name] for t in results.significance_records()])
    assert "which tokenizer recommends best?" in artifact(tracker, "report.html", tmp_path)
    assert "plotly.js v" in artifact(tracker, "scores.html", tmp_path)
    (tmp_path / "again").mkdir()
    artifact(tracker, "results.json", tmp_path / "again")
    assert read_results(tmp_path / "again") == results


def test_a_cell_keeps_its_settings_curves_scores_and_dataset(workspace: Path) -> None:
    tracker = opened(workspace, "one cell")
    one = cell("grit-vq", 7)
    run_id = tracker.log_cell(one)
    run = tracker.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "tokenizer": "grit-vq",
        "seed": "7",
        "retriever": "tiger",
        "retriever.training.steps": "1200",
    }
    assert run.data.metrics["ndcg_at_10"] == pytest.approx(one.scores.columns["ndcg_at_10"].mean())
    assert run.data.metrics["collision_rate"] == 0.25
    assert run.data.metrics["seconds"] == 1.5
    history = tracker.client.get_metric_history(run_id, "retriever/loss")
    assert sorted((point.step, point.value) for point in history) == one.curves["retriever/loss"]
    (data,) = (given.dataset for given in run.inputs.dataset_inputs)
    assert (data.name, data.digest) == ("made-up-shop", DATASET.digest[:36])
    assert json.loads(data.profile) == {"users": 40, "items": 9}

    read = scores_of_run(run_id, workspace)
    assert read.query_ids.tolist() == one.scores.query_ids.tolist()
    assert read.columns["ndcg_at_10"].tolist() == one.scores.columns["ndcg_at_10"].tolist()
    assert read.evaluation_set == "d"


def test_what_a_retriever_tells_of_itself_is_kept(workspace: Path) -> None:
    tracker = opened(workspace, "diagnostics")
    told = {"search_error_at_10": 0.012, "certified": 1, "chosen": "decay 0.5, content 0.5"}
    run = tracker.client.get_run(tracker.log_cell(replace(cell("grit-vq", 7), diagnostics=told)))
    assert run.data.metrics["search_error_at_10"] == 0.012
    assert run.data.metrics["certified"] == 1
    assert "chosen" not in run.data.metrics
    assert {name: text for name, text in run.data.params.items() if name.startswith("diagnostics")} == {
        "diagnostics.chosen": "decay 0.5, content 0.5"
    }


class KilledWhileWriting(QueryScores):
    def write(self, path: Path) -> None:
        raise KeyboardInterrupt


def test_a_killed_benchmark_goes_on_where_it_was(workspace: Path, tmp_path: Path) -> None:
    first, second, *rest = cells()
    before = opened(workspace, "killed")
    done = before.log_cell(first)
    with pytest.raises(KeyboardInterrupt):  # the run exists and holds metrics, but is not ended
        before.log_cell(replace(second, scores=KilledWhileWriting(**vars(second.scores))))
    assert [run.info.status for run in runs_of(before)[1]].count("RUNNING") == 1

    after = opened(workspace, "killed")
    assert after.run_id == before.run_id
    assert after.log_cell(first) == done
    for one in (second, *rest):
        after.log_cell(one)
    close(after, summarise("killed", DATASET, "leave-one-out", cells(), reference="rq-vae"), tmp_path)
    (parent,), children = runs_of(after)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert sorted(run.data.tags["gritrec.digest"] for run in children) == sorted(c.digest for c in cells())


def test_cells_of_one_digest_are_kept_each_and_once(workspace: Path) -> None:
    tracker = opened(workspace, "one table")
    table = [cell('it\'s "theirs"', seed) for seed in (0, 1)]
    given = [
        replace(c, digest="same") for c in (*table, cell("theirs again", 0), cell("theirs again", 0, "knn"))
    ]
    first = [tracker.log_cell(one) for one in given]
    again = opened(workspace, "one table")
    assert [again.log_cell(one) for one in given] == first
    named = [
        tuple(run.data.params[name] for name in ("tokenizer", "retriever", "seed"))
        for run in runs_of(again)[1]
    ]
    assert sorted(named) == sorted(tuple(str(part) for part in c.name) for c in given)


def test_closing_again_replaces_what_was_kept(workspace: Path, tmp_path: Path) -> None:
    few, more = cells()[:2], cells()
    for given in (few, more):
        tracker = opened(workspace, "closed twice")
        for one in given:
            tracker.log_cell(one)
        close(tracker, summarise("closed twice", DATASET, "", given, reference="rq-vae"), tmp_path)
    assert len(runs_of(tracker)[0]) == 1
    assert len(records(tracker, "scores.json", tmp_path)) == 3
    assert len(records(tracker, "significance.json", tmp_path)) == 3


def test_another_digest_is_another_benchmark(workspace: Path) -> None:
    one = opened(workspace, "changed")
    other = Tracker.open(workspace, "changed", "0ther", params={"seeds": 5}, dataset=DATASET)
    assert one.experiment_id == other.experiment_id
    assert one.run_id != other.run_id
    assert one.log_cell(cell("rq-vae", 0)) != other.log_cell(cell("rq-vae", 0))


def test_cells_may_be_logged_from_threads(workspace: Path) -> None:
    tracker = opened(workspace, "threads")
    with ThreadPoolExecutor(4) as pool:
        run_ids = list(pool.map(tracker.log_cell, cells()))
    found = {run.info.run_id: run.data.tags["gritrec.digest"] for run in runs_of(tracker)[1]}
    assert found == {run_id: one.digest for run_id, one in zip(run_ids, cells(), strict=True)}


def test_a_curve_or_diagnostic_of_a_plug_in_does_not_hide_a_score(workspace: Path) -> None:
    tracker = opened(workspace, "clash")
    one = cell("rq-vae", 0)
    told = {"ndcg_at_10": 0.9, "seconds": 3}
    given = replace(one, curves={"collision_rate": [(1, 0.5)]}, diagnostics=told)
    run = tracker.client.get_run(tracker.log_cell(given))
    assert run.data.metrics == pytest.approx(
        {**one.scores.mean(), "collision_rate": 0.25, "curve collision_rate": 0.5, "seconds": 1.5}
    )


def test_names_that_mlflow_refuses_are_changed_and_stay_distinct(workspace: Path) -> None:
    odd = [
        "recall@10",
        "recall#10",
        "loss (val)",
        "/a//b",
        "..",
        "",
        "x" * 300,
        "x" * 299 + "y",
        "é",
        "a:b",
        "a\nb",
    ]
    tracker = opened(workspace, "odd names")
    given = replace(
        cell("rq-vae", 0),
        curves={name: [(1, float(number))] for number, name in enumerate(odd)},
        diagnostics={f"{name}!": "told" for name in odd},
    )
    run = tracker.client.get_run(tracker.log_cell(given))
    kept = [value for name, value in run.data.metrics.items() if name in accepted_names(odd).values()]
    assert sorted(kept) == list(range(len(odd)))
    assert list(run.data.params.values()).count("told") == len(odd)


def test_what_a_dead_process_left_running_is_ended(workspace: Path) -> None:
    left = opened(workspace, "left running")
    other = Tracker.open(workspace, "left running", "0ther", params={}, dataset=DATASET)
    status = left.client.get_run(left.run_id).info.status
    assert (status, other.client.get_run(other.run_id).info.status) == ("KILLED", "RUNNING")


def test_a_deleted_experiment_is_named_with_what_to_do(workspace: Path) -> None:
    tracker = opened(workspace, "deleted")
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(ValueError, match=f"restore --experiment-id {tracker.experiment_id}`, or run"):
        opened(workspace, "deleted")
    tracker.client.restore_experiment(tracker.experiment_id)
    assert opened(workspace, "deleted").experiment_id == tracker.experiment_id


def test_a_failed_cell_is_a_failed_run_that_says_why_until_it_succeeds(workspace: Path) -> None:
    tracker = opened(workspace, "failing")
    one = cell("rq-vae", 0)
    for reason in ("the loss is NaN", "the loss is infinite"):
        tracker.log_failure(Failure(one.name, reason, one.digest))
    (failed,) = runs_of(tracker)[1]
    assert failed.info.status == "FAILED"
    assert failed.data.tags["mlflow.note.content"] == "the loss is infinite"
    tracker.log_cell(one)
    assert [run.info.status for run in runs_of(tracker)[1]] == ["FINISHED"]


def kept(workspace: Path, name: str) -> bool:
    return is_kept(workspace, name, "be7c", len(cells()))


def test_a_benchmark_is_kept_once_all_of_it_is_there(workspace: Path, tmp_path: Path) -> None:
    assert not kept(tmp_path, "kept")
    tracker = opened(workspace, "kept")
    for one in cells():
        assert not kept(workspace, "kept")
        tracker.log_cell(one)
    assert not kept(workspace, "kept")
    close(tracker, summarise("kept", DATASET, "", cells(), reference="rq-vae"), tmp_path)
    assert kept(workspace, "kept")
    assert not kept(workspace, "another")
    assert not is_kept(workspace, "kept", "0ther", len(cells()))

    client = tracker.client
    run = runs_of(tracker)[1][0]
    for undo, redo in (
        (lambda: client.delete_run(run.info.run_id), lambda: client.restore_run(run.info.run_id)),
        (lambda: client.delete_run(tracker.run_id), lambda: client.restore_run(tracker.run_id)),
        (
            lambda: client.delete_experiment(tracker.experiment_id),
            lambda: client.restore_experiment(tracker.experiment_id),
        ),
    ):
        undo()
        assert not kept(workspace, "kept")
        redo()
        assert kept(workspace, "kept")
    (workspace / "mlartifacts" / run.info.run_id / "artifacts" / "scores.parquet").unlink()
    assert not kept(workspace, "kept")
    again = opened(workspace, "kept")
    for one in cells():
        again.log_cell(one)
    close(again, summarise("kept", DATASET, "", cells(), reference="rq-vae"), tmp_path)
    assert kept(workspace, "kept")
    assert len(runs_of(again)[1]) == len(cells())


def test_a_workspace_may_have_any_name_and_be_moved(workspace: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a b?c#d%20'e'"
    shutil.copytree(workspace, odd)  # creating a database takes seconds
    tracker = opened(odd, "odd")
    run_id = tracker.log_cell(cell("rq-vae", 0))
    assert len(scores_of_run(run_id, odd).query_ids) == 40
    assert not [path for path in tmp_path.iterdir() if path != odd]

    moved = tmp_path / "moved"
    odd.rename(moved)
    assert len(scores_of_run(run_id, moved).query_ids) == 40
    again = opened(moved, "odd")
    assert again.log_cell(cell("rq-vae", 0)) == run_id
    again.log_cell(cell("rq-vae", 1))
    close(again, summarise("odd", DATASET, "", [cell("rq-vae", 0)], reference="rq-vae"), tmp_path)
    assert not odd.exists()


def test_a_database_of_which_the_creation_was_stopped_is_made_anew(tmp_path: Path) -> None:
    with sqlite3.connect(database_of(tmp_path)) as half:
        half.execute("CREATE TABLE experiment_tags (key TEXT)")
    half.close()
    run_id = opened(tmp_path, "after all").log_cell(cell("rq-vae", 0))
    assert len(scores_of_run(run_id, tmp_path).query_ids) == 40
    assert (tmp_path / "half-made-mlflow.db").exists()


def test_a_locked_database_delays_no_result_and_loses_none(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.tracking.logbook._WAITS", (1,))
    logbook = Logbook(partial(opened, workspace, "locked"))
    locked = sqlite3.connect(database_of(workspace), isolation_level="EXCLUSIVE")
    locked.execute("BEGIN EXCLUSIVE")
    logbook.log(cells()[0])
    locked.rollback()
    locked.close()
    assert "logging later" in capfd.readouterr().err
    for one in cells()[1:]:
        logbook.log(one)
    results = summarise("locked", DATASET, "", cells(), reference="rq-vae")
    write_results(results, tmp_path)
    (tmp_path / "report.html").write_text("")
    assert logbook.close(results, tmp_path) == ""
    assert kept(workspace, "locked")


def test_a_server_that_is_down_is_named_and_ends_nothing(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.tracking.logbook._WAITS", ())
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    down = partial(
        Tracker.open,
        workspace,
        "down",
        "be7c",
        params={},
        dataset=DATASET,
        tracking_uri="http://alice:pass-word@127.0.0.1:9",
    )
    logbook = Logbook(down)
    logbook.log(cells()[0])
    results = summarise("down", DATASET, "", cells(), reference="rq-vae")
    reason = logbook.close(results, tmp_path)
    assert "127.0.0.1" in reason
    assert "the same command logs what is missing" in reason
    assert "pass-word" not in reason
    logbook.fail()


def test_scores_are_asked_of_a_cell(workspace: Path) -> None:
    tracker = opened(workspace, "asked")
    with pytest.raises(ValueError, match=r"keeps no scores\.parquet; give the run of one tokenizer"):
        scores_of_run(tracker.run_id, workspace)
    with pytest.raises(ValueError, match="no run 0123"):
        scores_of_run("0123", workspace)
    with pytest.raises(ValueError, match="say where the benchmark ran"):
        scores_of_run(tracker.run_id, workspace / "elsewhere")
    assert not (workspace / "elsewhere").exists()
