"""From interactions to examples: each user's sequence, and leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.examples import Examples, Ints, Ragged

if TYPE_CHECKING:
    from recsys.datasets.corpus import Corpus


@dataclass(frozen=True)
class Sequences:
    """What each user took, oldest first.

    Attributes:
        user_ids: ``(U,)`` unicode, sorted and unique.
        items: ``U`` rows of item rows.

    Raises:
        ValueError: users and rows are not equally many, or users not sorted and unique.
    """

    user_ids: npt.NDArray[np.str_]
    items: Ragged

    def __post_init__(self) -> None:
        if len(self.user_ids) != len(self.items):
            raise ValueError(f"{len(self.user_ids)} users cannot have {len(self.items)} sequences")
        if (self.user_ids[1:] <= self.user_ids[:-1]).any():
            raise ValueError("user ids must be sorted and unique")


@dataclass(frozen=True)
class Split:
    """Examples to learn from, to choose by, and to report on."""

    train: Examples
    valid: Examples
    test: Examples


def sequences_of(corpus: Corpus) -> Sequences:
    """Every user's item rows; a row is the place of an item in ``corpus.items``."""
    rows = corpus.items.select("item_id").with_row_index("row")
    items = corpus.interactions.join(rows, on="item_id", how="left", maintain_order="left")["row"]
    users = corpus.interactions["user_id"].rle().struct.unnest()
    return Sequences(
        users["value"].to_numpy().astype(np.str_),
        Ragged.from_lengths(items.to_numpy().astype(np.int64), users["len"].to_numpy().astype(np.int64)),
    )


def write_sequences(sequences: Sequences, path: str | Path) -> None:
    """Write a parquet file of ``user_id`` (string) and ``items`` (list of int64), a row a user."""
    path = Path(path)
    lengths = sequences.items.lengths
    items = pa.LargeListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]), sequences.items.flat())
    unfinished = path.with_name(path.name + ".unfinished")
    pq.write_table(pa.table({"user_id": sequences.user_ids.tolist(), "items": items}), unfinished)
    unfinished.replace(path)


def read_sequences(path: str | Path) -> Sequences:
    """Read what :func:`write_sequences` wrote.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    try:
        table = pq.read_table(path, columns=["user_id", "items"]).combine_chunks()
        items = table["items"].combine_chunks()
        lengths, values = items.value_lengths(), items.flatten()
        return Sequences(
            np.array(table["user_id"].to_pylist(), dtype=np.str_),
            Ragged.from_lengths(values.to_numpy().astype(np.int64), lengths.to_numpy().astype(np.int64)),
        )
    except (pa.ArrowInvalid, AttributeError) as error:
        raise ValueError(f"{path} does not hold sequences ({error})") from error


def leave_one_out(sequences: Sequences) -> Split:
    """Test on each user's last item, choose by the one before it, learn from the rest.

    Of a sequence ``i_1 … i_n`` with ``n >= 3``:

    - test is ``i_1 … i_{n-1} → i_n``;
    - valid is ``i_1 … i_{n-2} → i_{n-1}``;
    - train is every ``i_1 … i_j → i_{j+1}`` for ``j = 1 … n-3``: each item but the first, inside
      the sequence without its last two, given all before it. There is none where ``n = 3``.

    Users with fewer than three items give no example at all. Histories are whole: a retriever
    shortens them. They share the values of ``sequences``; gains are 1.
    """
    users = np.flatnonzero(sequences.items.lengths >= 3)
    starts, stops = sequences.items.starts[users], sequences.items.stops[users]
    counts = stops - starts - 3
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return Split(
        train=_next_items(sequences, np.repeat(users, counts), np.repeat(starts + 1, counts) + nth),
        valid=_next_items(sequences, users, stops - 2),
        test=_next_items(sequences, users, stops - 1),
    )


def _next_items(sequences: Sequences, users: Ints, targets: Ints) -> Examples:
    """For each place in ``targets``, a place in the sequence of the user beside it: all before it → it."""
    values, starts = sequences.items.values, sequences.items.starts
    return Examples(
        query_ids=sequences.user_ids[users],
        history=Ragged(values, starts[users], targets),
        targets=Ragged(values, targets, targets + 1),
        gains=np.ones(len(targets), dtype=np.float32),
    )
