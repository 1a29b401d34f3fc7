"""Every row of the table of tokenizers, used as a benchmark uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semantic_ids import SemanticIds, Tokenizer, create, quality
from semantic_ids.recipes import RECIPES

SMALL = {
    "levels": 2,
    "codebook_size": 8,
    "latent": 4,
    "hidden": [16],
    "steps": 300,
    "batch_size": 64,
    "iterations": 5,
}


def catalogue() -> Tensor:
    return torch.randn(120, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_goes_all_the_way(name: str, tmp_path: Path) -> None:
    x = catalogue()
    params = {key: value for key, value in SMALL.items() if key in RECIPES[name].parameters()}
    steps: list[int] = []
    tokenizer = create(name, **params).fit(x, seed=1, on_step=lambda step, metrics: steps.append(step))
    assert steps == sorted(set(steps))
    codes = tokenizer.encode(x)
    ids = SemanticIds(codes.numpy(), tokenizer.codebook_sizes)
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert torch.equal(loaded.encode(x), codes)
    assert torch.equal(create(name, **params).fit(x, seed=1).encode(x), codes)
    try:
        decoded = tokenizer.decode(codes)
    except NotImplementedError:
        assert name == "lsh"
        assert quality(ids, x.numpy()).reconstruction_error is None
    else:
        assert torch.equal(loaded.decode(codes), decoded)
        assert quality(ids, x.numpy(), decoded.numpy()).reconstruction_error < 0.95
    assert len(ids.leaves) > 20  # of 120 items: more than one level of 8 codes could tell apart


@pytest.mark.parametrize("name", [name for name in RECIPES if "levels" in RECIPES[name].parameters()])
@pytest.mark.parametrize("sizes", [(0, 8), (2, 0), (2, -8)])
def test_ids_without_levels_or_codes_are_refused(name: str, sizes: tuple[int, int]) -> None:
    message = f"not {sizes[0]} levels of {sizes[1]} codes"
    with pytest.raises(ValueError, match=message):
        create(name, levels=sizes[0], codebook_size=sizes[1])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is(name: str) -> None:
    found = RECIPES[name]
    assert found.summary
    assert "\n" not in found.summary
    assert found.source
    assert set(found.choices) <= set(found.parameters())
    assert json.loads(json.dumps(create(name).params())) == create(name).params()


def test_the_compared_recipes_differ_in_their_choices_only() -> None:
    grit, rq_vae = create("grit-vq").params(), create("rq-vae").params()
    assert {key for key in grit if grit[key] != rq_vae[key]} == {"surrogate", "transform"}
