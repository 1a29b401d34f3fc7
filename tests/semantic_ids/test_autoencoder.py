"""The learned tokenizers as a user meets them: fit, encode, decode, save, load."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semantic_ids.autoencoder import ResidualAutoencoder
from semantic_ids.registry import create
from semantic_ids.residual import ResidualQuantizer
from semantic_ids.tokenizer import Tokenizer

TINY: dict[str, Any] = {
    "levels": 3,
    "codebook_size": 8,
    "latent": 8,
    "hidden": (32,),
    "steps": 600,
    "batch_size": 256,
    "reset_every": 20,
}
LEARNED = ["grit-vq", "rq-vae"]


def planted(n: int = 1500, seed: int = 0) -> Tensor:
    """Each point is the sum of one of six centres of each of three scales, and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    points = 0.05 * torch.randn(n, 16, generator=generator)
    for scale in (4.0, 1.5, 0.5):
        centres = scale * torch.randn(6, 16, generator=generator)
        points += centres[torch.randint(6, (n,), generator=generator)]
    return points


def tiny(name: str, **choices: Any) -> Tokenizer:
    return create(name, **{**TINY, "steps": 60, **choices})


@pytest.fixture(scope="module", params=LEARNED)
def fitted(request: pytest.FixtureRequest) -> Tokenizer:
    return create(request.param, **TINY).fit(planted(), seed=1)


def test_every_code_of_every_level_is_used(fitted: Tokenizer) -> None:
    codes = fitted.encode(planted())
    assert codes.shape == (1500, 3)
    assert codes.dtype == torch.int64
    assert fitted.codebook_sizes == (8, 8, 8)
    for level in range(3):
        assert codes[:, level].unique().tolist() == list(range(8))


def test_new_points_of_the_same_kind_are_reconstructed(fitted: Tokenizer) -> None:
    generator = torch.Generator().manual_seed(5)
    new = planted() + 0.05 * torch.randn(1500, 16, generator=generator)
    decoded = fitted.decode(fitted.encode(new))
    assert decoded.dtype == torch.float32
    lost = (new - decoded).square().sum() / (new - new.mean(dim=0)).square().sum()
    assert lost < 0.25  # the mean alone has 1


def test_each_level_adds_detail(fitted: Tokenizer) -> None:
    x = planted()
    latents = fitted.model["encoder"]((x - fitted.mean) / fitted.scale).detach()
    codes = fitted.encode(x)
    left = [latents.square().mean()]
    for level, codebook in enumerate(fitted.model["quantizer"].codebooks):
        latents = latents - codebook.codewords().detach()[codes[:, level]]
        left.append(latents.square().mean())
    assert left == sorted(left, reverse=True)


def test_decode_mirrors_encode(fitted: Tokenizer) -> None:
    codes = fitted.encode(planted(50))
    latents = sum(
        codebook.codewords()[codes[:, level]]
        for level, codebook in enumerate(fitted.model["quantizer"].codebooks)
    )
    expected = fitted.model["decoder"](latents).detach() * fitted.scale + fitted.mean
    torch.testing.assert_close(fitted.decode(codes), expected)


@cache
def briefly_fitted() -> Tokenizer:
    return create("grit-vq", **{**TINY, "steps": 5}).fit(planted())


@given(st.integers(0, 1000), st.lists(st.integers(0, 1500), max_size=4))
@settings(deadline=None, max_examples=20)
def test_an_items_codes_do_not_depend_on_its_company(seed: int, cuts: list[int]) -> None:
    tokenizer, x = briefly_fitted(), planted()
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(seed))
    parts = torch.tensor_split(order, sorted(cuts))
    codes = torch.cat([tokenizer.encode(x[part]) for part in parts])
    assert torch.equal(codes, tokenizer.encode(x)[order])


def test_after_loading_everything_is_the_same(fitted: Tokenizer, tmp_path: Path) -> None:
    x = planted()
    fitted.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert type(loaded) is ResidualAutoencoder
    assert loaded.params() == fitted.params()
    assert loaded.codebook_sizes == fitted.codebook_sizes
    codes = fitted.encode(x)
    assert torch.equal(loaded.encode(x), codes)
    assert torch.equal(loaded.decode(codes), fitted.decode(codes))
    for name, value in fitted.state().items():
        assert torch.equal(loaded.state()[name], value), name


def test_a_loaded_tokenizer_saves_the_same_files(fitted: Tokenizer, tmp_path: Path) -> None:
    fitted.save(tmp_path / "first")
    Tokenizer.load(tmp_path / "first").save(tmp_path / "second")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize("name", LEARNED)
def test_the_seed_alone_decides(name: str) -> None:
    x = planted(400)
    torch.manual_seed(1)
    first = tiny(name).fit(x, seed=3).state()
    torch.manual_seed(2)
    again = tiny(name).fit(x, seed=3).state()
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    other = tiny(name).fit(x, seed=4).state()
    same = {key for key, value in first.items() if torch.equal(value, other[key])}
    assert same == {"mean", "scale"}


def test_the_seed_reaches_what_the_quantizer_starts_from() -> None:
    def start(seed: int) -> Mapping[str, Tensor]:
        return tiny("grit-vq", steps=0).fit(planted(50), seed=seed).state()

    first, other = start(0), start(1)
    for part in ("encoder.0.weight", "quantizer.codebooks.0.table", "quantizer.codebooks.0.transform.b"):
        assert not torch.equal(first[f"model.{part}"], other[f"model.{part}"])


@pytest.mark.parametrize("name", LEARNED)
def test_the_global_random_state_is_left_alone(name: str, tmp_path: Path) -> None:
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    tokenizer = tiny(name, steps=10).fit(planted(100), seed=3)
    tokenizer.decode(tokenizer.encode(planted(100)))
    tokenizer.save(tmp_path)
    Tokenizer.load(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_embeddings_are_left_alone() -> None:
    x = planted(100)
    before = x.clone()
    tiny("rq-vae", steps=5).fit(x).encode(x)
    assert torch.equal(x, before)


def test_units_of_the_embeddings_do_not_matter() -> None:
    lost = []
    for scale in (1.0, 1e-4, 1e4):
        x = scale * planted(400) + 3 * scale
        tokenizer = tiny("grit-vq").fit(x, seed=0)
        error = (x - tokenizer.decode(tokenizer.encode(x))).square().sum()
        lost.append(float(error / (x - x.mean(dim=0)).square().sum()))
    assert lost == pytest.approx([lost[0]] * 3, rel=0.05)


@pytest.mark.parametrize("name", LEARNED)
def test_dead_codes_are_brought_back_into_use(name: str) -> None:
    x, used, replaced = planted(), {}, {}
    for reset_every in (0, 20):
        seen: list[Mapping[str, float]] = []
        tokenizer = tiny(
            name, codebook_size=16, steps=200, learning_rate=0.03, warmup=0.0, reset_every=reset_every
        ).fit(x, on_step=lambda step, metrics, seen=seen: seen.append(metrics))
        used[reset_every] = sum(len(column.unique()) for column in tokenizer.encode(x).T)
        replaced[reset_every] = [metrics["replaced"] for metrics in seen]
    assert used[20] >= used[0] + 3  # of 48: this learning rate leaves codes behind
    assert used[20] >= 42
    assert replaced[0] == [0.0] * 4
    assert replaced[20] == sorted(replaced[20])  # counted from the start
    assert replaced[20][-1] > 0


def test_on_step_reports_every_fifty_steps_once_quantized() -> None:
    calls: list[tuple[int, Mapping[str, float]]] = []
    tiny("grit-vq", steps=300, warmup=0.2).fit(planted(), on_step=lambda *call: calls.append(call))
    assert [step for step, _ in calls] == [100, 150, 200, 250, 300]
    for _, metrics in calls:
        assert set(metrics) == {
            "loss", "reconstruction", "replaced", "perplexity_1", "perplexity_2", "perplexity_3"
        }  # fmt: skip
        assert all(1 <= metrics[f"perplexity_{level}"] <= 8 for level in (1, 2, 3))
        assert metrics["loss"] > metrics["reconstruction"] > 0
    assert calls[-1][1]["reconstruction"] < calls[0][1]["reconstruction"]
    assert calls[-1][1]["reconstruction"] < 0.5  # a share: predicting the mean would lose 1


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_codebooks_are_seeded_once(warmup: float, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = []
    seed = ResidualQuantizer.seed

    def recorded(self: ResidualQuantizer, z: Tensor, generator: torch.Generator) -> None:
        latents.append(z)
        seed(self, z, generator)

    monkeypatch.setattr(ResidualQuantizer, "seed", recorded)
    tokenizer = tiny("grit-vq", warmup=warmup).fit(planted(300))
    tokenizer.encode(planted(300))
    assert [z.shape for z in latents] == [(300, 8)]


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_items_than_codes(name: str, n: int) -> None:
    x = planted(n)
    tokenizer = tiny(name).fit(x, seed=0)
    codes = tokenizer.encode(x)
    assert codes.shape == (n, 3)
    decoded = tokenizer.decode(codes)
    assert torch.isfinite(decoded).all()
    if n == 1:
        torch.testing.assert_close(decoded, x)


def test_equal_items() -> None:
    x = torch.full((20, 16), 0.1)
    tokenizer = tiny("grit-vq").fit(x, seed=0)
    assert len(tokenizer.encode(x).unique(dim=0)) == 1
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(x)), x)


def test_no_items_to_encode(fitted: Tokenizer) -> None:
    codes = fitted.encode(torch.empty(0, 16))
    assert codes.shape == (0, 3)
    assert codes.dtype == torch.int64
    assert fitted.decode(codes).shape == (0, 16)


def test_a_frozen_table_keeps_its_seeds() -> None:
    x = planted(300)
    params = {"name": "low-rank", "rank": 2}
    short, long = (
        tiny("rq-vae", transform=params, frozen=True, warmup=0.0, reset_every=0, steps=steps).fit(x).state()
        for steps in (1, 30)
    )
    for level in range(3):
        table = f"model.quantizer.codebooks.{level}.table"
        assert torch.equal(short[table], long[table])
        assert not torch.equal(short[table.replace("table", "transform.w")], torch.eye(8))


def test_double_precision_is_taken() -> None:
    x = planted(100)
    tokenizer = tiny("rq-vae", steps=20).fit(x.double())
    assert torch.equal(tokenizer.encode(x.double()), tokenizer.encode(x))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_no_numbers_are_named(value: float, fitted: Tokenizer) -> None:
    x = planted(10)
    x[3, 2] = x[7, 0] = value
    message = r"embeddings hold NaN or infinite values in 2 rows, first \[3, 7\]"
    with pytest.raises(ValueError, match=message):
        tiny("rq-vae").fit(x)
    with pytest.raises(ValueError, match=message):
        fitted.encode(x)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (5, 0)])
def test_embeddings_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(items, features\), not of shape"):
        tiny("rq-vae").fit(torch.zeros(shape))


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="0 embeddings are too few"):
        tiny("rq-vae").fit(torch.empty(0, 16))


@pytest.mark.parametrize("warmup", [-0.1, 1.0])
def test_a_warmup_that_leaves_no_steps_is_refused(warmup: float) -> None:
    with pytest.raises(ValueError, match=r"share of the steps in \[0, 1\)"):
        tiny("rq-vae", warmup=warmup)


def test_wrong_choices_are_refused_before_any_data_is_seen() -> None:
    with pytest.raises(ValueError, match="no surrogate is called 'ste'"):
        ResidualAutoencoder(surrogate="ste")
