"""What goes wrong inside a tokenizer is said of the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.stages import Curves, tokenize

PLUG_INS = """
import torch
from semantic_ids.fitted import DenseIds


class LosesAKey(DenseIds):
    def fit(self, embeddings, *, seed=0, on_step=None):
        return {}["foo"]


class FloatCodes(DenseIds):
    def encode(self, embeddings):
        return torch.zeros(len(embeddings), 1)


class KeepsAnArray(DenseIds):
    def encode(self, embeddings):
        self.order = embeddings.numpy()
        return super().encode(embeddings)


class DiskIsFull(DenseIds):
    def fit(self, embeddings, *, seed=0, on_step=None):
        raise OSError("no space left")
"""


def run(kind: str, tmp_path: Path, **params: Any) -> None:
    np.save(tmp_path / "embeddings.npy", np.eye(4, dtype=np.float32))
    config = {"class": kind, "params": params, "seed": 0, "collisions": "shared"}
    tokenize("mine", config, {"embeddings": tmp_path, "corpus": tmp_path}, tmp_path)


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty_plug_ins.py").write_text(PLUG_INS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plug_ins")
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("LosesAKey", "KeyError: 'foo'"),
        ("FloatCodes", "codes must be int64, not float32"),
        ("KeepsAnArray", "KeepsAnArray.order, a ndarray, would not survive saving"),
    ],
)
def test_a_fault_of_a_plug_in_names_it_and_says_how_to_check_it(
    kind: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"^tokenizer mine: ") as caught:
        run(f"faulty_plug_ins:{kind}", tmp_path)
    assert expected in str(caught.value)
    advice = f" (semantic_ids.testing.check_tokenizer tells what faulty_plug_ins:{kind} has to mend)"
    assert str(caught.value).endswith(advice)


def test_a_fault_of_a_tokenizer_of_ours_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^tokenizer mine: ") as caught:
        run("semantic_ids.fitted:RandomHyperplanes", tmp_path, codebook_size=3)
    assert "check_tokenizer" not in str(caught.value)


@pytest.mark.usefixtures("plug_ins")
def test_what_a_disk_does_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^no space left$"):
        run("faulty_plug_ins:DiskIsFull", tmp_path)


def test_curves_take_any_number(tmp_path: Path) -> None:
    curves = Curves(tmp_path / "curves.jsonl", None)
    curves(1, {"tensor": torch.tensor(1.5), "numpy": np.float32(0.5), "count": 2})  # type: ignore[dict-item]
    line = json.loads((tmp_path / "curves.jsonl").read_text())
    assert line == {"step": 1, "tensor": 1.5, "numpy": 0.5, "count": 2.0}
