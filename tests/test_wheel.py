"""The wheel that users install: it holds all that the packages need, and works far from the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ["pyproject.toml", "README.md", "LICENSE", "NOTICE", "data", "recsys", "pipelines", "tokenizers"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "raw", "*.egg-info")


def run(*command: str | Path, cwd: Path, site: Path | None = None) -> str:
    """Return what a command prints that runs in ``cwd`` with the packages of ``site`` before all others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment = kept | {"PREFECT_HOME": str(cwd), "COLUMNS": "200", "PYTHONPATH": str(site or "")}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from a copy of the parts that make it up."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PARTS:
        part = ROOT / name
        if part.is_dir():
            shutil.copytree(part, source / name, ignore=NOT_SHIPPED)
        else:
            shutil.copy(part, source)
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """Return the folder in which the wheel is installed; its dependencies are those of this environment."""
    target = wheel.parent / "site"
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet")
    run(*pip, "--target", target, wheel, cwd=wheel.parent)
    return target


def test_the_wheel_holds_everything_that_is_not_python(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    information = f"gritrec-{PROJECT['version']}.dist-info"
    expected = {f"{information}/licenses/LICENSE", f"{information}/licenses/NOTICE", "pipelines/prefect.yaml"}
    expected |= {f"{package}/py.typed" for package in ("semantic_ids", "recsys", "pipelines")}
    expected |= {f"recsys/datasets/data/{card.name}" for card in (ROOT / "data").glob("*.yaml")}
    benchmarks = (ROOT / "pipelines" / "experiments").glob("*.yaml")
    expected |= {f"pipelines/experiments/{benchmark.name}" for benchmark in benchmarks}
    assert expected - names == set()


def test_the_wheel_holds_every_module_and_nothing_else_at_its_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    modules = {name for name in names if name.endswith(".py")}
    sources = {"semantic_ids": ROOT / "tokenizers", "recsys": ROOT, "pipelines": ROOT}
    for package, root in sources.items():
        assert {path.relative_to(root).as_posix() for path in (root / package).rglob("*.py")} <= modules
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == set(sources)
    assert not [name for name in names if "__pycache__" in name or "/raw/" in name]


def test_the_wheel_names_its_licence_and_its_pages(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
    text = files.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    for page in ("Homepage", "Repository", "Documentation", "Changelog", "Issues"):
        assert f"Project-URL: {page}, https://" in text


def test_the_installed_packages_know_their_version(site: Path, tmp_path: Path) -> None:
    script = "\n".join(
        f"import {package}; print({package}.__file__, {package}.__version__)"
        for package in ("semantic_ids", "recsys", "pipelines")
    )
    lines = run(sys.executable, "-c", script, cwd=tmp_path, site=site).splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == [PROJECT["version"]] * 3
    assert all(Path(line.rpartition(" ")[0]).is_relative_to(site) for line in lines)


def test_the_command_shows_help_and_lists_what_the_wheel_brings(site: Path, tmp_path: Path) -> None:
    assert "tokenizers" in run(sys.executable, "-m", "pipelines.cli", "--help", cwd=tmp_path, site=site)
    command = site / "bin" / "gritrec"
    assert "grit-vq" in run(command, "tokenizers", cwd=tmp_path, site=site)
    listed = run(command, "data", "list", cwd=tmp_path, site=site)
    for card in (ROOT / "data").glob("*.yaml"):
        assert card.stem in listed


def test_a_benchmark_file_of_the_wheel_is_read_far_from_the_repository(site: Path, tmp_path: Path) -> None:
    script = """
import pathlib, pipelines
from pipelines.config.loading import load_config
print(load_config(pathlib.Path(pipelines.__file__).with_name("experiments") / "demo.yaml").name)
"""
    assert run(sys.executable, "-c", script, cwd=tmp_path, site=site).strip() == "demo"


def test_the_citation_and_the_changelog_name_the_version() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)
    assert cited
    assert cited[1] == PROJECT["version"]
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text()
