"""Semantic IDs of a catalogue: which item has which codes, and which items share them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """Codes of N items, and the collision level that makes items and IDs one to one.

    Items that share all L codes form a *leaf*. Within a leaf they are told apart by a last digit
    (TIGER §3.1's disambiguation level). That digit is an arbitrary number, drawn in a fixed
    pseudo-random order so that it says nothing about an item, such as its place in the file.
    Retrievers therefore score leaves, and :meth:`expand` turns leaves into items.

    A catalogue may grow, see :meth:`extended`. What came later has the higher digits of its leaf:
    IDs once given out never change.

    Attributes:
        codes: ``(N, L)`` int64, one row an item.
        codebook_sizes: ``(K_1, …, K_L)``.
        generations: how many items came together, oldest first; N items at once if not given.

    Raises:
        ValueError: codes, codebook sizes and generations do not fit each other.
    """

    codes: Ints
    codebook_sizes: tuple[int, ...]
    generations: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        codes = self.codes
        if codes.ndim != 2 or codes.shape[1] != len(self.codebook_sizes):
            raise ValueError(
                f"codes of shape {codes.shape} do not fit {len(self.codebook_sizes)} codebook sizes"
            )
        if codes.dtype != np.int64:
            raise ValueError(f"codes must be int64, not {codes.dtype}")
        if len(codes) == 0:
            raise ValueError("a catalogue needs at least one item")
        for level, size in enumerate(self.codebook_sizes):
            low, high = int(codes[:, level].min()), int(codes[:, level].max())
            if low < 0 or high >= size:
                raise ValueError(f"level {level + 1} holds codes {low} … {high}, outside 0 … {size - 1}")
        if not self.generations:
            object.__setattr__(self, "generations", (len(codes),))
        if sum(self.generations) != len(codes) or min(self.generations) < 0:
            raise ValueError(f"generations {self.generations} are not those of {len(codes)} items")

    def extended(self, new_codes: Ints) -> Self:
        """The catalogue with more items behind; no row, code or digit of those in it changes.

        One that :func:`semantic_ids.collisions.sinkhorn` dealt out grows likewise: extend it with the
        nearest codes, as the tokenizer gives them, then call ``sinkhorn`` again, which deals out the
        new items only.

        Args:
            new_codes: ``(n, L)`` int64, from the tokenizer that gave the codes of the others.
        """
        if new_codes.shape[1:] != self.codes.shape[1:]:
            raise ValueError(f"new codes of shape {new_codes.shape} do not have {self.num_levels} levels")
        codes = np.concatenate([self.codes, new_codes])
        return type(self)(codes, self.codebook_sizes, (*self.generations, len(new_codes)))

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.codes)

    @property
    def num_levels(self) -> int:
        """L, without the collision level."""
        return self.codes.shape[1]

    @cached_property
    def _grouping(self) -> tuple[Ints, Ints]:
        if math.prod(self.codebook_sizes) < 2**63:  # numbers sort many times faster than rows
            paths = np.ravel_multi_index(tuple(self.codes.T), self.codebook_sizes)
            distinct, leaf_of_item = np.unique(paths, return_inverse=True)
            leaves = np.stack(np.unravel_index(distinct, self.codebook_sizes), axis=1).astype(np.int64)
        else:
            leaves, leaf_of_item = np.unique(self.codes, axis=0, return_inverse=True)
        return leaves, leaf_of_item.reshape(-1).astype(np.int64)

    @property
    def leaves(self) -> Ints:
        """``(M, L)`` int64: the distinct codes in lexicographic order; a leaf is a row of this."""
        return self._grouping[0]

    @property
    def leaf_of_item(self) -> Ints:
        """``(N,)`` int64."""
        return self._grouping[1]

    @cached_property
    def leaf_sizes(self) -> Ints:
        """``(M,)`` int64: how many items share each leaf; at least 1."""
        return np.bincount(self.leaf_of_item, minlength=len(self.leaves))

    @cached_property
    def _starts(self) -> Ints:
        return np.cumsum(self.leaf_sizes) - self.leaf_sizes

    @cached_property
    def items_by_leaf(self) -> Ints:
        """``(N,)`` int64: item rows, leaf after leaf, in the order of their digits."""
        # Of NumPy's generators only this one is promised to give the same numbers in all versions.
        shuffles = [np.random.RandomState(g).permutation(size) for g, size in enumerate(self.generations)]
        first = np.cumsum(self.generations) - self.generations
        shuffled = np.concatenate([start + order for start, order in zip(first, shuffles, strict=True)])
        return shuffled[np.argsort(self.leaf_of_item[shuffled], kind="stable")]

    @cached_property
    def collision_digits(self) -> Ints:
        """``(N,)`` int64: 0 for an item alone on its leaf, else its place among those that share it."""
        digits = np.empty(self.num_items, dtype=np.int64)
        digits[self.items_by_leaf] = np.arange(self.num_items) - np.repeat(self._starts, self.leaf_sizes)
        return digits

    @property
    def full_codes(self) -> Ints:
        """``(N, L + 1)`` int64, the digit last: no two items have the same."""
        return np.column_stack([self.codes, self.collision_digits])

    def items_of(self, code: tuple[int, ...]) -> list[int]:
        """The item rows with these L codes, in the order of their digits; empty if none has them."""
        leaf = np.flatnonzero((self.leaves == np.array(code)).all(axis=1))
        return [
            int(item) for at in leaf for item in self.items_by_leaf[self._starts[at] :][: self.leaf_sizes[at]]
        ]

    def expand(self, leaves: Ints, scores: Floats, width: int) -> tuple[Ints, Floats]:
        """Rankings of leaves → rankings of items.

        Args:
            leaves: ``(Q, k)`` int64, best first, ``-1`` behind the last.
            scores: ``(Q, k)`` float32.
            width: how many items a query gets, if its leaves hold so many.

        Returns:
            Items ``(Q, width)`` int64 padded with ``-1``, and their leaves' scores padded with
            ``-inf``. Items of one leaf stand together in the order of their digits.
        """
        queries, k = leaves.shape
        sizes = np.where(leaves >= 0, self.leaf_sizes[leaves], 0)
        ends = np.cumsum(sizes, axis=1)
        begins = ends - sizes
        # Places are looked up among the ends of all queries at once: row r is shifted by r·stride.
        stride = max(int(ends[:, -1].max(initial=0)), width) + 1
        shift = np.arange(queries)[:, None] * stride
        place = np.arange(width)
        column = np.searchsorted((ends + shift).ravel(), (place + shift).ravel(), side="right")
        column = column.reshape(queries, width) - np.arange(queries)[:, None] * k
        there = place < ends[:, -1:]
        column = np.where(there, column, 0)
        leaf = np.take_along_axis(leaves, column, axis=1)
        first = self._starts[leaf]
        at = np.where(there, first + place - np.take_along_axis(begins, column, axis=1), 0)
        return (
            np.where(there, self.items_by_leaf[at], -1),
            np.where(there, np.take_along_axis(scores, column, axis=1), -np.inf).astype(np.float32),
        )

    def save(self, folder: str | Path) -> None:
        """Write ``semantic_ids.safetensors``, then ``semantic_ids.json``; neither is ever half there."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "partial"
        save_file({"codes": np.ascontiguousarray(self.codes)}, partial)
        partial.rename(folder / "semantic_ids.safetensors")
        about = {"codebook_sizes": self.codebook_sizes, "generations": self.generations}
        partial.write_text(json.dumps(about) + "\n")
        partial.rename(folder / "semantic_ids.json")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote; what older versions wrote is one generation."""
        folder = Path(folder)
        about = json.loads((folder / "semantic_ids.json").read_text())
        codes = load_file(folder / "semantic_ids.safetensors")["codes"]
        return cls(codes, tuple(about["codebook_sizes"]), tuple(about.get("generations", ())))
