"""Whole runs in environments in which not every character can be written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Gritrec = Callable[..., "subprocess.CompletedProcess[str]"]
NAME = "日本 [k=64] –"


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii", "COLUMNS": "20", "TERM": "dumb"},
    ],
    ids=["locale", "terminal"],
)
def test_a_run_with_names_in_any_script_ends_in_a_report(
    variables: dict[str, str], tiny: Path, gritrec_process: Gritrec, tmp_path: Path
) -> None:
    file = tmp_path / "benchmark.yaml"
    tokenizers = f'tokenizers: [rq-kmeans, {{recipe: lsh, name: "{NAME}"}}]'
    lines = [tokenizers if line.startswith("tokenizers") else line for line in tiny.read_text().splitlines()]
    file.write_text("\n".join(lines), encoding="utf-8")
    workspace = tmp_path / "workspace"
    shared = "semantic_ids={levels: 2, codebook_size: 8}"
    settings = [f"workspace={workspace}", "retrievers=[popularity]", shared]
    options = [part for setting in settings for part in ("--set", setting)]
    done = gritrec_process("run", file, *options, **variables)
    assert "  tokenize ???? [k=64] - seed 0" in done.stderr
    assert "No retriever that uses semantic IDs" in done.stdout
    assert "Traceback" not in done.stderr
    (page,) = (workspace / "stages" / "report").glob("*/report.html")
    assert NAME in page.read_text(encoding="utf-8")
