"""What the section data says of splits, and that stages follow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.config.data import DataConfig
from pipelines.run import stages
from recsys.cuts import SplitRule
from recsys.splits import read_split


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
