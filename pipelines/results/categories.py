"""The items' categories, and how the first codes of their IDs divide them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from semantic_ids.ids import Ints

_MOST_CODES = 256


def read_categories(corpus: Path) -> tuple[list[str], Ints]:
    """The categories of an ``ingest`` folder.

    Returns:
        Their C names, that of the most items first, and ``(N,)`` int64: each item's place among the
        names, −1 for an item without a category.
    """
    of_item: list[str | None] = json.loads((corpus / "categories.json").read_text())
    found, counts = np.unique([name for name in of_item if name], return_counts=True)
    names = [str(name) for name in found[np.argsort(-counts, kind="stable")]]
    place = {name: number for number, name in enumerate(names)}
    return names, np.array([place[name] if name else -1 for name in of_item], dtype=np.int64)


@dataclass(frozen=True)
class CodeCategories:
    """Which categories the items of each code of the first level are of.

    Attributes:
        categories: C names, that of the most items first.
        codes: those that the most items use, these first; 256 at the most. A code of a single item is
            left out: it could not but be of one category.
        counts: for each code C numbers of items.
    """

    categories: list[str]
    codes: list[int]
    counts: list[list[int]]

    @classmethod
    def of(cls, codes: Ints, categories: Ints, names: list[str]) -> Self:
        """Count.

        Args:
            codes: ``(N,)`` int64, each item's first.
            categories, names: as of :func:`read_categories`.
        """
        known = categories >= 0
        used, counts = np.unique(codes[known], return_counts=True)
        by_count = np.argsort(-counts, kind="stable")[:_MOST_CODES]
        shown = used[by_count[counts[by_count] > 1]]
        return cls(
            names,
            shown.tolist(),
            [
                np.bincount(categories[known & (codes == code)], minlength=len(names)).tolist()
                for code in shown
            ],
        )

    def write(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote."""
        return cls(**json.loads(path.read_text()))
