"""What the console shows of a benchmark: tables and sentences, ready to be drawn or kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table


@dataclass(frozen=True)
class OverviewTable:
    """A table of texts.

    Attributes:
        title: What is above it.
        headers: Headers of its columns.
        foldable: Headers of columns that begin at the left; only their cells may take several lines.
        rows: Cells of its rows.
        verdicts: The verdict of each row, which gives it a colour; may be empty.
    """

    title: str
    headers: Sequence[str]
    foldable: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdicts: Sequence[str]

    def drawn(self) -> Table:
        """Return the table as rich prints it."""
        table = Table(
            title=f"\n{self.title}",
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        for header in self.headers:
            folds = header in self.foldable
            table.add_column(header, justify="left" if folds else "right", no_wrap=not folds, overflow="fold")
        for row, verdict in zip(self.rows, self.verdicts, strict=True):
            table.add_row(*row, style={"better": "green", "worse": "red"}.get(verdict))
        return table


@dataclass(frozen=True)
class Overview:
    """Tables, and the sentences below them.

    Attributes:
        tables: The tables.
        sentences: The sentences.
    """

    tables: Sequence[OverviewTable]
    sentences: Sequence[str]

    def drawn(self) -> Group:
        """Return all of it as rich prints it."""
        parts: list[RenderableType] = [table.drawn() for table in self.tables]
        return Group(*parts, "", *(f"• {sentence}" for sentence in self.sentences))

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return what :meth:`as_json` gave."""
        return cls([OverviewTable(**table) for table in values["tables"]], values["sentences"])
