"""Rules that cut each user's sequence into training, validation and test, for next-item recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from recsys.examples import Ragged
from semantic_ids.types import Ints

SplitKind = Literal["leave-one-out", "global-time", "ratio"]
"""Names of the rules."""


@dataclass(frozen=True)
class SplitRule:
    """How the sequences of users are split, see :func:`cut`.

    Attributes:
        kind: ``leave-one-out`` tests on each user's last event. ``global-time`` cuts all users at one time.
            ``ratio`` tests on the last share of each user's events.
        test: Share of the events that are held out for the test; not used by ``leave-one-out``.
        valid: Share of the events before these that are held out for validation; not used by
            ``leave-one-out``.
        first: Number of each user's events after the cut that are asked for; only used by ``global-time``.
        together: Never tear apart events of a user at the same time: a set of targets that would begin or
            end among them is widened to all of them.

    Raises:
        ValueError: If the kind is unknown, if a share is not above 0, if both shares together reach 1, or if
            ``first`` is below 1.
    """

    kind: SplitKind = "leave-one-out"
    test: float = 0.1
    valid: float = 0.1
    first: int = 1
    together: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(SplitKind):
            raise ValueError(f"a split is one of {', '.join(get_args(SplitKind))}, not {self.kind!r}")
        if not (self.test > 0 and self.valid > 0 and self.test + self.valid < 1):
            raise ValueError(
                f"the shares of test and validation must be above 0 and leave something to train on, not "
                f"{self.test:g} and {self.valid:g}"
            )
        if self.first < 1:
            raise ValueError(
                f"at least the first event after the cut is asked for, not the first {self.first}"
            )

    @property
    def needs_times(self) -> bool:
        """Whether the order of each user's events is not enough to follow this rule."""
        return self.together or self.kind == "global-time"

    def describe(self) -> str:
        """Return one line on what scores under this split measure."""
        later = "training may know events that are later than a test"
        events = "event" if self.first == 1 else f"{self.first} events"
        measured = {
            "leave-one-out": f"each user's last event after all before it; {later}",
            "global-time": f"each user's first {events} after one cut in time; training knows nothing later",
            "ratio": f"the last {self.test:.0%} of each user's events as one set, after all before; {later}",
        }[self.kind]
        ties = "; events at one time are asked for together" if self.together else ""
        return f"{self.kind} ({measured}{ties})"


LEAVE_ONE_OUT = SplitRule()
"""The rule that splits sequences if no other is chosen."""


@dataclass(frozen=True)
class Cuts:
    """Where the sequences of U users are cut.

    All attributes are ``(U,)`` int64, indices in the values of the sequences. The events of a user from start
    to stop of the validation or of the test are the targets of one query, and all events of the user before
    start are its history. A user without a query has equal start and stop.

    Attributes:
        train_stops: The end of the events that training may know.
        valid_starts: The first target of the validation query.
        valid_stops: The end of its targets.
        test_starts: The first target of the test query.
        test_stops: The end of its targets.
    """

    train_stops: Ints
    valid_starts: Ints
    valid_stops: Ints
    test_starts: Ints
    test_stops: Ints


def cut(rule: SplitRule, sequences: Ragged, times: Ints | None = None) -> Cuts:
    """Cut the sequence of every user.

    - ``leave-one-out``: the last event is the test, the one before it the validation.
    - ``ratio``: the last ``test`` of a user's n events is the test, the ``valid`` before it the validation.
      Both are rounded down to whole events, and are at least one event.
    - ``global-time``: everything from one time on is after the cut, so that about ``test`` of all events are.
      A second time before it does the same for the validation. The first events of a user after each cut are
      asked for. Training ends at the earlier cut.

    Under the first two rules users with fewer than three events give neither queries nor training. No query
    has an empty history; users whose history would be empty have none. If the first two rules then leave a
    user without validation, training also has the events before the test.

    Args:
        rule: The rule.
        sequences: U rows of item rows, oldest first, each beginning where the one before it ends.
        times: ``(M,)`` the time of each value of ``sequences``, never falling along a row; needed by
            ``global-time`` and if events at the same time stay together.

    Raises:
        ValueError: If times are needed and missing, or if all events are at so few times that no cut leaves
            something on both sides.
    """
    if times is None and rule.needs_times:
        raise ValueError(f"the split {rule.describe()} needs the times of events")
    begins, ends = _bounds_of_ties(sequences, times if rule.together else None)
    if rule.kind == "global-time":
        assert times is not None  # noqa: S101 — checked above
        return _cut_at_times(rule, sequences, times, ends)
    starts, stops, lengths = sequences.starts, sequences.stops, sequences.lengths
    held_out = [np.ones_like(lengths), np.ones_like(lengths)]
    if rule.kind == "ratio":  # 0.29 * 100 is a little less than 29
        held_out = [
            np.maximum(1, (lengths * share + 1e-9).astype(np.int64)) for share in (rule.test, rule.valid)
        ]
    stops = np.where(lengths >= 3, stops, starts)
    test_starts = _step_back(stops, held_out[0], starts, begins)
    valid_starts = _step_back(test_starts, held_out[1], starts, begins)
    train_stops = np.where(
        valid_starts > starts, valid_starts, np.where(test_starts > starts, test_starts, stops)
    )
    return Cuts(
        train_stops,
        *_asked(valid_starts, test_starts, starts),
        *_asked(test_starts, stops, starts),
    )


def _cut_at_times(rule: SplitRule, sequences: Ragged, times: Ints, ends: Ints) -> Cuts:
    """Return the cuts by one time for all; ``ends`` is where the events at the time of each event end."""
    ordered = np.sort(times)
    test_time, valid_time = (
        ordered[int(len(ordered) * (1 - share) + 1e-9)] if len(ordered) else 0
        for share in (rule.test, rule.test + rule.valid)
    )
    if len(ordered) == 0 or not ordered[0] < valid_time < test_time:
        raise ValueError(
            "the events are at too few different times for global-time to cut off a test and a validation; "
            "take another split, or other shares of test and valid"
        )
    starts, stops = sequences.starts, sequences.stops
    firsts = []
    for time in (valid_time, test_time):
        earlier = np.concatenate([[0], np.cumsum(times < time)])
        firsts.append(starts + earlier[stops] - earlier[starts])
    valid_starts, test_starts = firsts

    def wanted(first: Ints, end: Ints) -> Ints:
        last = np.minimum(first + rule.first, end)
        return np.where(last > first, ends[np.maximum(last, 1) - 1], first)

    return Cuts(
        valid_starts,
        *_asked(valid_starts, wanted(valid_starts, test_starts), starts),
        *_asked(test_starts, wanted(test_starts, stops), starts),
    )


def _bounds_of_ties(sequences: Ragged, times: Ints | None) -> tuple[Ints, Ints]:
    """Return where the events of each event's user at its time begin, ``(M + 1,)``, and end, ``(M,)``.

    Without times every event is by itself. The end of all values is a place where events begin, too.
    """
    places = np.arange(len(sequences.values) + 1)
    if times is None:
        return places, places[1:]
    is_new = np.ones(len(places), dtype=np.bool_)
    is_new[1:-1] = times[1:] != times[:-1]
    is_new[sequences.starts] = True
    borders, group = np.flatnonzero(is_new), np.cumsum(is_new) - 1
    return borders[group], borders[group[:-1] + 1]


def _step_back(stops: Ints, counts: Ints, starts: Ints, begins: Ints) -> Ints:
    """Return the place ``counts`` events before ``stops``, moved to where its ties begin, in its row."""
    return begins[np.maximum(stops - counts, starts)]


def _asked(first: Ints, stop: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Return first and end of the targets of each user; no targets where no history is before them."""
    return first, np.where(first > starts, stop, first)
