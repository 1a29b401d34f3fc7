"""A trie of semantic IDs in flat arrays, which restricts a decoder to the IDs of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from semantic_ids.types import Ints


@dataclass(frozen=True)
class Trie:
    """A trie of semantic IDs, stored in two flat arrays per level.

    A node is a prefix of an ID. The nodes of a level are numbered in the lexicographic order of their
    prefixes. Therefore the children of a node have consecutive numbers, and the nodes of the last level are
    the rows of :attr:`SemanticIds.leaves <semantic_ids.ids.SemanticIds.leaves>`. The root (the empty prefix)
    is node 0 of a level of its own, above level 0.

    Attributes:
        starts: For each level ``(nodes of the level above + 1,)`` int32. The children of node p are the
            nodes ``starts[p] … starts[p + 1] - 1``.
        last_codes: For each level ``(nodes of the level,)``, the last code of each prefix, in the smallest
            integer type that holds the codes of the level.
        fan_outs: For each level the largest number of children of one parent.
    """

    starts: tuple[Tensor, ...]
    last_codes: tuple[Tensor, ...]
    fan_outs: tuple[int, ...]

    @classmethod
    def build(cls, leaves: Ints, codebook_sizes: tuple[int, ...], device: torch.device | None = None) -> Self:
        """Build the trie of M leaves, in one pass per level.

        Args:
            leaves: ``(M, L)`` int64, distinct and in lexicographic order, like ``SemanticIds.leaves``.
            codebook_sizes: Number of codes of each level, ``(K_1, …, K_L)``.
            device: Device of the arrays; the CPU by default.

        Raises:
            ValueError: If leaves and codebook sizes do not fit each other, or if the leaves are not distinct
                and in order.

        Example:
            >>> trie = Trie.build(np.array([[0, 1], [2, 0], [2, 3]]), codebook_sizes=(3, 4))
            >>> trie.children(1, torch.tensor([0, 1])).tolist()
            [[0, -1], [1, 2]]
        """
        if len(leaves) == 0 or leaves.shape[1:] != (len(codebook_sizes),):
            raise ValueError(
                f"leaves of shape {leaves.shape} do not fit {len(codebook_sizes)} codebook sizes"
            )
        starts, last_codes = [], []
        first_leaves = np.zeros(1, dtype=np.int64)  # the first leaf below each node of the level above
        is_first = np.zeros(len(leaves), dtype=bool)  # whether a leaf is the first one below its node
        is_first[0] = True
        for level, size in enumerate(codebook_sizes):
            codes = leaves[:, level].astype(_integers_below(size))
            if (leaves[:, level] != codes).any() or codes.min() < 0 or codes.max() >= size:
                raise ValueError(f"level {level + 1} holds codes outside 0 … {size - 1}")
            if (~is_first[1:] & (codes[1:] < codes[:-1])).any():
                raise ValueError(
                    "the leaves of a trie must be in lexicographic order: SemanticIds.leaves are"
                )
            is_first[1:] |= codes[1:] != codes[:-1]
            nodes = np.cumsum(is_first, dtype=np.int32)  # the node above each leaf, counted from 1
            starts.append(np.append(nodes[first_leaves] - 1, nodes[-1]).astype(np.int32))
            first_leaves = np.flatnonzero(is_first)
            last_codes.append(codes[first_leaves])
        if not is_first.all():
            raise ValueError("the leaves of a trie must be distinct: SemanticIds.leaves are")
        return cls(
            tuple(torch.from_numpy(level).to(device) for level in starts),
            tuple(torch.from_numpy(level).to(device) for level in last_codes),
            tuple(int(np.diff(level).max()) for level in starts),
        )

    def children(self, level: int, parents: Tensor) -> Tensor:
        """Return the children of nodes.

        Args:
            level: Level of the children, 0 … L-1.
            parents: Nodes of the level above, of any shape; zeros (the root) if the level is 0. A parent of
                -1 has no children.

        Returns:
            ``(*parents.shape, fan_outs[level])`` int64, nodes of the level in rising order, filled up with
            ``-1``.
        """
        starts = self.starts[level]
        # A parent of -1 reads starts[-1], the number of nodes, as first child and starts[0] = 0 as end:
        # no child is below the end.
        first, end = starts[parents][..., None], starts[parents + 1][..., None]
        child = first + torch.arange(self.fan_outs[level], device=parents.device)
        return torch.where(child < end, child, -1)

    def allowed(self, leaves: Tensor, codebook_sizes: tuple[int, ...]) -> list[Tensor]:
        """Return which codes of each level continue a leaf's prefix to some ID of the catalogue.

        Args:
            leaves: Nodes of the last level, of any shape.
            codebook_sizes: Number of codes of each level, ``(K_1, …, K_L)``.

        Returns:
            For each level l ``(*leaves.shape, K_l)`` bool: True at code c if some ID of the catalogue has
            the leaf's first l codes (levels are counted from 0), followed by c.
        """
        masks, nodes = [], leaves
        for level, size in reversed(list(enumerate(codebook_sizes))):
            nodes = torch.searchsorted(self.starts[level], nodes.int(), right=True) - 1  # their parents
            parents, parent_of_leaf = nodes.unique(return_inverse=True)
            children = self.children(level, parents)
            codes = self.codes(level, children).masked_fill(children < 0, size)
            mask = torch.zeros(len(parents), size + 1, dtype=torch.bool, device=nodes.device)
            masks.append(mask.scatter_(1, codes, True)[:, :size][parent_of_leaf])
        return masks[::-1]

    def codes(self, level: int, nodes: Tensor) -> Tensor:
        """Return the last code of each node's prefix, int64 in the shape of ``nodes``.

        For a node of -1 the result is an arbitrary code of the level.
        """
        return self.last_codes[level][nodes].long()


def _integers_below(size: int) -> type[np.signedinteger] | type[np.unsignedinteger]:
    """Return the smallest integer type for numbers below ``size``, out of those that torch can index."""
    return next(kind for kind in (np.uint8, np.int16, np.int32, np.int64) if size - 1 <= np.iinfo(kind).max)
