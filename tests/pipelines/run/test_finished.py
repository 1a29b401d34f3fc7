from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from helpers import flip
from pipelines.run.finished import Memory

Gritrec = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def workspace(finished: Path, tiny: Path, gritrec: Gritrec, tmp_path: Path) -> Path:
    """A copy of the finished workspace that remembers the tiny benchmark."""
    copy = tmp_path / "workspace"
    shutil.copytree(finished, copy)
    assert "Nothing to do" in gritrec("run", tiny, "--set", f"workspace={copy}").stdout
    assert Memory(tiny, [f"workspace={copy}"]).recall()
    return copy


def test_a_finished_benchmark_is_shown_again_without_heavy_libraries(
    workspace: Path, tiny: Path, gritrec: Gritrec, environment: Mapping[str, str]
) -> None:
    heavy = ("torch", "scipy", "mlflow", "prefect", "polars", "pyarrow", "numpy", "plotly")
    script = f"""
import sys
from pipelines.cli import main
sys.argv = ["gritrec", "run", {str(tiny)!r}, "--set", "workspace={workspace}"]
try:
    main()
finally:
    print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""
    command = [sys.executable, "-c", script]
    again = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    assert again.stderr.splitlines()[-1] == "[]"
    shutil.rmtree(workspace / "finished")
    looked_at_closely = gritrec("run", tiny, "--set", f"workspace={workspace}")
    assert again.stdout == looked_at_closely.stdout
    assert "Nothing to do: all 10 steps of tiny were done before." in again.stdout


def test_another_setting_is_another_benchmark(workspace: Path, tiny: Path) -> None:
    assert Memory(tiny, [f"workspace={workspace}", "seeds=[1]"]).recall() is None


@pytest.mark.parametrize(
    "damaged", ["report/*/results.json", "score/*/scores.parquet", "tokenize/*/manifest.json"]
)
def test_a_step_that_is_no_longer_there_is_not_recalled(workspace: Path, tiny: Path, damaged: str) -> None:
    memory = Memory(tiny, [f"workspace={workspace}"])
    known = json.loads((workspace / "finished" / memory.file_name).read_text())["folders"]
    next(
        path for path in (workspace / "stages").glob(damaged) if _folder_of(path, workspace) in known
    ).unlink()
    assert memory.recall() is None


def _folder_of(path: Path, workspace: Path) -> str:
    """The folder of a step's file; other benchmarks may have steps in the workspace, too."""
    return str(path.parent.relative_to(workspace))


def test_a_flipped_byte_in_the_report_is_noticed(workspace: Path, tiny: Path) -> None:
    (page,) = (workspace / "stages" / "report").glob("tiny-*/report.html")
    flip(page, 800)
    assert Memory(tiny, [f"workspace={workspace}"]).recall() is None


def test_what_mlflow_has_lost_is_not_done(workspace: Path, tiny: Path) -> None:
    with closing(sqlite3.connect(workspace / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET lifecycle_stage = 'deleted'")
    assert Memory(tiny, [f"workspace={workspace}"]).recall() is None


def test_other_code_is_not_known_to_give_the_same(tiny: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    for package in ("pipelines", "recsys", "tokenizers/semantic_ids"):
        shutil.copytree(root / package, tmp_path / Path(package).name, ignore=shutil.ignore_patterns("__py*"))
    script = (
        "from pathlib import Path\nfrom pipelines.run.finished import Memory\n"
        f"print(Memory(Path({str(tiny)!r}), []).file_name)"
    )

    def remembered_as() -> str:
        return subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, text=True)

    before = remembered_as()
    assert remembered_as() == before
    for changed in ("semantic_ids/autoencoder.py", "recsys/retrievers/bm25.py", "pipelines/run/plan.py"):
        with (tmp_path / changed).open("a") as file:
            file.write("\n")
        assert remembered_as() != before
        before = remembered_as()


def test_a_raw_file_that_changed_is_looked_at_again(tiny: Path, gritrec: Gritrec, tmp_path: Path) -> None:
    users = [f"{user}\t{' '.join(str(1 + (user + step) % 40) for step in range(6))}" for user in range(60)]
    file = tmp_path / "sequences.txt"
    file.write_text("\n".join(users) + "\n")
    settings = [
        f"workspace={tmp_path / 'workspace'}",
        f"data={{reader: sequences, raw: {tmp_path}, sequences: sequences.txt, k_core: 1}}",
        "retrievers=[popularity]",
        "tokenizers=[]",
        "semantic_ids={}",
    ]
    gritrec("run", tiny, *(part for setting in settings for part in ("--set", setting)))
    assert Memory(tiny, settings).recall()
    file.write_text("\n".join(users[1:]) + "\n")
    assert Memory(tiny, settings).recall() is None


def test_plug_ins_are_not_remembered(finished: Path, tiny: Path, gritrec: Gritrec) -> None:
    settings = [
        f"workspace={finished}",
        "name=plugged",
        "tokenizers=[rq-vae, 'semantic_ids.fitted:RandomIds']",
        "retrievers=[popularity]",
    ]
    gritrec("run", tiny, *(part for setting in settings for part in ("--set", setting)))
    assert Memory(tiny, settings).recall() is None
