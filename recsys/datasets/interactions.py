"""Turn raw events into the interactions of a corpus: duplicates settled, k-core, sorted."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Keep = Literal["first", "last", "all"]


def distinct_events(events: pl.DataFrame, keep: Literal["first", "last"]) -> pl.DataFrame:
    """Of several events of a user with an item only the first or the last by time; the rest as it is.

    Args:
        events: :data:`EVENTS` in the order of the source, which decides between equal times.
        keep: which one stays.
    """
    codes = _codes(_categorical(events["user_id"])).astype(np.uint64)
    codes <<= np.uint64(32)
    codes |= _codes(_categorical(events["item_id"]))
    pairs = pl.Series(codes)
    ordered = pairs.sort()
    repeated = ordered[1:].filter(ordered[1:] == ordered[:-1]).unique()
    if repeated.is_empty():
        return events
    again = pairs.is_in(repeated.implode())
    rivals = pl.DataFrame({"row": again.arg_true(), "pair": pairs.filter(again)}).with_columns(
        timestamp=events["timestamp"].filter(again)
    )
    kept = rivals.sort("timestamp", maintain_order=True).unique("pair", keep=keep)["row"]
    chosen = (~again).to_numpy(writable=True)
    chosen[kept] = True
    return events.filter(chosen)


def interactions_of(
    events: pl.DataFrame, *, k_core: int = 1, keep: Keep = "first", item_ids: pl.Series | None = None
) -> pl.DataFrame:
    """Raw events → the interactions of a :class:`Corpus`: duplicates settled, k-core, sorted, ids as Enum.

    Args:
        events: :data:`EVENTS` in the order of the source, which decides between equal times.
        k_core: only the largest part in which every user and every item has so many interactions.
        keep: of several events of a user with an item the first or the last by time, or all.
        item_ids: of the catalogue, sorted; those of the events that are left if not given.

    Raises:
        ValueError: ``k_core`` is below 1, or an event is with an item that is not in ``item_ids``.
    """
    if k_core < 1:
        raise ValueError(f"k-core needs k of at least 1, not {k_core}")
    events = events.with_columns(_categorical(events["user_id"]), _categorical(events["item_id"]))
    if keep != "all":
        events = distinct_events(events, keep)
    rows = _core_rows(_codes(events["user_id"]), _codes(events["item_id"]), k_core)
    # Column by column, nothing kept longer than needed, and no copy where all rows stay: there may be a
    # hundred million of them.
    users, items, times = (events if len(rows) == len(events) else events[rows]).get_columns()
    del events, rows
    users = _enum(users, None)
    order = np.lexsort((times.to_numpy(), _codes(users))).astype(np.uint32)
    users, items = users[order], items[order]
    items = _enum(items, item_ids)
    return pl.DataFrame([users, items, times[order]])


def _categorical(ids: pl.Series) -> pl.Series:
    return ids if isinstance(ids.dtype, pl.Categorical) else ids.cast(pl.Categorical(pl.Categories.random()))


def _codes(ids: pl.Series) -> npt.NDArray[np.unsignedinteger]:
    return ids.to_physical().to_numpy()


def _enum(ids: pl.Series, names: pl.Series | None) -> pl.Series:
    """Categorical ids as an Enum of ``names``, or of the ids themselves, sorted. Each text is met once."""
    present = ids.unique()
    texts = present.cast(pl.String)
    if names is None:
        order = texts.arg_sort()
        names, place = texts[order], np.argsort(order.to_numpy()).astype(np.uint32)
    elif len(unknown := texts.filter(~texts.is_in(names.implode()))):
        raise ValueError(
            f"{len(unknown)} events are with items not in the catalogue, first {unknown.min()!r}"
        )
    else:
        place = _codes(texts.cast(pl.Enum(names))).astype(np.uint32)
    kind = pl.Enum(names)
    rows = np.zeros(int(present.to_physical().max() or 0) + 1, dtype=np.uint32)
    rows[_codes(present)] = place
    return pl.Series(ids.name, rows[_codes(ids)]).cat.to(kind)


def _core_rows(
    users: npt.NDArray[np.unsignedinteger], items: npt.NDArray[np.unsignedinteger], k: int
) -> npt.NDArray[np.uint32]:
    """The rows of the k-core of pairs of codes, ascending."""
    rows = np.arange(len(users), dtype=np.uint32)
    user_counts, item_counts = np.bincount(users), np.bincount(items)
    while True:
        enough = (user_counts >= k)[users] & (item_counts >= k)[items]
        if enough.all():
            return rows
        user_counts -= np.bincount(users[~enough], minlength=len(user_counts))
        item_counts -= np.bincount(items[~enough], minlength=len(item_counts))
        users, items, rows = users[enough], items[enough], rows[enough]


def item_ids_of(interactions: pl.DataFrame) -> pl.Series:
    """The ids that an interactions frame's Enum of items holds."""
    kind = interactions.schema["item_id"]
    assert isinstance(kind, pl.Enum)  # noqa: S101
    return kind.categories
