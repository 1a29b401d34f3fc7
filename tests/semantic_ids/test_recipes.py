"""Every row of the table of tokenizers, used as a benchmark uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from semantic_ids import SemanticIds, Tokenizer, create, quality
from semantic_ids.autoencoder import Autoencoder
from semantic_ids.recipes import RECIPES

SMALL = {
    "levels": 2,
    "codebook_size": 8,
    "hidden": [16],
    "steps": 120,
    "batch_size": 64,
    "learning_rate": 0.01,
    "reset_every": 20,
    "iterations": 5,
    "rounds": 5,
}
LEARNED = [name for name, recipe in RECIPES.items() if recipe.tokenizer is Autoencoder]
SEEDED = [name for name in LEARNED if name not in ("fsq", "lfq", "bsq", "sf-diveq", "ibq", "hypervq")]
UNITS = "utilization_1", "utilization_2"


def small(name: str, **choices: Any) -> Tokenizer:
    params = {key: value for key, value in SMALL.items() if key in RECIPES[name].parameters()}
    return create(name, **{**params, **choices})


def catalogue() -> Tensor:
    """Sums of one of eight centres and one of eight smaller ones, and a little noise."""
    generator = torch.Generator().manual_seed(0)
    points = 0.05 * torch.randn(400, 12, generator=generator)
    for scale in (3.0, 1.0):
        centres = scale * torch.randn(8, 12, generator=generator)
        points += centres[torch.randint(8, (400,), generator=generator)]
    return points


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_all_the_way(name: str, tmp_path: Path) -> None:
    x = catalogue()
    steps: list[int] = []
    quick = {"steps": 80, "learning_rate": 0.02} if name in LEARNED else {}
    tokenizer = small(name, **quick).fit(x, seed=1, on_step=lambda step, metrics: steps.append(step))
    assert steps == sorted(set(steps))
    codes = tokenizer.encode(x)
    if name == "dense-id":
        assert tokenizer.codebook_sizes == (len(x),)
    else:
        assert tokenizer.codebook_sizes == (8, 8)
        assert codes.shape == (len(x), 2)
    assert (codes >= 0).all()
    assert (codes < torch.tensor(tokenizer.codebook_sizes)).all()
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert torch.equal(loaded.encode(x), codes)
    assert loaded.params() == tokenizer.params()
    if name in ("lsh", "random-id"):
        with pytest.raises(NotImplementedError):
            tokenizer.decode(codes)
        return
    ids = SemanticIds(codes.numpy(), tokenizer.codebook_sizes)
    decoded = tokenizer.decode(codes)
    assert torch.equal(loaded.decode(codes), decoded)
    assert quality(ids, x.numpy(), decoded.numpy()).reconstruction_error < 0.5


@pytest.mark.parametrize("name", SEEDED)
def test_kmeans_starts_with_all_codes_in_use(name: str) -> None:
    x = catalogue()
    codes = small(name, steps=1, warmup=0.0, learning_rate=1e-6).fit(x).encode(x)
    for used in [codes] if name == "multi-head" else codes.T:  # whose heads share the codes
        assert used.unique().tolist() == list(range(8))


def test_grit_vq_keeps_all_codes_in_use() -> None:
    x, seen = catalogue(), []
    tokenizer = small("grit-vq", batch_size=400).fit(x, on_step=lambda step, metrics: seen.append(metrics))
    for column in tokenizer.encode(x).T:
        assert column.unique().tolist() == list(range(8))
    assert [seen[-1][unit] for unit in UNITS] == [1.0, 1.0]


@pytest.mark.parametrize("name", ["grit-vq-frozen", "simvq"])
def test_frozen_tables_stay_as_seeded_while_their_transforms_learn(name: str) -> None:
    x = catalogue()
    short, long = (small(name, steps=steps, warmup=0.0, reset_every=0).fit(x).state() for steps in (1, 40))
    for level in range(2):
        book = f"model.quantizer.codebooks.{level}"
        assert torch.equal(short[f"{book}.table"], long[f"{book}.table"])
        assert not torch.equal(short[f"{book}.transform.w"], long[f"{book}.transform.w"])


@pytest.mark.parametrize(
    "name", ["grit-vq", "grit-vq-attention", "rq-vae", "diveq", "nsvq", "st-gumbel", "ibq"]
)
def test_other_tables_learn(name: str) -> None:
    x = catalogue()
    short, long = (small(name, steps=steps, warmup=0.0, reset_every=0).fit(x).state() for steps in (1, 5))
    for level in range(2):
        table = f"model.quantizer.codebooks.{level}.table"
        assert not torch.equal(short[table], long[table])


@pytest.mark.parametrize("name", [name for name in RECIPES if "levels" in RECIPES[name].parameters()])
@pytest.mark.parametrize(
    ("sizes", "wrong"), [((0, 8), "levels"), ((10**9, 8), "levels"), ((2, 1), "codebook_size")]
)
def test_ids_without_levels_or_codes_are_refused(name: str, sizes: tuple[int, int], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{wrong} must be a whole number from"):
        create(name, levels=sizes[0], codebook_size=sizes[1])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is(name: str) -> None:
    found = RECIPES[name]
    assert found.summary
    assert "\n" not in found.summary
    assert found.source
    assert set(found.choices) <= set(found.parameters())
    params = create(name).params()
    assert json.loads(json.dumps(params)) == params


def test_the_compared_recipes_differ_in_their_choices_only() -> None:
    grit, rq_vae = create("grit-vq").params(), create("rq-vae").params()
    assert {key for key in grit if grit[key] != rq_vae[key]} == {"quantizer"}
    grit, rq_vae = grit["quantizer"], rq_vae["quantizer"]
    assert {key for key in grit if grit[key] != rq_vae.get(key)} == {"surrogate", "transform"}
    assert set(rq_vae) <= set(grit)


def test_no_two_recipes_are_the_same() -> None:
    rows = [(recipe.tokenizer, json.dumps(recipe.choices, sort_keys=True)) for recipe in RECIPES.values()]
    assert len(set(rows)) == len(RECIPES)
    assert len({recipe.summary for recipe in RECIPES.values()}) == len(RECIPES)


def test_ids_of_all_recipes_have_one_length_and_vocabulary() -> None:
    sizes = {create(name).codebook_sizes for name in RECIPES if name != "dense-id"}
    assert sizes == {(256,) * 4}
