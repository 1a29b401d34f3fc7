"""From a benchmark's configuration to the steps it takes, all of them known before the first runs."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pipelines.config.benchmark import (
    BenchmarkConfig,
    CodesConfig,
    ConfigError,
    RetrieverConfig,
    TokenizerConfig,
)
from pipelines.results.summary import NO_RETRIEVER, NO_TOKENIZER
from pipelines.run import stages
from pipelines.run.store import Step
from recsys.datasets.readers import READERS
from semantic_ids.registry import ENTRY_POINTS

_TOKENIZE_VERSION = 3
"""Of fitting and of importing alike: one stage, whose files are written by one function."""

_FIT_VERSION = 5


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
        corpus: what all cells share.
        first: what is made before any cell: the corpus; the codes of others, in whose files a mistake
            is found thus before hours of training; and embeddings, if a tokenizer learns from them or
            queries are asked in words.
        cells: in the order they are run, those without a tokenizer first.
        report: the last step; when it is done, all is.
    """

    corpus: Step
    first: tuple[Step, ...]
    cells: tuple[CellPlan, ...]
    report: Step

    def steps(self) -> Iterator[Step]:
        """All but the report, each once, in an order in which they can be made."""
        seen = set()

        def needed(step: Step) -> Iterator[Step]:
            if step.digest not in seen:
                seen.add(step.digest)
                for made_before in step.inputs.values():
                    yield from needed(made_before)
                yield step

        for step in (*self.first, *(step for cell in self.cells for step in cell.steps)):
            yield from needed(step)


def plan(config: BenchmarkConfig) -> Plan:
    """Lay out all steps; raw files are read once, for their digests.

    Raises:
        ConfigError: a raw file is not where the configuration says.
    """
    corpus = _ingest(config)
    text = config.text.model_dump(mode="json")
    encoder = Path(config.text.encoder)
    if encoder.is_dir() and config.text.encoder not in ("lsa", "minilm"):
        text["encoder_sha256"] = _sha256_of(_files_in(encoder, "*"))  # it may be trained further
    label = f"{config.name} {Path(config.text.encoder).name}"
    embeddings = Step("embed", label, 3, text, {"corpus": corpus}, stages.embed)
    floors = [
        CellPlan(NO_TOKENIZER, name, seed, steps)
        for seed in config.seeds
        for name, steps in _fits(config, embeddings, None, seed).items()
        if seed == config.seeds[0] or config.is_random(config.retriever(name))
    ]
    cells = [
        cell
        for seed in config.seeds
        for tokenizer in config.tokenizers
        for cell in _cells(config, embeddings, tokenizer, seed)
    ]
    tokenized = [cell.steps[0] for cell in cells]
    cells = [*floors, *cells]
    imported = [step for step in tokenized if "embeddings" not in step.inputs]
    embedded = [embeddings] if config.data.is_search or len(imported) < len(tokenized) else []
    about = {
        "title": config.name,
        "evaluation": config.evaluation.model_dump(mode="json"),
        "cells": [[cell.tokenizer, cell.retriever, cell.seed] for cell in cells],
        "tracking_uri": config.tracking_uri,
    }
    inputs = {f"{number}.{step.stage}": step for number, cell in enumerate(cells) for step in cell.steps}
    report = Step("report", config.name, 4, about, {"corpus": corpus, **inputs}, stages.report)
    return Plan(corpus, (corpus, *imported, *embedded), tuple(cells), report)


def _cells(
    config: BenchmarkConfig, embeddings: Step, tokenizer: TokenizerConfig, seed: int
) -> Iterator[CellPlan]:
    """One for each retriever that looks at codes; a single one if there is none."""
    corpus, label = embeddings.inputs["corpus"], f"{tokenizer.name} seed {seed}"
    if tokenizer.codes:
        tokenize = _import(config, corpus, tokenizer, tokenizer.codes)
    else:
        collisions = {"collisions": config.collisions_of(tokenizer)}
        about = {**_resolved(tokenizer, config.semantic_ids), **collisions, "seed": seed}
        inputs = {"corpus": corpus, "embeddings": embeddings}
        work = partial(stages.tokenize, tokenizer.name)
        tokenize = Step("tokenize", label, _TOKENIZE_VERSION, about, inputs, work)
    if not config.uses_ids():
        yield CellPlan(tokenizer.name, NO_RETRIEVER, seed, (tokenize,))
    for name, steps in _fits(config, embeddings, tokenize, seed, tokenizer.name).items():
        yield CellPlan(tokenizer.name, name, seed, (tokenize, *steps))


def _fits(
    config: BenchmarkConfig, embeddings: Step, tokenize: Step | None, seed: int, tokenizer: str = ""
) -> dict[str, tuple[Step, Step]]:
    """Name of a retriever → its steps ``fit`` and ``score``.

    Of those that look at semantic IDs if there is a tokenizer, else of the others.
    """
    examples = _examples(config, embeddings)
    sources = {**examples, "ids": tokenize} if tokenize else examples
    chosen = {}
    for retriever in config.retrievers:
        if config.needs_ids(retriever) == bool(tokenize):
            fit = _fit(config, sources, retriever, seed, tokenizer)
            chosen[retriever.name] = fit, _score(config, examples, fit)
    return chosen


def _fit(
    config: BenchmarkConfig,
    sources: Mapping[str, Step],
    retriever: RetrieverConfig,
    seed: int,
    tokenizer: str,
) -> Step:
    """One step; of a fused retriever the members' steps are inputs, each as many times as it says."""
    needs_ids = config.needs_ids(retriever)
    first = config.seeds[0] if not config.is_random(retriever) else seed
    words = [retriever.name, *([tokenizer] if needs_ids else []), f"seed {first}"]
    members: dict[str, Step] = {}
    for turn in range(retriever.times):
        for member in map(config.retriever, retriever.members):
            if turn == 0 or config.is_random(member):  # else another seed would give the same again
                name = f"{member.name}/{turn + 1}" if turn else member.name
                members[name] = _fit(config, sources, member, seed + 1000 * turn, tokenizer)
    inputs = {name: step for name, step in sources.items() if needs_ids or name != "ids"}
    inputs |= {f"member.{name}": member for name, member in members.items()}
    params = retriever.make().params()
    if members:  # their weights are chosen under the protocol of the benchmark
        params["exclude_seen"] = config.evaluation.exclude_seen
    relevant = config.evaluation.relevant_gain
    settings = {"kind": retriever.kind, "params": params, "seed": first, "relevant_gain": relevant}
    return Step("fit", " ".join(words), _FIT_VERSION, settings, inputs, stages.fit)


def _examples(config: BenchmarkConfig, embeddings: Step) -> dict[str, Step]:
    """What examples are read from: queries in words are asked by their embeddings."""
    asked = {"embeddings": embeddings} if config.data.is_search else {}
    return {"corpus": embeddings.inputs["corpus"], **asked}


def _score(config: BenchmarkConfig, examples: Mapping[str, Step], fit: Step) -> Step:
    measured = {"cutoffs", "exclude_seen", "relevant_gain"}
    measure = config.evaluation.model_dump(mode="json", include=measured)
    return Step("score", fit.label, 3, measure, {**examples, "retriever": fit}, stages.score)


def _import(config: BenchmarkConfig, corpus: Step, tokenizer: TokenizerConfig, codes: CodesConfig) -> Step:
    """One step for all seeds; the file counts by its content and what its name says of its format."""
    setting = f"tokenizers.{config.tokenizers.index(tokenizer)}.codes.file=FILE"
    about = {
        **codes.model_dump(mode="json", exclude={"file"}),
        "format": codes.file.suffix.lower(),
        "file_sha256": _sha256(codes.file, setting),
        "collisions": config.collisions_of(tokenizer),
    }
    work = partial(stages.import_codes, codes.file)
    return Step("tokenize", tokenizer.name, _TOKENIZE_VERSION, about, {"corpus": corpus}, work)


def _resolved(tokenizer: TokenizerConfig, shared: Mapping[str, Any]) -> dict[str, Any]:
    """The class and all its arguments, and for a plug-in its source and version, so that a change counts."""
    made = tokenizer.make(shared)
    kind = type(made)
    about: dict[str, Any] = {"class": f"{kind.__module__}:{kind.__qualname__}", "params": made.params()}
    if not kind.__module__.startswith("semantic_ids."):
        about["source_sha256"] = _sha256_of(_source(kind.__module__))
        for entry in entry_points(group=ENTRY_POINTS, name=tokenizer.recipe):
            about["version"] = entry.dist.version if entry.dist else None
    return about


def _sha256_of(files: Mapping[str, Path]) -> str:
    """Of some files' contents, each under a name."""
    digests = []
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            digests.append(name + hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _files_in(folder: Path, pattern: str) -> dict[str, Path]:
    """By their paths in the folder."""
    return {str(file.relative_to(folder)): file for file in folder.rglob(pattern) if file.is_file()}


def _source(module: str) -> dict[str, Path]:
    """All of a module's package; of a loose module, it and what it imports of what lies beside it."""
    top = sys.modules[module.partition(".")[0]]
    folders = list(getattr(top, "__path__", ()))
    if folders:
        return {name: file for folder in folders for name, file in _files_in(Path(folder), "*.py").items()}
    todo = [Path(inspect.getfile(top))]
    found: dict[str, Path] = {}
    while todo:
        file = todo.pop()
        found[file.name] = file
        names: set[str] = set()
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
        for name in names:
            beside = file.with_name(name)
            if beside.is_dir():
                found |= {f"{name}/{path}": part for path, part in _files_in(beside, "*.py").items()}
            elif (loose := file.with_name(f"{name}.py")).is_file() and loose.name not in found:
                todo.append(loose)
    return found


def _ingest(config: BenchmarkConfig) -> Step:
    """Raw files count by their content, not by the place where they are."""
    data = config.data
    about = data.model_dump(mode="json", exclude={"raw"})
    about["sha256"] = {
        name: _sha256((data.raw or Path()) / file, f"data.raw=FOLDER, or another name with data.{name}=FILE")
        for name, file in data.files.items()
    }
    if data.reader not in READERS:
        about["source_sha256"] = _sha256_of(_source(data.reader.partition(":")[0]))
    return Step("ingest", config.name, 7, about, {}, partial(stages.ingest, data.raw))


def _sha256(path: Path, setting: str) -> str:
    """Of a file that ``--set setting`` would look for elsewhere."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        there = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, there, n=1)
        instead = f" ({close[0]} is there)" if close else ""
        raise ConfigError(
            f"cannot read {path}: {error.strerror}{instead}; put the file there, or say where it is with "
            f"--set {setting}"
        ) from error
