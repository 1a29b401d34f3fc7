"""Examples on the model's device: gathered there, and histories padded no more than they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from recsys.examples import Examples, Ragged

# A CPU pays for padding, so it works on small parts of like length; a GPU pays for each call.
_PARTS, _ROWS_OF_A_PART = {"cpu": 8}, 16


@dataclass(frozen=True)
class Histories:
    """A :class:`~recsys.examples.Ragged` of item rows, its values on a device.

    Attributes:
        values: ``(M + 1,)`` int64, on the device; the last one is -1, padding.
        starts: ``(R,)`` int64, on the device.
        lengths: ``(R,)`` int64, on the CPU, where shapes are decided.
    """

    values: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, ragged: Ragged, device: torch.device) -> Self:
        """Move there what the rows refer to."""
        if ragged.lengths.sum() < len(ragged.values):  # a few rows of many: no need to move them all
            ragged = Ragged.from_lengths(ragged.flat(), ragged.lengths)
        values, starts = torch.from_numpy(np.append(ragged.values, -1)), torch.from_numpy(ragged.starts)
        return cls(values.to(device), starts.to(device), torch.from_numpy(ragged.lengths))

    def padded(self, rows: Tensor) -> Tensor:
        """Some rows, ``(B,)`` int64 on the CPU, as ``(B, T)`` item rows, -1 behind the last.

        T is the longest of their lengths, and at least 1.
        """
        lengths, device = self.lengths[rows], self.values.device
        place = torch.arange(max(1, int(lengths.max())), device=device)
        at = self.starts[rows.to(device)][:, None] + place
        return self.values[torch.where(place < lengths.to(device)[:, None], at, -1)]

    def by_length(self, rows: Tensor) -> list[Tensor]:
        """The same rows, shortest first, in as many parts as the device likes; no part is empty."""
        parts = min(_PARTS.get(self.values.device.type, 1), -(-len(rows) // _ROWS_OF_A_PART))
        shortest_first = rows[self.lengths[rows].argsort(stable=True)]
        return list(shortest_first.tensor_split(parts)) if parts else []


@dataclass(frozen=True)
class TextVectors:
    """What queries say in words, as vectors on a device: of the texts of a corpus those that are asked.

    Attributes:
        vectors: ``(T, D)`` float32.
        rows: ``(Q,)`` int64, the row of each query.
    """

    vectors: Tensor
    rows: Tensor

    @classmethod
    def of(cls, examples: Examples, device: torch.device) -> Self | None:
        """Move there what the examples refer to; None if they have no texts."""
        if examples.texts is None or examples.text_rows is None:
            return None
        asked, rows = np.unique(examples.text_rows, return_inverse=True)
        return cls(
            torch.from_numpy(examples.texts.vectors[asked]).to(device), torch.from_numpy(rows).to(device)
        )

    def __getitem__(self, queries: Tensor) -> Tensor:
        """Those of some queries, ``(B,)`` int64, as ``(B, D)``."""
        return self.vectors[self.rows[queries.to(self.rows.device)]]


@dataclass(frozen=True)
class CausalPairs:
    """Training pairs of one causal pass: histories that begin at the same place are one row.

    Where queries have texts, those without a history have nothing to share: each is a row.

    Attributes:
        histories: the longest history of each group of pairs.
        pairs: for each group the numbers of its pairs.
        lengths: ``(P,)`` int64 on the CPU, the length of each pair's history.
        targets: ``(P,)`` int64 on the device, each pair's target item.
        queries: ``(P,)`` int64 on the device, the row of each pair in the examples.
        groups: ``(P,)`` int64 on the device, the group of each pair.
    """

    histories: Histories
    pairs: Ragged
    lengths: Tensor
    targets: Tensor
    queries: Tensor
    groups: Tensor

    @classmethod
    def of(cls, examples: Examples, max_history: int, device: torch.device) -> Self:
        """Group the pairs of history and target that examples stand for; of a history the latest items."""
        pairs = examples.pairs()
        history, queries = pairs.history.last(max_history), examples.targets.row_ids()
        starts = history.starts
        if examples.texts is not None:
            starts = np.where(history.lengths == 0, -1 - queries, starts)
        _, group = np.unique(starts, return_inverse=True)
        order = np.lexsort((history.stops, group))
        members = Ragged.from_lengths(order, np.bincount(group))
        longest = history.select(order[members.stops - 1])
        return cls(
            Histories.of(longest, device),
            members,
            torch.from_numpy(history.lengths),
            *(torch.from_numpy(values).to(device) for values in (pairs.targets.flat(), queries, group)),
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Some groups, ``(B,)`` int64 on the CPU, and what is asked of them.

        Returns:
            Item rows ``(B, T)``, -1 behind the last; of A pairs, ``(2, A)``, the row in the batch and
            how many items come before the target; and the numbers of these pairs, ``(A,)``.
        """
        device = self.targets.device
        asked = self.pairs.select(rows.numpy())
        pairs = torch.from_numpy(asked.flat())
        at = torch.stack([torch.from_numpy(asked.row_ids()), self.lengths[pairs]])
        return self.histories.padded(rows), at.to(device), pairs.to(device)
