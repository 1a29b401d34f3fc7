"""From raw events to the interactions of a corpus: duplicates removed, k-core, sorted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Keep = Literal["first", "last", "all"]
"""Which events of a user with the same item stay: the first or the last by time, or all of them."""

Codes = npt.NDArray[np.unsignedinteger]
"""The physical numbers of a Categorical or Enum column."""


def distinct_events(events: pl.DataFrame, keep: Literal["first", "last"]) -> pl.DataFrame:
    """Return the events with one event for each pair of a user and an item.

    Args:
        events: Frame with the columns :data:`~recsys.datasets.corpus.EVENTS`, in the order of the source,
            which decides between equal times. It may have more columns.
        keep: Which event of a pair stays, the first or the last by time.

    Returns:
        The remaining rows of ``events``, in the same order.

    Example:
        >>> columns = ["user_id", "item_id", "timestamp"]
        >>> events = pl.DataFrame([("u", "a", 9), ("u", "b", 5), ("u", "a", 1)], schema=columns, orient="row")
        >>> distinct_events(events, keep="first").rows()
        [('u', 'b', 5), ('u', 'a', 1)]
    """
    pair_codes = _codes(_categorical(events["user_id"])).astype(np.uint64)
    pair_codes <<= np.uint64(32)
    pair_codes |= _codes(_categorical(events["item_id"]))
    pairs = pl.Series(pair_codes)
    ordered = pairs.sort()
    repeated = ordered[1:].filter(ordered[1:] == ordered[:-1]).unique()
    if repeated.is_empty():
        return events
    is_repeated = pairs.is_in(repeated.implode())
    duplicates = pl.DataFrame(
        {"row": is_repeated.arg_true(), "pair": pairs.filter(is_repeated)}
    ).with_columns(timestamp=events["timestamp"].filter(is_repeated))
    kept_rows = duplicates.sort("timestamp", maintain_order=True).unique("pair", keep=keep)["row"]
    stays = (~is_repeated).to_numpy(writable=True)
    stays[kept_rows] = True
    return events.filter(stays)


def interactions_of(
    events: pl.DataFrame, *, k_core: int = 1, keep: Keep = "first", item_ids: pl.Series | None = None
) -> pl.DataFrame:
    """Turn raw events into the interactions of a :class:`~recsys.datasets.corpus.Corpus`.

    Removes duplicates, takes the k-core, sorts, and turns ids into ``Enum``.

    Args:
        events: Frame with the columns :data:`~recsys.datasets.corpus.EVENTS`, in the order of the source,
            which decides between equal times.
        k_core: Smallest number of interactions of a user and of an item. The k-core is the largest part of
            the events in which every user and every item has at least ``k_core``; 1 keeps all.
        keep: Which events of a user with the same item stay: the first or the last by time, or all.
        item_ids: Ids of the catalogue, sorted. By default the items that have interactions.

    Returns:
        Frame with the columns of ``events``, sorted by user, then time. Both ids are ``Enum``.

    Raises:
        ValueError: If ``k_core`` is below 1, or if an event has an item that is not in ``item_ids``.

    Example:
        User v has one item only, so the 2-core has no interactions of v:

        >>> rows = [("v", "a", 5), ("u", "b", 9), ("u", "a", 1), ("w", "a", 2), ("w", "b", 3)]
        >>> events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
        >>> interactions_of(events, k_core=2).rows()
        [('u', 'a', 1), ('u', 'b', 9), ('w', 'a', 2), ('w', 'b', 3)]
    """
    if k_core < 1:
        raise ValueError(f"k-core needs k of at least 1, not {k_core}")
    events = events.with_columns(_categorical(events["user_id"]), _categorical(events["item_id"]))
    if keep != "all":
        events = distinct_events(events, keep)
    rows = _core_rows(_codes(events["user_id"]), _codes(events["item_id"]), k_core)
    # There may be a hundred million events. So work column by column, drop what is no longer needed, and do
    # not copy if all rows stay.
    users, items, times = (events if len(rows) == len(events) else events[rows]).get_columns()
    del events, rows
    users = _enum(users, None)
    order = np.lexsort((times.to_numpy(), _codes(users))).astype(np.uint32)
    users, items = users[order], items[order]
    items = _enum(items, item_ids)
    return pl.DataFrame([users, items, times[order]])


def shuffle_ties(interactions: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return interactions in which those of a user at the same time are in a random order.

    The order depends on the interactions and the seed alone, not on the order they came in.

    Args:
        interactions: What :func:`interactions_of` returned.
        seed: Seed of the random order.

    Example:
        >>> events = pl.DataFrame(
        ...     {"user_id": ["u"] * 4, "item_id": ["a", "b", "c", "d"], "timestamp": [1, 2, 2, 2]}
        ... )
        >>> shuffle_ties(interactions_of(events), seed=1)["item_id"].to_list()
        ['a', 'c', 'd', 'b']
    """
    users, times = _codes(interactions["user_id"]), interactions["timestamp"].to_numpy()
    by_item = np.lexsort((_codes(interactions["item_id"]), times, users))
    shuffled = np.lexsort((np.random.default_rng(seed).random(len(users)), times, users))
    return interactions[by_item[shuffled]]


def check_core(path: Path, interactions: pl.DataFrame, k_core: int, rows: str) -> None:
    """Raise an error if no interactions of a file are left in the k-core.

    Args:
        path: The file, for the message.
        interactions: What :func:`interactions_of` returned.
        k_core: The smallest number of interactions of users and items.
        rows: What was read from the file, for the message, such as ``4 reviews``.

    Raises:
        ValueError: If ``interactions`` is empty.
    """
    if interactions.is_empty():
        raise ValueError(f"{path}: of {rows} nothing is left in the {k_core}-core")


def item_ids_of(interactions: pl.DataFrame) -> pl.Series:
    """Return the ids of the catalogue, which the ``Enum`` of the items contains.

    Args:
        interactions: What :func:`interactions_of` returned.

    Example:
        >>> columns = ["user_id", "item_id", "timestamp"]
        >>> events = pl.DataFrame([("u", "b", 9), ("u", "a", 1)], schema=columns, orient="row")
        >>> item_ids_of(interactions_of(events)).to_list()
        ['a', 'b']
    """
    dtype = interactions.schema["item_id"]
    assert isinstance(dtype, pl.Enum)  # noqa: S101
    return dtype.categories


def _categorical(ids: pl.Series) -> pl.Series:
    """Return ids as Categorical, with codes of their own."""
    return ids if isinstance(ids.dtype, pl.Categorical) else ids.cast(pl.Categorical(pl.Categories.random()))


def _codes(ids: pl.Series) -> Codes:
    """Return the physical numbers of Categorical or Enum ids."""
    return ids.to_physical().to_numpy()


def _enum(ids: pl.Series, names: pl.Series | None) -> pl.Series:
    """Return Categorical ids as an Enum of ``names``, by default of the ids themselves, sorted.

    Only distinct ids are handled as texts, because there may be a hundred million rows.
    """
    present = ids.unique()
    texts = present.cast(pl.String)
    if names is None:
        order = texts.arg_sort()
        names, enum_codes = texts[order], np.argsort(order.to_numpy()).astype(np.uint32)
    elif len(unknown := texts.filter(~texts.is_in(names.implode()))):
        raise ValueError(
            f"events have {len(unknown)} items that are not in the catalogue; first: {unknown.min()!r}"
        )
    else:
        enum_codes = _codes(texts.cast(pl.Enum(names))).astype(np.uint32)
    new_codes = np.zeros(int(present.to_physical().max() or 0) + 1, dtype=np.uint32)
    new_codes[_codes(present)] = enum_codes
    return pl.Series(ids.name, new_codes[_codes(ids)]).cat.to(pl.Enum(names))


def _core_rows(users: Codes, items: Codes, k: int) -> npt.NDArray[np.uint32]:
    """Return the rows of the k-core, ascending.

    Args:
        users: ``(n,)`` the user code of each interaction.
        items: ``(n,)`` the item code of each interaction.
        k: The smallest number of interactions of a user and of an item.
    """
    rows = np.arange(len(users), dtype=np.uint32)
    user_counts, item_counts = np.bincount(users), np.bincount(items)
    while True:
        enough = (user_counts >= k)[users] & (item_counts >= k)[items]
        if enough.all():
            return rows
        user_counts -= np.bincount(users[~enough], minlength=len(user_counts))
        item_counts -= np.bincount(items[~enough], minlength=len(item_counts))
        users, items, rows = users[enough], items[enough], rows[enough]
