"""Tokenizers found by name, and what is said about a wrong one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from semantic_ids.autoencoder import ResidualAutoencoder
from semantic_ids.choices import build, check_arguments, nearest_name
from semantic_ids.fitted import RandomHyperplanes
from semantic_ids.registry import create, recipe, recipes

PLUG_IN = '''
from semantic_ids import Tokenizer

class Constant(Tokenizer):
    """Sends every item to one code.

    More about it.
    """

    codebook_sizes = (1,)

    def __init__(self, flavour="plain"):
        self.flavour = flavour

    def fit(self, embeddings, *, seed=0, on_step=None):
        return self

    def encode(self, embeddings):
        import torch
        return torch.zeros(len(embeddings), 1, dtype=torch.int64)

class NoTokenizer:
    pass
'''


def install(folder: Path, entry_points: str, module: str = PLUG_IN) -> None:
    """What pip leaves of a package: its module and its metadata."""
    (folder / "made_up_plug_in.py").write_text(module)
    about = folder / "made_up_plug_in-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up-plug-in\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[semantic_ids.tokenizers]\n{entry_points}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "made_up_plug_in", raising=False)
    return tmp_path


def test_a_recipe_is_a_class_with_choices() -> None:
    tokenizer = create("grit-vq")
    assert type(tokenizer) is ResidualAutoencoder
    assert tokenizer.surrogate == {"name": "grit", "radius": {"name": "power", "alpha": 0.5}}
    assert tokenizer.levels == 4


def test_parameters_override_choices() -> None:
    tokenizer = create("grit-vq", transform="plain", levels=2, codebook_size=16)
    assert (tokenizer.transform, tokenizer.codebook_sizes) == ("plain", (16, 16))
    assert create("grit-vq").transform == {"name": "low-rank", "rank": 64}  # the table is unchanged


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("grit-vw", {}, "no tokenizer is called 'grit-vw'. Did you mean 'grit-vq'?"),
        ("xyz", {}, "no tokenizer is called 'xyz'. Known: grit-vq, rq-vae, rq-kmeans, lsh, dense-id"),
        ("rq-vae", {"level": 3}, "tokenizer 'rq-vae' has no parameter 'level'. Did you mean 'levels'?"),
        ("dense-id", {"levels": 3}, "tokenizer 'dense-id' has no parameter 'levels'. Known: ."),
        ("lsh", {"codebook_size": 3}, "power of two, not 3"),
        ("semantic_ids.nowhere:X", {}, "tokenizer 'semantic_ids.nowhere:X' cannot be imported: No module"),
        ("semantic_ids.fitted:Lsh", {}, "tokenizer 'semantic_ids.fitted:Lsh' cannot be imported: module"),
        ("semantic_ids.fitted:nearest", {}, "is not a subclass of semantic_ids.Tokenizer"),
        ("pathlib:Path", {}, "'pathlib:Path' is not a subclass of semantic_ids.Tokenizer"),
    ],
)
def test_what_cannot_be_created(name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        create(name, **params)


def test_any_importable_class_by_its_path(site: Path) -> None:
    (site / "made_up_plug_in.py").write_text(PLUG_IN)
    tokenizer = create("made_up_plug_in:Constant", flavour="mint")
    assert tokenizer.flavour == "mint"
    assert recipe("made_up_plug_in:Constant").summary == "Sends every item to one code."
    assert recipe("made_up_plug_in:Constant").parameters() == ["flavour"]


def test_installed_plug_ins_are_found(site: Path) -> None:
    install(site, "constant = made_up_plug_in:Constant")
    assert list(recipes())[-1] == "constant"
    found = recipes()["constant"]
    assert found.summary == "Sends every item to one code."
    assert found.source == "made_up_plug_in:Constant"
    assert create("constant", flavour="mint").flavour == "mint"
    with pytest.raises(ValueError, match=r"no tokenizer is called 'konstant'. Did you mean 'constant'\?"):
        create("konstant")


def test_a_plug_in_takes_no_built_in_name(site: Path) -> None:
    install(site, "lsh = made_up_plug_in:Constant")
    assert recipes()["lsh"].tokenizer is RandomHyperplanes
    assert type(create("lsh")) is RandomHyperplanes


def test_a_broken_plug_in_leaves_the_built_in_recipes_alone(site: Path) -> None:
    install(site, "constant = made_up_plug_in:Constant", module="raise RuntimeError('broken')")
    assert type(create("rq-vae")) is ResidualAutoencoder


def test_nearest_name() -> None:
    assert nearest_name("levls", ["levels", "latent"]) == "Did you mean 'levels'?"
    assert nearest_name("zzz", ["levels", "latent"]) == "Known: levels, latent."


def test_choices_are_names_or_mappings() -> None:
    table = {"pair": lambda left=1, *, right=2, context=0: (left, right, context)}
    assert build("thing", table, "pair") == (1, 2, 0)
    assert build("thing", table, {"name": "pair", "right": 5}, context=9) == (1, 5, 9)
    choice = {"name": "pair", "left": 7}
    build("thing", table, choice)
    assert choice == {"name": "pair", "left": 7}
    with pytest.raises(ValueError, match=r"no thing is called 'par'. Did you mean 'pair'\?"):
        build("thing", table, {"name": "par"})
    with pytest.raises(ValueError, match=r"thing 'pair' has no parameter 'rihgt'. Did you mean 'right'\?"):
        build("thing", table, {"name": "pair", "rihgt": 5})


def test_the_first_unknown_argument_is_named() -> None:
    check_arguments("it", create, {"name": 1})
    with pytest.raises(ValueError, match="it has no parameter 'b'"):
        check_arguments("it", recipe, {"name": 1, "b": 2, "c": 3})
