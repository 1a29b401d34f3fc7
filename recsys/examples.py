"""The data structures that splits, retrievers and metrics share: ragged rows, examples and rankings.

All of them are made of numpy arrays and refer to an item by its *row* in the catalogue (0 … N-1). Inner
loops therefore compare integers and never strings.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from semantic_ids.types import Floats, Ints

SPLITS = ("train", "valid", "test")
"""Names of the three sets of examples: to learn from, to choose settings by, and to report scores on."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of unequal length, stored as slices of one flat array.

    Row ``i`` is ``values[starts[i]:stops[i]]``. Rows may overlap, so every prefix of a sequence costs two
    numbers and no copy.

    Attributes:
        values: ``(M,)`` int64, the values of all rows.
        starts: ``(R,)`` int64, index in ``values`` of the first value of each row.
        stops: ``(R,)`` int64, index in ``values`` one past the last value of each row.

    Example:
        >>> prefixes = Ragged(values=np.array([5, 6, 7]), starts=np.array([0, 0]), stops=np.array([2, 3]))
        >>> [prefixes[row].tolist() for row in range(2)]
        [[5, 6], [5, 6, 7]]
    """

    values: Ints
    starts: Ints
    stops: Ints

    @classmethod
    def from_lengths(cls, values: Ints, lengths: Ints) -> Self:
        """Cut ``values`` into consecutive rows.

        Args:
            values: ``(M,)`` integers.
            lengths: ``(R,)`` int64, the length of each row.

        Raises:
            ValueError: If the lengths do not add up to M.
        """
        stops = np.cumsum(lengths, dtype=np.int64)
        if (stops[-1] if len(stops) else 0) != len(values):
            raise ValueError(f"row lengths add up to {lengths.sum()}, but there are {len(values)} values")
        return cls(np.ascontiguousarray(values, dtype=np.int64), stops - lengths, stops)

    @classmethod
    def from_rows(cls, rows: list[list[int]]) -> Self:
        """Copy rows from lists of integers; meant for tests and notebooks."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return cls.from_lengths(np.array([v for row in rows for v in row], dtype=np.int64), lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> Ints:
        return self.values[self.starts[row] : self.stops[row]]

    @property
    def lengths(self) -> Ints:
        """Length of each row, ``(R,)`` int64."""
        return self.stops - self.starts

    def select(self, rows: Ints | slice) -> Self:
        """Return the chosen rows in the given order; they share the values, nothing is copied.

        Args:
            rows: Row numbers, or a slice of them.
        """
        return type(self)(self.values, self.starts[rows], self.stops[rows])

    def last(self, n: int) -> Self:
        """Return the last ``n`` values of every row, or all if it has fewer; nothing is copied."""
        return type(self)(self.values, np.maximum(self.starts, self.stops - n), self.stops)

    def by_length(self, parts: int) -> list[Ints]:
        """Return all row numbers, shortest rows first, in parts that need little padding.

        Args:
            parts: Number of parts. There are fewer if there are fewer rows, and at least one row is in each.
        """
        order = np.argsort(self.lengths, kind="stable")
        return [part for part in np.array_split(order, max(1, parts)) if len(part)]

    def flat(self) -> Ints:
        """Return all rows concatenated, ``(lengths.sum(),)`` int64.

        Nothing is copied if the rows are already adjacent in ``values``.
        """
        if len(self) and (self.starts[1:] == self.stops[:-1]).all():
            return self.values[self.starts[0] : self.stops[-1]]
        return self.values[self._positions()]

    def row_ids(self) -> Ints:
        """Return the row number of each value of :meth:`flat`, ``(lengths.sum(),)`` int64."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def padded(self, fill: int = -1) -> Ints:
        """Return the rows as a matrix ``(R, longest)`` int64, filled up on the right with ``fill``."""
        lengths = self.lengths
        matrix = np.full((len(self), int(lengths.max(initial=0))), fill, dtype=np.int64)
        matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = self.flat()
        return matrix

    def _positions(self) -> Ints:
        """Return the index in ``values`` of each value of :meth:`flat`."""
        lengths = self.lengths
        shift = self.starts - (np.cumsum(lengths) - lengths)
        return np.arange(lengths.sum()) + np.repeat(shift, lengths)


@dataclass(frozen=True, eq=False)
class QueryTexts:
    """The distinct texts of a corpus's queries; its train, valid and test examples share them.

    Attributes:
        words: The T texts.
        vectors: ``(T, D)`` float32, the texts embedded by the encoder that embedded the items' texts.
    """

    words: list[str]
    vectors: Floats


@dataclass(frozen=True, eq=False)
class Examples:
    """Queries to a retriever together with the items that answer them.

    A query is a user's history, and in search also a text.

    Attributes:
        query_ids: ``(Q,)`` unicode, the id of each query; sorted and unique in an evaluation set. If
            ``query_rows`` is given: the distinct ids, each once.
        history: Q rows of item rows, oldest first. They hold the whole past; a retriever may shorten it.
        targets: Q rows of relevant item rows, at least one in each.
        gains: Relevance of each of ``targets.flat()``, float32; 1.0 if relevance is binary.
        texts: Texts of the queries; None if queries have no text.
        text_rows: ``(Q,)`` int64, the row of each query in ``texts``; None if ``texts`` is None.
        query_rows: ``(Q,)`` int64, the row of each example in ``query_ids``; None if example i has the id
            ``query_ids[i]``. It saves memory when a user has many training examples, because their id is
            kept only once.

    Raises:
        ValueError: If only one of ``texts`` and ``text_rows`` is given.
    """

    query_ids: npt.NDArray[np.str_]
    history: Ragged
    targets: Ragged
    gains: Floats
    texts: QueryTexts | None = None
    text_rows: Ints | None = None
    query_rows: Ints | None = None

    def __post_init__(self) -> None:
        if (self.texts is None) != (self.text_rows is None):
            raise ValueError("texts of queries and the rows of queries in them come together")

    def __len__(self) -> int:
        return len(self.history)

    def names(self) -> npt.NDArray[np.str_]:
        """Return the query id of each example, ``(Q,)`` unicode."""
        return self.query_ids if self.query_rows is None else self.query_ids[self.query_rows]

    def select(self, rows: Ints | slice) -> Examples:
        """Return the chosen examples in the given order.

        Args:
            rows: Row numbers of examples, or a slice of them.
        """
        gain_rows = Ragged.from_lengths(np.arange(len(self.gains)), self.targets.lengths).select(rows).flat()
        return Examples(
            self.query_ids[rows] if self.query_rows is None else self.query_ids,
            self.history.select(rows),
            self.targets.select(rows),
            self.gains[gain_rows],
            self.texts,
            None if self.text_rows is None else self.text_rows[rows],
            None if self.query_rows is None else self.query_rows[rows],
        )

    def pairs(self) -> Examples:
        """Return one example for every target, as training needs them."""
        rows, targets = self.targets.row_ids(), self.targets.flat()
        single = Ragged.from_lengths(targets, np.ones(len(targets), dtype=np.int64))
        return Examples(
            self.query_ids,
            self.history.select(rows),
            single,
            self.gains,
            self.texts,
            None if self.text_rows is None else self.text_rows[rows],
            rows if self.query_rows is None else self.query_rows[rows],
        )

    def at_least(self, gain: float) -> Examples:
        """Drop all targets with a gain below ``gain``, and all queries that then have no target left."""
        kept = self.gains >= gain
        lengths = np.bincount(self.targets.row_ids()[kept], minlength=len(self))
        targets = Ragged.from_lengths(self.targets.flat()[kept], lengths)
        return replace(self, targets=targets, gains=self.gains[kept]).select(np.flatnonzero(lengths))

    def answered(self, gain: float) -> Examples:
        """Drop all queries without a target whose gain is at least ``gain``; the others keep all targets."""
        num_relevant = np.bincount(self.targets.row_ids(), weights=self.gains >= gain, minlength=len(self))
        return self.select(np.flatnonzero(num_relevant))

    def sequences(self) -> Ragged:
        """Return each user's full training sequence, without the prefixes that the examples repeat.

        Training examples of one user overlap: each history is a prefix of the next one. The row of a user is
        the longest history followed by its targets. Examples of one user are recognised in two ways:

        - Without texts, they share a query id and are adjacent, the longest history last.
        - In search, where every query has an id of its own, their histories start at the same index of
          ``history.values``. A query with an empty history is a row of its own, unless a longer history
          starts at the same index.

        Raises:
            ValueError: If there are no examples.

        Example:
            >>> examples = Examples(
            ...     query_ids=np.array(["u1", "u1", "u2"]),
            ...     history=Ragged.from_rows([[1], [1, 2], [3]]),
            ...     targets=Ragged.from_rows([[2], [4], [1]]),
            ...     gains=np.ones(3, dtype=np.float32),
            ... )
            >>> sequences = examples.sequences()
            >>> [sequences[row].tolist() for row in range(len(sequences))]
            [[1, 2, 4], [3, 1]]
        """
        if len(self) == 0:
            raise ValueError("there are no training examples; users need 4 interactions to give one")
        if self.texts is None:
            users = self.query_ids if self.query_rows is None else self.query_rows
            order = np.arange(len(self))
        else:
            starts, lengths = self.history.starts, self.history.lengths
            is_alone = (lengths == 0) & ~np.isin(starts, starts[lengths > 0])
            users = np.where(is_alone, -1 - np.arange(len(self)), starts)
            order = np.lexsort((lengths, users))
            users = users[order]
        longest = self.select(order[np.append(users[1:] != users[:-1], True)])
        rows = np.concatenate([longest.history.row_ids(), longest.targets.row_ids()])
        items = np.concatenate([longest.history.flat(), longest.targets.flat()])
        return Ragged.from_lengths(
            items[np.argsort(rows, kind="stable")], longest.history.lengths + longest.targets.lengths
        )

    def digest(self) -> str:
        """Return a SHA-256 digest, 64 hex digits, of all query ids, texts, histories, targets and gains.

        Two evaluation sets share a digest only if they agree in all of these, in the same order.
        """
        sha = hashlib.sha256()
        sha.update("\n".join(self.names().tolist()).encode())
        if self.texts is not None and self.text_rows is not None:
            sha.update("\n".join(self.texts.words[row] for row in self.text_rows.tolist()).encode())
        for ragged in (self.history, self.targets):
            sha.update(ragged.lengths.astype("<i8").tobytes())
            sha.update(ragged.flat().astype("<i8").tobytes())
        sha.update(self.gains.astype("<f4").tobytes())
        return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class Ranking:
    """The items that a retriever returns for each of Q queries: distinct, best first.

    Attributes:
        items: ``(Q, k)`` int64 item rows; ``-1`` after the last candidate of a query.
        scores: ``(Q, k)`` float32, never rising along a row; ``-inf`` where ``items`` is ``-1``.
    """

    items: Ints
    scores: Floats
