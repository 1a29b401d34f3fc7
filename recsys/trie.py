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
    """Prefixes of IDs, in one sorted array a level.

    The node of level l with parent p and code c is kept as the number ``p · K_l + c``. Its index
    is its place among the sorted numbers of its level, so nodes stand in the lexicographic order
    of their prefixes, the children of a node stand together, and the nodes of the last level are
    the rows of :attr:`SemanticIds.leaves <semantic_ids.ids.SemanticIds.leaves>`. The root, above
    level 0, is node 0 of a level of its own.

    Attributes:
        keys: for each level ``(nodes of the level,)`` int64, rising.
        codebook_sizes: ``(K_1, …, K_L)``.
        fan_outs: for each level the most children that one parent has there.
    """

    keys: tuple[Tensor, ...]
    codebook_sizes: tuple[int, ...]
    fan_outs: tuple[int, ...]

    @classmethod
    def build(cls, codes: Ints, codebook_sizes: tuple[int, ...], device: torch.device | None = None) -> Self:
        """The trie of all rows of ``codes`` ``(M, L)``, in any order; repeated rows count once."""
        keys, fan_outs = [], []
        node = np.zeros(len(codes), dtype=np.int64)
        for level, size in enumerate(codebook_sizes):
            level_keys, node = np.unique(node * size + codes[:, level], return_inverse=True)
            keys.append(torch.from_numpy(level_keys).to(device))
            fan_outs.append(int(np.bincount(level_keys // size).max()))
        return cls(tuple(keys), codebook_sizes, tuple(fan_outs))

    def children(self, level: int, parents: Tensor) -> Tensor:
        """Nodes of ``level`` under nodes of the level above.

        Args:
            level: 0 … L-1.
            parents: node indices of the level above, of any shape; for level 0 zeros, the root.

        Returns:
            ``(*parents.shape, fan_outs[level])`` int64 node indices, rising, ``-1`` behind the last.
        """
        size = self.codebook_sizes[level]
        first = torch.searchsorted(self.keys[level], parents * size)[..., None]
        end = torch.searchsorted(self.keys[level], (parents + 1) * size)[..., None]
        child = first + torch.arange(self.fan_outs[level], device=parents.device)
        return torch.where(child < end, child, -1)

    def codes(self, level: int, nodes: Tensor) -> Tensor:
        """The last code of each node's prefix, in the shape of ``nodes``; anything where a node is -1."""
        return self.keys[level][nodes] % self.codebook_sizes[level]
