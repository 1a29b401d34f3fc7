"""Tokenizers that version 0.1.0 saved still load, and give the codes that they gave then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from semantic_ids.autoencoder import QUANTIZERS, Autoencoder
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.tokenizer import Tokenizer

FOLDER = Path(__file__).parents[1] / "data/models-0.1.0/tokenizers"
MODELS = ["fsq", "grit-vq-literal", "nsvq", "rq-kmeans", "rq-vae", "sf-diveq"]


def saved_params(name: str) -> dict[str, Any]:
    params: dict[str, Any] = json.loads((FOLDER / name / "model.json").read_text())["params"]
    return params


@pytest.mark.parametrize("name", MODELS)
def test_codes_are_those_of_the_version_that_saved_the_tokenizer(name: str) -> None:
    expected = json.loads((FOLDER / name / "expected.json").read_text())
    tokenizer = Tokenizer.load(FOLDER / name)
    assert tokenizer.encode(torch.tensor(expected["embeddings"])).tolist() == expected["codes"]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_saved_again_in_the_present_form(name: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(FOLDER / name)
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.params() == tokenizer.params()
    assert type(tokenizer).upgraded(tokenizer.params()) == tokenizer.params()
    assert all(torch.equal(value, again.state()[key]) for key, value in tokenizer.state().items())


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("grit-vq-literal", {"codebook": {"frozen": True, "normalize": True, "spectral_clip": 2.0}}),
        (
            "nsvq",
            {
                "codebook": {"refresh_every": 2},
                "upkeep": {"replacement": "used", "dead_below": 0.01, "reservoir": 10},
            },
        ),
        ("sf-diveq", {"upkeep": {"initialization": "recent-means"}}),
        ("rq-vae", {}),
    ],
)
def test_options_of_the_quantizer_move_into_their_groups(name: str, groups: dict[str, Any]) -> None:
    before = saved_params(name)
    kept = {
        key: value for key, value in before["quantizer"].items() if key not in VectorQuantizer.moved_arguments
    }
    expected = {**before, "quantizer": {**kept, **groups}}
    assert Autoencoder.upgraded(before) == expected
    assert Tokenizer.load(FOLDER / name).params() == expected


def test_every_option_that_moved_is_in_a_saved_tokenizer() -> None:
    quantizers = [saved_params(name).get("quantizer") for name in MODELS]
    saved = {key for quantizer in quantizers if isinstance(quantizer, dict) for key in quantizer}
    assert saved >= VectorQuantizer.moved_arguments.keys()


def test_options_of_other_quantizers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUANTIZERS, "normal", lambda codebook_sizes, normalize=True: None)  # type: ignore[arg-type]
    for choice in ("normal", "vector", {"name": "normal", "normalize": False}, {"name": "nobody's"}):
        assert Autoencoder.upgraded({"quantizer": choice}) == {"quantizer": choice}
    assert Autoencoder.upgraded({}) == {}
