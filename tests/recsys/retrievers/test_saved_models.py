"""Models that version 0.1.0 saved load today and rank as they did then.

``tests/data/models-0.1.0/retrievers`` holds one folder per retriever, as 0.1.0 wrote it. ``expected.json``
holds the user sequences and the codes that they were fitted on, and the first 5 items for every test query.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recsys.examples import Examples, Ragged
from recsys.retrievers.base import Retriever
from recsys.retrievers.ensemble import Ensemble
from recsys.retrievers.tiger import Search, Tiger
from recsys.splits import Sequences, leave_one_out

DATA = Path(__file__).parents[2] / "data" / "models-0.1.0" / "retrievers"
EXPECTED = json.loads((DATA / "expected.json").read_text())


@pytest.fixture(scope="module")
def queries() -> Examples:
    rows = EXPECTED["sequences"]
    users = np.array([f"u{number:02d}" for number in range(len(rows))])
    return leave_one_out(Sequences(users, Ragged.from_rows(rows))).test


def test_every_saved_model_is_tested() -> None:
    folders = {path.name for path in DATA.iterdir() if path.is_dir()}
    assert folders == set(EXPECTED["rankings"])
    assert len(folders) == 9


@pytest.mark.parametrize("kind", EXPECTED["rankings"])
def test_it_ranks_as_it_did(kind: str, queries: Examples) -> None:
    retriever = Retriever.load(DATA / kind)
    assert retriever.ids.codes.tolist() == EXPECTED["codes"]
    assert retriever.rank(queries, 5).items.tolist() == EXPECTED["rankings"][kind]


def test_tigers_beam_and_exact_are_now_its_search() -> None:
    tiger = Retriever.load(DATA / "tiger")
    assert isinstance(tiger, Tiger)
    assert tiger.search == Search(beam=7, exact=True)


def test_fused_is_now_an_ensemble() -> None:
    ensemble = Retriever.load(DATA / "fused")
    assert isinstance(ensemble, Ensemble)
    assert list(ensemble.members) == ["tiger", "knn-sum"]
    assert isinstance(ensemble.members["tiger"], Tiger)
    assert ensemble.members["tiger"].search == Search(beam=7, exact=True)


@pytest.mark.parametrize("kind", EXPECTED["rankings"])
def test_saved_again_it_still_ranks_alike(kind: str, queries: Examples, tmp_path: Path) -> None:
    Retriever.load(DATA / kind).save(tmp_path)
    assert Retriever.load(tmp_path).rank(queries, 5).items.tolist() == EXPECTED["rankings"][kind]
