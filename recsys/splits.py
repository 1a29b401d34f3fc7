"""Turn a corpus into examples for training, validation and test, and keep them in files.

In next-item recommendation the examples come from the users' sequences by a rule of :mod:`recsys.cuts`. In
search the corpus itself assigns each query to a split and lists the items that answer it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.cuts import LEAVE_ONE_OUT, Cuts, SplitRule, cut
from recsys.examples import SPLITS, Examples, QueryTexts, Ragged
from recsys.texts.item_texts import read_texts, write_texts
from semantic_ids.files import atomic_write
from semantic_ids.types import Floats, Ints

if TYPE_CHECKING:
    import polars as pl

    from recsys.datasets.corpus import Corpus


FEWEST_QUERIES = 2
"""Smallest number of test queries. Differences between retrievers are tested over queries."""

_REMEDY = "take more data, or lower k_core if it left users out"


@dataclass(frozen=True)
class Sequences:
    """The items that each user interacted with, oldest first.

    Attributes:
        user_ids: ``(U,)`` unicode, sorted and unique.
        items: U rows of item rows, one for each user.

    Raises:
        ValueError: If the numbers of users and of rows differ, or if the users are not sorted and unique.
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
    """The three sets of examples of a benchmark.

    Attributes:
        train: Examples to learn from.
        valid: Examples to choose settings by, such as the best step of a training or weights of an ensemble.
        test: Examples to report scores on.
    """

    train: Examples
    valid: Examples
    test: Examples


def sequences_of(corpus: Corpus) -> Sequences:
    """Return every user's sequence; an item is represented by its row in ``corpus.items``."""
    items = corpus.interactions["item_id"].to_physical()
    users = corpus.interactions["user_id"].rle().struct.unnest()
    return Sequences(
        users["value"].cast(str).to_numpy().astype(np.str_),
        Ragged.from_lengths(items.to_numpy().astype(np.int64), users["len"].to_numpy().astype(np.int64)),
    )


def cuts_of(corpus: Corpus, sequences: Sequences, rule: SplitRule) -> Cuts:
    """Return where a rule cuts the sequences of a corpus.

    Args:
        corpus: A corpus without queries.
        sequences: What :func:`sequences_of` returns for it.
        rule: The rule.

    Raises:
        ValueError: If the rule needs times and the corpus has only positions, or if it has too few times.
    """
    if rule.needs_times and not corpus.has_clock():
        raise ValueError(
            "this corpus has no times, only the order of each user's events (timestamps are positions): "
            f"{'ties: last_together' if rule.together else 'split: global-time'} needs a source with times"
        )
    return cut(rule, sequences.items, corpus.interactions["timestamp"].to_numpy())


def check_enough(corpus: Corpus, rule: SplitRule = LEAVE_ONE_OUT) -> None:
    """Check that a corpus has enough to train and to compare retrievers, before hours are spent on it.

    Args:
        corpus: The corpus.
        rule: How it is split, if it has no queries.

    Raises:
        ValueError: If there are fewer than :data:`FEWEST_QUERIES` test queries, or if the task is to predict
            the next item and no user has an interaction to train on, or none has a query for validation.
    """
    if corpus.queries is not None:
        _check_tests((corpus.queries["split"] == "test").sum(), "test queries with an answer")
        return
    sequences = sequences_of(corpus)
    cuts = cuts_of(corpus, sequences, rule)
    by_last = rule == LEAVE_ONE_OUT
    needs = (
        "users with the 3 interactions that a test needs" if by_last else f"test queries under {rule.kind}"
    )
    _check_tests(int((cuts.test_stops > cuts.test_starts).sum()), needs)
    if (cuts.train_stops - sequences.items.starts).max() < 2:
        raise ValueError(
            f"no user has the 4 interactions that training needs; {_REMEDY}"
            if by_last
            else f"no user has the 2 interactions before the cut that training needs; {_REMEDY}"
        )
    if not (cuts.valid_stops > cuts.valid_starts).any():
        raise ValueError(f"no user has a query for validation under {rule.kind}; {_REMEDY}, or hold out more")


def _check_tests(tests: int, needs: str) -> None:
    """Raise a ValueError if there are too few test queries."""
    if tests < FEWEST_QUERIES:
        raise ValueError(f"the corpus has {tests} {needs}, but {FEWEST_QUERIES} are the least; {_REMEDY}")


def write_split(corpus: Corpus, folder: str | Path, rule: SplitRule = LEAVE_ONE_OUT) -> dict[str, int]:
    """Write the files that :func:`read_split` reads.

    ``sequences.parquet`` is always written. A rule other than plain leave-one-out adds ``cuts.parquet``, one
    row per user with the columns of :class:`~recsys.cuts.Cuts`. A search corpus (one with queries and
    judgements) adds two files:

    - ``query_texts.parquet`` holds each distinct text once.
    - ``queries.parquet`` holds one row per query: ``query_id``, ``split``, ``text`` (row of its text),
      ``start`` and ``stop`` (where its history begins and ends among the items of all sequences; both -1 if
      its user is unknown), ``targets`` (item rows) and ``gains``.

    Args:
        corpus: The corpus.
        folder: Folder for the files.
        rule: How the sequences are split, if the corpus has no queries.

    Returns:
        The counts of :func:`split_counts`; none for a search corpus and for plain leave-one-out.
    """
    folder = Path(folder)
    sequences = sequences_of(corpus)
    write_sequences(sequences, folder / "sequences.parquet")
    if corpus.queries is None or corpus.judgements is None:
        if rule == LEAVE_ONE_OUT:
            return {}
        cuts = cuts_of(corpus, sequences, rule)
        _write_table(pa.table(vars(cuts)), folder / "cuts.parquet")
        return split_counts(sequences, cuts)
    texts = corpus.queries["text"].unique(maintain_order=True)
    write_texts(texts.to_list(), folder / "query_texts.parquet")
    answers = corpus.judgements["query_id"].rle()
    lengths = answers.struct.field("len").to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    rows = corpus.judgements["item_id"].cast(corpus.interactions.schema["item_id"]).to_physical()
    starts = _sequence_starts(corpus.queries["user_id"], sequences)
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
    return {}


def split_counts(sequences: Sequences, cuts: Cuts) -> dict[str, int]:
    """Return counts that tell how much a split leaves out and how much of its test is new.

    Returns:
        ``users_without_test_query``; ``test_queries_of_users_new_to_training``; ``test_targets``; among them
        ``test_targets_new_to_training``, whose items training does not have.
    """
    has_test = cuts.test_stops > cuts.test_starts
    known = np.zeros(int(sequences.items.values.max(initial=-1)) + 1, dtype=np.bool_)
    known[Ragged(sequences.items.values, sequences.items.starts, cuts.train_stops).flat()] = True
    targets = _held_out(sequences, cuts.test_starts, cuts.test_stops).targets.flat()
    return {
        "users_without_test_query": int((~has_test).sum()),
        "test_queries_of_users_new_to_training": int(
            (has_test & (cuts.train_stops == sequences.items.starts)).sum()
        ),
        "test_targets": len(targets),
        "test_targets_new_to_training": int((~known[targets]).sum()),
    }


def read_split(folder: str | Path, query_vectors: Floats | None = None) -> Split:
    """Read the files that :func:`write_split` wrote.

    Without ``queries.parquet`` the sequences are split at ``cuts.parquet``, or by :func:`leave_one_out` if
    there is no such file.

    Args:
        folder: Folder with the files.
        query_vectors: ``(T, D)`` float32, embeddings of the texts in ``query_texts.parquet``; needed if that
            file exists.

    Raises:
        ValueError: If a file holds something else, or if there is not one embedding per text.
    """
    folder = Path(folder)
    sequences = read_sequences(folder / "sequences.parquet")
    if (folder / "cuts.parquet").exists():
        table = pq.ParquetFile(folder / "cuts.parquet").read()
        return split_at(sequences, Cuts(**{name: _copied(table[name]) for name in table.column_names}))
    if not (folder / "queries.parquet").exists():
        return leave_one_out(sequences)
    words = read_texts(folder / "query_texts.parquet")
    if query_vectors is None or len(query_vectors) != len(words):
        count = "none" if query_vectors is None else len(query_vectors)
        raise ValueError(f"{folder} holds {len(words)} texts of queries, but there are {count} embeddings")
    texts = QueryTexts(words, query_vectors)
    table = pq.ParquetFile(folder / "queries.parquet").read().combine_chunks()
    values = sequences.items.flat()
    splits = table["split"].to_numpy()
    return Split(**{name: _search_examples(table.filter(splits == name), values, texts) for name in SPLITS})


def _search_examples(table: pa.Table, values: Ints, texts: QueryTexts) -> Examples:
    """Return the examples in rows of ``queries.parquet``; ``values`` are the items of all sequences."""
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
    """Copy a column into writable memory; PyTorch warns about Arrow's own, which is read-only."""
    return np.array(column.to_numpy())


def _rows_in(values: pl.Series, distinct: pl.Series) -> Ints:
    """Return the row of each value among the distinct ones, ``(Q,)`` int64."""
    rows = values.to_frame("value").join(
        distinct.to_frame("value").with_row_index("row"), on="value", how="left", maintain_order="left"
    )
    return rows["row"].to_numpy().astype(np.int64)


def _sequence_starts(users: pl.Series, sequences: Sequences) -> Ints:
    """Return where each user's sequence begins among the items of all, ``(Q,)``; -1 for unknown users."""
    names = users.to_numpy().astype(np.str_)
    rows = np.searchsorted(sequences.user_ids, names).clip(max=max(0, len(sequences.user_ids) - 1))
    if len(sequences.user_ids) == 0:
        return np.full(len(names), -1)
    starts = np.cumsum(sequences.items.lengths) - sequences.items.lengths
    return np.where(sequences.user_ids[rows] == names, starts[rows], -1)


def write_sequences(sequences: Sequences, path: str | Path) -> None:
    """Write a parquet file with one row per user: ``user_id`` (string) and ``items`` (list of int64)."""
    path = Path(path)
    lengths = sequences.items.lengths
    items = pa.LargeListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]), sequences.items.flat())
    users = pa.array(sequences.user_ids, pa.string())
    _write_table(pa.table({"user_id": users, "items": items}), path)


def _write_table(table: pa.Table, path: Path) -> None:
    """Write a parquet file that is never incomplete under its name."""
    with atomic_write(path) as partial:
        pq.write_table(table, partial)


def read_sequences(path: str | Path) -> Sequences:
    """Read the sequences that :func:`write_sequences` wrote.

    Raises:
        ValueError: If the file holds something else. The message names the file.
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
    pa.default_memory_pool().release_unused()  # otherwise Arrow keeps 1.5 GB for 50 million interactions
    return sequences


def leave_one_out(sequences: Sequences) -> Split:
    """Split sequences by leave-one-out: test on each user's last item, validate on the one before it.

    A sequence ``i_1 … i_n`` with ``n ≥ 3`` gives these examples (history → target):

    - test: ``i_1 … i_{n-1} → i_n``;
    - valid: ``i_1 … i_{n-2} → i_{n-1}``;
    - train: ``i_1 … i_j → i_{j+1}`` for every ``j = 1 … n-3``, so none if ``n = 3``.

    Users with fewer than three items give no examples. Histories are not truncated, because each retriever
    decides how much of them it reads. They share the values of ``sequences``. All gains are 1.

    Example:
        >>> sequences = Sequences(np.array(["u1"]), Ragged.from_rows([[7, 3, 8, 5]]))
        >>> split = leave_one_out(sequences)
        >>> [(part.history[0].tolist(), part.targets[0].tolist()) for part in (split.train, split.test)]
        [([7], [3]), ([7, 3, 8], [5])]
    """
    return split_at(sequences, cut(LEAVE_ONE_OUT, sequences.items))


def split_at(sequences: Sequences, cuts: Cuts) -> Split:
    """Return the examples of sequences that are cut.

    Validation and test have one query for each user with targets there; several events give one set of
    distinct targets. Training has a query for every event before ``train_stops`` but each user's first.
    Histories are not truncated, because each retriever decides how much of them it reads. They share the
    values of ``sequences``. All gains are 1.

    Args:
        sequences: The sequences.
        cuts: Where each of them is cut.
    """
    starts = sequences.items.starts
    learned = np.flatnonzero(cuts.train_stops > starts)
    counts = cuts.train_stops[learned] - starts[learned] - 1
    targets = np.arange(counts.sum())
    targets += np.repeat(starts[learned] + 1 - (np.cumsum(counts) - counts), counts)
    train = _queries(
        sequences.user_ids[learned], sequences, np.repeat(starts[learned], counts), targets, targets + 1
    )
    return Split(
        train=replace(train, query_rows=np.repeat(np.arange(len(learned)), counts)),
        valid=_held_out(sequences, cuts.valid_starts, cuts.valid_stops),
        test=_held_out(sequences, cuts.test_starts, cuts.test_stops),
    )


def _held_out(sequences: Sequences, firsts: Ints, stops: Ints) -> Examples:
    """Return a query for each user with targets from ``firsts`` to ``stops``; both are ``(U,)``."""
    users = np.flatnonzero(stops > firsts)
    return _queries(
        sequences.user_ids[users], sequences, sequences.items.starts[users], firsts[users], stops[users]
    )


def _queries(
    names: npt.NDArray[np.str_], sequences: Sequences, starts: Ints, firsts: Ints, stops: Ints
) -> Examples:
    """Return examples whose targets are adjacent items and whose history is the items before them.

    Args:
        names: Ids of the queries.
        sequences: Sequences whose values the examples share.
        starts: ``(E,)`` index in the values where the history of each example begins.
        firsts: ``(E,)`` index in the values of the first target; the history ends just before it.
        stops: ``(E,)`` index in the values of the end of the targets.
    """
    values = sequences.items.values
    targets = _distinct(Ragged(values, firsts, stops))
    gains = np.ones(targets.lengths.sum(), dtype=np.float32)
    return Examples(names, Ragged(values, starts, firsts), targets, gains)


def _distinct(rows: Ragged) -> Ragged:
    """Return rows without the repetitions of a value in the same row; nothing is copied if there are none."""
    if rows.lengths.max(initial=1) <= 1:
        return rows
    pairs = np.stack([rows.row_ids(), rows.flat()])
    places = np.sort(np.unique(pairs, axis=1, return_index=True)[1])
    if len(places) == pairs.shape[1]:
        return rows
    return Ragged.from_lengths(pairs[1, places], np.bincount(pairs[0, places], minlength=len(rows)))
