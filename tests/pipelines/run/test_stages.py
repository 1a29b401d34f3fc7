"""What goes wrong inside a tokenizer is said of the tokenizer; a fit that was cut short goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.run import stages
from pipelines.run.progress import MetricLogger
from pipelines.run.stages import fit, tokenize
from pipelines.run.store import Step, Store
from recsys.examples import Ragged
from recsys.splits import Sequences, write_sequences

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
        ("FloatCodes", "gave codes of dtype float32 on cpu; return int64"),
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
    curves = MetricLogger(tmp_path / "curves.jsonl", None)
    curves(1, {"tensor": torch.tensor(1.5), "numpy": np.float32(0.5), "count": 2})  # type: ignore[dict-item]
    line = json.loads((tmp_path / "curves.jsonl").read_text())
    assert line == {"step": 1, "tensor": 1.5, "numpy": 0.5, "count": 2.0}


class CutShortError(Exception):
    """Stands for whatever ends a process."""


def test_a_fit_that_was_cut_short_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ingest(config: Any, inputs: Any, out: Path) -> None:
        rows = [[(user + step) % 30 for step in range(5 + user % 5)] for user in range(60)]
        users = np.array([f"u{user:03d}" for user in range(60)])
        write_sequences(Sequences(users, Ragged.from_rows(rows)), out / "sequences.parquet")
        (out / "corpus.json").write_text(json.dumps({"items": 30}))

    training = {"steps": 12, "batch_size": 16, "evaluate_every": 3, "warmup_steps": 1}
    params = {"width": 16, "training": training}
    config = {"kind": "sasrec", "params": params, "seed": 0, "relevant_gain": 0.0}
    corpus = Step("ingest", "made up", 1, {}, {}, ingest)
    step = Step("fit", "sasrec", 1, config, {"corpus": corpus}, fit)
    through, broken = Store(tmp_path / "through"), Store(tmp_path / "broken")
    for store in (through, broken):
        store.make(corpus)
    through.make(step)

    class Fragile(MetricLogger):
        def __call__(self, step: int, metrics: Any) -> None:
            super().__call__(step, metrics)
            if step == 6:
                raise CutShortError

    with monkeypatch.context() as patched:
        patched.setattr(stages, "MetricLogger", Fragile)
        with pytest.raises(CutShortError):
            broken.make(step)
    (left,) = broken.folder(step).parent.iterdir()
    assert left.name.endswith(".checkpoint")
    broken.make(step)
    assert [entry.name for entry in left.parent.iterdir()] == [broken.folder(step).name]
    for file in ("curves.jsonl", "retriever/model.safetensors"):
        assert (broken.folder(step) / file).read_bytes() == (through.folder(step) / file).read_bytes()
