"""Quantizers as modules of one's own PyTorch model: compiled, autocast, saved, copied, frozen, repeated."""

from __future__ import annotations

import copy
import inspect
import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor_config

from semantic_ids.quantizers.assignment import ASSIGNMENTS
from semantic_ids.quantizers.codebook import Codebook
from semantic_ids.quantizers.learning import LEARNINGS
from semantic_ids.quantizers.quantizer import Quantizer
from semantic_ids.quantizers.regularizer import REGULARIZERS
from semantic_ids.quantizers.scalar import SCALAR_QUANTIZERS
from semantic_ids.quantizers.surrogate import SURROGATES
from semantic_ids.quantizers.transform import TRANSFORMS
from semantic_ids.quantizers.upkeep import INITIALIZATIONS, REPLACEMENTS, Upkeep
from semantic_ids.quantizers.vector import COMPOSITIONS, VectorQuantizer
from semantic_ids.randomness import seeded

SIZES, D, N = (16, 16), 8, 96
LOW_RANK = {"name": "low-rank", "rank": 4}
GRIT: dict[str, Any] = {"surrogate": "grit", "transform": LOW_RANK}
COOLED = {"name": "temperature", "tau": {"start": 1.0, "end": 0.1}}
LEARNED_RADIUS = {"name": "grit", "radius": {"name": "power", "learnable": True}}
CHOICES: dict[str, dict[str, Any]] = {
    "straight-through": {},
    "grit": GRIT,
    "averages": {"learning": "ema"},
    "grit-averages": {**GRIT, "learning": "ema"},
    "learned-radius": {"surrogate": LEARNED_RADIUS, "codebook": {"normalize": True}},
    "adaptive-radius": {"surrogate": {"name": "grit", "radius": "adaptive-mahalanobis"}},
    "soft": {"assignment": {"name": "soft", "noise": True}, "surrogate": "direct", "regularizers": ["usage"]},
    "space-filling": {"assignment": "space-filling", "surrogate": "diveq", "per_level": True},
    "product": {"composition": "product", "surrogate": "nsvq", "upkeep": {"reservoir": 50}},
}
MIXED = torch.autocast("cpu", dtype=torch.bfloat16)
every_choice = pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def quantizer(choices: dict[str, Any], seed: int = 0, sizes: tuple[int, ...] = SIZES) -> VectorQuantizer:
    with seeded(seed):
        return VectorQuantizer(sizes, D, **choices)


def step(model: Callable[[Tensor], Any], z: Tensor) -> dict[str, Tensor]:
    """One forward and backward: what comes out, and the latents' gradient."""
    z = z.clone().requires_grad_()
    quantized = model(z)
    (quantized.latents.float().sin().mean() + quantized.loss).backward()
    return {
        "codes": quantized.codes,
        "latents": quantized.latents.detach(),
        "loss": quantized.loss.detach(),
        "gradient": z.grad,
    }


def train(
    made: VectorQuantizer, steps: int = 5, seed: int = 0, wrap: Callable[[Any], Any] | None = None
) -> list[dict[str, Tensor]]:
    """What each step finds, all parameters' gradients included; ``wrap`` changes how the module is called."""
    model = wrap(made) if wrap else made
    learned = {name: p for name, p in made.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(list(learned.values()) or [torch.zeros(1)], lr=0.1)
    found = []
    with seeded(seed):
        for number in range(steps):
            made.set_progress(number / steps)
            optimizer.zero_grad()
            found.append(step(model, normal(N, D, seed=seed + number)))
            gradients = {name: p.grad for name, p in learned.items() if p.grad is not None}
            found[-1] |= {name: gradient.clone() for name, gradient in gradients.items()}
            optimizer.step()
    return found


def let_most_die(made: VectorQuantizer, z: Tensor) -> None:
    """Ten latents of ``(n, D)`` can use ten codes at most; the others are replaced."""
    made.clear_usage()
    with seeded(0):
        made(z[:10])
    assert made.replace_dead_codes(z, generator()) >= 12


def codewords(made: VectorQuantizer) -> Tensor:
    return torch.stack([codebook.codewords().detach().clone() for codebook in made.codebooks])


def assert_same(first: VectorQuantizer, second: VectorQuantizer) -> None:
    """To the last bit, state and work alike."""
    mine, other = first.state_dict(), second.state_dict()
    assert mine.keys() == other.keys()
    assert [name for name in mine if not torch.equal(mine[name], other[name])] == []
    z = normal(500, D, seed=99)
    codes = first.encode(z)
    assert torch.equal(codes, second.encode(z))
    assert torch.equal(first.decode(codes), second.decode(codes))


class TestCompile:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Iterator[None]:
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()

    def compare(self, choices: dict[str, Any], *, sizes: tuple[int, ...] = (16,), **how: Any) -> None:
        """Training, compiled and not. Compiling one level takes half the time of two."""
        plain, compiled = quantizer(choices, sizes=sizes), quantizer(choices, sizes=sizes)
        for made in (plain, compiled):
            made.seed(normal(N, D), generator())
        for expected, found in zip(
            train(plain), train(compiled, wrap=partial(torch.compile, **how)), strict=True
        ):
            assert torch.equal(found.pop("codes"), expected.pop("codes"))
            torch.testing.assert_close(found, expected)
        torch.testing.assert_close(dict(compiled.named_buffers()), dict(plain.named_buffers()))
        torch.testing.assert_close(codewords(compiled), codewords(plain))

    @pytest.mark.parametrize(
        "choices",
        [
            {},
            GRIT,
            {"surrogate": {"name": "grit", "radius": COOLED}},
            {"assignment": "soft", "surrogate": "direct", "regularizers": ["entropy"]},
        ],
        ids=["straight-through", "grit", "schedule", "soft"],
    )
    def test_training_is_one_graph_with_the_same_gradients(self, choices: dict[str, Any]) -> None:
        sizes = SIZES if choices == GRIT else (16,)
        self.compare(choices, sizes=sizes, backend="aot_eager", fullgraph=True)

    @pytest.mark.parametrize(
        "choices",
        [
            {"learning": "ema"},
            {**GRIT, "codebook": {"spectral_clip": 1.0}},
            pytest.param({**GRIT, "codebook": {"refresh_every": 2}}, marks=pytest.mark.slow),
        ],
        ids=["averages", "clip", "cache"],
    )
    def test_choices_that_break_the_graph_still_work(self, choices: dict[str, Any]) -> None:
        self.compare(choices, backend="aot_eager")

    @pytest.mark.slow
    @pytest.mark.skipif(
        shutil.which(os.environ.get("CXX", "g++")) is None, reason="inductor needs a C++ compiler"
    )
    def test_generated_code_gives_the_same(self) -> None:
        # Without workers that import torch, and without a compilation that only tries vector instructions.
        with inductor_config.patch({"compile_threads": 1, "cpp.vec_isa_ok": False}):
            self.compare(GRIT, backend="inductor", fullgraph=True)


class TestAutocast:
    @pytest.mark.parametrize("name", ["straight-through", "grit", "averages", "grit-averages", "soft"])
    def test_training_is_that_of_float32(self, name: str) -> None:
        plain, mixed = quantizer(CHOICES[name]), quantizer(CHOICES[name])
        plain.seed(normal(N, D), generator())
        with MIXED:
            mixed.seed(normal(N, D), generator())
        assert_same(plain, mixed)
        expected = train(plain)
        found = train(mixed, wrap=MIXED)
        with MIXED:
            let_most_die(mixed, normal(N, D))
        let_most_die(plain, normal(N, D))
        assert all(torch.equal(a[key], b[key]) for a, b in zip(expected, found, strict=True) for key in a)
        assert_same(plain, mixed)

    @pytest.mark.parametrize("name", ["straight-through", "grit", "grit-averages"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_latents_are_quantized_in_float32(self, name: str, dtype: torch.dtype) -> None:
        half, whole = quantizer(CHOICES[name]), quantizer(CHOICES[name])
        z = normal(N, D).to(dtype)
        half.seed(z, generator())
        whole.seed(z.float(), generator())
        found, expected = step(half, z), step(whole, z.float())
        assert found["latents"].dtype == found["gradient"].dtype == dtype
        assert found["loss"].dtype == torch.float32
        assert torch.equal(found["codes"], expected["codes"])
        assert torch.equal(found["latents"], expected["latents"].to(dtype))
        assert torch.equal(found["loss"], expected["loss"])
        torch.testing.assert_close(found["gradient"].float(), expected["gradient"], rtol=0.02, atol=0.02)
        let_most_die(half, z)
        let_most_die(whole, z.float())
        assert_same(half, whole)

    def test_a_long_training_keeps_averages_in_float32_and_finite(self) -> None:
        made, encoder = quantizer(CHOICES["grit-averages"]), nn.Linear(D, D)
        made.seed(normal(N, D), generator())
        for number in range(100):
            with MIXED:
                z = encoder(normal(N, D, seed=number))
                assert z.dtype == torch.bfloat16
                quantized = made(z)
            (quantized.latents.float().square().mean() + quantized.loss).backward()
        state = made.state_dict()
        assert {value.dtype for value in state.values()} == {torch.float32}
        assert all(value.isfinite().all() for value in state.values())
        assert all(
            p.grad.isfinite().all() for p in (*made.parameters(), *encoder.parameters()) if p.requires_grad
        )


class TestState:
    @every_choice
    def test_a_fresh_module_loads_all_that_matters(self, choices: dict[str, Any]) -> None:
        made, fresh = quantizer(choices), quantizer(choices, seed=1)
        made.seed(normal(N, D), generator())
        train(made)
        fresh.load_state_dict(made.state_dict(), strict=True)
        assert_same(made, fresh)
        assert_same(made.eval(), fresh.eval())
        for module in (made, fresh):
            train(module.train(), seed=50)
        assert_same(made, fresh)

    @every_choice
    def test_a_copy_is_the_same_and_on_its_own(self, choices: dict[str, Any]) -> None:
        made = quantizer(choices)
        made.seed(normal(N, D), generator())
        train(made)
        made.settle()  # as looking at its state does
        twin, before = copy.deepcopy(made), codewords(made)
        assert_same(made, twin)
        train(twin, seed=50)
        assert torch.equal(codewords(made), before)
        train(made, seed=50)
        assert_same(made, twin)

    @every_choice
    def test_it_moves_to_another_precision_amid_training(self, choices: dict[str, Any]) -> None:
        made = quantizer(choices)
        made.seed(normal(N, D), generator())
        train(made)
        z = normal(500, D)
        codes = made.eval().encode(z)
        made.double()
        assert torch.equal(made.encode(z), codes)
        assert made.decode(codes).dtype == torch.float64
        found = step(made.train(), z.double())
        assert found["latents"].dtype == found["loss"].dtype == torch.float64
        let_most_die(made, z.double())
        assert made.float().decode(made.encode(z)).dtype == torch.float32

    @pytest.mark.parametrize("loaded", [False, True])
    def test_nothing_is_seeded_unasked(self, loaded: bool) -> None:
        made = quantizer(GRIT)
        if loaded:
            made.load_state_dict(quantizer(GRIT, seed=1).state_dict())
        before = codewords(made)
        made.eval()(normal(N, D))
        made.train()(normal(N, D))
        made.eval()
        assert torch.equal(codewords(made), before)

    def test_averages_start_at_the_codewords_as_they_are(self) -> None:
        made = VectorQuantizer((1,), 2, learning={"name": "ema", "decay": 0.9})
        start = codewords(made)[0]
        made(torch.tensor([[1.0, 3.0], [5.0, 1.0]]))
        made.eval()
        # A weight of one point decays to .9; the two points add .1 each.
        expected = (0.9 * start + 0.1 * torch.tensor([6.0, 4.0])) / 1.1
        torch.testing.assert_close(codewords(made)[0], expected)

    def test_the_model_around_it_switches_its_mode(self) -> None:
        model = nn.Sequential(nn.Identity(), VectorQuantizer((2,), 1, learning={"name": "ema", "decay": 0.0}))
        made = model[1]
        made.codebooks[0].place(torch.arange(2), torch.tensor([[0.0], [10.0]]))
        model(torch.tensor([[1.0], [2.0], [8.0]]))
        assert codewords(made).flatten().tolist() == [0.0, 10.0]  # a graph may still need them
        model.eval()
        assert codewords(made).flatten().tolist() == [1.5, 8.0]
        usage = made.usage(0).clone()
        model(torch.tensor([[5.0]]))
        assert codewords(made).flatten().tolist() == [1.5, 8.0]
        assert torch.equal(made.usage(0), usage)
        model.train()(torch.tensor([[6.0]]))
        assert made.usage(0).tolist() == [2, 2]

    @pytest.mark.parametrize("name", ["straight-through", "grit", "learned-radius", "soft"])
    def test_what_is_frozen_stays_and_passes_gradients_on(self, name: str) -> None:
        made, encoder = quantizer(CHOICES[name]), nn.Linear(D, D)
        made.seed(normal(N, D), generator())
        made.requires_grad_(False)
        before = codewords(made)
        optimizer = torch.optim.AdamW([*made.parameters(), *encoder.parameters()])
        weight = encoder.weight.detach().clone()
        quantized = made(encoder(normal(N, D)))
        (quantized.latents.square().mean() + quantized.loss).backward()
        optimizer.step()
        assert torch.equal(codewords(made), before)
        assert not torch.equal(encoder.weight, weight)

    def test_averages_are_frozen_by_eval(self) -> None:
        made = quantizer(CHOICES["averages"])
        made.seed(normal(N, D), generator())
        before = codewords(made.eval())
        gradient = step(made, normal(N, D, seed=1))["gradient"]
        assert torch.equal(codewords(made.train()), before)
        assert gradient.any()


def with_upkeep(initialization: str, replacement: str) -> VectorQuantizer:
    """A quantizer in training, seeded and with dead codes replaced."""
    made = quantizer(
        {"upkeep": {"initialization": initialization, "replacement": replacement}, "learning": "ema"}
    )
    made.seed(normal(N, D), generator())
    let_most_die(made, normal(N, D, seed=1))
    return made


class TestDeterminism:
    @every_choice
    def test_one_seed_gives_one_training(self, choices: dict[str, Any]) -> None:
        first, second = quantizer(choices), quantizer(choices)
        for made in (first, second):
            made.seed(normal(N, D), generator())
            train(made, seed=3)
            let_most_die(made, normal(N, D))
            train(made, seed=4)
        assert_same(first, second)

    @pytest.mark.parametrize(
        ("initialization", "replacement"),
        [("k-means", name) for name in REPLACEMENTS] + [(name, "latents") for name in INITIALIZATIONS],
    )
    def test_upkeep_draws_from_its_generator_alone(self, initialization: str, replacement: str) -> None:
        with seeded(5):
            state = torch.random.get_rng_state()
            first = with_upkeep(initialization, replacement)
            assert torch.equal(torch.random.get_rng_state(), state)
        with seeded(6):
            assert_same(first, with_upkeep(initialization, replacement))

    @every_choice
    def test_inference_draws_nothing(self, choices: dict[str, Any]) -> None:
        made, z = quantizer(choices), normal(N, D)
        state = torch.random.get_rng_state()
        codes = made.encode(z)  # while still in training mode
        made.decode(codes)
        made.health()
        assert torch.equal(made.eval()(z).codes, codes)
        assert torch.equal(torch.random.get_rng_state(), state)


class TestShapes:
    @pytest.mark.parametrize("kind", [VectorQuantizer, *SCALAR_QUANTIZERS.values()])
    def test_a_grid_of_a_convolution_is_its_latents_one_by_one(self, kind: Callable[..., Quantizer]) -> None:
        made = kind((16, 16))
        channels_first = normal(3, made.dim, 5, 4)
        grid = channels_first.movedim(1, -1)  # not contiguous
        flat = torch.stack([grid[b, h, w] for b in range(3) for h in range(5) for w in range(4)])
        found, expected = step(made, grid), step(made, flat)
        assert found["codes"].shape == (3, 5, 4, 2)
        assert torch.equal(found["codes"].reshape(-1, 2), expected["codes"])
        for name in ("latents", "gradient"):
            torch.testing.assert_close(found[name].reshape(-1, made.dim), expected[name])
        torch.testing.assert_close(found["loss"], expected["loss"])
        assert torch.equal(
            made.decode(made.encode(grid)).reshape(-1, made.dim), made.decode(made.encode(flat))
        )

    @pytest.mark.parametrize("kind", [VectorQuantizer, *SCALAR_QUANTIZERS.values()])
    def test_channels_that_come_first_are_refused(self, kind: Callable[..., Quantizer]) -> None:
        made = kind((16, 16))
        for use in (made, made.encode):
            with pytest.raises(ValueError, match=re.escape(f"{made.dim} features")):
                use(normal(2, made.dim, 4, 2 * made.dim))

    def test_upkeep_takes_grids(self) -> None:
        flat, grid = quantizer({}), quantizer({})
        z = normal(4, 6, 4, D)
        flat.seed(z.reshape(-1, D), generator())
        grid.seed(z, generator())
        assert_same(flat, grid)
        for made in (flat, grid):
            made(z[0])
        assert (
            flat.replace_dead_codes(z.reshape(-1, D), generator())
            == grid.replace_dead_codes(z, generator())
            > 0
        )
        assert_same(flat, grid)


PAGE = (Path(__file__).parents[3] / "docs/quantizers.md").read_text()


class TestPage:
    @pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    def test_its_code_runs(self, code: str) -> None:
        with seeded(0):
            exec(compile(code, "docs/quantizers.md", "exec"), {})  # noqa: S102 — our own page

    def test_its_table_names_every_choice(self) -> None:
        tables = {
            "composition": COMPOSITIONS,
            "transform": TRANSFORMS,
            "assignment": ASSIGNMENTS,
            "surrogate": SURROGATES,
            "learning": LEARNINGS,
            "regularizers": REGULARIZERS,
            "upkeep.initialization": INITIALIZATIONS,
            "upkeep.replacement": REPLACEMENTS,
        }
        assert sorted(self.rows("name")) == sorted(
            (argument, name) for argument, names in tables.items() for name in names
        )

    def test_its_table_names_every_option_and_its_default(self) -> None:
        groups: dict[str, Callable[..., Any]] = {"codebook": Codebook, "upkeep": Upkeep}
        expected = [
            (f"{group}.{name}", repr(parameter.default))
            for group, function in groups.items()
            for name, parameter in inspect.signature(function).parameters.items()
            if name not in ("size", "dim", "transform")
        ]
        assert self.rows("default") == expected
        assert sorted(VectorQuantizer.moved_arguments.values()) == sorted(option for option, _ in expected)

    def rows(self, second: str) -> list[tuple[str, str]]:
        """The first two columns of the table whose second column has this name."""
        (table,) = re.findall(rf"^\| \w+ \| {second} \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
        return re.findall(r"^\| `(.+?)` \| `(.+?)` \| .+ \|$", table, flags=re.MULTILINE)
