"""An audit finds what was planted in a made-up shop, and has nothing against the shop as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.audit.contents import new_targets, overlap, same_texts, same_users, seen_before
from recsys.audit.findings import Finding
from recsys.audit.order import id_ranks
from recsys.audit.whole import audit
from recsys.cuts import LEAVE_ONE_OUT, SplitRule
from recsys.datasets.corpus import EVENTS, ITEMS, Corpus
from recsys.datasets.interactions import interactions_of, shuffle_ties
from recsys.datasets.readers import read_corpus
from recsys.datasets.synthetic import write_shop
from recsys.examples import Ragged
from recsys.splits import Sequences, cuts_of, sequences_of

LATER = "training events later than a test target"


def shop(folder: Path, *, signal: float = 1.0) -> Corpus:
    files = write_shop(folder, "movielens", users=1500, items=400, seed=3, signal=signal)
    return read_corpus("movielens", **files)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def sorted_by_id(clean: Corpus) -> Corpus:
    """The shop with the times of all but the first three events of a user made equal, sorted by item id."""
    events = clean.interactions.with_columns(
        place=pl.int_range(pl.len()).over("user_id"),
        third=pl.col("timestamp").slice(0, 3).last().over("user_id"),
        number=pl.col("item_id").cast(pl.String).cast(pl.Int64),
    )
    times = pl.when(pl.col("place") < 3).then("timestamp").otherwise(pl.col("third") + 86_400)
    coarse = events.with_columns(timestamp=times).sort("user_id", "timestamp", "number")
    return replace(clean, interactions=coarse.select("user_id", "item_id", "timestamp"))


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def warnings(findings: list[Finding]) -> set[str]:
    return {finding.name for finding in findings if finding.severity == "warning"}


def test_a_clean_shop_is_left_in_peace(clean: Corpus) -> None:
    findings = audit(clean)
    assert {finding.name for finding in findings if finding.severity != "ok"} <= {
        LATER,
        "minimum detectable difference",
    }
    assert warnings(findings) == set()
    assert all(finding.meaning.endswith(".") for finding in findings)
    assert all(finding.advice for finding in findings if finding.severity != "ok")


def test_under_one_cut_in_time_nothing_trained_on_is_later(clean: Corpus) -> None:
    assert by_name(audit(clean))[LATER].figure == pytest.approx(0.4, abs=0.1)
    assert by_name(audit(clean, SplitRule("global-time", 0.2, 0.2)))[LATER].figure == 0


def test_ties_sorted_by_id_are_found_with_what_they_are_worth(sorted_by_id: Corpus) -> None:
    findings = audit(sorted_by_id)
    assert {
        "ties at the end of histories",
        "tied last pairs that ascend by item id",
        "transition-knn gains from ids",
        "item-knn gains from ids",
    } <= warnings(findings)
    found = by_name(findings)
    assert found["tied last pairs that ascend by item id"].figure == 1
    order = sequences_of(sorted_by_id)
    times = sorted_by_id.interactions["timestamp"].to_numpy()
    ends = order.items.stops[order.items.lengths >= 3] - 1
    tied = float((times[ends] == times[ends - 1]).mean())
    assert found["ties at the end of histories"].figure == pytest.approx(tied)


def test_settled_ties_no_longer_ascend(sorted_by_id: Corpus) -> None:
    shuffled = replace(sorted_by_id, interactions=shuffle_ties(sorted_by_id.interactions, seed=0))
    findings = audit(shuffled, shuffled=True)
    assert not {name for name in warnings(findings) if "ids" in name or "ascend" in name}
    assert by_name(findings)["ties at the end of histories"].severity == "note"
    together = by_name(audit(sorted_by_id, SplitRule(together=True)))
    assert together["ties at the end of histories"].figure == 0


def test_an_order_sorted_by_id_is_found_without_times(sorted_by_id: Corpus) -> None:
    findings = audit(replace(sorted_by_id, has_times=False))
    assert {"last pairs that ascend by item id", "transition-knn gains from ids"} <= warnings(findings)
    assert by_name(findings)["ties at the end of histories"].figure is None


def test_random_events_and_a_lost_order_are_found(tmp_path: Path, clean: Corpus) -> None:
    assert "lead of the best baseline over popularity" in warnings(audit(shop(tmp_path, signal=0.0)))
    rng = np.random.default_rng(0)
    drawn = clean.interactions.with_columns(chance=rng.random(len(clean.interactions))).sort(
        "user_id", "chance"
    )
    lost = clean.interactions.with_columns(drawn["item_id"])
    found = audit(replace(clean, interactions=lost))
    assert [one.severity for one in found if one.name.endswith("histories are shuffled")] == ["note"]


def corpus(rows: list[tuple[str, str, int]]) -> Corpus:
    names = sorted({item for _, item, _ in rows})
    items = pl.DataFrame([(name, "", "", [], "") for name in names], schema=ITEMS, orient="row")
    events = pl.DataFrame(rows, schema=EVENTS, orient="row")
    return Corpus(items, interactions_of(events, keep="all"))


def test_new_and_repeated_targets_and_later_training_are_counted_by_hand() -> None:
    found = corpus(
        [
            *[("ann", item, time) for item, time in (("tea", 1), ("cup", 2), ("pot", 3), ("tea", 9))],
            *[("bob", item, time) for item, time in (("cup", 4), ("tea", 5), ("pot", 7), ("jug", 8))],
        ]
    )
    order = sequences_of(found)
    cuts = cuts_of(found, order, LEAVE_ONE_OUT)
    # Training has tea, cup at 1, 2 and cup, tea at 4, 5; the tests ask for tea at 9 and for jug at 8.
    assert new_targets(order, cuts).figure == 0.5
    assert seen_before(order, cuts).figure == 0.5
    assert overlap(found, order, cuts).figure == 0
    times = found.interactions["timestamp"] * pl.Series([1] * 4 + [10] * 4)
    moved = replace(found, interactions=found.interactions.with_columns(times))
    assert overlap(moved, order, cuts).figure == pytest.approx((2 / 4 + 0) / 2)


def test_copies_of_users_and_of_texts_are_counted() -> None:
    rows = [[1, 2, 3], [3, 2, 1], [1, 2, 3], [1, 2], [1, 2], [1, 2, 3, 1]]
    users = Sequences(np.array([f"u{n}" for n in range(6)]), Ragged.from_rows(rows))
    assert same_users(users).figure == pytest.approx(2 / 4)
    found = same_texts(["Red tea", "red  TEA", "green tea", "Unknown item", "Unknown item"])
    assert found.figure == pytest.approx(2 / 5)
    assert found.severity == "warning"


def test_ids_that_are_numbers_are_ordered_as_numbers() -> None:
    assert id_ranks(pl.Series(["10", "2", "33"])).tolist() == [1, 0, 2]
    assert id_ranks(pl.Series(["10", "2", "B3"])).tolist() == [0, 1, 2]


def test_baselines_that_agree_on_every_query_say_nothing_of_differences() -> None:
    rows = [(user, item, time) for user in "abcde" for time, item in enumerate(("tea", "cup", "pot", "jug"))]
    found = by_name(audit(replace(corpus(rows), has_times=False)))["minimum detectable difference"]
    assert (found.figure, found.severity) == (None, "note")
