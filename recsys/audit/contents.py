"""Findings on what a corpus contains: duplicates, concentration, and how its test relates to its training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from recsys.audit.findings import Finding, graded
from recsys.cuts import Cuts
from recsys.datasets.corpus import Corpus
from recsys.examples import Ragged
from recsys.splits import Sequences, split_counts
from recsys.texts.item_texts import NO_TEXT

_HEAD = 0.1
"""Share of the items that is called the head."""


def same_texts(texts: Sequence[str]) -> Finding:
    """Return the finding on items with the text of another item, whatever the case and the spaces.

    Args:
        texts: One text per item.
    """
    counts = Counter(" ".join(text.casefold().split()) for text in texts if text != NO_TEXT)
    share = sum(count for count in counts.values() if count > 1) / max(1, len(texts))
    severity = graded(share, 0.01, 0.1)
    return Finding(
        "items with the text of another item",
        share,
        f"{share:.1%} of items",
        severity,
        "No tokenizer can tell items with the same text apart, and copies of a product count as misses.",
        "" if severity == "ok" else "merge duplicates, or give the reader more fields of the items",
    )


def same_users(sequences: Sequences) -> Finding:
    """Return the finding on users who have the same items in the same order as another user.

    Sequences of fewer than three items are not compared.
    """
    rows = np.flatnonzero(sequences.items.lengths >= 3)
    kept = sequences.items.select(rows)
    share = 0.0
    if len(kept):
        rng = np.random.default_rng(0)
        places = np.arange(len(kept.flat())) - np.repeat(np.cumsum(kept.lengths) - kept.lengths, kept.lengths)
        of_item = rng.integers(2**64, size=int(kept.flat().max()) + 1, dtype=np.uint64)
        of_place = rng.integers(2**64, size=int(kept.lengths.max()), dtype=np.uint64) | np.uint64(1)
        # A sum of random 64-bit numbers for each item and place: equal sums mean equal sequences.
        hashes = np.add.reduceat(
            of_item[kept.flat()] * of_place[places], np.cumsum(kept.lengths) - kept.lengths
        )
        _, counts = np.unique(hashes, return_counts=True)
        share = float(counts[counts > 1].sum() / len(kept))
    severity = graded(share, 0.001, 0.01)
    return Finding(
        "users with the sequence of another user",
        share,
        f"{share:.2%} of users",
        severity,
        "The test target of such a user may be in the training of its copy.",
        "" if severity == "ok" else "keep one of the users with the same events",
    )


def concentration(items: Ragged, num_items: int) -> Finding:
    """Return the finding on the share of events that the most popular tenth of the items has.

    Args:
        items: The sequences.
        num_items: Number of items.
    """
    counts = np.sort(np.bincount(items.flat(), minlength=num_items))[::-1]
    share = float(counts[: max(1, round(_HEAD * num_items))].sum() / max(1, counts.sum()))
    severity = graded(share, 0.8, 0.95)
    return Finding(
        "events of the most popular tenth of items",
        share,
        f"{share:.1%} of events",
        severity,
        "The more events the head has, the more a mean score says about popular items only.",
        "" if severity == "ok" else "read scores of head and tail apart",
    )


def new_targets(sequences: Sequences, cuts: Cuts) -> Finding:
    """Return the finding on test targets whose items training never saw."""
    counts = split_counts(sequences, cuts)
    share = counts["test_targets_new_to_training"] / max(1, counts["test_targets"])
    severity = graded(share, 0.01, 0.1)
    return Finding(
        "test targets that training never saw",
        share,
        f"{share:.1%} of {counts['test_targets']:,} targets",
        severity,
        "Only methods that read texts can rank these, so that scores mix cold start with everything else.",
        "" if severity == "ok" else "read their scores apart, or raise k_core",
    )


def seen_before(sequences: Sequences, cuts: Cuts) -> Finding:
    """Return the finding on test queries whose first target is in their own history."""
    users = np.flatnonzero(cuts.test_stops > cuts.test_starts)
    values = sequences.items.values
    histories = Ragged(values, sequences.items.starts[users], cuts.test_starts[users])
    targets = values[cuts.test_starts[users]]
    hits = np.bincount(histories.row_ids(), histories.flat() == targets[histories.row_ids()], len(users))
    share = float((hits > 0).mean()) if len(users) else 0.0
    severity = graded(share, 0.05, 0.5)
    return Finding(
        "test targets in the user's own history",
        share,
        f"{share:.1%} of test queries",
        severity,
        "A method that repeats the history scores here, and evaluation.exclude_seen hides these targets.",
        ""
        if severity == "ok"
        else "keep exclude_seen off, and compare with a method that repeats the history",
    )


def overlap(corpus: Corpus, sequences: Sequences, cuts: Cuts) -> Finding:
    """Return the finding on the share of training that is later than a test target."""
    name = "training events later than a test target"
    if not corpus.has_clock():
        meaning = "Without times nobody can say whether training knows what was later than a test."
        return Finding(name, None, "not known", "ok", meaning)
    times = corpus.interactions["timestamp"].to_numpy()
    learned = np.sort(times[Ragged(np.arange(len(times)), sequences.items.starts, cuts.train_stops).flat()])
    asked = times[cuts.test_starts[cuts.test_stops > cuts.test_starts]]
    later = 1 - np.searchsorted(learned, asked, side="right") / max(1, len(learned))
    share = float(later.mean()) if len(asked) else 0.0
    severity = graded(share, 0.01, 2)
    return Finding(
        name,
        share,
        f"{share:.1%} on average",
        severity,
        "Training knows what came into fashion after a test, which no system in use can know.",
        "" if severity == "ok" else "compare with data.split: global-time",
    )
