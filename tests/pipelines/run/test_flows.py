"""The benchmark from its file to MLflow, by the command that users give."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from scipy import stats
from torch import Tensor

from helpers import flip
from pipelines.tracking.database import embedded_uri
from pipelines.tracking.tracker import Tracker
from semantic_ids.tokenizer import Tokenizer
from semantic_ids.types import OnStep

Gritrec = Callable[..., "subprocess.CompletedProcess[str]"]

CELLS = {
    "rq-vae · dual-encoder · seed 0": "dual-encoder_rq-vae_seed_0",
    "rq-kmeans · dual-encoder · seed 0": "dual-encoder_rq-kmeans_seed_0",
    "– · popularity · seed 0": "popularity_seed_0",
}
"""The tiny benchmark's runs in MLflow, and what their steps are called in the workspace."""


class OneCode(Tokenizer):
    """Sends every item to the same code: whoever scores above chance with it looks at something else."""

    codebook_sizes = (4, 4)

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        return torch.ones(len(embeddings), 2, dtype=torch.int64)


class NotYet(OneCode):
    """Fits only where the folder ``ready`` is: what goes wrong once and is then mended."""

    def __init__(self, ready: str) -> None:
        self.ready = ready

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        if not Path(self.ready).is_dir():
            raise ValueError(f"there is no folder {self.ready}; make it")
        return self


def runs(workspace: Path, benchmark: str = "tiny") -> tuple[list[Run], list[Run]]:
    """The runs of a benchmark in MLflow, and those under them."""
    client = MlflowClient(embedded_uri(workspace))
    found = client.search_runs([client.get_experiment_by_name(benchmark).experiment_id])
    children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    return [run for run in found if run not in children], children


def scores(workspace: Path) -> dict[str, Path]:
    """``dual-encoder_rq-vae_seed_0`` → the file of its scores on each user."""
    return {
        path.parent.name.rpartition("-")[0]: path
        for path in (workspace / "stages" / "score").glob("*/scores.parquet")
    }


def column(path: Path, metric: str) -> list[float]:
    values: list[float] = pq.read_table(path)[metric].to_pylist()
    return values


def files(workspace: Path) -> dict[Path, int]:
    """Every file of the stages, and when it was written."""
    found = (workspace / "stages").rglob("*")
    return {path: path.stat().st_mtime_ns for path in found if path.is_file() and ".lock" not in path.name}


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished benchmark's workspace, to damage."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def steps(workspace: Path) -> set[str]:
    """``tokenize/rq-vae_seed_0`` and so on: what was made."""
    folders = (workspace / "stages").glob("*/*")
    return {f"{folder.parent.name}/{folder.name.rpartition('-')[0]}" for folder in folders}


def test_a_benchmark_ends_in_a_report_and_in_mlflow(finished: Path) -> None:
    (page,) = (finished / "stages" / "report").glob("tiny-*/report.html")
    assert "which tokenizer recommends best?" in page.read_text()

    (parent,), children = runs(finished)
    assert parent.info.status == "FINISHED"
    assert "rq-kmeans" in parent.data.tags["mlflow.note.content"]
    assert sorted(run.info.run_name for run in children) == sorted(CELLS)
    for run in children:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        for metric in ("recall_at_10", "ndcg_at_10"):
            values = column(scores(finished)[CELLS[run.info.run_name]], metric)
            assert run.data.metrics[metric] == pytest.approx(sum(values) / len(values))


def test_running_again_makes_nothing_anew(finished: Path, tiny: Path, gritrec: Gritrec) -> None:
    before = files(finished)
    again = gritrec("run", tiny, "--set", f"workspace={finished}")
    assert "Nothing to do" in again.stdout
    assert "report.html" in again.stdout
    assert files(finished) == before


def test_another_seed_makes_only_what_hangs_on_it(
    finished: Path, tiny: Path, gritrec: Gritrec, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(finished, workspace)
    before = files(workspace)
    made_before = steps(workspace)
    gritrec("run", tiny, "--set", f"workspace={workspace}", "--set", "seeds=[0, 1]")
    after = files(workspace)
    assert {path: after[path] for path in before} == before
    assert steps(workspace) - made_before == {
        "tokenize/rq-vae_seed_1",
        "tokenize/rq-kmeans_seed_1",
        "fit/dual-encoder_rq-vae_seed_1",
        "fit/dual-encoder_rq-kmeans_seed_1",
        "score/dual-encoder_rq-vae_seed_1",
        "score/dual-encoder_rq-kmeans_seed_1",
    }
    assert len(list((workspace / "stages" / "report").glob("tiny-*"))) == 2


def test_a_killed_run_goes_on_and_ends_like_one_that_was_not(
    finished: Path, tiny: Path, gritrec: Gritrec, environment: Mapping[str, str], tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    command = [sys.executable, "-m", "pipelines.cli", "run", str(tiny), "--set", f"workspace={workspace}"]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as first:
        deadline = time.monotonic() + 120
        while not list(workspace.glob("stages/fit/dual-encoder*.partial-*")):
            assert first.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        first.kill()
    assert list(workspace.glob("stages/fit/dual-encoder*.partial-*")), "was killed too late"
    assert not list(workspace.glob("stages/fit/dual-encoder*/manifest.json"))
    tokenized = list(workspace.glob("stages/tokenize/*/manifest.json"))
    written = [path.stat().st_mtime_ns for path in tokenized]
    assert tokenized

    gritrec("run", tiny, "--set", f"workspace={workspace}")
    assert [path.stat().st_mtime_ns for path in tokenized] == written
    assert {name: path.read_bytes() for name, path in scores(workspace).items()} == {
        name: path.read_bytes() for name, path in scores(finished).items()
    }
    (parent,), children = runs(workspace)
    assert parent.info.status == "FINISHED"
    assert sorted(run.info.run_name for run in children) == sorted(CELLS)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert not list(workspace.rglob("*.partial-*"))


def test_a_retriever_that_uses_no_semantic_ids_leaves_the_tokenizers_to_be_compared(
    finished: Path, tiny: Path, gritrec: Gritrec
) -> None:
    settings = [f"workspace={finished}", "name=baseline", "retrievers=[popularity]"]
    gritrec("run", tiny, *(part for setting in settings for part in ("--set", setting)))
    assert sorted(run.info.run_name for run in runs(finished, "baseline")[1]) == [
        "rq-kmeans · – · seed 0",
        "rq-vae · – · seed 0",
        "– · popularity · seed 0",
    ]


def test_tokenizers_alone_are_compared_where_there_are_no_retrievers(
    finished: Path, tiny: Path, gritrec: Gritrec
) -> None:
    before = files(finished)
    settings = [f"workspace={finished}", "name=tokenizers", "retrievers=[]"]
    command = ["run", tiny, *(part for setting in settings for part in ("--set", setting))]
    done = gritrec(*command)
    made = {path.relative_to(finished).parts[1] for path in files(finished).keys() - before.keys()}
    assert made == {"report"}  # the semantic IDs are those of the benchmark with retrievers
    assert all(header in done.stdout for header in ("Semantic IDs", "purity", "sec."))
    rows = [line for line in done.stdout.splitlines() if line.startswith("rq-")]
    assert [row.split()[0] for row in rows] == ["rq-vae", "rq-kmeans"]

    (parent,), children = runs(finished, "tokenizers")
    assert parent.info.status == "FINISHED"
    assert sorted(run.info.run_name for run in children) == ["rq-kmeans · – · seed 0", "rq-vae · – · seed 0"]
    for run in children:
        assert run.info.status == "FINISHED"
        assert 0 < run.data.metrics["purity_1"] <= 1
        assert run.data.metrics["fit_seconds"] > 0
        assert run.data.metrics["encode_cpu_seconds"] > 0
        assert "ndcg_at_10" not in run.data.metrics

    again = gritrec(*command).stdout
    assert "Nothing to do: all 4 steps of tokenizers were done before." in again
    assert [line for line in again.splitlines() if line.startswith("rq-")] == rows


def children_of(process: int) -> list[int]:
    listed = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid="], text=True)
    pairs = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, parent in pairs if int(parent) == process]


def test_a_terminated_run_is_marked_and_leaves_no_process(
    finished: Path, tiny: Path, environment: Mapping[str, str]
) -> None:
    settings = [f"workspace={finished}", "name=terminated", "semantic_ids.steps=100000"]
    command = [sys.executable, "-m", "pipelines.cli", "run", str(tiny)]
    command += [part for setting in settings for part in ("--set", setting)]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(finished.glob("stages/tokenize/*.partial-*")):
            assert run.poll() is None, "ended before it could be terminated"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        started = children_of(run.pid)
        run.terminate()
        assert run.wait(120) == 128 + signal.SIGTERM
    finally:
        run.kill()
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert [parent.info.status for parent in runs(finished, "terminated")[0]] == ["FAILED"]
    assert not list(finished.rglob("*.partial-*"))


def test_a_run_that_ends_before_mlflow_has_the_report_is_not_done(
    finished: Path, tiny: Path, gritrec: Gritrec, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"workspace={finished}", "name=unclosed"]
    command = ["run", tiny, *(part for setting in settings for part in ("--set", setting))]

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Tracker, "close", killed)
        gritrec(*command, exit_code=130)
    assert "Nothing to do" not in gritrec(*command).stdout
    (parent,), children = runs(finished, "unclosed")
    assert (parent.info.status, len(children)) == ("FINISHED", 3)
    assert "Nothing to do" in gritrec(*command).stdout


def test_compare_gives_the_paired_t_test_of_two_runs(finished: Path, gritrec: Gritrec) -> None:
    by_name = {run.info.run_name.split(" · ")[0]: run for run in runs(finished)[1]}
    a, b = (by_name[name].info.run_id for name in ("rq-vae", "rq-kmeans"))
    shown = gritrec("compare", a, b, "--workspace", finished).stdout
    found = scores(finished)
    for metric in ("recall_at_10", "ndcg_at_10"):
        (line,) = (line for line in shown.splitlines() if metric in line)
        expected = stats.ttest_rel(
            *(column(found[f"dual-encoder_{name}_seed_0"], metric) for name in ("rq-vae", "rq-kmeans"))
        ).pvalue
        p = line.split("│")[6].strip()
        assert expected < 0.001 if p == "<.001" else float(p) == pytest.approx(expected, abs=5e-4)


def test_a_broken_raw_file_is_one_message(tmp_path: Path, tiny: Path, gritrec: Gritrec) -> None:
    (tmp_path / "reviews.json").write_text(
        '{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1}\n{"revi\n'
    )
    (tmp_path / "meta.json").write_text("{'asin': 'B1'}\n")
    data = f"{{reader: amazon, raw: {tmp_path}, reviews: reviews.json, meta: meta.json, k_core: 1}}"
    failed = gritrec("run", tiny, "--set", f"workspace={tmp_path}", "--set", f"data={data}", exit_code=1)
    (error,) = failed.stderr.splitlines()
    assert error.startswith(f"Error: {tmp_path / 'reviews.json'}, line 2: not JSON")
    assert not list(tmp_path.rglob("*.partial-*"))


def test_a_cell_that_fails_is_reported_keeps_no_other_from_running_and_is_tried_again(
    finished: Path, tiny: Path, gritrec: Gritrec, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    settings = [
        f"workspace={finished}",
        "name=mended",
        f"tokenizers.1={{recipe: 'test_flows:NotYet', name: late, params: {{ready: {ready}}}}}",
        "retrievers.0.params.training.steps=1",
    ]
    command = ["run", tiny, *(part for setting in settings for part in ("--set", setting))]
    failed = gritrec(*command, exit_code=1, PYTHONPATH=str(Path(__file__).parent))
    reason = (
        f"tokenize late seed 0: tokenizer late: there is no folder {ready}; make it "
        "(semantic_ids.testing.check_tokenizer tells what test_flows:NotYet has to mend)"
    )
    assert f"  failed: {reason}" in failed.stderr.splitlines()
    assert failed.stderr.splitlines()[-1] == (
        "Error: 1 of 3 cells failed, for the reasons above; the same command tries them again"
    )
    assert "Traceback" not in failed.stderr
    assert f"there is no folder {ready}" in " ".join(failed.stdout.split())
    (before,), children = runs(finished, "mended")
    assert before.info.status == "FAILED"
    assert {run.info.run_name: run.info.status for run in children} == {
        "rq-vae · dual-encoder · seed 0": "FINISHED",
        "– · popularity · seed 0": "FINISHED",
        "late · dual-encoder · seed 0": "FAILED",
    }
    assert [run.data.tags["gritrec.failure"] for run in children if run.info.status == "FAILED"] == [reason]

    ready.mkdir()
    gritrec(*command, PYTHONPATH=str(Path(__file__).parent))
    (after,), children = runs(finished, "mended")
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert [run.info.status for run in children] == ["FINISHED"] * 3


class Leaves(OneCode):
    """Ends the process while it is fitted."""

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        sys.exit(0)


class LacksAFile(OneCode):
    """Reads a file that is not there while it is fitted."""

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        Path("/no/such/model.bin").read_bytes()
        return self


def test_plug_ins_that_leave_or_lack_a_file_end_no_run(finished: Path, tiny: Path, gritrec: Gritrec) -> None:
    settings = [
        f"workspace={finished}",
        "name=leaving",
        "tokenizers=[rq-vae, 'test_flows:Leaves', 'test_flows:LacksAFile', rq-kmeans]",
    ]
    command = ["run", tiny, *(part for setting in settings for part in ("--set", setting))]
    failed = gritrec(*command, exit_code=1, PYTHONPATH=str(Path(__file__).parent))
    assert failed.stderr.splitlines()[-1].startswith("Error: 2 of 5 cells failed")
    statuses = {run.info.run_name.split(" · ")[0]: run.info.status for run in runs(finished, "leaving")[1]}
    assert statuses == {
        "rq-vae": "FINISHED",
        "Leaves": "FAILED",
        "LacksAFile": "FAILED",
        "rq-kmeans": "FINISHED",
        "–": "FINISHED",
    }


def test_where_the_reference_fails_the_others_are_reported_without_it(
    finished: Path, tiny: Path, gritrec: Gritrec, tmp_path: Path
) -> None:
    late = f"{{recipe: 'test_flows:NotYet', name: late, params: {{ready: {tmp_path / 'ready'}}}}}"
    settings = [
        f"workspace={finished}",
        "name=without reference".replace(" ", "-"),
        f"tokenizers=[rq-vae, rq-kmeans, {late}]",
        "evaluation.reference=late",
    ]
    command = ["run", tiny, *(part for setting in settings for part in ("--set", setting))]
    failed = gritrec(*command, exit_code=1, PYTHONPATH=str(Path(__file__).parent))
    assert (
        "The reference, late, failed with dual-encoder: there, nothing is compared with it." in failed.stdout
    )
    (parent,), _ = runs(finished, "without-reference")
    assert "rq-" in parent.data.tags["mlflow.note.content"]


def test_damage_in_any_stage_is_noticed_and_mended(copied: Path, tiny: Path, gritrec: Gritrec) -> None:
    command = ["run", tiny, "--set", f"workspace={copied}"]
    assert "Nothing to do" in gritrec(*command).stdout
    expected = {name: path.read_bytes() for name, path in scores(copied).items()}
    logged = {run.info.run_id for run in runs(copied)[1]}
    damaged = {
        "ingest": "sequences.parquet",
        "embed": "embeddings.npy",
        "tokenize": "quality.json",
        "fit": "retriever/model.safetensors",
        "score": "scores.parquet",
        "report": "results.json",
    }
    # The report was made from what the benchmark of this name holds, so its folder is the only one so called.
    names = {"ingest": "tiny-*", "embed": "tiny_*", "tokenize": "rq-vae*", "fit": "dual-encoder_rq-vae*"}
    for stage, file in damaged.items():
        path = next((copied / "stages" / stage).glob(f"{names.get(stage, '*')}/{file}"))
        flip(path, 8 * (path.stat().st_size // 2) + 2)
    again = gritrec(*command)
    assert again.stderr.count("damaged, so it is made again") >= 5
    assert {name: path.read_bytes() for name, path in scores(copied).items()} == expected
    assert {run.info.run_id for run in runs(copied)[1]} == logged
    assert "Nothing to do" in gritrec(*command).stdout


def test_what_mlflow_has_lost_is_logged_again(copied: Path, tiny: Path, gritrec: Gritrec) -> None:
    command = ["run", tiny, "--set", f"workspace={copied}"]
    assert "Nothing to do" in gritrec(*command).stdout
    (copied / "mlflow.db").unlink()
    made = files(copied)
    assert "0 steps to do" in gritrec(*command).stdout
    assert files(copied) == made
    (parent,), children = runs(copied)
    assert (parent.info.status, sorted(run.info.run_name for run in children)) == ("FINISHED", sorted(CELLS))
    assert "Nothing to do" in gritrec(*command).stdout


def test_verify_finds_what_neither_size_nor_time_tells(copied: Path, tiny: Path, gritrec: Gritrec) -> None:
    assert "All files are as they were written" in gritrec("verify", "--workspace", copied).stdout
    path = next(copied.glob("stages/fit/dual-encoder_rq-vae*/retriever/model.safetensors"))
    state = path.stat()
    flip(path, -8)
    os.utime(path, ns=(state.st_mtime_ns, state.st_mtime_ns))
    failed = gritrec("verify", "--workspace", copied, exit_code=1)
    assert f"damaged: fit/{path.parent.parent.name}: retriever/model.safetensors" in failed.stdout
    gritrec("run", tiny, "--set", f"workspace={copied}")
    assert "All files are as they were written" in gritrec("verify", "--workspace", copied).stdout


@pytest.mark.slow
def test_one_code_for_all_items_scores_near_chance(finished: Path, tiny: Path, gritrec: Gritrec) -> None:
    small = "width: 32, layers: 1, heads: 2"
    training = "learning_rate: 0.005, warmup_steps: 10"
    encoder = f"{{{small}, feed_forward: 32, training: {{steps: 150, batch_size: 64, {training}}}}}"
    tiger = (
        f"{{{small}, head_width: 16, feed_forward: 64, max_history: 5, search: {{beam: 20}}, "
        f"training: {{steps: 300, batch_size: 128, {training}}}}}"
    )
    settings = [
        f"workspace={finished}",
        "name=chance",
        "data={reader: amazon, shop: {users: 600, items: 200}}",
        "text.dimensions=32",
        "semantic_ids={levels: 2, codebook_size: 16}",
        "tokenizers=[rq-kmeans, 'test_flows:OneCode']",
        f"retrievers=[{{kind: dual-encoder, params: {encoder}}}, {{kind: tiger, params: {tiger}}}]",
        "evaluation.reference=rq-kmeans",
    ]
    command = ["run", tiny, *(part for setting in settings for part in ("--set", setting))]
    gritrec(*command, PYTHONPATH=str(Path(__file__).parent))
    (parent,), children = runs(finished, "chance")
    recall = {run.info.run_name.rpartition(" · ")[0]: run.data.metrics["recall_at_10"] for run in children}
    chance = 10 / 200
    for retriever in ("dual-encoder", "tiger"):
        assert recall[f"OneCode · {retriever}"] < 2 * chance
        assert recall[f"rq-kmeans · {retriever}"] > 3 * chance
    assert "rq-kmeans" in parent.data.tags["mlflow.note.content"]
