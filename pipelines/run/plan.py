"""Lay out all steps of a benchmark before the first one runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.config.benchmark import BenchmarkConfig
from pipelines.config.methods import CodesConfig, RetrieverConfig, TokenizerConfig
from pipelines.names import NO_RETRIEVER, NO_TOKENIZER
from pipelines.results.cell import CellName, Failure
from pipelines.run import stages
from pipelines.run.digests import file_digest, folder_digest, plug_in_identity
from pipelines.run.store import Step
from recsys.datasets.readers import READERS
from recsys.evaluation.metrics import METRICS
from recsys.retrievers.registry import RETRIEVERS
from recsys.texts.embedding import find_encoder
from recsys.texts.encoder import TEXT_ENCODERS
from semantic_ids.registry import TOKENIZERS

VERSIONS = {"ingest": 9, "embed": 5, "tokenize": 5, "fit": 7, "score": 5, "report": 6}
"""Version of each stage: raise it when the same inputs should give something else."""


@dataclass(frozen=True)
class CellPlan:
    """The steps that lead to one cell.

    Attributes:
        name: Tokenizer, retriever and seed.
        steps: The cell's own steps in their order: to tokenize, to fit and to score. A baseline has no first
            one; where tokenizers alone are compared there is only the first one.
    """

    name: CellName
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Plan:
    """The steps of a benchmark.

    Attributes:
        config: The benchmark.
        corpus: The step that reads the corpus.
        first: What is computed before any cell: the corpus; published codes, so that a mistake in their
            files shows before hours of training; and embeddings, if anything needs them.
        cells: Cells in the order in which they run, baselines first.
        report: The last step. When it is done, everything is done.
    """

    config: BenchmarkConfig
    corpus: Step
    first: tuple[Step, ...]
    cells: tuple[CellPlan, ...]
    report: Step

    def steps(self) -> Iterator[Step]:
        """Yield all steps but the report, each once, in an order in which they can run."""
        seen = set()

        def with_inputs(step: Step) -> Iterator[Step]:
            if step.digest not in seen:
                seen.add(step.digest)
                for source in step.inputs.values():
                    yield from with_inputs(source)
                yield step

        for step in (*self.first, *(step for cell in self.cells for step in cell.steps)):
            yield from with_inputs(step)


def plan(config: BenchmarkConfig) -> Plan:
    """Lay out all steps of a benchmark. Raw files are read once, for their digests.

    Raises:
        ConfigError: If a raw file is not where the benchmark file says.
    """
    return _Planner(config).plan()


class _Planner:
    """Lays out the steps of one benchmark.

    Attributes:
        config: The benchmark.
        corpus: The step that reads the corpus.
        embeddings: The step that embeds texts.
        examples: The steps that examples are read from, by input name; queries with texts need embeddings.
    """

    def __init__(self, config: BenchmarkConfig) -> None:
        self.config = config
        self.corpus = self._ingest()
        self.embeddings = self._embed()
        self.examples = {"corpus": self.corpus}
        if config.data.is_search:
            self.examples["embeddings"] = self.embeddings

    def plan(self) -> Plan:
        """Return the steps of all cells, and of the report on them."""
        config = self.config
        cells = [
            *self._baseline_cells(),
            *(
                cell
                for seed in config.seeds
                for tokenizer in config.tokenizers
                for cell in self._cells(tokenizer, seed)
            ),
        ]
        tokenized = [cell.steps[0] for cell in cells if cell.name.tokenizer != NO_TOKENIZER]
        imported = [step for step in tokenized if "embeddings" not in step.inputs]
        needs_embeddings = config.data.is_search or len(imported) < len(tokenized)
        embedded = [self.embeddings] if needs_embeddings else []
        return Plan(
            config,
            self.corpus,
            (self.corpus, *imported, *embedded),
            tuple(cells),
            report_step(config, self.corpus, cells),
        )

    def needs_ids(self, retriever: RetrieverConfig) -> bool:
        """Return whether a retriever or any of its members uses semantic IDs."""
        members = [self.needs_ids(self.config.retriever(name)) for name in retriever.members]
        return any(members) if members else retriever.type.uses_ids

    def is_random(self, retriever: RetrieverConfig) -> bool:
        """Return whether another seed gives another retriever, or changes any of its members."""
        return _is_random(self.config, retriever)

    def _baseline_cells(self) -> Iterator[CellPlan]:
        """Yield a cell for each retriever without semantic IDs, for one seed if it is not random."""
        for seed in self.config.seeds:
            for name, steps in self._fits(None, seed).items():
                if seed == self.config.seeds[0] or self.is_random(self.config.retriever(name)):
                    yield CellPlan(CellName(NO_TOKENIZER, name, seed), steps)

    def _cells(self, tokenizer: TokenizerConfig, seed: int) -> Iterator[CellPlan]:
        """Yield a cell for each retriever that uses semantic IDs; a single one if there is none."""
        tokenize = self._tokenize(tokenizer, seed)
        if not self.config.retrievers_with_ids():
            yield CellPlan(CellName(tokenizer.name, NO_RETRIEVER, seed), (tokenize,))
        for name, steps in self._fits(tokenize, seed, tokenizer.name).items():
            yield CellPlan(CellName(tokenizer.name, name, seed), (tokenize, *steps))

    def _ingest(self) -> Step:
        """Return the step that reads the corpus. Raw files count by their content, not by their place."""
        data = self.config.data
        settings = data.model_dump(mode="json", exclude={"raw"})
        settings["sha256"] = {
            name: file_digest(
                (data.raw or Path()) / file, f"data.raw=FOLDER, or another name with data.{name}=FILE"
            )
            for name, file in data.files.items()
        }
        settings |= plug_in_identity(READERS, data.reader, READERS.load(data.reader))
        return Step(
            "ingest", self.config.name, VERSIONS["ingest"], settings, {}, partial(stages.ingest, data.raw)
        )

    def _embed(self) -> Step:
        """Return the step that embeds texts. A local model counts by its content: it may be trained on."""
        text = self.config.text
        settings = {"encoder": text.encoder, "params": text.arguments()}
        if text.encoder in TEXT_ENCODERS.names() or ":" in text.encoder:
            settings |= plug_in_identity(TEXT_ENCODERS, text.encoder, find_encoder(text.encoder))
        elif Path(text.encoder).is_dir():
            settings["encoder_sha256"] = folder_digest(Path(text.encoder))
        label = f"{self.config.name} {Path(text.encoder).name}"
        return Step("embed", label, VERSIONS["embed"], settings, {"corpus": self.corpus}, stages.embed)

    def _tokenize(self, tokenizer: TokenizerConfig, seed: int) -> Step:
        """Return the step that makes a tokenizer's semantic IDs; the same one for all seeds of a table."""
        collisions = self.config.collisions_of(tokenizer)
        if tokenizer.codes:
            return self._import(tokenizer, tokenizer.codes, collisions)
        created = tokenizer.create(self.config.semantic_ids)
        settings = {
            "class": f"{type(created).__module__}:{type(created).__qualname__}",
            "params": created.params(),
            "collisions": collisions,
            "seed": seed,
            **plug_in_identity(TOKENIZERS, tokenizer.recipe, type(created)),
        }
        return Step(
            "tokenize",
            f"{tokenizer.name} seed {seed}",
            VERSIONS["tokenize"],
            settings,
            {"corpus": self.corpus, "embeddings": self.embeddings},
            partial(stages.tokenize, tokenizer.name),
        )

    def _import(self, tokenizer: TokenizerConfig, codes: CodesConfig, collisions: str) -> Step:
        """Return the step that reads a table of codes. It counts by its content and its format."""
        number = self.config.tokenizers.index(tokenizer)
        settings = {
            **codes.model_dump(mode="json", exclude={"file"}),
            "format": codes.file.suffix.lower(),
            "file_sha256": file_digest(codes.file, f"tokenizers.{number}.codes.file=FILE"),
            "collisions": collisions,
        }
        return Step(
            "tokenize",
            tokenizer.name,
            VERSIONS["tokenize"],
            settings,
            {"corpus": self.corpus},
            partial(stages.import_codes, codes.file),
        )

    def _fits(self, tokenize: Step | None, seed: int, tokenizer: str = "") -> dict[str, tuple[Step, Step]]:
        """Return the steps ``fit`` and ``score`` of each retriever that fits to ``tokenize``, by its name.

        These are the retrievers that use semantic IDs if there is a tokenizer, else the others.
        """
        sources = {**self.examples, "ids": tokenize} if tokenize else self.examples
        steps = {}
        for retriever in self.config.retrievers:
            if self.needs_ids(retriever) == bool(tokenize):
                fit = self._fit(sources, retriever, seed, tokenizer)
                steps[retriever.name] = fit, self._score(fit)
        return steps

    def _fit(
        self, sources: Mapping[str, Step], retriever: RetrieverConfig, seed: int, tokenizer: str
    ) -> Step:
        """Return the step that fits a retriever; the fits of an ensemble's members are its inputs."""
        config, needs_ids = self.config, self.needs_ids(retriever)
        own_seed = seed if self.is_random(retriever) else config.seeds[0]
        label = " ".join([retriever.name, *([tokenizer] if needs_ids else []), f"seed {own_seed}"])
        members: dict[str, Step] = {}
        for turn in range(retriever.times):
            for member in map(config.retriever, retriever.members):
                if turn == 0 or self.is_random(member):  # else another seed would give the same again
                    name = f"{member.name}/{turn + 1}" if turn else member.name
                    members[name] = self._fit(sources, member, seed + 1000 * turn, tokenizer)
        inputs = {name: step for name, step in sources.items() if needs_ids or name != "ids"}
        inputs |= {f"member.{name}": member for name, member in members.items()}
        params = retriever.create().params()
        if members:  # an ensemble chooses its weights under the protocol of the benchmark
            params["exclude_seen"] = config.evaluation.exclude_seen
        settings = {
            "kind": retriever.kind,
            "params": params,
            "seed": own_seed,
            "relevant_gain": config.evaluation.relevant_gain,
            **plug_in_identity(RETRIEVERS, retriever.kind, retriever.type),
        }
        return Step("fit", label, VERSIONS["fit"], settings, inputs, stages.fit)

    def _score(self, fit: Step) -> Step:
        """Return the step that scores a fitted retriever."""
        evaluation = self.config.evaluation
        measured = {"cutoffs", "exclude_seen", "metrics", "relevant_gain"}
        settings = evaluation.model_dump(mode="json", include=measured)
        for name in evaluation.metrics:
            if identity := plug_in_identity(METRICS, name, METRICS.load(name).function):
                settings[f"metric {name}"] = identity
        inputs = {**self.examples, "retriever": fit}
        return Step("score", fit.label, VERSIONS["score"], settings, inputs, stages.score)


def _is_random(config: BenchmarkConfig, retriever: RetrieverConfig) -> bool:
    """Return whether another seed gives another retriever, or changes any of its members."""
    members = [_is_random(config, config.retriever(name)) for name in retriever.members]
    return any(members) if members else retriever.type.is_random


def _fixed(config: BenchmarkConfig) -> list[list[str]]:
    """Return retriever and tokenizer of all methods that are the same with every seed."""
    imported = [NO_TOKENIZER, *(tokenizer.name for tokenizer in config.tokenizers if tokenizer.codes)]
    same = [one.name for one in config.retrievers if not _is_random(config, one)]
    return [[retriever, tokenizer] for retriever in same for tokenizer in imported]


def report_step(
    config: BenchmarkConfig, corpus: Step, cells: Sequence[CellPlan], failures: Sequence[Failure] = ()
) -> Step:
    """Return the step that tests and reports cells.

    Args:
        config: The benchmark.
        corpus: The step that reads the corpus.
        cells: The cells with results.
        failures: The cells without.
    """
    settings = {
        "title": config.name,
        "evaluation": config.evaluation.model_dump(mode="json"),
        "labels": config.evaluation.labels(),
        "cells": [list(cell.name) for cell in cells],
        "fixed": _fixed(config),
        "failures": [[list(failure.name), failure.reason, failure.digest] for failure in failures],
    }
    inputs = {f"{number}.{step.stage}": step for number, cell in enumerate(cells) for step in cell.steps}
    return Step(
        "report", config.name, VERSIONS["report"], settings, {"corpus": corpus, **inputs}, stages.report
    )
