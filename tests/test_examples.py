"""The notebooks in examples/ run from a clean folder, and print what is stored in them.

``python tests/test_examples.py`` runs them and stores their outputs; names of notebooks after it choose some.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
TIMEOUT = 180
"""Seconds that a cell may take."""

EXACT = "exact"
"""Tag of a cell whose printed text is the same on every machine."""

PLACES = re.compile(r"/(?:tmp|home|root|work|var|Users|private)/")
"""A part of a path that belongs to one machine."""

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs that it has when a copy of it runs in an empty folder.

    The kernel is this Python, whatever kernels are installed, and keeps its own files in ``folder``, too.
    """
    work, own = folder / "work", folder / "jupyter"
    work.mkdir()
    shutil.copy(path, work)
    write_kernel_spec(own / "kernels" / "python3")
    specs = KernelSpecManager(kernel_dirs=[str(own / "kernels")], ensure_native_kernel=False)
    notebook = nbformat.read(work / path.name, as_version=4)
    elsewhere = {"IPYTHONDIR": own, "JUPYTER_RUNTIME_DIR": own / "runtime", "JUPYTER_CONFIG_DIR": own}
    with patch.dict(os.environ, {name: str(place) for name, place in elsewhere.items()}):
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(work)}},
        )
        client.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
        client.execute()  # and shuts the kernel down, as it would not if the constructor got the manager
    assert [file.name for file in work.iterdir()] == [path.name], "it left files beside the notebook"
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    """Return all text that a cell printed or displayed, without HTML."""
    return "".join(
        output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        for output in cell.outputs
    )


def exact_outputs(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Return the id of each exact cell with its text."""
    return {cell.id: printed(cell) for cell in code_cells(notebook) if EXACT in cell.metadata.get("tags", [])}


def shown(notebook: nbformat.NotebookNode) -> Iterator[tuple[str, str]]:
    """Yield the id of each cell with each of its outputs, as they are stored."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield cell.id, str(output)


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 3


@every_notebook
def test_outputs_are_stored_in_order(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) - 2  # some only import or define
    assert {output.output_type for cell in cells for output in cell.outputs} <= {"stream", "execute_result"}
    assert [cell.id for cell in cells if any(out.get("name") == "stderr" for out in cell.outputs)] == []
    assert exact_outputs(notebook)


@every_notebook
def test_stored_outputs_name_no_place_of_a_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    own = (str(EXAMPLES.parent), str(Path.home()), tempfile.gettempdir())
    found = [
        name
        for name, output in shown(notebook)
        if PLACES.search(output) or any(place in output for place in own if place != "/")
    ]
    assert found == []
    assert notebook.metadata.language_info == {"name": "python"}
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)


@every_notebook
def test_each_code_cell_is_announced_by_text(path: Path) -> None:
    kinds = [cell.cell_type for cell in nbformat.read(path, as_version=4).cells]
    assert kinds[0] == "markdown"
    assert all(before == "markdown" for before, kind in itertools.pairwise(kinds) if kind == "code")


@every_notebook
def test_links_lead_somewhere(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    texts = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#:]+)\)", texts):
        assert (EXAMPLES / target).exists(), target


def test_the_contents_list_every_notebook() -> None:
    contents = (EXAMPLES / "README.md").read_text()
    linked = re.findall(r"\]\(([^)#:]+)\)", contents)
    assert [target for target in linked if target.endswith(".ipynb")] == [path.name for path in NOTEBOOKS]
    assert all((EXAMPLES / target).exists() for target in linked)


@pytest.mark.slow
@every_notebook
def test_it_runs_and_prints_what_is_stored(path: Path, tmp_path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    assert exact_outputs(executed(path, tmp_path)) == exact_outputs(stored)


def store_outputs(path: Path) -> None:
    """Run a notebook and write its outputs into it, without anything that changes from run to run."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(path, Path(folder))
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for chosen in NOTEBOOKS:
        if chosen.name in sys.argv[1:] or len(sys.argv) == 1:
            store_outputs(chosen)
