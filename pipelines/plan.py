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
from pipelines.config import BenchmarkConfig, CodesConfig, ConfigError, RetrieverConfig, TokenizerConfig
from pipelines.results import NO_RETRIEVER, NO_TOKENIZER
from pipelines.store import Step
from recsys.retrievers.table import RETRIEVERS


@dataclass(frozen=True)
class CellPlan:
    """The steps to one cell: a tokenizer under a retriever with a seed.

    Attributes:
        tokenizer, retriever: their names in the benchmark.
        seed: of both.
        steps: in the order they are to be made: to tokenize, to fit and to score. The first is not there
            for a retriever that looks at no codes, the others where tokenizers alone are compared.
    """

    tokenizer: str
    retriever: str
    seed: int
    steps: tuple[Step, ...]


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
    cells = [
        cell
        for seed in config.seeds
        for tokenizer in config.tokenizers
        for cell in _cells(config, embeddings, tokenizer, seed)
    ]
    for retriever in config.retrievers:
        if not RETRIEVERS[retriever.kind].uses_ids:
            seed = config.seeds[0]
            steps = _fit_and_score(config, retriever.name, retriever, {"corpus": corpus}, seed)
            cells.append(CellPlan(NO_TOKENIZER, retriever.name, seed, steps))
    about = {
        "title": config.name,
        "evaluation": config.evaluation.model_dump(mode="json"),
        "cells": [[cell.tokenizer, cell.retriever, cell.seed] for cell in cells],
        "tracking_uri": config.tracking_uri,
    }
    inputs = {f"{number}.{step.stage}": step for number, cell in enumerate(cells) for step in cell.steps}
    report = Step("report", config.name, 2, about, {"corpus": corpus, **inputs}, stages.report)
    return Plan(corpus, embeddings, tuple(cells), report)


def _cells(
    config: BenchmarkConfig, embeddings: Step, tokenizer: TokenizerConfig, seed: int
) -> Iterator[CellPlan]:
    """One for each retriever that looks at codes; a single one if there are no retrievers at all."""
    corpus, label = embeddings.inputs["corpus"], f"{tokenizer.name} seed {seed}"
    if tokenizer.codes:
        tokenize = _import(config, corpus, tokenizer, tokenizer.codes)
    else:
        collisions = {"collisions": config.collisions_of(tokenizer)}
        about = {**_resolved(tokenizer, config.semantic_ids), **collisions, "seed": seed}
        inputs = {"corpus": corpus, "embeddings": embeddings}
        tokenize = Step("tokenize", label, 2, about, inputs, stages.tokenize)
    if not config.retrievers:
        yield CellPlan(tokenizer.name, NO_RETRIEVER, seed, (tokenize,))
    for retriever in config.retrievers:
        if RETRIEVERS[retriever.kind].uses_ids:
            found = {"corpus": corpus, "ids": tokenize}
            steps = _fit_and_score(config, f"{retriever.name} {label}", retriever, found, seed)
            yield CellPlan(tokenizer.name, retriever.name, seed, (tokenize, *steps))


def _fit_and_score(
    config: BenchmarkConfig,
    label: str,
    retriever: RetrieverConfig,
    inputs: Mapping[str, Step],
    seed: int,
) -> tuple[Step, Step]:
    settings = {"kind": retriever.kind, "params": retriever.make().params(), "seed": seed}
    fit = Step("fit", label, 1, settings, inputs, stages.fit)
    measure = {"cutoffs": list(config.evaluation.cutoffs), "exclude_seen": config.evaluation.exclude_seen}
    score = Step("score", label, 1, measure, {"corpus": inputs["corpus"], "retriever": fit}, stages.score)
    return fit, score


def _import(config: BenchmarkConfig, corpus: Step, tokenizer: TokenizerConfig, codes: CodesConfig) -> Step:
    """One step for all seeds; the file counts by its content and what its name says of its format."""
    setting = f"tokenizers.{config.tokenizers.index(tokenizer)}.codes.file=FILE"
    about = {
        **codes.model_dump(mode="json", exclude={"file"}),
        "format": codes.file.suffix,
        "file_sha256": _sha256(codes.file, setting),
        "collisions": config.collisions_of(tokenizer),
    }
    work = partial(stages.import_codes, codes.file)
    return Step("tokenize", tokenizer.name, 1, about, {"corpus": corpus}, work)


def _resolved(tokenizer: TokenizerConfig, shared: Mapping[str, Any]) -> dict[str, Any]:
    """The class and all its arguments, and for a plug-in its source, so that editing it counts."""
    made = tokenizer.make(shared)
    kind = type(made)
    about = {"class": f"{kind.__module__}:{kind.__qualname__}", "params": made.params()}
    if not kind.__module__.startswith("semantic_ids."):
        about["source_sha256"] = hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()
    return about


def _ingest(config: BenchmarkConfig) -> Step:
    """Raw files count by their content, not by the place where they are."""
    about = config.data.model_dump(mode="json")
    raw = Path(about.pop("raw", "."))
    if config.data.reader == "amazon2014":
        for key in ("reviews", "meta"):
            about[f"{key}_sha256"] = _sha256(raw / about[key], "data.raw=FOLDER")
    return Step("ingest", config.name, 3, about, {}, partial(stages.ingest, raw))


def _sha256(path: Path, setting: str) -> str:
    """Of a file that ``--set setting`` would look for elsewhere."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; put the file there, or say where it is with "
            f"--set {setting}"
        ) from error
