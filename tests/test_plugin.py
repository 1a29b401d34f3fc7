"""A tokenizer in a package of its own: built, installed, checked, and benchmarked by its name."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semantic_ids.testing import check_tokenizer

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "tests" / "plugin"

BENCHMARK = """
name: plug-in
data: {reader: amazon, shop: {users: 150, items: 120}}
text: {dimensions: 16}
semantic_ids: {levels: 2, codebook_size: 8}
tokenizers: [rq-kmeans, spherical-kmeans]
retrievers:
  - kind: dual-encoder
    params: {width: 16, heads: 2, feed_forward: 16, training: {steps: 20, batch_size: 32, evaluate_every: 10}}
evaluation: {cutoffs: [10], reference: rq-kmeans}
"""


def python(*arguments: str | Path, cwd: Path, site: Path | None = None) -> str:
    """What a command printed that was run with the packages in ``site`` installed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    paths = [str(site) if site else "", os.environ.get("PYTHONPATH", "")]
    own |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PREFECT_HOME": str(cwd), "COLUMNS": "200"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the template's wheel is installed, which was built from a copy."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(TEMPLATE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    python("-m", "build", "--no-isolation", "--wheel", "--outdir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    pip = ("-m", "pip", "install", "--no-deps", "--no-index", "--quiet")
    python(*pip, "--target", folder / "site", wheel, cwd=folder)
    return folder / "site"


@pytest.mark.slow
def test_an_installed_plug_in_is_benchmarked_beside_the_others(site: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmark.yaml").write_text(BENCHMARK)
    run = ("-m", "pipelines.cli", "run", "benchmark.yaml", "--set", "workspace=here")
    printed = python(*run, cwd=tmp_path, site=site)
    scores, differences = printed.split("Difference to rq-kmeans")
    assert re.search(r"dual-encoder +spherical-kmeans +1 +[.\d]+ +[.\d]+", scores)
    assert re.search(r"dual-encoder +spherical-kmeans +[+−][.\d]+ ", differences)
    (folder,) = (tmp_path / "here" / "stages" / "tokenize").glob("spherical-kmeans*")
    about = json.loads((folder / "tokenizer" / "model.json").read_text())
    assert about["class"] == "spherical_kmeans:SphericalKMeans"
    assert about["params"] == {"levels": 2, "codebook_size": 8}


@pytest.mark.slow
def test_the_template_s_own_test_passes(site: Path, tmp_path: Path) -> None:
    shutil.copy(TEMPLATE / "test_spherical_kmeans.py", tmp_path)
    assert "2 passed" in python("-m", "pytest", "-p", "no:cacheprovider", cwd=tmp_path, site=site)


@pytest.mark.parametrize(
    ("page", "module"), [("README.md", "ten_lines"), ("docs/plugins.md", "also_ten_lines")]
)
def test_the_ten_lines_keep_the_contract(
    page: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "class RandomProjection" in block)
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    check_tokenizer(importlib.import_module(module).RandomProjection)
