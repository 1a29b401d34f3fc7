"""Reads back what the stages wrote: cells for MLflow, and the results of the whole benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.results.categories import CodeCategories
from pipelines.results.summary import Cell, Dataset, Results, summarise
from recsys.evaluation.scores import QueryScores
from semantic_ids.collisions import Collisions


def read_dataset(title: str, corpus: Path) -> Dataset:
    """What an ``ingest`` folder holds."""
    about = json.loads((corpus / "corpus.json").read_text())
    counts = {name: about.get(name, 0) for name in ("users", "items", "interactions", "queries")}
    counts["malformed lines left out"] = about["skipped_lines"]
    counts |= {name.replace("_", " "): count for name, count in about["notes"].items()}
    config = _manifest(corpus)["config"]
    source = f"made-up shop, as {config['reader']}" if config["shop"] else config["reader"]
    shown = {name: count for name, count in counts.items() if count}
    return Dataset(title, about["digest"], source, shown)


def read_cell(names: tuple[str, str, int], folders: Mapping[str, Path]) -> Cell:
    """One cell.

    Args:
        names: tokenizer, retriever and seed.
        folders: of its stages in their order: ``tokenize``, ``fit`` and ``score``, the first or the
            last two alone.
    """
    manifests = {stage: _manifest(folder) for stage, folder in folders.items()}
    quality: dict[str, float] = {}
    figures: dict[str, Any] = {}
    curves: dict[str, list[tuple[int, float]]] = {}
    code_categories = scores = None
    ids_digest = ""
    collisions: Collisions = "shared"
    for stage, folder in folders.items():
        if stage == "tokenize":
            quality = json.loads((folder / "quality.json").read_text())
            code_categories = CodeCategories.read(folder / "code_categories.json")
            ids_digest = manifests[stage]["digest"]
            collisions = manifests[stage]["config"]["collisions"]
        if stage == "score":
            scores = QueryScores.read(folder / "scores.parquet")
            figures = json.loads((folder / "retriever.json").read_text())
        else:
            curves |= {f"{stage}_{name}": c for name, c in _curves(folder / "curves.jsonl").items()}
    tokenizer, retriever, seed = names
    return Cell(
        tokenizer=tokenizer,
        retriever=retriever,
        seed=seed,
        scores=scores,
        quality=quality,
        seconds=sum(manifest["seconds"] for manifest in manifests.values()),
        digest=[*manifests.values()][-1]["digest"],
        curves=curves,
        params={stage: manifest["config"] for stage, manifest in manifests.items()},
        code_categories=code_categories,
        ids_digest=ids_digest,
        collisions=collisions,
        figures=figures,
    )


def read_results(config: Mapping[str, Any], inputs: Mapping[str, Path]) -> Results:
    """The benchmark's table, from the configuration and the inputs of its ``report`` step."""
    cells = []
    for number, names in enumerate(config["cells"]):
        prefix = f"{number}."
        folders = {key.removeprefix(prefix): path for key, path in inputs.items() if key.startswith(prefix)}
        cells.append(read_cell(tuple(names), folders))
    evaluation = config["evaluation"]
    dataset = read_dataset(config["title"], inputs["corpus"])
    seen = "left out" if evaluation["exclude_seen"] else "kept"
    asked = "the corpus' own test queries" if "queries" in dataset.counts else "leave-one-out"
    least = evaluation["relevant_gain"]
    relevant = f", answers relevant from a gain of {least:g} on" if least else ""
    return summarise(
        config["title"],
        dataset,
        f"{asked}, full catalogue, items of a user's own history {seen}{relevant}",
        cells,
        reference=evaluation["reference"],
        metric=evaluation["metric"],
    )


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def _curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        step = record.pop("step")
        for name, value in record.items():
            curves.setdefault(name, []).append((step, value))
    return curves
