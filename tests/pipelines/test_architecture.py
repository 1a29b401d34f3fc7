"""What may import what, and that our folders hide no library of their name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "semantic_ids": ROOT / "tokenizers" / "semantic_ids",
    "recsys": ROOT / "recsys",
    "pipelines": ROOT / "pipelines",
}
LAYERS = list(PACKAGES)
"""Each may import those before it."""


def python(script: str) -> str:
    """Run from the repository root, which ``-c`` puts on the path."""
    return subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True)


def imports(package: Path) -> Iterator[tuple[str, str]]:
    """File and top-level name of every import, those inside functions included."""
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: write the whole name of the module"
                names = [str(node.module)]
            else:
                continue
            yield from ((f"{path}:{node.lineno}", name.partition(".")[0]) for name in names)


@pytest.mark.parametrize("name", ["tokenizers", "mlflow"])
def test_our_folders_do_not_hide_the_libraries_of_their_name(name: str) -> None:
    installed = distribution(name).locate_file(f"{name}/__init__.py")
    assert python(f"import {name}; print({name}.__file__)").strip() == str(installed)
    assert not (ROOT / name / "__init__.py").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    above = LAYERS[LAYERS.index(package) + 1 :]
    found = list(imports(PACKAGES[package]))
    assert found
    assert [(place, name) for place, name in found if name in above] == []


def test_semantic_ids_needs_torch_numpy_safetensors_and_nothing_else() -> None:
    allowed = {"semantic_ids", "torch", "numpy", "safetensors", "faiss", *sys.stdlib_module_names}
    assert [(place, name) for place, name in imports(PACKAGES["semantic_ids"]) if name not in allowed] == []


@pytest.mark.parametrize("library", ["prefect", "mlflow"])
def test_only_pipelines_knows_prefect_and_mlflow(library: str) -> None:
    users = {
        package for package, folder in PACKAGES.items() for _, name in imports(folder) if name == library
    }
    assert users == {"pipelines"}


def test_training_and_evaluation_import_without_what_only_data_and_tracking_need() -> None:
    script = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("polars", "faiss", "mlflow", "prefect", "sentence_transformers"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import semantic_ids
import recsys.retrievers.registry, recsys.splits
import recsys.evaluation.metrics, recsys.evaluation.scores, recsys.evaluation.significance
try:
    import polars
except ModuleNotFoundError:
    print("imported")
"""
    assert python(script).strip() == "imported"


def test_recsys_and_semantic_ids_load_neither_prefect_nor_mlflow() -> None:
    script = """
import pkgutil, sys, importlib, recsys, semantic_ids
for package in (semantic_ids, recsys):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print([name for name in ("prefect", "mlflow", "pipelines") if name in sys.modules])
"""
    assert python(script).strip() == "[]"
