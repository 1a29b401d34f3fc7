"""From a benchmark's configuration to the steps it takes, all of them known before the first runs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines import stages
from pipelines.config import BenchmarkConfig, ConfigError, RetrieverConfig, TokenizerConfig
from pipelines.results import NO_TOKENIZER
from pipelines.store import Step
from recsys.retrievers.table import RETRIEVERS


@dataclass(frozen=True)
class CellPlan:
    """The steps to one cell: a tokenizer under a retriever with a seed.

    Attributes:
        tokenizer, retriever: their names in the benchmark.
        seed: of both.
        tokenize: None for a retriever that looks at no codes.
        fit, score: in this order.
    """

    tokenizer: str
    retriever: str
    seed: int
    tokenize: Step | None
    fit: Step
    score: Step

    @property
    def steps(self) -> list[Step]:
        """In the order they are to be made."""
        return [step for step in (self.tokenize, self.fit, self.score) if step]


@dataclass(frozen=True)
class Plan:
    """The steps of a benchmark.

    Attributes:
        corpus, embeddings: what all cells share.
        cells: in the order they are run.
        report: the last step; when it is done, all is.
    """

    corpus: Step
    embeddings: Step
    cells: tuple[CellPlan, ...]
    report: Step

    def steps(self) -> Iterator[Step]:
        """All but the report, each once, in an order in which they can be made."""
        seen = set()
        for step in (self.corpus, self.embeddings, *(step for cell in self.cells for step in cell.steps)):
            if step.digest not in seen:
                seen.add(step.digest)
                yield step


def plan(config: BenchmarkConfig) -> Plan:
    """Lay out all steps; raw files are read once, for their digests.

    Raises:
        ConfigError: a raw file is not where the configuration says.
    """
    corpus = _ingest(config)
    text = config.text.model_dump(mode="json")
    label = f"{config.name} {Path(config.text.encoder).name}"
    embeddings = Step("embed", label, 1, text, {"corpus": corpus}, stages.embed)
    cells = tuple(
        _cell(config, embeddings, tokenizer, retriever, seed)
        for seed in config.seeds
        for tokenizer in config.tokenizers
        for retriever in config.retrievers
        if RETRIEVERS[retriever.kind].uses_ids
    ) + tuple(
        _cell(config, embeddings, None, retriever, config.seeds[0])
        for retriever in config.retrievers
        if not RETRIEVERS[retriever.kind].uses_ids
    )
    about = {
        "title": config.name,
        "evaluation": config.evaluation.model_dump(mode="json"),
        "cells": [[cell.tokenizer, cell.retriever, cell.seed] for cell in cells],
        "tracking_uri": config.tracking_uri,
    }
    inputs = {f"{number}.{step.stage}": step for number, cell in enumerate(cells) for step in cell.steps}
    report = Step("report", config.name, 1, about, {"corpus": corpus, **inputs}, stages.report)
    return Plan(corpus, embeddings, cells, report)


def _cell(
    config: BenchmarkConfig,
    embeddings: Step,
    tokenizer: TokenizerConfig | None,
    retriever: RetrieverConfig,
    seed: int,
) -> CellPlan:
    corpus = embeddings.inputs["corpus"]
    name = tokenizer.name if tokenizer else NO_TOKENIZER
    tokenize, inputs = None, {"corpus": corpus}
    if tokenizer:
        about = {**_resolved(tokenizer, config.semantic_ids), "seed": seed}
        tokenize = Step(
            "tokenize", f"{name} seed {seed}", 1, about, {"embeddings": embeddings}, stages.tokenize
        )
        inputs = {"corpus": corpus, "ids": tokenize}
    label = f"{retriever.name} {name} seed {seed}" if tokenizer else retriever.name
    settings = {"kind": retriever.kind, "params": retriever.make().params(), "seed": seed}
    fit = Step("fit", label, 1, settings, inputs, stages.fit)
    measure = {"cutoffs": list(config.evaluation.cutoffs), "exclude_seen": config.evaluation.exclude_seen}
    score = Step("score", label, 1, measure, {"corpus": corpus, "retriever": fit}, stages.score)
    return CellPlan(name, retriever.name, seed, tokenize, fit, score)


def _resolved(tokenizer: TokenizerConfig, shared: Mapping[str, Any]) -> dict[str, Any]:
    """The class and all its arguments, and for a plug-in its source, so that editing it counts."""
    made = tokenizer.make(shared)
    kind = type(made)
    about = {"class": f"{kind.__module__}:{kind.__qualname__}", "params": made.params()}
    if not kind.__module__.startswith("semantic_ids."):
        about["source_sha256"] = _sha256(Path(inspect.getfile(kind)))
    return about


def _ingest(config: BenchmarkConfig) -> Step:
    """Raw files count by their content, not by the place where they are."""
    about = config.data.model_dump(mode="json")
    raw = Path(about.pop("raw", "."))
    if config.data.reader == "amazon2014":
        for key in ("reviews", "meta"):
            about[f"{key}_sha256"] = _sha256(raw / about[key])
    return Step("ingest", config.name, 2, about, {}, partial(stages.ingest, raw))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; put the file there, or say where it is with "
            "--set data.raw=FOLDER"
        ) from error
