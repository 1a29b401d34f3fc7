"""Read back what the stages of a cell wrote, and the results of a whole benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipelines.manifest import read_manifest
from pipelines.results.categories import CodeCategories
from pipelines.results.cell import Cell, CellIds, CellName, Dataset
from pipelines.results.rows import Results
from recsys.evaluation.scores import QueryScores
from semantic_ids.files import atomic_write

RESULTS_FILE = "results.json"


def read_dataset(title: str, corpus: Path) -> Dataset:
    """Return what the folder of an ``ingest`` step holds.

    Args:
        title: Name of the benchmark.
        corpus: The folder.
    """
    facts = json.loads((corpus / "corpus.json").read_text())
    counts = {name: facts.get(name, 0) for name in ("users", "items", "interactions", "queries")}
    counts["malformed lines left out"] = facts["skipped_lines"]
    counts |= {name.replace("_", " "): count for name, count in facts["notes"].items()}
    config = read_manifest(corpus)["config"]
    source = f"made-up shop, as {config['reader']}" if config["shop"] else config["reader"]
    shown = {name: count for name, count in counts.items() if count}
    return Dataset(title, facts["digest"], source, shown)


def read_cell(name: CellName, folders: Mapping[str, Path]) -> Cell:
    """Return one cell.

    Args:
        name: Tokenizer, retriever and seed.
        folders: Stage to folder, in their order: ``tokenize``, ``fit`` and ``score``, or only the first, or
            only the last two.
    """
    manifests = {stage: read_manifest(folder) for stage, folder in folders.items()}
    ids = scores = None
    diagnostics: dict[str, Any] = {}
    queries: dict[str, int] = {}
    curves: dict[str, list[tuple[int, float]]] = {}
    for stage, folder in folders.items():
        if stage == "score":
            scores = QueryScores.read(folder / "scores.parquet")
            diagnostics = json.loads((folder / "retriever.json").read_text())
            queries = json.loads((folder / "queries.json").read_text())
            continue
        if stage == "tokenize":
            ids = CellIds(
                digest=manifests[stage]["digest"],
                quality=json.loads((folder / "quality.json").read_text()),
                collisions=manifests[stage]["config"]["collisions"],
                code_categories=CodeCategories.read(folder / "code_categories.json"),
            )
        curves |= {f"{stage}_{metric}": c for metric, c in _curves(folder / "curves.jsonl").items()}
    return Cell(
        name=name,
        ids=ids,
        scores=scores,
        seconds=sum(manifest["seconds"] for manifest in manifests.values()),
        digest=[*manifests.values()][-1]["digest"],
        curves=curves,
        params={stage: manifest["config"] for stage, manifest in manifests.items()},
        diagnostics=diagnostics,
        **queries,
    )


def read_cells(names: list[tuple[str, str, int]], inputs: Mapping[str, Path]) -> list[Cell]:
    """Return all cells of a benchmark from the inputs of its report step.

    Args:
        names: Tokenizer, retriever and seed of each cell.
        inputs: ``<number of the cell>.<stage>`` to folder.
    """
    cells = []
    for number, name in enumerate(names):
        prefix = f"{number}."
        folders = {key.removeprefix(prefix): path for key, path in inputs.items() if key.startswith(prefix)}
        cells.append(read_cell(CellName(*name), folders))
    return cells


def write_results(results: Results, folder: Path) -> None:
    """Write ``results.json`` into a folder."""
    values = TypeAdapter(Results).dump_python(results)
    with atomic_write(folder / RESULTS_FILE) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n")


def read_results(folder: Path) -> Results:
    """Return what :func:`write_results` wrote into a folder.

    Raises:
        ValueError: If the file holds something else.
    """
    return TypeAdapter(Results).validate_python(json.loads((folder / RESULTS_FILE).read_text()))


def _curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return metric to curve from a file with a JSON object per step."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        step = record.pop("step")
        for name, value in record.items():
            curves.setdefault(name, []).append((step, value))
    return curves
