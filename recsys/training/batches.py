"""Examples on the model's device, and batches of them with little padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from recsys.examples import Examples, Ragged

# On a CPU padding costs time, so a batch is cut into up to 8 parts of similar length, with 16 rows or more
# in each. On a GPU every call costs time, so a batch stays whole.
_MAX_PARTS, _MIN_ROWS = {"cpu": 8}, 16


@dataclass(frozen=True)
class Histories:
    """R histories of item rows, a :class:`~recsys.examples.Ragged` whose values are on a device.

    Attributes:
        values: ``(M + 1,)`` int64, on the device; the last value is -1, the padding.
        starts: ``(R,)`` int64, on the device; index in ``values`` where each history begins.
        lengths: ``(R,)`` int64, on the CPU, because the shapes of batches are computed there.
    """

    values: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def from_ragged(cls, ragged: Ragged, device: torch.device) -> Self:
        """Copy the values that the rows use to a device."""
        if ragged.lengths.sum() < len(ragged.values):  # the rows leave out some values: do not copy those
            ragged = Ragged.from_lengths(ragged.flat(), ragged.lengths)
        values, starts = torch.from_numpy(np.append(ragged.values, -1)), torch.from_numpy(ragged.starts)
        return cls(values.to(device), starts.to(device), torch.from_numpy(ragged.lengths))

    def padded(self, rows: Tensor) -> Tensor:
        """Return some histories as a matrix, filled up on the right with -1.

        Args:
            rows: ``(B,)`` int64 on the CPU, numbers of the histories.

        Returns:
            ``(B, T)`` int64 item rows on the device; T is the length of the longest history, at least 1.
        """
        lengths, device = self.lengths[rows], self.values.device
        position = torch.arange(max(1, int(lengths.max())), device=device)
        index = self.starts[rows.to(device)][:, None] + position
        return self.values[torch.where(position < lengths.to(device)[:, None], index, -1)]

    def by_length(self, rows: Tensor) -> list[Tensor]:
        """Sort rows by length, shortest first, and cut them into parts that suit the device.

        Args:
            rows: ``(B,)`` int64 on the CPU, numbers of the histories.

        Returns:
            The parts, none of which is empty; no parts if there are no rows.
        """
        parts = min(_MAX_PARTS.get(self.values.device.type, 1), -(-len(rows) // _MIN_ROWS))
        shortest_first = rows[self.lengths[rows].argsort(stable=True)]
        return list(shortest_first.tensor_split(parts)) if parts else []


@dataclass(frozen=True)
class TextVectors:
    """The vectors of queries' texts on a device; texts of the corpus that no query has are left out.

    Attributes:
        vectors: ``(T, D)`` float32, one vector per distinct text.
        rows: ``(Q,)`` int64, the row in ``vectors`` of each query's text.
    """

    vectors: Tensor
    rows: Tensor

    @classmethod
    def from_examples(cls, examples: Examples, device: torch.device) -> Self | None:
        """Copy the vectors that the examples use to a device; return None if they have no texts."""
        if examples.texts is None or examples.text_rows is None:
            return None
        used, rows = np.unique(examples.text_rows, return_inverse=True)
        return cls(
            torch.from_numpy(examples.texts.vectors[used]).to(device), torch.from_numpy(rows).to(device)
        )

    def __getitem__(self, queries: Tensor) -> Tensor:
        """Return the vectors ``(B, D)`` of some queries, ``(B,)`` int64."""
        return self.vectors[self.rows[queries.to(self.rows.device)]]


@dataclass(frozen=True)
class CausalPairs:
    """Pairs of history and target, grouped so that a causal model reads each group in one pass.

    Pairs form a group if their histories begin at the same index of ``history.values``: then each history is
    a prefix of the longest one, and the model needs to read only that one. If queries have texts, queries
    with an empty history share nothing, so each of them is a group of its own.

    Attributes:
        histories: The longest history of each group.
        pairs: The numbers of each group's pairs, one row per group.
        lengths: ``(P,)`` int64 on the CPU, the length of each pair's history.
        targets: ``(P,)`` int64 on the device, the target item of each pair.
        queries: ``(P,)`` int64 on the device, the row in the examples of each pair's query.
        groups: ``(P,)`` int64 on the device, the group of each pair.
    """

    histories: Histories
    pairs: Ragged
    lengths: Tensor
    targets: Tensor
    queries: Tensor
    groups: Tensor

    @classmethod
    def from_examples(cls, examples: Examples, max_history: int, device: torch.device) -> Self:
        """Group the pairs of history and target that examples contain.

        Args:
            examples: Examples with one or more targets each; every target gives a pair.
            max_history: Number of latest items of a history that are kept.
            device: Device of the model.
        """
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
            Histories.from_ragged(longest, device),
            members,
            torch.from_numpy(history.lengths),
            *(torch.from_numpy(values).to(device) for values in (pairs.targets.flat(), queries, group)),
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return some groups with all their pairs.

        Args:
            rows: ``(B,)`` int64 on the CPU, numbers of the groups.

        Returns:
            Histories ``(B, T)`` of item rows, filled up with -1; ``(2, A)``, for each of the A pairs its row
            in the batch and the number of items before its target; and ``(A,)``, the numbers of these pairs.
        """
        device = self.targets.device
        groups = self.pairs.select(rows.numpy())
        pairs = torch.from_numpy(groups.flat())
        at = torch.stack([torch.from_numpy(groups.row_ids()), self.lengths[pairs]])
        return self.histories.padded(rows), at.to(device), pairs.to(device)
