"""From a corpus to examples: the next item of each user's sequence, or what was asked and what answers it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.examples import SPLITS, Examples, QueryTexts, Ragged
from recsys.texts.item_texts import read_texts, write_texts
from semantic_ids.files import atomic_write
from semantic_ids.types import Floats, Ints

if TYPE_CHECKING:
    import polars as pl

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
    items = corpus.interactions["item_id"].to_physical()
    users = corpus.interactions["user_id"].rle().struct.unnest()
    return Sequences(
        users["value"].cast(str).to_numpy().astype(np.str_),
        Ragged.from_lengths(items.to_numpy().astype(np.int64), users["len"].to_numpy().astype(np.int64)),
    )


def write_split(corpus: Corpus, folder: str | Path) -> None:
    """Write all that :func:`read_split` needs: ``sequences.parquet``, and what search has beside it.

    That is ``queries.parquet``: for each query ``query_id``, ``split``, the row of its ``text``, where its
    history begins and ends (``start``, ``stop``) among the items of all sequences (-1 if nobody is known to
    ask), ``targets`` (item rows) and ``gains``; and ``query_texts.parquet``, each text once.
    """
    folder = Path(folder)
    sequences = sequences_of(corpus)
    write_sequences(sequences, folder / "sequences.parquet")
    if corpus.queries is None or corpus.judgements is None:
        return
    texts = corpus.queries["text"].unique(maintain_order=True)
    write_texts(texts.to_list(), folder / "query_texts.parquet")
    answers = corpus.judgements["query_id"].rle()
    lengths = answers.struct.field("len").to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    rows = corpus.judgements["item_id"].cast(corpus.interactions.schema["item_id"]).to_physical()
    starts = _starts_of(corpus.queries["user_id"], sequences)
    table = pa.table(
        {
            "query_id": corpus.queries["query_id"].to_arrow(),
            "split": corpus.queries["split"].to_arrow(),
            "text": _rows_in(corpus.queries["text"], texts),
            "start": starts,
            "stop": starts + corpus.queries["history"].to_numpy(),
            "targets": pa.LargeListArray.from_arrays(offsets, rows.to_numpy().astype(np.int64)),
            "gains": pa.LargeListArray.from_arrays(offsets, corpus.judgements["gain"].to_numpy()),
        }
    )
    _write_table(table, folder / "queries.parquet")


def read_split(folder: str | Path, query_vectors: Floats | None = None) -> Split:
    """The examples of what :func:`write_split` wrote.

    Args:
        folder: where it did.
        query_vectors: embeddings of the texts in ``query_texts.parquet``; needed where there is one.

    Raises:
        ValueError: a file holds something else, or the embeddings are not those of the texts.
    """
    folder = Path(folder)
    sequences = read_sequences(folder / "sequences.parquet")
    if not (folder / "queries.parquet").exists():
        return leave_one_out(sequences)
    words = read_texts(folder / "query_texts.parquet")
    if query_vectors is None or len(query_vectors) != len(words):
        found = "none" if query_vectors is None else len(query_vectors)
        raise ValueError(f"{folder} holds {len(words)} texts of queries, but there are {found} embeddings")
    texts = QueryTexts(words, query_vectors)
    table = pq.ParquetFile(folder / "queries.parquet").read().combine_chunks()
    values = sequences.items.flat()
    splits = table["split"].to_numpy()
    return Split(**{name: _asked(table.filter(splits == name), values, texts) for name in SPLITS})


def _asked(table: pa.Table, values: Ints, texts: QueryTexts) -> Examples:
    targets, gains = (table[name].combine_chunks() for name in ("targets", "gains"))
    return Examples(
        query_ids=np.array(table["query_id"].to_pylist(), dtype=np.str_),
        history=Ragged(values, _copied(table["start"]), _copied(table["stop"])),
        targets=Ragged.from_lengths(
            _copied(targets.flatten()), targets.value_lengths().to_numpy().astype(np.int64)
        ),
        gains=_copied(gains.flatten()),
        texts=texts,
        text_rows=_copied(table["text"]),
    )


def _copied(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Arrow's own memory is read-only, which PyTorch takes for a mistake."""
    return np.array(column.to_numpy())


def _rows_in(values: pl.Series, distinct: pl.Series) -> Ints:
    """``(Q,)``: where each value stands among the distinct ones."""
    rows = values.to_frame("value").join(
        distinct.to_frame("value").with_row_index("row"), on="value", how="left", maintain_order="left"
    )
    return rows["row"].to_numpy().astype(np.int64)


def _starts_of(users: pl.Series, sequences: Sequences) -> Ints:
    """``(Q,)``: where the sequence of each user begins among the items of all; -1 for an unknown one."""
    names = users.to_numpy().astype(np.str_)
    place = np.searchsorted(sequences.user_ids, names).clip(max=max(0, len(sequences.user_ids) - 1))
    if len(sequences.user_ids) == 0:
        return np.full(len(names), -1)
    starts = np.cumsum(sequences.items.lengths) - sequences.items.lengths
    return np.where(sequences.user_ids[place] == names, starts[place], -1)


def write_sequences(sequences: Sequences, path: str | Path) -> None:
    """Write a parquet file of ``user_id`` (string) and ``items`` (list of int64), a row a user."""
    path = Path(path)
    lengths = sequences.items.lengths
    items = pa.LargeListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]), sequences.items.flat())
    users = pa.array(sequences.user_ids, pa.string())
    _write_table(pa.table({"user_id": users, "items": items}), path)


def _write_table(table: pa.Table, path: Path) -> None:
    with atomic_write(path) as partial:
        pq.write_table(table, partial)


def read_sequences(path: str | Path) -> Sequences:
    """Read what :func:`write_sequences` wrote.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    try:
        table = pq.ParquetFile(path).read(columns=["user_id", "items"]).combine_chunks()
        items = table["items"].combine_chunks()
        lengths, values = items.value_lengths(), items.flatten()
        sequences = Sequences(
            np.array(table["user_id"].to_pylist(), dtype=np.str_),
            Ragged.from_lengths(values.to_numpy().astype(np.int64), lengths.to_numpy().astype(np.int64)),
        )
    except (pa.ArrowInvalid, KeyError, AttributeError) as error:
        raise ValueError(f"{path} does not hold sequences ({error})") from error
    del table, items, lengths, values
    pa.default_memory_pool().release_unused()  # else Arrow keeps 1.5 GB of 50 million interactions
    return sequences


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
    names = sequences.user_ids[users]
    starts, stops = sequences.items.starts[users], sequences.items.stops[users]
    counts = stops - starts - 3
    targets = np.arange(counts.sum())
    targets += np.repeat(starts + 1 - (np.cumsum(counts) - counts), counts)
    prefixes = _next_items(sequences, np.repeat(starts, counts), targets, names)
    return Split(
        train=replace(prefixes, query_rows=np.repeat(np.arange(len(users)), counts)),
        valid=_next_items(sequences, starts, stops - 2, names),
        test=_next_items(sequences, starts, stops - 1, names),
    )


def _next_items(sequences: Sequences, starts: Ints, targets: Ints, names: npt.NDArray[np.str_]) -> Examples:
    """For each place in ``targets``, what stands before it from the start beside it on → it."""
    values = sequences.items.values
    return Examples(
        query_ids=names,
        history=Ragged(values, starts, targets),
        targets=Ragged(values, targets, targets + 1),
        gains=np.ones(len(targets), dtype=np.float32),
    )
