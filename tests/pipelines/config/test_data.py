"""What the section data says of splits, and that stages follow it."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from pipelines.config.data import DataConfig
from pipelines.run import stages
from recsys.audit.findings import read_findings
from recsys.cuts import SplitRule
from recsys.splits import read_sequences, read_split


def data(**values: Any) -> DataConfig:
    return DataConfig.model_validate({"reader": "movielens", "shop": {"users": 300, "items": 100}, **values})


def test_the_name_of_a_split_is_short_for_its_rule() -> None:
    assert data().split.rule() == SplitRule()
    assert data(split="global-time").split.rule() == SplitRule("global-time")
    chosen = data(split={"kind": "ratio", "test": 0.2, "valid": "5e-2"}).split.rule()
    assert chosen == SplitRule("ratio", 0.2, 0.05)


@pytest.mark.parametrize(
    ("split", "complaint"),
    [
        ("random", "leave-one-out"),
        (None, "name a split, leave-one-out, global-time, ratio"),
        (["ratio"], "name a split, leave-one-out, global-time, ratio"),
        ({"test": 0.2}, "split leave-one-out has no test"),
        ({"kind": "ratio", "first": 2}, "split ratio has no first"),
        ({"kind": "ratio", "test": 0.9}, "leave something to train on"),
        ({"kind": "global-time", "first": 0}, "not the first 0"),
        ({"kind": "global-time", "first": True}, "first"),
        ({"kind": "global-time", "tset": 0.2}, "test"),
    ],
)
def test_a_split_that_cannot_be_is_refused(split: Any, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        data(split=split)


def test_a_search_corpus_keeps_its_own_split() -> None:
    with pytest.raises(ValidationError, match="the queries of esci data are split already"):
        DataConfig.model_validate({"reader": "esci", "shop": {}, "split": "ratio"})


def test_a_reader_may_not_take_a_key_of_the_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greedy_reader.py").write_text(
        "from pathlib import Path\nfrom recsys.datasets.corpus import Corpus\n"
        "def read(log: Path, split: str = 'a') -> Corpus: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValidationError, match="has a parameter 'split', a key of every section data"):
        DataConfig.model_validate({"reader": "greedy_reader:read", "raw": "x", "log": "y"})


def orders(folder: Path, **values: Any) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    """The sequence of each user after a table was read, and the facts of the corpus."""
    chosen = {"reader": "table", "raw": str(folder), "interactions": "log.csv", "k_core": 1, **values}
    section = DataConfig.model_validate(chosen)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    stages.ingest(section.raw, section.model_dump(mode="json"), {}, out)
    names = np.array(pl.read_parquet(out / "items.parquet")["item_id"].to_list())
    sequences = read_sequences(out / "sequences.parquet").items
    facts = json.loads((out / "corpus.json").read_text())
    return [tuple(names[sequences[row]].tolist()) for row in range(len(sequences))], facts


def write_log(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "log.csv")


DAY = [(f"u{user:02d}", f"i{item}", time) for user in range(60) for item, time in enumerate([1, 2, 4, 4, 4])]


def test_shuffled_ties_are_in_every_order_and_other_events_stay(tmp_path: Path) -> None:
    write_log(tmp_path, DAY)
    assert set(orders(tmp_path)[0]) == {("i0", "i1", "i2", "i3", "i4")}
    shuffled, facts = orders(tmp_path, ties="shuffle")
    assert {order[:2] for order in shuffled} == {("i0", "i1")}
    assert {order[2:] for order in shuffled} == set(permutations(["i2", "i3", "i4"]))
    assert facts["split"].endswith(", equal times in random order (seed 0)")
    assert orders(tmp_path, ties="shuffle", ties_seed=1)[0] != shuffled
    write_log(tmp_path, DAY[::-1])
    assert orders(tmp_path, ties="shuffle")[0] == shuffled, "the order of the file does not matter"


def test_last_together_asks_for_all_events_at_the_last_time_and_counts_who_has_no_other(
    tmp_path: Path,
) -> None:
    write_log(tmp_path, [*DAY, *[("x", f"i{item}", 7) for item in range(4)]])
    _, facts = orders(tmp_path, ties="last_together")
    assert facts["notes"]["users_without_test_query"] == 1
    assert "events at one time are asked for together" in facts["split"]
    test = read_split(tmp_path / "out").test
    assert len(test) == 60
    assert {tuple(sorted(test.targets[row].tolist())) for row in range(60)} == {(2, 3, 4)}


@pytest.mark.parametrize("ties", ["shuffle", "last_together"])
def test_ties_of_a_corpus_without_times_are_not_known(ties: str, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"u{user} a b c d e\n" for user in range(9)))
    section = DataConfig.model_validate(
        {"reader": "sequences", "raw": str(tmp_path), "sequences": "lines.txt", "k_core": 1, "ties": ties}
    )
    with pytest.raises(ValueError, match=f"has no times.* ties: {ties} needs a source with times"):
        stages.ingest(section.raw, section.model_dump(mode="json"), {}, tmp_path)


def test_a_seed_of_ties_without_use_and_ties_of_a_search_are_refused() -> None:
    with pytest.raises(ValidationError, match="ties_seed is only used by ties: shuffle"):
        data(ties_seed=1)
    with pytest.raises(ValidationError, match="leave out ties: shuffle"):
        DataConfig.model_validate({"reader": "esci", "shop": {}, "ties": "shuffle"})


@pytest.mark.parametrize(
    ("split", "measured"),
    [
        ("leave-one-out", "leave-one-out (each user's last event"),
        ("global-time", "global-time (each user's first event after one cut in time"),
        ("ratio", "ratio (the last 10% of each user's events as one set"),
    ],
)
def test_a_split_is_made_when_the_corpus_is_read_and_said_in_one_line(
    split: str, measured: str, tmp_path: Path
) -> None:
    stages.ingest(None, data(split=split).model_dump(mode="json"), {}, tmp_path)
    facts = json.loads((tmp_path / "corpus.json").read_text())
    assert facts["split"].startswith(measured)
    found = read_split(tmp_path)
    assert min(len(found.train), len(found.valid), len(found.test)) > 10
    assert ("test_targets_new_to_training" in facts["notes"]) == (split != "leave-one-out")


def test_findings_on_the_data_are_kept_for_the_report(tmp_path: Path) -> None:
    write_log(tmp_path, DAY)
    orders(tmp_path)
    ties = read_findings(tmp_path / "out" / "audit.json")[0]
    assert (ties.name, ties.figure, ties.severity) == ("ties at the end of histories", 1.0, "warning")
    (tmp_path / "out" / "audit.json").unlink()
    orders(tmp_path, ties="shuffle")
    assert read_findings(tmp_path / "out" / "audit.json")[0].severity == "note"
    assert read_findings(tmp_path / "no.json") == []
