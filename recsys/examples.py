"""The shapes in which data moves: user sequences, examples to answer, rankings as answers.

Everything is numpy and refers to items by their *row* in the catalogue (0 … N-1), so that it
runs wherever torch runs and never meets a string on a hot path.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from semantic_ids.types import Floats, Ints

SPLITS = ("train", "valid", "test")
"""What examples serve for: to learn from, to choose by, and to report on."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of unequal length as views into one flat array; rows may overlap.

    Row ``i`` is ``values[starts[i]:stops[i]]``. Overlap is what makes all prefixes of all
    sequences cost nothing: each is a pair of numbers.

    Attributes:
        values: ``(M,)`` int64.
        starts: ``(R,)`` int64, where each row begins.
        stops: ``(R,)`` int64, one past where each row ends.
    """

    values: Ints
    starts: Ints
    stops: Ints

    @classmethod
    def from_lengths(cls, values: Ints, lengths: Ints) -> Self:
        """Rows that lie one behind the other; ``lengths`` is ``(R,)`` and sums to ``len(values)``."""
        stops = np.cumsum(lengths, dtype=np.int64)
        if (stops[-1] if len(stops) else 0) != len(values):
            raise ValueError(f"row lengths add up to {lengths.sum()}, but there are {len(values)} values")
        return cls(np.ascontiguousarray(values, dtype=np.int64), stops - lengths, stops)

    @classmethod
    def from_rows(cls, rows: list[list[int]]) -> Self:
        """Rows given as lists; for tests and notebooks."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return cls.from_lengths(np.array([v for row in rows for v in row], dtype=np.int64), lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> Ints:
        return self.values[self.starts[row] : self.stops[row]]

    @property
    def lengths(self) -> Ints:
        """``(R,)`` int64."""
        return self.stops - self.starts

    def select(self, rows: Ints | slice) -> Self:
        """The chosen rows, in the order given; values are shared, not copied."""
        return type(self)(self.values, self.starts[rows], self.stops[rows])

    def last(self, n: int) -> Self:
        """At most the last ``n`` values of every row; values are shared, not copied."""
        return type(self)(self.values, np.maximum(self.starts, self.stops - n), self.stops)

    def by_length(self, parts: int) -> list[Ints]:
        """All row numbers, shortest rows first, in about ``parts`` parts: each needs little padding."""
        order = np.argsort(self.lengths, kind="stable")
        return [part for part in np.array_split(order, max(1, parts)) if len(part)]

    def flat(self) -> Ints:
        """``(lengths.sum(),)`` int64: all rows one behind the other; not copied where they lie like that."""
        if len(self) and (self.starts[1:] == self.stops[:-1]).all():
            return self.values[self.starts[0] : self.stops[-1]]
        return self.values[self._positions()]

    def row_ids(self) -> Ints:
        """``(lengths.sum(),)`` int64: for each value of :meth:`flat`, its row."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def padded(self, fill: int = -1) -> Ints:
        """``(R, longest)`` int64, rows on the left, ``fill`` behind them."""
        lengths = self.lengths
        out = np.full((len(self), int(lengths.max(initial=0))), fill, dtype=np.int64)
        out[np.arange(out.shape[1]) < lengths[:, None]] = self.flat()
        return out

    def _positions(self) -> Ints:
        lengths = self.lengths
        shift = self.starts - (np.cumsum(lengths) - lengths)
        return np.arange(lengths.sum()) + np.repeat(shift, lengths)


@dataclass(frozen=True, eq=False)
class QueryTexts:
    """The distinct texts of queries, shared by all examples of a corpus.

    Attributes:
        words: T texts.
        vectors: ``(T, D)`` float32, their embeddings by the encoder of the items' texts.
    """

    words: list[str]
    vectors: Floats


@dataclass(frozen=True, eq=False)
class Examples:
    """Questions to a retriever, and for training and evaluation also the answers.

    Attributes:
        query_ids: ``(Q,)`` unicode, sorted and unique in an evaluation set; where there is ``query_rows``,
            those that training examples share, each once.
        history: item rows, oldest first; the whole past, which a retriever may shorten.
        targets: relevant item rows, one or more a query.
        gains: one float32 for each of ``targets.flat()``; 1.0 where relevance is binary.
        texts: what can be asked in words; None where the next item is asked for, without a word.
        text_rows: ``(Q,)`` int64, the row of each query in ``texts``; None if there are none.
        query_rows: ``(Q,)`` int64, the row of each example in ``query_ids``; None where it is its own. (The
            text of an id a hundred million times over is what memory would go into.)

    Raises:
        ValueError: there are texts without rows in them, or the reverse.
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
        """``(Q,)`` unicode: the query id of each example."""
        return self.query_ids if self.query_rows is None else self.query_ids[self.query_rows]

    def select(self, rows: Ints | slice) -> Examples:
        """The chosen queries, in the order given."""
        gains = Ragged.from_lengths(np.arange(len(self.gains)), self.targets.lengths).select(rows).flat()
        return Examples(
            self.query_ids[rows] if self.query_rows is None else self.query_ids,
            self.history.select(rows),
            self.targets.select(rows),
            self.gains[gains],
            self.texts,
            None if self.text_rows is None else self.text_rows[rows],
            None if self.query_rows is None else self.query_rows[rows],
        )

    def pairs(self) -> Examples:
        """One query for every target: what training learns from."""
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
        """The examples with only those targets that gain so much; queries without any are left out."""
        kept = self.gains >= gain
        lengths = np.bincount(self.targets.row_ids()[kept], minlength=len(self))
        targets = Ragged.from_lengths(self.targets.flat()[kept], lengths)
        return replace(self, targets=targets, gains=self.gains[kept]).select(np.flatnonzero(lengths))

    def answered(self, gain: float) -> Examples:
        """Those queries that have a target of so much gain; all their targets stay."""
        found = np.bincount(self.targets.row_ids(), weights=self.gains >= gain, minlength=len(self))
        return self.select(np.flatnonzero(found))

    def sequences(self) -> Ragged:
        """Of each user all that training may see of it, out of examples that repeat its beginnings.

        Of the examples of one user that with the longest history counts: its history and what follows is the
        row. They share their id and stand together, the longest last; in search, where each query has an
        id of its own, their histories begin at the same place, and queries without a history are a row each.

        Raises:
            ValueError: there are no examples.
        """
        if len(self) == 0:
            raise ValueError("there are no training examples; users need 4 interactions to give one")
        if self.texts is None:
            users = self.query_ids if self.query_rows is None else self.query_rows
            order = np.arange(len(self))
        else:
            starts, lengths = self.history.starts, self.history.lengths
            alone = (lengths == 0) & ~np.isin(starts, starts[lengths > 0])
            users = np.where(alone, -1 - np.arange(len(self)), starts)
            order = np.lexsort((lengths, users))
            users = users[order]
        last = self.select(order[np.append(users[1:] != users[:-1], True)])
        rows = np.concatenate([last.history.row_ids(), last.targets.row_ids()])
        items = np.concatenate([last.history.flat(), last.targets.flat()])
        return Ragged.from_lengths(
            items[np.argsort(rows, kind="stable")], last.history.lengths + last.targets.lengths
        )

    def digest(self) -> str:
        """64 hex digits that two evaluation sets share only if every question and answer agree."""
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
    """A retriever's answer: distinct items, best first.

    Attributes:
        items: ``(Q, k)`` int64 item rows, ``-1`` where a query has no further candidate.
        scores: ``(Q, k)`` float32, never rising along a row, ``-inf`` where ``items`` is ``-1``.
    """

    items: Ints
    scores: Floats
