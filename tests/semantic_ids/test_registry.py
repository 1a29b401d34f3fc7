"""Tokenizers found by name, and what is said about a wrong one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from semantic_ids.autoencoder import Autoencoder
from semantic_ids.fitted import DenseIds, RandomHyperplanes
from semantic_ids.quantizers.upkeep import Upkeep
from semantic_ids.recipes import RECIPES
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
    assert type(tokenizer) is Autoencoder
    assert tokenizer.quantizer == {
        "name": "vector",
        "surrogate": {"name": "grit", "radius": {"name": "power", "alpha": 0.5}},
        "transform": {"name": "low-rank", "rank": 64},
    }
    assert tokenizer.levels == 4


def test_parameters_override_choices() -> None:
    tokenizer = create("grit-vq", quantizer="vector", levels=2, codebook_size=16)
    assert (tokenizer.quantizer, tokenizer.codebook_sizes) == ("vector", (16, 16))
    assert create("grit-vq").quantizer == RECIPES["grit-vq"].choices["quantizer"]  # the table is unchanged


def test_groups_of_options_are_changed_in_part() -> None:
    grit = create("grit-vq", quantizer={"upkeep": {"reservoir": 100}})
    assert grit.quantizer == {**create("grit-vq").quantizer, "upkeep": {"reservoir": 100}}
    nsvq = create("nsvq", quantizer={"upkeep": {"reservoir": 100}, "codebook": {"normalize": True}})
    assert nsvq.quantizer == {
        **create("nsvq").quantizer,
        "upkeep": {"replacement": "used", "dead_below": 0.01, "reservoir": 100},
        "codebook": {"normalize": True},
    }
    nsvq.build({"fitted_width": 3})
    assert nsvq.model["quantizer"].upkeep == Upkeep(replacement="used", dead_below=0.01, reservoir=100)
    assert RECIPES["nsvq"].choices["quantizer"]["upkeep"] == {"replacement": "used", "dead_below": 0.01}


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("grit-vw", {}, "no tokenizer is called 'grit-vw'. Did you mean 'grit-vq'?"),
        ("xyz", {}, f"no tokenizer is called 'xyz'. Known: {', '.join(RECIPES)}"),
        ("rq-vae", {"level": 3}, "tokenizer 'rq-vae' has no parameter 'level'. Did you mean 'levels'?"),
        (
            "rq-vae",
            {"quantizer": {"frozen": True}},
            "quantizer 'vector' has no parameter 'frozen': it is now codebook.frozen",
        ),
        (
            "grit-vq",
            {"quantizer": {"reservoir": 100}},
            "quantizer 'vector' has no parameter 'reservoir': it is now upkeep.reservoir",
        ),
        (
            "rq-vae",
            {"quantizer": {"upkeep": {"resevoir": 1}}},
            "upkeep has no parameter 'resevoir'. Did you mean 'reservoir'?",
        ),
        ("dense-id", {"levels": 3}, "tokenizer 'dense-id' has no parameter 'levels'. Known: ."),
        ("lsh", {"codebook_size": 3}, "power of two for LSH, not 3"),
        (
            "semantic_ids.nowhere:X",
            {},
            "'semantic_ids.nowhere:X' cannot be imported: ModuleNotFoundError: No mod",
        ),
        (
            "semantic_ids.fitted:Lsh",
            {},
            "'semantic_ids.fitted:Lsh' cannot be imported: AttributeError: module",
        ),
        (
            "semantic_ids.fitted:nearest",
            {},
            "cannot be used: it is not a subclass of semantic_ids.tokenizer.Tokenizer",
        ),
        (
            "pathlib:Path",
            {},
            "'pathlib:Path' cannot be used: it is not a subclass of semantic_ids.tokenizer.Tokenizer",
        ),
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


@pytest.mark.parametrize(
    ("entry_point", "module", "message"),
    [
        (
            "made_up_plug_in:Constant",
            "raise RuntimeError('broken')",
            "tokenizer 'constant' of the package made-up-plug-in cannot be imported: RuntimeError: broken",
        ),
        (
            "made_up_plug_in:Constnat",
            PLUG_IN,
            "tokenizer 'constant' of the package made-up-plug-in cannot be imported: AttributeError: module",
        ),
        (
            "made_up_plug_in:NoTokenizer",
            PLUG_IN,
            "'constant' of the package made-up-plug-in cannot be used: it is not a subclass of",
        ),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_reported_and_harms_no_other(
    entry_point: str, module: str, message: str, site: Path
) -> None:
    install(site, f"constant = {entry_point}\ndense = semantic_ids.fitted:DenseIds", module)
    with pytest.warns(UserWarning, match=re.escape(message)) as warned:
        assert list(recipes()) == [*RECIPES, "dense"]
    assert len(warned) == 1
    with pytest.raises(ValueError, match=re.escape(message)):
        create("constant")
    assert type(create("dense")) is DenseIds
    assert type(create("rq-vae")) is RECIPES["rq-vae"].tokenizer
    with pytest.raises(ValueError, match=r"called 'konstant'. Did you mean 'constant'\?"):
        create("konstant")


def test_a_module_that_fails_while_it_is_imported_is_one_message(site: Path) -> None:
    (site / "made_up_plug_in.py").write_text("1 / 0")
    with pytest.raises(
        ValueError, match="'made_up_plug_in:X' cannot be imported: ZeroDivisionError: division"
    ):
        create("made_up_plug_in:X")
