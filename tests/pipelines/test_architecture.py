"""What may import what, and that our folders hide no library of their name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
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
import recsys.splits
from recsys.retrievers.registry import RETRIEVERS
RETRIEVERS.all()
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


def modules() -> dict[str, Path]:
    """Every module of ours, by its name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """Our modules that a file imports, inside functions too, but not for type checkers alone."""
    names = set()
    for node in run_time_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else str(node.module) for name in whole}
    return names & set(known)


def run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    if not (isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from run_time_nodes(child)


def test_modules_and_folders_import_each_other_in_no_circle() -> None:
    known = modules()
    graph = {name: imported_modules(path, known) for name, path in known.items()}
    assert sum(map(len, graph.values())) > 200
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
    folders: dict[str, set[str]] = {}
    for name, imported in graph.items():
        inside = folders.setdefault(".".join(name.split(".")[:2]), set())
        inside |= {".".join(other.split(".")[:2]) for other in imported}
    TopologicalSorter({name: others - {name} for name, others in folders.items()}).prepare()


def test_files_are_short_enough_to_read_at_once() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_function_takes_more_than_twelve_arguments_nor_a_dataclass() -> None:
    many = {}
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                count = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
                count -= bool(node.args.args) and node.args.args[0].arg in ("self", "cls")
            elif isinstance(node, ast.ClassDef) and any(
                "dataclass" in ast.unparse(d) for d in node.decorator_list
            ):
                count = sum(isinstance(part, ast.AnnAssign) for part in node.body)
            else:
                continue
            if count > 12:
                many[f"{name}.{node.name}"] = count
    assert many == {}
