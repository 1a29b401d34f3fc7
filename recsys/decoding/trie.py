"""The catalogue's semantic IDs as a prefix tree in flat arrays: what a decoder may write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from semantic_ids.ids import Ints


@dataclass(frozen=True)
class Trie:
    """Prefixes of IDs, two small arrays a level.

    The nodes of a level are numbered in the lexicographic order of their prefixes. So the children
    of a node stand together, and the nodes of the last level are the rows of
    :attr:`SemanticIds.leaves <semantic_ids.ids.SemanticIds.leaves>`. The root, above level 0, is
    node 0 of a level of its own.

    Attributes:
        starts: for each level ``(nodes of the level above + 1,)`` int32: the children of node p are
            the nodes ``starts[p] … starts[p + 1] - 1``.
        last_codes: for each level ``(nodes of the level,)``: each prefix's last code, in the smallest
            type that holds the level's codes.
        fan_outs: for each level the most children that one parent has there.
    """

    starts: tuple[Tensor, ...]
    last_codes: tuple[Tensor, ...]
    fan_outs: tuple[int, ...]

    @classmethod
    def build(cls, leaves: Ints, codebook_sizes: tuple[int, ...], device: torch.device | None = None) -> Self:
        """The trie of M leaves, in one pass a level.

        Args:
            leaves: ``(M, L)`` int64, distinct and in lexicographic order, as ``SemanticIds.leaves`` are.
            codebook_sizes: ``(K_1, …, K_L)``.
            device: where the arrays are kept.

        Raises:
            ValueError: leaves and codebook sizes do not fit, or the leaves are not distinct and in order.
        """
        if len(leaves) == 0 or leaves.shape[1:] != (len(codebook_sizes),):
            raise ValueError(
                f"leaves of shape {leaves.shape} do not fit {len(codebook_sizes)} codebook sizes"
            )
        starts, last_codes = [], []
        rows = np.zeros(1, dtype=np.int64)  # of each node of the level above, the first leaf under it
        opens = np.zeros(len(leaves), dtype=bool)  # whether a leaf is the first one under its node
        opens[0] = True
        for level, size in enumerate(codebook_sizes):
            codes = leaves[:, level].astype(_integers_below(size))
            if (leaves[:, level] != codes).any() or codes.min() < 0 or codes.max() >= size:
                raise ValueError(f"level {level + 1} holds codes outside 0 … {size - 1}")
            if (~opens[1:] & (codes[1:] < codes[:-1])).any():
                raise ValueError(
                    "the leaves of a trie must be in lexicographic order: SemanticIds.leaves are"
                )
            opens[1:] |= codes[1:] != codes[:-1]
            nodes = np.cumsum(opens, dtype=np.int32)
            starts.append(np.append(nodes[rows] - 1, nodes[-1]).astype(np.int32))
            rows = np.flatnonzero(opens)
            last_codes.append(codes[rows])
        if not opens.all():
            raise ValueError("the leaves of a trie must be distinct: SemanticIds.leaves are")
        return cls(
            tuple(torch.from_numpy(level).to(device) for level in starts),
            tuple(torch.from_numpy(level).to(device) for level in last_codes),
            tuple(int(np.diff(level).max()) for level in starts),
        )

    def children(self, level: int, parents: Tensor) -> Tensor:
        """Nodes of ``level`` under nodes of the level above.

        Args:
            level: 0 … L-1.
            parents: node indices of the level above, of any shape; for level 0 zeros, the root. A
                parent of -1 has no children.

        Returns:
            ``(*parents.shape, fan_outs[level])`` int64 node indices, rising, ``-1`` behind the last.
        """
        starts = self.starts[level]
        # At -1 the first child would be the one behind the last node, and the end is 0: there is none.
        first, end = starts[parents][..., None], starts[parents + 1][..., None]
        child = first + torch.arange(self.fan_outs[level], device=parents.device)
        return torch.where(child < end, child, -1)

    def allowed(self, leaves: Tensor, codebook_sizes: tuple[int, ...]) -> list[Tensor]:
        """Which codes go on from the prefixes of some leaves: for each level ``(*leaves.shape, K_l)`` bool.

        Args:
            leaves: nodes of the last level.
            codebook_sizes: ``(K_1, …, K_L)``.
        """
        masks, nodes = [], leaves
        for level, size in reversed(list(enumerate(codebook_sizes))):
            nodes = torch.searchsorted(self.starts[level], nodes.int(), right=True) - 1  # their parents
            parents, of_each = nodes.unique(return_inverse=True)
            children = self.children(level, parents)
            codes = self.codes(level, children).masked_fill(children < 0, size)
            mask = torch.zeros(len(parents), size + 1, dtype=torch.bool, device=nodes.device)
            masks.append(mask.scatter_(1, codes, True)[:, :size][of_each])
        return masks[::-1]

    def codes(self, level: int, nodes: Tensor) -> Tensor:
        """The last code of each node's prefix, int64 in the shape of ``nodes``; of -1, any code."""
        return self.last_codes[level][nodes].long()


def _integers_below(size: int) -> type[np.signedinteger] | type[np.unsignedinteger]:
    """The smallest type for numbers below ``size``, of those that torch can index."""
    return next(kind for kind in (np.uint8, np.int16, np.int32, np.int64) if size - 1 <= np.iinfo(kind).max)
