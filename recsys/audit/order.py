"""Findings on the order of events: equal times, and items that ascend by their ids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.audit.findings import SURE, Finding, Severity, graded
from recsys.cuts import Cuts
from recsys.datasets.corpus import Corpus
from recsys.splits import Sequences
from semantic_ids.types import Ints

_CLEAR = 0.05
"""Smallest distance of a share from one half that is worth a word."""

_SETTLE = "compare with data.ties: shuffle or last_together, and report results under one of them"
_READ_APART = "read scores of ascending and descending pairs apart, and prefer a source with times"
_AGE = "expect ids to carry the age of items"


def id_ranks(item_ids: pl.Series) -> Ints:
    """Return the rank of each item's id, ``(N,)``: by number if all ids are whole numbers, else as texts."""
    numbers = item_ids.cast(pl.Int64, strict=False)
    order = np.argsort(
        numbers.to_numpy() if numbers.null_count() == 0 else item_ids.to_numpy(), kind="stable"
    )
    ranks = np.empty(len(item_ids), dtype=np.int64)
    ranks[order] = np.arange(len(item_ids))
    return ranks


def order_findings(
    corpus: Corpus, sequences: Sequences, cuts: Cuts, ranks: Ints, *, shuffled: bool
) -> list[Finding]:
    """Return findings on the pair of a test query's last history event and its first target.

    Args:
        corpus: The corpus.
        sequences: Its sequences.
        cuts: Where they are split.
        ranks: Rank of each item's id, see :func:`id_ranks`.
        shuffled: Whether equal times were put in a random order.
    """
    targets = cuts.test_starts[cuts.test_stops > cuts.test_starts]
    items, times = sequences.items.values, corpus.interactions["timestamp"].to_numpy()
    before, after = items[targets - 1], items[targets]
    ascends, differs = ranks[after] > ranks[before], before != after
    if not corpus.has_clock():
        unknown = Finding(
            "ties at the end of histories",
            None,
            "not known",
            "note",
            "The source has no times, only an order of events, so ties cannot be seen or settled.",
            "take the data from a source with times if there is one",
        )
        return [
            unknown,
            _ascent("last pairs that ascend by item id", ascends[differs], "warning", _READ_APART),
        ]
    tied = times[targets] == times[targets - 1]
    share = float(tied.mean()) if len(tied) else 0.0
    severity = graded(share, 0.01, 0.1)
    ties = Finding(
        "ties at the end of histories",
        share,
        f"{share:.1%} of test queries",
        "note" if shuffled and severity == "warning" else severity,
        "So many test targets have the time of the event before them. Which of the two is last is not known"
        + (" and was drawn by chance." if shuffled else ", and the order of the file decides."),
        "" if severity == "ok" else "set data.ties: last_together to ask for all events at the last time",
    )
    return [
        ties,
        _ascent("tied last pairs that ascend by item id", ascends[differs & tied], "warning", _SETTLE),
        _ascent("untied last pairs that ascend by item id", ascends[differs & ~tied], "note", _AGE),
    ]


def _ascent(name: str, ascends: npt.NDArray[np.bool_], worst: Severity, advice: str) -> Finding:
    """Return the finding on the share of pairs that ascend by id.

    Args:
        name: Its name.
        ascends: ``(P,)``, whether each pair of different items ascends.
        worst: Its severity if the share is not one half: a warning, or a note where times prove the order,
            so that the ascent may be real.
        advice: What to do if it is not.
    """
    if len(ascends) == 0:
        return Finding(name, None, "no such pairs", "ok", "There is no pair to look at.")
    share = float(ascends.mean())
    shown = f"{share:.1%} of {len(ascends):,} pairs; half would be chance"
    distance = abs(share - 0.5)
    if distance < _CLEAR or distance < SURE * 0.5 / np.sqrt(len(ascends)):
        return Finding(
            name, share, shown, "ok", "The order of ids does not tell which of two items comes last."
        )
    way = "higher" if share > 0.5 else "lower"
    if worst == "note":
        meaning = f"The later of two items has the {way} id more often than not, although times order them."
        return Finding(name, share, shown, worst, meaning, advice)
    return Finding(
        name,
        share,
        shown,
        worst,
        f"The later of two items tends to have the {way} id: the file seems to be sorted by id where times "
        "are equal, and a method that learns this gains without knowing anything about users.",
        advice,
    )
