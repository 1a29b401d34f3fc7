"""The learned tokenizers as a user meets them: fit, encode, decode, save, load."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semantic_ids.autoencoder import QUANTIZERS, Autoencoder
from semantic_ids.errors import TrainingDivergedError
from semantic_ids.quantizers.quantizer import Quantized, Quantizer
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.randomness import seeded
from semantic_ids.recipes import RECIPES
from semantic_ids.registry import create
from semantic_ids.tokenizer import Tokenizer

TINY: dict[str, Any] = {
    "levels": 3,
    "codebook_size": 8,
    "hidden": (32,),
    "steps": 60,
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


def tiny(name: str, *, quantizer: Mapping[str, Any] | None = None, **choices: Any) -> Autoencoder:
    """The recipe, with latents of width 8 and few steps."""
    chosen = {**RECIPES[name].choices["quantizer"], "dim": 8, **(quantizer or {})}
    return Autoencoder(**{**TINY, "quantizer": chosen, **choices})


def lost(x: Tensor, decoded: Tensor) -> float:
    """Share of the variance."""
    return float((x - decoded).square().sum() / (x - x.mean(dim=0)).square().sum())


@pytest.fixture(scope="module", params=LEARNED)
def fitted(request: pytest.FixtureRequest) -> Autoencoder:
    return tiny(request.param, steps=200, learning_rate=0.003).fit(planted(), seed=1)


def test_every_code_of_every_level_is_used(fitted: Autoencoder) -> None:
    codes = fitted.encode(planted())
    assert codes.shape == (1500, 3)
    assert codes.dtype == torch.int64
    assert fitted.codebook_sizes == (8, 8, 8)
    for level in range(3):
        assert codes[:, level].unique().tolist() == list(range(8))


def test_new_points_of_the_same_kind_are_reconstructed(fitted: Autoencoder) -> None:
    generator = torch.Generator().manual_seed(5)
    new = planted() + 0.05 * torch.randn(1500, 16, generator=generator)
    decoded = fitted.decode(fitted.encode(new))
    assert decoded.dtype == torch.float32
    assert lost(new, decoded) < 0.25  # the mean alone has 1


def test_each_level_adds_detail(fitted: Autoencoder) -> None:
    x = planted()
    latents = fitted.model["encoder"]((x - fitted.mean) / fitted.scale).detach()
    codes = fitted.encode(x)
    left = [float(latents.square().mean())]
    for level, codebook in enumerate(fitted.model["quantizer"].codebooks):
        latents = latents - codebook.codewords().detach()[codes[:, level]]
        left.append(float(latents.square().mean()))
    assert all(after < 0.9 * before for before, after in pairwise(left))


def test_decode_mirrors_encode(fitted: Autoencoder) -> None:
    codes = fitted.encode(planted(50))
    latents = sum(
        codebook.codewords()[codes[:, level]]
        for level, codebook in enumerate(fitted.model["quantizer"].codebooks)
    )
    expected = fitted.model["decoder"](latents).detach() * fitted.scale + fitted.mean
    torch.testing.assert_close(fitted.decode(codes), expected)


@cache
def briefly_fitted() -> Autoencoder:
    return tiny("grit-vq", steps=5).fit(planted())


@given(st.integers(0, 1000), st.lists(st.integers(0, 1500), max_size=4))
@settings(deadline=None, max_examples=20)
def test_an_items_codes_do_not_depend_on_its_company(seed: int, cuts: list[int]) -> None:
    tokenizer, x = briefly_fitted(), planted()
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(seed))
    parts = torch.tensor_split(order, sorted(cuts))
    codes = torch.cat([tokenizer.encode(x[part]) for part in parts])
    assert torch.equal(codes, tokenizer.encode(x)[order])


def test_after_loading_everything_is_the_same(fitted: Autoencoder, tmp_path: Path) -> None:
    x = planted()
    fitted.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert type(loaded) is Autoencoder
    assert loaded.params() == fitted.params()
    assert loaded.codebook_sizes == fitted.codebook_sizes
    codes = fitted.encode(x)
    assert torch.equal(loaded.encode(x), codes)
    assert torch.equal(loaded.decode(codes), fitted.decode(codes))
    assert torch.equal(loaded.last_level_distances(x), fitted.last_level_distances(x))
    for name, value in fitted.state().items():
        assert torch.equal(loaded.state()[name], value), name


def test_a_loaded_tokenizer_saves_the_same_files(fitted: Autoencoder, tmp_path: Path) -> None:
    fitted.save(tmp_path / "first")
    Tokenizer.load(tmp_path / "first").save(tmp_path / "second")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize("name", LEARNED)
def test_the_seed_alone_decides(name: str) -> None:
    x = planted(400)
    torch.manual_seed(1)
    first = tiny(name, steps=30).fit(x, seed=3).state()  # dead codes are replaced after 23 steps
    torch.manual_seed(2)
    again = tiny(name, steps=30).fit(x, seed=3).state()
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    other = tiny(name, steps=30).fit(x, seed=4).state()
    same = {key for key, value in first.items() if torch.equal(value, other[key])}
    assert same == {"mean", "scale"}


def test_the_seed_reaches_what_the_quantizer_starts_from() -> None:
    def start(seed: int) -> Mapping[str, Tensor]:
        tokenizer = tiny("grit-vq")
        with seeded(seed):
            tokenizer.build({"fitted_width": 16})
        return tokenizer.state()

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
    errors = []
    for scale in (1.0, 1e-4, 1e4):
        x = scale * planted(400) + 3 * scale
        tokenizer = tiny("grit-vq", steps=30).fit(x, seed=0)
        errors.append(lost(x, tokenizer.decode(tokenizer.encode(x))))
    assert errors == pytest.approx([errors[0]] * 3, rel=0.05)


@cache
def used_and_replaced(name: str, reset_every: int, min_utilization: float = 0.0) -> tuple[int, list[float]]:
    """Codes in use, of 48, and what was replaced by each report: this learning rate leaves codes behind."""
    x, replaced = planted(), []
    tokenizer = tiny(
        name,
        codebook_size=16,
        steps=200,
        learning_rate=0.03,
        warmup=0.0,
        reset_every=reset_every,
        safeguards={"min_utilization": min_utilization},
    ).fit(x, on_step=lambda step, metrics: replaced.append(metrics["replaced"]))
    return sum(len(column.unique()) for column in tokenizer.encode(x).T), replaced


@pytest.mark.parametrize("name", LEARNED)
def test_dead_codes_are_brought_back_into_use(name: str) -> None:
    used_without, replaced_without = used_and_replaced(name, reset_every=0)
    used, replaced = used_and_replaced(name, reset_every=20)
    assert used >= used_without + 3
    assert used >= 42
    assert replaced_without == [0.0] * 4
    assert replaced == sorted(replaced)  # counted from the start
    assert replaced[-1] > 0


FIGURES = ["utilization", "dead_codes", "perplexity", "entropy", "row_norm_min", "row_norm_max"]
FIGURES += ["spectral_norm", "table_gradient_norm", "transform_gradient_norm"]


def test_on_step_reports_at_the_first_reset_after_fifty_steps() -> None:
    calls: list[tuple[int, Mapping[str, float]]] = []
    tiny("grit-vq", steps=150, warmup=0.2).fit(planted(), on_step=lambda *call: calls.append(call))
    assert [step for step, _ in calls] == [90, 150]  # resets are 20 steps apart
    for _, metrics in calls:
        health = {f"{figure}_{level}" for figure in FIGURES for level in (1, 2, 3)}
        assert set(metrics) == {"loss", "reconstruction", "replaced", "interventions", *health}
        assert all(isinstance(value, float) for value in metrics.values())
        for level in (1, 2, 3):
            assert 1 <= metrics[f"perplexity_{level}"] <= 8
            assert metrics[f"utilization_{level}"] == 1 - metrics[f"dead_codes_{level}"] / 8
        assert metrics["loss"] > metrics["reconstruction"] > 0
    assert calls[-1][1]["reconstruction"] < calls[0][1]["reconstruction"]
    assert calls[-1][1]["reconstruction"] < 0.5  # a share: predicting the mean would lose 1


class Recording(VectorQuantizer):
    """Keeps what training calls, and with what."""

    def __init__(self, codebook_sizes: tuple[int, ...]) -> None:
        super().__init__(codebook_sizes, dim=8)
        self.calls: list[tuple[str, Any]] = []

    def forward(self, z: Tensor) -> Quantized:
        self.calls.append(("forward", len(z)))
        return super().forward(z)

    def seed(self, z: Tensor, generator: torch.Generator) -> None:
        self.calls.append(("seed", len(z)))
        super().seed(z, generator)

    def set_progress(self, progress: float) -> None:
        self.calls.append(("progress", progress))

    def replace_dead_codes(self, z: Tensor, generator: torch.Generator) -> int:
        self.calls.append(("replace", len(z)))
        return super().replace_dead_codes(z, generator)

    def clear_usage(self) -> None:
        self.calls.append(("clear", None))


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_the_course_of_a_training(warmup: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUANTIZERS, "recording", Recording)
    choices = {"quantizer": "recording", "steps": 60, "batch_size": 100, "warmup": warmup, "reset_every": 10}
    tokenizer = Autoencoder(**{**TINY, **choices}).fit(planted(300))
    calls = tokenizer.model["quantizer"].calls
    quantized = 60 - int(60 * warmup)
    assert calls[0] == ("seed", 300)
    steps = [name for name, _ in calls if name == "forward"]
    assert len(steps) == quantized
    assert [value for name, value in calls if name == "progress"] == [k / quantized for k in range(quantized)]
    # Every ten steps usage begins anew; codes are replaced first, but not in the last fifth.
    expected, begun = ["seed"], 60 - quantized
    for step in range(begun, 60):
        expected += ["progress", "forward"]
        if (step + 1 - begun) % 10 == 0:
            expected += ["replace", "clear"] if step < 48 else ["clear"]
    assert [name for name, _ in calls] == expected
    tokenizer.encode(planted(300))
    assert len(calls) == len(expected)


class Signs(Quantizer):
    """A quantizer that somebody else wrote: a bit a level, and nothing of what is optional."""

    def __init__(self, codebook_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.codebook_sizes, self.dim = codebook_sizes, len(codebook_sizes)

    def forward(self, z: Tensor) -> Quantized:
        codes = self.encode(z)
        return Quantized(codes, z + (self.decode(codes) - z).detach(), (z.abs() - 1).square().mean())

    def encode(self, z: Tensor) -> Tensor:
        return (z > 0).long()

    def decode(self, codes: Tensor) -> Tensor:
        return 2.0 * codes - 1.0


def test_any_quantizer_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUANTIZERS, "signs", Signs)
    x, seen = planted(), []
    choices = {"levels": 8, "codebook_size": 2, "quantizer": "signs", "steps": 150, "learning_rate": 0.003}
    tokenizer = Autoencoder(**{**TINY, **choices}).fit(x, on_step=lambda step, metrics: seen.append(metrics))
    codes = tokenizer.encode(x)
    assert lost(x, tokenizer.decode(codes)) < 0.5
    assert set(seen[-1]) == {"loss", "reconstruction", "replaced", "interventions"}
    tokenizer.save(tmp_path)
    assert torch.equal(Tokenizer.load(tmp_path).encode(x), codes)
    assert not tokenizer.measures_last_level
    with pytest.raises(NotImplementedError, match="Signs has no codewords to measure distances to"):
        tokenizer.last_level_distances(x)


def test_the_last_code_is_the_one_at_the_smallest_distance(fitted: Autoencoder) -> None:
    x = planted(200)
    assert fitted.measures_last_level
    distances = fitted.last_level_distances(x)
    assert distances.shape == (200, 8)
    assert distances.argmin(dim=1).tolist() == fitted.encode(x)[:, -1].tolist()


class TestSafeguards:
    def test_interventions_are_counted(self) -> None:
        seen: list[Mapping[str, float]] = []
        limits = {"max_row_norm": 1e-6}
        tokenizer = tiny("grit-vq", steps=120, warmup=0.0, safeguards=limits)
        tokenizer.fit(planted(300), on_step=lambda step, metrics: seen.append(metrics))
        assert [metrics["interventions"] for metrics in seen] == [1.0, 2.0]
        assert tokenizer.params()["safeguards"] == limits

    def test_without_limits_there_are_none(self) -> None:
        seen: list[Mapping[str, float]] = []
        tiny("grit-vq", steps=60, warmup=0.0).fit(
            planted(300), on_step=lambda step, metrics: seen.append(metrics)
        )
        assert [metrics["interventions"] for metrics in seen] == [0.0]

    def test_low_utilization_resets_codes_though_the_schedule_does_not(self) -> None:
        used_without, _ = used_and_replaced("rq-vae", reset_every=0)
        used, _ = used_and_replaced("rq-vae", reset_every=0, min_utilization=1.0)
        assert used >= used_without + 3

    def test_an_unknown_one_is_named(self) -> None:
        with pytest.raises(ValueError, match="safeguards has no parameter 'min_utilisation'"):
            tiny("grit-vq", safeguards={"min_utilisation": 0.5})
        with pytest.raises(ValueError, match="safeguards takes a mapping"):
            tiny("grit-vq", safeguards="max_row_norm")  # type: ignore[arg-type]


def test_schedules_run_from_start_to_end() -> None:
    x, books = planted(300), []
    falling = {"start": 1.0, "end": 0.1, "shape": "exponential"}
    for temperature in (falling, 1.0):
        assignment = {"name": "soft", "temperature": temperature}
        quantizer = {"assignment": assignment, "surrogate": "direct"}
        fitted = tiny("rq-vae", quantizer=quantizer, steps=30, warmup=0.0).fit(x)
        books.append(fitted.model["quantizer"])
    last = [book.assignments[0].temperature() for book in books]
    assert last == [pytest.approx(0.1 ** (29 / 30)), 1.0]
    assert not torch.equal(books[0].codebooks[0].table, books[1].codebooks[0].table)


def test_averages_are_applied_before_the_tokenizer_is_used(tmp_path: Path) -> None:
    x = planted(300)
    tokenizer = tiny("rq-ema", steps=7, warmup=0.0).fit(x)
    codes = tokenizer.encode(x)
    assert not any(learning.used.any() for learning in tokenizer.model["quantizer"].learnings)
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    loaded.model.train().eval()
    assert torch.equal(loaded.encode(x), codes)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_items_than_codes(name: str, n: int) -> None:
    x = planted(n)
    tokenizer = tiny(name, steps=30).fit(x, seed=0)
    codes = tokenizer.encode(x)
    assert codes.shape == (n, 3)
    decoded = tokenizer.decode(codes)
    assert torch.isfinite(decoded).all()
    if n == 1:
        torch.testing.assert_close(decoded, x)


def test_equal_items() -> None:
    x = torch.full((20, 16), 0.1)
    tokenizer = tiny("grit-vq", steps=30).fit(x, seed=0)
    assert len(tokenizer.encode(x).unique(dim=0)) == 1
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(x)), x)


def test_no_items_to_encode(fitted: Autoencoder) -> None:
    codes = fitted.encode(torch.empty(0, 16))
    assert codes.shape == (0, 3)
    assert codes.dtype == torch.int64
    assert fitted.decode(codes).shape == (0, 16)


def test_a_frozen_table_keeps_its_seeds() -> None:
    x = planted(300)
    short, long = (
        tiny("grit-vq-frozen", warmup=0.0, reset_every=0, steps=steps).fit(x).state() for steps in (1, 30)
    )
    for level in range(3):
        table = f"model.quantizer.codebooks.{level}.table"
        assert torch.equal(short[table], long[table])
        for part in "abw":
            parameter = table.replace("table", f"transform.{part}")
            assert not torch.equal(short[parameter], long[parameter])


def test_double_precision_is_taken() -> None:
    x = planted(100)
    tokenizer = tiny("rq-vae", steps=20).fit(x.double())
    assert torch.equal(tokenizer.encode(x.double()), tokenizer.encode(x))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_no_numbers_are_named(value: float, fitted: Autoencoder) -> None:
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
    with pytest.raises(ValueError, match=r"warmup must be a number at least 0 and below 1, not"):
        tiny("rq-vae", warmup=warmup)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"quantizer": "vektor"}, "no quantizer is called 'vektor'. Did you mean 'vector'?"),
        (
            {"quantizer": {"name": "vector", "surogate": "grit"}},
            "quantizer 'vector' has no parameter 'surogate'",
        ),
        ({"quantizer": {"name": "vector", "surrogate": "ste"}}, "no surrogate is called 'ste'"),
        ({"quantizer": {"name": "vector", "codebook_sizes": [4]}}, "has no parameter 'codebook_sizes'"),
        (
            {"levels": 3, "quantizer": {"name": "vector", "composition": "product", "dim": 2}},
            "3 levels cannot share 2 coordinates",
        ),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 to 2147483647, not 0"),
        ({"levels": 0}, "levels must be a whole number from 1 to 64, not 0"),
    ],
)
def test_wrong_choices_are_refused_before_any_data_is_seen(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Autoencoder(**choices)


@pytest.mark.parametrize("name", ["grit-vq", "grit-vq-literal", "simvq", "st-gumbel", "rq-ema", "fsq"])
def test_a_training_that_diverges_stops_and_names_the_setting(name: str) -> None:
    with pytest.raises(TrainingDivergedError, match=r"try a smaller learning_rate than 1000.0$"):
        create(name, levels=2, codebook_size=16, hidden=[16], steps=60, learning_rate=1000.0).fit(
            planted(400)
        )


def test_a_loss_that_is_no_number_stops_at_the_next_report() -> None:
    steps = []
    tokenizer = tiny("rq-vae", steps=400, reset_every=0, learning_rate=1e18)
    with pytest.raises(TrainingDivergedError, match=r"the training loss is (nan|inf) by step \d+, so the"):
        tokenizer.fit(planted(400), on_step=lambda step, metrics: steps.append(step))
    assert steps == []


def test_codes_that_say_less_than_the_mean_are_said() -> None:
    with pytest.warns(
        RuntimeWarning, match=r"say little about the items.*try more steps than 1, or a smaller"
    ):
        tiny("rq-vae", steps=1, warmup=0.0).fit(planted(400))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny("rq-vae", steps=200).fit(planted(400))


def test_errors_that_no_divergence_explains_stay_what_they_are() -> None:
    def fails(step: int, metrics: Mapping[str, float]) -> None:
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match=r"^the disk is full$"):
        tiny("rq-vae", steps=100).fit(planted(400), on_step=fails)
