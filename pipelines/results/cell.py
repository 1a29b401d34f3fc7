"""What one cell of a benchmark found: one tokenizer under one retriever with one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipelines.results.categories import CodeCategories
from recsys.evaluation.scores import QueryScores
from semantic_ids.collisions import Collisions

Curve = Sequence[tuple[int, float]]
"""Pairs of step and value."""


class CellName(NamedTuple):
    """What tells cells apart.

    Attributes:
        tokenizer: Its name in the benchmark, or :data:`~pipelines.config.benchmark.NO_TOKENIZER`.
        retriever: Its name in the benchmark, or :data:`~pipelines.config.benchmark.NO_RETRIEVER`.
        seed: Seed of both.
    """

    tokenizer: str
    retriever: str
    seed: int

    def __str__(self) -> str:
        return f"{self.tokenizer} · {self.retriever} · seed {self.seed}"


@dataclass(frozen=True)
class Failure:
    """A cell that has no results.

    Attributes:
        name: Tokenizer, retriever and seed.
        reason: The step that failed, and its error.
        digest: Hex digits of the result that it would have had.
    """

    name: CellName
    reason: str
    digest: str


@dataclass(frozen=True)
class Dataset:
    """What a benchmark ran on.

    Attributes:
        name: Name of the benchmark, as ``amazon2014-beauty``.
        digest: Hex digits that change with the prepared data.
        source: Which reader read it.
        counts: Such as ``{"users": 22363, "items": 12101}``.
    """

    name: str
    digest: str
    source: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class CellIds:
    """The semantic IDs of a cell.

    Attributes:
        digest: Hex digits that change with the codes. Seeds that share a table of codes share these.
        quality: Such as ``{"collision_rate": 0.01}``, and the seconds that fitting and encoding took.
        collisions: What happened to items with the same codes.
        code_categories: How the first codes divide the items' categories.
    """

    digest: str
    quality: Mapping[str, float]
    collisions: Collisions
    code_categories: CodeCategories | None = None


@dataclass(frozen=True)
class Cell:
    """Everything that one cell found.

    Attributes:
        name: Tokenizer, retriever and seed.
        ids: Its semantic IDs; None for a baseline.
        scores: Its score on each query of the evaluation set; None without a retriever.
        seconds: Time spent on its stages, by the clock.
        digest: Hex digits that change with anything the result depends on.
        curves: Metric of fitting to its curve. Names differ from those of scores, quality and diagnostics.
        params: Settings of its stages, possibly nested.
        diagnostics: What the retriever reports about itself, as ``{"search_error_at_10": 0.01}``; numbers or
            texts.
        answers: Number of answers of the test queries.
        unreachable: How many of these no ranking can hold, because ``exclude_seen`` leaves them out.
    """

    name: CellName
    ids: CellIds | None
    scores: QueryScores | None
    seconds: float
    digest: str
    curves: Mapping[str, Curve] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    answers: int = 0
    unreachable: int = 0

    @property
    def quality(self) -> Mapping[str, float]:
        """The quality of its semantic IDs; empty for a baseline."""
        return self.ids.quality if self.ids else {}

    def numeric_diagnostics(self) -> dict[str, float]:
        """Return the diagnostics that are numbers."""
        return {
            name: float(value) for name, value in self.diagnostics.items() if isinstance(value, (int, float))
        }
