"""Saving and loading anything fitted."""

from __future__ import annotations

import importlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from semantic_ids.digest import content_digest
from semantic_ids.fitted import DenseIds, RandomHyperplanes, ResidualKMeans
from semantic_ids.persistence import Persistent
from semantic_ids.tokenizer import Tokenizer


@dataclass
class Plan:
    steps: int = 3


class Model(Persistent):
    def __init__(self, plan: Plan, name: str = "x") -> None:
        self.plan, self.name = plan, name


class Network(Persistent):
    """Learns a tensor and two modules, one of them inside a list of modules."""

    def __init__(self, width: int = 2) -> None:
        self.width = width

    def build(self, facts: Mapping[str, Any]) -> None:
        self.outputs = facts["outputs"]
        self.network = nn.ModuleList([nn.Linear(self.width, self.outputs), nn.Dropout()])
        self.net = nn.BatchNorm1d(self.width)  # its name begins like the other's


def test_weights_of_modules_are_saved_and_restored(tmp_path: Path) -> None:
    network = Network(width=3)
    network.build({"outputs": 2})
    network.offset = torch.arange(2.0)
    network.net(torch.randn(8, 3))  # moves the running statistics, which are buffers
    assert set(network.state()) == {
        "offset", "network.0.weight", "network.0.bias", "net.weight", "net.bias",
        "net.running_mean", "net.running_var", "net.num_batches_tracked",
    }  # fmt: skip
    network.save(tmp_path)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    loaded = Network.load(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (loaded.width, loaded.outputs) == (3, 2)
    assert loaded.state().keys() == network.state().keys()
    assert all(torch.equal(value, loaded.state()[name]) for name, value in network.state().items())
    assert not loaded.network[1].training
    assert not loaded.net.training


def test_parameters_are_plain_json() -> None:
    assert Model(Plan(7), name="y").params() == {"plan": {"steps": 7}, "name": "y"}
    assert RandomHyperplanes(levels=2).params() == {"levels": 2, "codebook_size": 256}
    assert DenseIds().params() == {}


def test_state_is_every_tensor() -> None:
    model = Model(Plan())
    model.weight = torch.ones(2)
    assert list(model.state()) == ["weight"]


def test_names_that_begin_with_an_underscore_are_not_kept(tmp_path: Path) -> None:
    network = Network()
    network.build({"outputs": 2})
    network._cached, network._teacher, network._seen = torch.ones(2), nn.Linear(2, 2), {1, 2}
    network.save(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == set(network.state())
    assert {name.split(".")[0] for name in network.state()} == {"network", "net"}
    assert not vars(Network.load(tmp_path)).keys() & {"_cached", "_teacher", "_seen"}


def test_what_was_learned_and_is_no_tensor_is_kept_as_json(tmp_path: Path) -> None:
    model = Model(Plan(), name="y")
    model.seen = {"texts": ["a", "b"], "longest": 1.5, "none": None}
    model.count = 3
    model._scratch = object()
    assert model.facts() == {"seen": {"texts": ["a", "b"], "longest": 1.5, "none": None}, "count": 3}
    model.save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    loaded = Model(Plan())
    loaded.restore({}, about["facts"])
    assert (loaded.seen, loaded.count) == (model.seen, 3)
    assert not hasattr(loaded, "_scratch")


@pytest.mark.parametrize(
    "value",
    [np.arange(3), np.int64(3), (1, 2), {1: "a"}, {1, 2}, Plan(), [torch.ones(1)], float("nan"), len],
    ids=lambda value: type(value).__name__,
)
def test_what_would_be_lost_is_refused_before_anything_is_written(value: object, tmp_path: Path) -> None:
    model = Model(Plan())
    model.weight, model.learned = torch.ones(1), value
    message = (
        f"Model.learned, a {type(value).__name__}, would not survive saving: make it a tensor, a module or"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_argument_that_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Model\.name, a set, would not survive"):
        Model(Plan(), name={"x"}).params()  # type: ignore[arg-type]


def test_an_argument_that_is_not_kept_is_named() -> None:
    class Forgetful(Persistent):
        def __init__(self, levels: int = 2) -> None:
            pass

    with pytest.raises(ValueError, match=r"Forgetful does not keep its argument 'levels': set self\.levels"):
        Forgetful().params()


def test_weights_without_their_module_are_named() -> None:
    with pytest.raises(ValueError, match=r"Model has no module for the weights net\.weight: write build\(\)"):
        Model(Plan()).restore({"net.weight": torch.ones(1)}, {})


def test_the_files_say_what_they_are(tmp_path: Path) -> None:
    lsh = RandomHyperplanes(levels=2, codebook_size=4).fit(torch.eye(3))
    lsh.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]
    description = json.loads((tmp_path / "new" / "folder" / "model.json").read_text())
    digest = description.pop("digest")
    assert digest == content_digest(lsh.state(), description)
    assert description == {
        "class": "semantic_ids.fitted:RandomHyperplanes",
        "params": {"levels": 2, "codebook_size": 4},
        "facts": {"codebook_sizes": [4, 4], "fitted_width": 3},
    }


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    lsh = RandomHyperplanes(levels=2, codebook_size=4).fit(torch.eye(3))
    lsh.save(tmp_path)
    for loaded in (RandomHyperplanes.load(tmp_path), Tokenizer.load(tmp_path), Persistent.load(tmp_path)):
        assert type(loaded) is RandomHyperplanes
        assert loaded.params() == lsh.params()
        assert (loaded.codebook_sizes, loaded.fitted_width) == ((4, 4), 3)
        assert torch.equal(loaded.normals, lsh.normals)
        assert torch.equal(loaded.offsets, lsh.offsets)


def test_tensors_that_are_views_are_saved_in_their_own_order(tmp_path: Path) -> None:
    lsh = RandomHyperplanes(levels=1, codebook_size=4).fit(torch.eye(2))
    lsh.normals = torch.arange(4.0).reshape(2, 2).T
    lsh.save(tmp_path)
    assert Tokenizer.load(tmp_path).normals.tolist() == [[0.0, 2.0], [1.0, 3.0]]


def test_saving_again_overwrites(tmp_path: Path) -> None:
    for levels in (2, 3):
        RandomHyperplanes(levels=levels, codebook_size=4).fit(torch.eye(3)).save(tmp_path)
    assert RandomHyperplanes.load(tmp_path).levels == 3


def test_a_folder_of_another_class_is_refused(tmp_path: Path) -> None:
    DenseIds().fit(torch.eye(3)).save(tmp_path)
    with pytest.raises(
        ValueError, match=r"model\.json holds a semantic_ids\.fitted:DenseIds, which is no ResidualKMeans"
    ):
        ResidualKMeans.load(tmp_path)


@pytest.mark.parametrize("name", ["pathlib:Path", "semantic_ids.registry:create"])
def test_a_folder_that_names_no_such_class_is_refused(name: str, tmp_path: Path) -> None:
    DenseIds().fit(torch.eye(3)).save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    del about["digest"]  # as in a file that somebody wrote by hand
    (tmp_path / "model.json").write_text(json.dumps({**about, "class": name}))
    with pytest.raises(ValueError, match=f"holds a {name}, which is no Tokenizer"):
        Tokenizer.load(tmp_path)


def flipped(content: bytes, draws: random.Random) -> bytes:
    changed = bytearray(content)
    changed[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_flipped_bit_and_a_cut_file_are_noticed(tmp_path: Path, name: str) -> None:
    RandomHyperplanes(levels=2, codebook_size=4).fit(torch.eye(3)).save(tmp_path)
    file, draws = tmp_path / name, random.Random(0)  # noqa: S311 — no secret
    content = file.read_bytes()
    damaged = [flipped(content, draws) for _ in range(400)]
    for changed in [*damaged, *(content[: draws.randrange(len(content))] for _ in range(50))]:
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=r"model\.(json|safetensors)"):
            Tokenizer.load(tmp_path)
    file.write_bytes(content)
    Tokenizer.load(tmp_path)


def test_a_model_without_a_digest_loads_as_before(tmp_path: Path) -> None:
    lsh = RandomHyperplanes(levels=2, codebook_size=4).fit(torch.eye(3))
    lsh.save(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    del about["digest"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert torch.equal(Tokenizer.load(tmp_path).normals, lsh.normals)


def test_weights_that_do_not_fit_the_class_are_told(tmp_path: Path) -> None:
    description = {"class": f"{__name__}:Network", "params": {"width": 3}, "facts": {"outputs": 2}}
    with pytest.raises(
        ValueError, match=r"m\.json holds a .*:Network that the present Network cannot take \(Key"
    ):
        Network.rebuilt(description, {}, "m.json")
    with pytest.raises(ValueError, match=r"cannot take \(TypeError: .*depth.*fit it again"):
        Network.rebuilt({**description, "params": {"depth": 3}}, {}, "m.json")


MODULE = """import pathlib
from semantic_ids.digest import content_digest
from semantic_ids.fitted import RandomHyperplanes
pathlib.Path(__file__).with_name("ran").touch()
class Mine(RandomHyperplanes): pass
"""


def saved_by(module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Save a model whose class is in ``module``, a file of ``folder`` that runs code when it is imported."""
    (folder / f"{module}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    lsh = RandomHyperplanes(levels=2, codebook_size=4).fit(torch.eye(3))
    lsh.save(folder / "model")
    about = json.loads((folder / "model" / "model.json").read_text())
    del about["digest"]
    (folder / "model" / "model.json").write_text(json.dumps({**about, "class": f"{module}:Mine"}))
    return folder / "model"


def test_loading_imports_no_module_that_only_the_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved_by("unheard_of", tmp_path, monkeypatch)
    with pytest.raises(
        ValueError, match="holds a unheard_of:Mine, but its module is not imported; if you trust"
    ):
        Tokenizer.load(model)
    assert not (tmp_path / "ran").exists()
    mine = importlib.import_module("unheard_of")
    assert type(Tokenizer.load(model)) is mine.Mine


def test_loading_imports_what_installed_packages_offer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved_by("offered", tmp_path, monkeypatch)
    about = tmp_path / "offered-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: offered\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[semantic_ids.tokenizers]\nmine = offered:Mine\n")
    assert type(Tokenizer.load(model)).__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("semantic_ids.fitted:Lsh", "holds a semantic_ids.fitted:Lsh, which does not exist here"),
        ("semantic_ids.nowhere:X", "which does not exist here: No module named"),
        ("os:system", "holds a os:system, which is no Tokenizer"),
        ("", "holds a , but its module is not imported"),
        ("..x:Y", "its module is not imported"),
        ("antigravity:geohash", "holds a antigravity:geohash, but its module is not imported"),
    ],
)
def test_classes_that_cannot_be_loaded_are_told(tmp_path: Path, name: str, message: str) -> None:
    description = {"class": name, "params": {}, "facts": {}}
    with pytest.raises(ValueError, match=re.escape(message)):
        Tokenizer.rebuilt(description, {}, "model.json")
