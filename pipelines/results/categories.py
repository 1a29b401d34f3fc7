"""Categories of items, and how the first codes of their semantic IDs divide them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from semantic_ids.types import Ints

_MOST_CODES = 256


def read_categories(corpus: Path) -> tuple[list[str], Ints]:
    """Return the categories of the items in an ``ingest`` folder.

    Returns:
        The names of C categories, the largest first; and ``(N,)`` int64, each item's position among the
        names, -1 for an item without a category.
    """
    of_item: list[str | None] = json.loads((corpus / "categories.json").read_text())
    found, counts = np.unique([name for name in of_item if name], return_counts=True)
    names = [str(name) for name in found[np.argsort(-counts, kind="stable")]]
    place = {name: number for number, name in enumerate(names)}
    return names, np.array([place[name] if name else -1 for name in of_item], dtype=np.int64)


@dataclass(frozen=True)
class CodeCategories:
    """The categories of the items of each first-level code.

    Attributes:
        categories: Names of C categories, the largest first.
        codes: At most 256 codes, those with the most items first. Codes of a single item are left out,
            because they have one category in any case.
        counts: For each code the number of its items in each of the C categories.
    """

    categories: list[str]
    codes: list[int]
    counts: list[list[int]]

    @classmethod
    def of(cls, codes: Ints, categories: Ints, names: list[str]) -> Self:
        """Count the categories of each code's items.

        Args:
            codes: ``(N,)`` int64, the first code of each item.
            categories: ``(N,)`` int64, as :func:`read_categories` returns them.
            names: Names of the categories.
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
        """Write a JSON file."""
        path.write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what :meth:`write` wrote."""
        return cls(**json.loads(path.read_text()))
