"""The semantic IDs of a catalogue: the codes of every item, and the items that share codes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from semantic_ids.digest import content_digest
from semantic_ids.files import atomic_write
from semantic_ids.persistence import read_description
from semantic_ids.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """The codes of N items, with a collision digit that makes every ID unique.

    Items that share all L codes form a *leaf*. A last digit distinguishes the items of a leaf (the
    disambiguation level of TIGER, §3.1). The digits of a leaf follow a fixed pseudo-random order, so they
    carry no information about the items, for example about their order in a file. Therefore retrievers
    score leaves, and :meth:`expand` turns leaves into items.

    A catalogue can grow, see :meth:`extended`. Items that are added later get higher digits in their
    leaf, so existing IDs never change.

    Attributes:
        codes: ``(N, L)`` int64, one row for each item.
        codebook_sizes: Number of codes of every level, ``(K_1, …, K_L)``.
        generations: Number of items that were added together, oldest first; by default all N items at once.

    Raises:
        ValueError: If codes, codebook sizes and generations do not fit each other.

    Example:
        Items 0 and 2 share both codes, so their digits are 0 and 1:

        >>> ids = SemanticIds(np.array([[3, 1], [0, 2], [3, 1]]), codebook_sizes=(4, 4))
        >>> ids.leaves.tolist()
        [[0, 2], [3, 1]]
        >>> ids.leaf_of_item.tolist()
        [1, 0, 1]
        >>> sorted(ids.full_codes.tolist())
        [[0, 2, 0], [3, 1, 0], [3, 1, 1]]
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
        """Return the catalogue with more items at its end; rows, codes and digits of old items stay.

        To extend IDs from :func:`semantic_ids.collisions.sinkhorn`, extend them with the nearest codes as
        the tokenizer returns them, and call ``sinkhorn`` again. It changes only the new items.

        Args:
            new_codes: Codes of the new items ``(n, L)`` int64, from the tokenizer of the old items.

        Raises:
            ValueError: If the codes have another number of levels, or do not fit the codebook sizes.

        Example:
            >>> ids = SemanticIds(np.array([[3, 1], [0, 2]]), codebook_sizes=(4, 4))
            >>> ids.extended(np.array([[3, 1]])).full_codes.tolist()
            [[3, 1, 0], [0, 2, 0], [3, 1, 1]]
        """
        if new_codes.shape[1:] != self.codes.shape[1:]:
            raise ValueError(f"new codes of shape {new_codes.shape} do not have {self.num_levels} levels")
        codes = np.concatenate([self.codes, new_codes])
        return type(self)(codes, self.codebook_sizes, (*self.generations, len(new_codes)))

    @property
    def num_items(self) -> int:
        """Number of items N."""
        return len(self.codes)

    @property
    def num_levels(self) -> int:
        """Number of levels L, without the collision digit."""
        return self.codes.shape[1]

    @cached_property
    def _grouping(self) -> tuple[Ints, Ints]:
        """The distinct codes ``(M, L)``, and each item's row in them ``(N,)``."""
        if math.prod(self.codebook_sizes) < 2**63:  # single numbers sort many times faster than rows
            paths = np.ravel_multi_index(tuple(self.codes.T), self.codebook_sizes)
            distinct, leaf_of_item = np.unique(paths, return_inverse=True)
            leaves = np.stack(np.unravel_index(distinct, self.codebook_sizes), axis=1).astype(np.int64)
        else:
            leaves, leaf_of_item = np.unique(self.codes, axis=0, return_inverse=True)
        return leaves, leaf_of_item.reshape(-1).astype(np.int64)

    @property
    def leaves(self) -> Ints:
        """The distinct codes in lexicographic order, ``(M, L)`` int64; each row is a leaf."""
        return self._grouping[0]

    @property
    def leaf_of_item(self) -> Ints:
        """The leaf of each item as a row of :attr:`leaves`, ``(N,)`` int64."""
        return self._grouping[1]

    @cached_property
    def leaf_sizes(self) -> Ints:
        """Number of items in each leaf, at least 1, ``(M,)`` int64."""
        return np.bincount(self.leaf_of_item, minlength=len(self.leaves))

    @cached_property
    def _leaf_starts(self) -> Ints:
        """Position of each leaf's first item in :attr:`items_by_leaf`, ``(M,)``."""
        return np.cumsum(self.leaf_sizes) - self.leaf_sizes

    @cached_property
    def items_by_leaf(self) -> Ints:
        """Item rows, leaf after leaf, in each leaf in the order of the digits, ``(N,)`` int64."""
        # RandomState is NumPy's only generator that promises the same numbers in all versions.
        shuffles = [np.random.RandomState(g).permutation(size) for g, size in enumerate(self.generations)]
        starts = np.cumsum(self.generations) - self.generations
        shuffled = np.concatenate([start + order for start, order in zip(starts, shuffles, strict=True)])
        return shuffled[np.argsort(self.leaf_of_item[shuffled], kind="stable")]

    @cached_property
    def collision_digits(self) -> Ints:
        """Position of each item among the items of its leaf, from 0, ``(N,)`` int64."""
        digits = np.empty(self.num_items, dtype=np.int64)
        digits[self.items_by_leaf] = np.arange(self.num_items) - np.repeat(self._leaf_starts, self.leaf_sizes)
        return digits

    @property
    def full_codes(self) -> Ints:
        """Codes with the collision digit as last column, ``(N, L + 1)`` int64; all rows differ."""
        return np.column_stack([self.codes, self.collision_digits])

    def items_of(self, code: tuple[int, ...]) -> list[int]:
        """Return the rows of the items with these L codes, in the order of their digits.

        Args:
            code: The L codes; the list is empty if no item has them.

        Example:
            >>> ids = SemanticIds(np.array([[3, 1], [0, 2], [3, 1]]), codebook_sizes=(4, 4))
            >>> sorted(ids.items_of((3, 1))), ids.items_of((2, 2))
            ([0, 2], [])
        """
        matches = np.flatnonzero((self.leaves == np.array(code)).all(axis=1))
        return [
            int(item)
            for leaf in matches
            for item in self.items_by_leaf[self._leaf_starts[leaf] :][: self.leaf_sizes[leaf]]
        ]

    def expand(self, leaves: Ints, scores: Floats, width: int) -> tuple[Ints, Floats]:
        """Turn rankings of leaves into rankings of items.

        Args:
            leaves: Leaves of each query ``(Q, k)`` int64, best first, padded with ``-1``.
            scores: Scores of the leaves ``(Q, k)`` float32.
            width: Number of items to return per query.

        Returns:
            Items ``(Q, width)`` int64, padded with ``-1`` if the leaves hold fewer, and the scores of
            their leaves ``(Q, width)`` float32, padded with ``-inf``. Items of a leaf are adjacent, in the
            order of their digits.

        Example:
            >>> ids = SemanticIds(np.array([[3, 1], [0, 2], [1, 1]]), codebook_sizes=(4, 4))
            >>> leaves, scores = np.array([[2, 0]]), np.array([[0.5, 0.25]], dtype=np.float32)
            >>> items, item_scores = ids.expand(leaves, scores, width=3)
            >>> items.tolist(), item_scores.tolist()
            ([[0, 1, -1]], [[0.5, 0.25, -inf]])
        """
        queries, k = leaves.shape
        sizes = np.where(leaves >= 0, self.leaf_sizes[leaves], 0)
        ends = np.cumsum(sizes, axis=1)
        begins = ends - sizes
        # One search covers the ends of all queries: the values of row r are shifted by r · stride.
        stride = max(int(ends[:, -1].max(initial=0)), width) + 1
        shift = np.arange(queries)[:, None] * stride
        rank = np.arange(width)
        column = np.searchsorted((ends + shift).ravel(), (rank + shift).ravel(), side="right")
        column = column.reshape(queries, width) - np.arange(queries)[:, None] * k
        filled = rank < ends[:, -1:]
        column = np.where(filled, column, 0)
        leaf = np.take_along_axis(leaves, column, axis=1)
        first = self._leaf_starts[leaf]
        position = np.where(filled, first + rank - np.take_along_axis(begins, column, axis=1), 0)
        return (
            np.where(filled, self.items_by_leaf[position], -1),
            np.where(filled, np.take_along_axis(scores, column, axis=1), -np.inf).astype(np.float32),
        )

    def save(self, folder: str | Path) -> None:
        """Write ``semantic_ids.safetensors``, then ``semantic_ids.json``, into ``folder``.

        Neither file is ever incomplete, see :func:`semantic_ids.files.atomic_write`. The second one holds a
        digest of the content of both.
        """
        codes = {"codes": torch.from_numpy(np.ascontiguousarray(self.codes))}
        with atomic_write(Path(folder, "semantic_ids.safetensors")) as partial:
            save_file(codes, partial)
        description = {"codebook_sizes": self.codebook_sizes, "generations": self.generations}
        with atomic_write(Path(folder, "semantic_ids.json")) as partial:
            sealed = {**description, "digest": content_digest(codes, description)}
            partial.write_text(json.dumps(sealed) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read the IDs that :meth:`save` wrote.

        Files of version 0.1.0 have no digest, and older ones no generations but a single one.

        Raises:
            ValueError: If a file is damaged. The message names it.
        """
        path = Path(folder, "semantic_ids.json")
        codes_path = path.with_name("semantic_ids.safetensors")
        description = read_description(path, ("codebook_sizes",), ("generations",))
        digest = description.pop("digest", None)
        try:
            codes = load_file(codes_path)
            if digest not in (None, content_digest(codes, description)):
                raise ValueError("the content does not have the digest that it was saved with")
            sizes, generations = description["codebook_sizes"], description.get("generations", ())
            return cls(codes["codes"].numpy(), tuple(sizes), tuple(generations))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{codes_path} or {path.name} beside it is damaged: {error}") from error
