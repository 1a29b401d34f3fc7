"""What each rule holds out, against the rule written down event by event."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.cuts import LEAVE_ONE_OUT, SplitKind, SplitRule, cut
from recsys.datasets.corpus import EVENTS, ITEMS, Corpus
from recsys.datasets.interactions import interactions_of
from recsys.examples import Examples, Ragged
from recsys.splits import Sequences, check_enough, leave_one_out, read_split, split_at, write_split

Rows = list[list[tuple[int, int]]]
"""The events of each user: item and time."""

Queries = list[tuple[str, list[int], list[int]]]
"""User, history and targets of each query."""

ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=9).map(
        lambda row: sorted(row, key=lambda event: event[1])
    ),
    max_size=7,
)
SHARES = st.sampled_from([0.05, 0.1, 0.2, 0.29, 0.45])


def queries_of(examples: Examples) -> Queries:
    return [
        (str(name), examples.history[row].tolist(), examples.targets[row].tolist())
        for row, name in enumerate(examples.names())
    ]


def split(rule: SplitRule, rows: Rows) -> tuple[Queries, Queries, Queries]:
    """Training, validation and test under a rule."""
    names = np.array([f"u{number}" for number in range(len(rows))], dtype=np.str_)
    sequences = Sequences(names, Ragged.from_rows([[item for item, _ in row] for row in rows]))
    times = np.array([time for row in rows for _, time in row], dtype=np.int64)
    found = split_at(sequences, cut(rule, sequences.items, times))
    for part in (found.train, found.valid, found.test):
        assert part.gains.tolist() == [1.0] * len(part.targets.flat())
    return queries_of(found.train), queries_of(found.valid), queries_of(found.test)


def query(number: int, row: list[tuple[int, int]], first: int, stop: int) -> Queries:
    """The query for the events from first to stop of a user; none without history or targets."""
    items = [item for item, _ in row]
    targets = list(dict.fromkeys(items[first:stop]))
    return [(f"u{number}", items[:first], targets)] if first > 0 and targets else []


def training(number: int, row: list[tuple[int, int]], stop: int) -> Queries:
    return [one for place in range(1, stop) for one in query(number, row, place, place + 1)]


@given(ROWS, SHARES, SHARES)
def test_ratio_holds_out_the_last_share_of_each_user(rows: Rows, test: float, valid: float) -> None:
    learned, chosen, asked = [], [], []
    for number, row in enumerate(rows):
        if len(row) < 3:
            continue
        test_start = len(row) - max(1, round(len(row) * test * 100) // 100)
        valid_start = max(0, test_start - max(1, round(len(row) * valid * 100) // 100))
        learned += training(number, row, valid_start or test_start)
        chosen += query(number, row, valid_start, test_start)
        asked += query(number, row, test_start, len(row))
    assert split(SplitRule("ratio", test, valid), rows) == (learned, chosen, asked)


@given(ROWS, SHARES, SHARES, st.integers(1, 4))
def test_global_time_asks_for_the_first_events_after_one_cut_for_all(
    rows: Rows, test: float, valid: float, first: int
) -> None:
    rule = SplitRule("global-time", test, valid, first)
    times = sorted(time for row in rows for _, time in row)
    cuts = [times[len(times) * round(100 - 100 * share) // 100] for share in (test, test + valid) if times]
    if not times or not times[0] < cuts[1] < cuts[0]:
        with pytest.raises(ValueError, match="too few different times"):
            split(rule, rows)
        return
    learned, chosen, asked = [], [], []
    for number, row in enumerate(rows):
        test_start, valid_start = (sum(time < cut for _, time in row) for cut in cuts)
        learned += training(number, row, valid_start)
        chosen += query(number, row, valid_start, min(valid_start + first, test_start))
        asked += query(number, row, test_start, min(test_start + first, len(row)))
    assert split(rule, rows) == (learned, chosen, asked)


@given(ROWS)
def test_leave_one_out_together_asks_for_all_events_at_the_last_time(rows: Rows) -> None:
    learned, chosen, asked = [], [], []
    for number, row in enumerate(rows):
        if len(row) < 3:
            continue
        times = sorted({time for _, time in row})
        test_start = sum(time < times[-1] for _, time in row)
        valid_start = sum(time < times[-2] for _, time in row) if len(times) > 1 else 0
        learned += training(number, row, valid_start or test_start or len(row))
        chosen += query(number, row, valid_start, test_start)
        asked += query(number, row, test_start, len(row))
    assert split(SplitRule(together=True), rows) == (learned, chosen, asked)


@given(ROWS, st.sampled_from(["global-time", "ratio"]), st.integers(1, 3))
def test_together_no_rule_asks_for_an_event_whose_tie_is_in_the_history(
    rows: Rows, kind: SplitKind, first: int
) -> None:
    unique = [[(100 * n + place, time) for place, (_, time) in enumerate(row)] for n, row in enumerate(rows)]
    moments = {item: (item // 100, time) for row in unique for item, time in row}
    try:
        parts = split(SplitRule(kind, 0.2, 0.2, first, together=True), unique)
    except ValueError:
        assert kind == "global-time"
        return
    for _, history, targets in parts[1] + parts[2]:
        assert {moments[item] for item in history}.isdisjoint(moments[item] for item in targets)


@given(ROWS)
def test_leave_one_out_by_cuts_is_leave_one_out(rows: Rows) -> None:
    names = np.array([f"u{number}" for number in range(len(rows))], dtype=np.str_)
    found = leave_one_out(Sequences(names, Ragged.from_rows([[item for item, _ in row] for row in rows])))
    long = [(number, row) for number, row in enumerate(rows) if len(row) >= 3]
    assert queries_of(found.train) == [one for n, row in long for one in training(n, row, len(row) - 2)]
    assert queries_of(found.test) == [one for n, row in long for one in query(n, row, len(row) - 1, len(row))]
    assert found.train.query_ids.tolist() == [f"u{number}" for number, _ in long]


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ({"kind": "random"}, "one of leave-one-out, global-time, ratio, not 'random'"),
        ({"kind": "ratio", "test": 0.0}, "not 0 and 0.1"),
        ({"kind": "ratio", "test": 0.5, "valid": 0.5}, "leave something to train on"),
        ({"kind": "ratio", "test": float("nan")}, "must be above 0"),
        ({"kind": "global-time", "first": 0}, "not the first 0"),
    ],
)
def test_a_rule_that_leaves_nothing_is_refused(numbers: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SplitRule(**numbers)


def corpus(rows: list[tuple[str, str, int]], *, has_times: bool = True) -> Corpus:
    names = sorted({item for _, item, _ in rows})
    items = pl.DataFrame([(name, "", "", [], "") for name in names], schema=ITEMS, orient="row")
    return Corpus(
        items, interactions_of(pl.DataFrame(rows, schema=EVENTS, orient="row")), has_times=has_times
    )


SHOP = [
    *[("ann", item, time) for item, time in (("cup", 1), ("tea", 2), ("pot", 6), ("jug", 9))],
    *[("bob", item, time) for item, time in (("tea", 1), ("pot", 3), ("cup", 8))],
    ("eve", "tea", 7),
    *[("ida", item, time) for item, time in (("tea", 6), ("cup", 9))],
]


def test_a_split_survives_the_disk_and_counts_what_is_new(tmp_path: Path) -> None:
    counts = write_split(corpus(SHOP), tmp_path, SplitRule("global-time", 0.3, 0.3))
    back = read_split(tmp_path)
    # The tenths of the ten times are 1 1 2 3 6 6 7 8 9 9: cuts at 6 and at 8. Items are cup jug pot tea.
    assert queries_of(back.train) == [("ann", [0], [3]), ("bob", [3], [2])]
    assert queries_of(back.valid) == [("ann", [0, 3], [2])]
    assert queries_of(back.test) == [("ann", [0, 3, 2], [1]), ("bob", [3, 2], [0]), ("ida", [3], [0])]
    assert counts == {
        "users_without_test_query": 1,
        "test_queries_of_users_new_to_training": 1,
        "test_targets": 3,
        "test_targets_new_to_training": 1,
    }


def test_plain_leave_one_out_writes_the_file_of_sequences_alone(tmp_path: Path) -> None:
    assert write_split(corpus(SHOP), tmp_path, LEAVE_ONE_OUT) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["sequences.parquet"]


@pytest.mark.parametrize("rule", [SplitRule("global-time"), SplitRule(together=True)])
def test_positions_are_not_taken_for_times(rule: SplitRule) -> None:
    with pytest.raises(ValueError, match="no times, only the order"):
        check_enough(corpus(SHOP, has_times=False), rule)
    daily = [(user, f"i{day}", 86_400 * day) for user in ("ann", "bob") for day in range(9)]
    with pytest.raises(ValueError, match="no times, only the order"):
        check_enough(corpus(daily), rule)
    check_enough(corpus(daily), LEAVE_ONE_OUT)
    check_enough(corpus(daily), SplitRule("ratio"))


def test_a_cut_that_leaves_too_few_queries_or_no_training_is_refused() -> None:
    with pytest.raises(ValueError, match="has 0 test queries under global-time, but 2 are the least"):
        check_enough(
            corpus([(f"u{n}", "tea", n) for n in range(20)] + [("u0", "cup", 3)]), SplitRule("global-time")
        )
    late = [(f"u{n}", f"i{place}", 10 * place**2 + n) for n in range(9) for place in range(3)]
    with pytest.raises(ValueError, match="no user has the 2 interactions before the cut"):
        check_enough(corpus(late), SplitRule("global-time", 0.3, 0.4))
