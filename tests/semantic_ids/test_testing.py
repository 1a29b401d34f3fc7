"""Each check of a tokenizer's contract passes what keeps it, and names what breaks it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from semantic_ids import testing
from semantic_ids.recipes import RECIPES
from semantic_ids.registry import create
from semantic_ids.testing import CHECKS, check_tokenizer
from semantic_ids.tokenizer import Tokenizer
from semantic_ids.types import OnStep


class Planes(Tokenizer):
    """Keeps the contract: four signs of random projections a level."""

    codebook_sizes: Any = (16, 16)

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Any:
        self.planes = torch.randn(embeddings.shape[1], 8, generator=torch.Generator().manual_seed(seed))
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        bits = (embeddings @ self.planes > 0).long().view(-1, 2, 4)
        return (bits << torch.arange(4)).sum(dim=2)


class FitReturnsNothing(Planes):
    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        super().fit(embeddings, **options)


class SizesInAList(Planes):
    codebook_sizes = [16, 16]  # noqa: RUF012 — what is wrong with it


class NoSizes(Planes):
    codebook_sizes = ()


class FloatCodes(Planes):
    def encode(self, embeddings: Tensor) -> Tensor:
        return super().encode(embeddings).float()


class ShortCodes(Planes):
    def encode(self, embeddings: Tensor) -> Tensor:
        return super().encode(embeddings).int()


class OneLevel(Planes):
    def encode(self, embeddings: Tensor) -> Tensor:
        return super().encode(embeddings)[:, :1]


class NeedsRows(Planes):
    def encode(self, embeddings: Tensor) -> Tensor:
        return super().encode(embeddings) if len(embeddings) else torch.zeros(0, dtype=torch.int64)


class CountsFromOne(Planes):
    def encode(self, embeddings: Tensor) -> Tensor:
        return super().encode(embeddings) + 1


class Whimsical(Planes):
    _asked = 0

    def encode(self, embeddings: Tensor) -> Tensor:
        self._asked += 1
        return (super().encode(embeddings) + self._asked) % 16


class Ranks(Planes):
    """Codes by what the batch holds beside the item."""

    def encode(self, embeddings: Tensor) -> Tensor:
        return super().encode(embeddings - embeddings.mean(dim=0))


class FirstComeFirstServed(Planes):
    def encode(self, embeddings: Tensor) -> Tensor:
        return torch.arange(len(embeddings))[:, None].expand(-1, 2) % 16


class TakesAnything:
    """No tokenizer."""

    codebook_sizes = (4,)

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Any:
        return self

    def encode(self, embeddings: Tensor) -> Tensor:
        return torch.zeros(len(embeddings), 1, dtype=torch.int64)


class Unchecked(Planes):
    """Hides the methods of its class, which are checked, behind others."""

    def __getattribute__(self, name: str) -> Any:
        hidden = {"fit": TakesAnything.fit, "encode": TakesAnything.encode}
        return partial(hidden[name], self) if name in hidden else super().__getattribute__(name)


class GlobalDraws(Planes):
    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        self.planes = torch.randn(embeddings.shape[1], 8)
        return self


class NumpyDraws(Planes):
    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        self.planes = torch.from_numpy(np.random.randn(embeddings.shape[1], 8)).float()
        return self


class SeedsTorch(Planes):
    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Any:
        torch.manual_seed(seed)
        return super().fit(embeddings, seed=seed)


class SeedsPython(Planes):
    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Any:
        random.seed(seed)
        return super().fit(embeddings, seed=seed)


class CentresInPlace(Planes):
    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        embeddings -= embeddings.mean(dim=0)
        return super().fit(embeddings, **options)


class Remembers(Planes):
    fits = 0

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Any:
        self.fits += 1
        return super().fit(embeddings, seed=seed + self.fits)


class TupleArgument(Planes):
    def __init__(self, hidden: tuple[int, ...] = (8,)) -> None:
        self.hidden = hidden


class DoublesItsArgument(Planes):
    def __init__(self, bits: int = 8) -> None:
        self.bits = 2 * bits


class LosesItsArgument(Planes):
    def __init__(self, bits: int = 8) -> None:
        self.planes = torch.empty(0, bits)


class ScratchIsNotKept(Planes):
    _shift = 0

    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        self._shift = 3
        return super().fit(embeddings, **options)

    def encode(self, embeddings: Tensor) -> Tensor:
        return (super().encode(embeddings) + self._shift) % 16


class NumpyAttribute(Planes):
    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        self.order = np.arange(16)
        return super().fit(embeddings, **options)


class ClassState(Planes):
    """What fitting learns is the class's, so that another process knows nothing of it."""

    shift = 0

    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        ClassState.shift = 3
        return super().fit(embeddings, **options)

    def encode(self, embeddings: Tensor) -> Tensor:
        return (super().encode(embeddings) + ClassState.shift) % 16


class DoubleDecode(Planes):
    def decode(self, codes: Tensor) -> Tensor:
        return torch.zeros(len(codes), 16, dtype=torch.float64)


class SingleDistances(Planes):
    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        return embeddings.square()


class Similarities(Planes):
    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        return embeddings.double()


class InfiniteDistances(Planes):
    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        return embeddings.double().abs() / 0


class DistancesToAllLevels(Planes):
    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        return torch.cat([embeddings, embeddings], dim=1).double().square()


class DistancesInTheBatch(Planes):
    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        return (embeddings - embeddings.mean(dim=0)).double().square()


class TensorMetrics(Planes):
    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Any:
        if on_step:
            on_step(1, {"loss": torch.tensor(0.5)})  # type: ignore[dict-item]
        return super().fit(embeddings, seed=seed)


class NanMetrics(Planes):
    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Any:
        if on_step:
            on_step(1, {"loss": float("nan")})
        return super().fit(embeddings, seed=seed)


class Reports(Planes):
    """Reports a metric of a given name."""

    def __init__(self, name: str = "recall_at_10") -> None:
        self.name = name

    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Any:
        if on_step:
            on_step(1, {self.name: 0.5})
        return super().fit(embeddings, seed=seed)


class LearnsNan(Planes):
    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        super().fit(embeddings, **options)
        self.planes = self.planes / 0 * 0
        return self


class Explodes(Planes):
    def __init__(self, learning_rate: float = 0.1) -> None:
        self.learning_rate = learning_rate

    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        super().fit(embeddings, **options)
        self.planes = self.planes * self.learning_rate * 1e30
        return self


BROKEN: list[tuple[Callable[[], Tokenizer], Callable[..., None], str]] = [
    (FitReturnsNothing, testing.fit_returns_the_tokenizer, "end fit with: return self"),
    (
        SizesInAList,
        testing.codebook_sizes_are_positive_ints,
        "codebook_sizes is [16, 16] after fit; make it a",
    ),
    (NoSizes, testing.codebook_sizes_are_positive_ints, "codebook_sizes is () after fit"),
    (
        FloatCodes,
        testing.codes_keep_to_the_codebooks,
        "codes of dtype float32 on cpu; return int64 on the CPU",
    ),
    (ShortCodes, testing.codes_keep_to_the_codebooks, "codes of dtype int32"),
    (
        OneLevel,
        testing.codes_keep_to_the_codebooks,
        "codes of shape (60, 1) for 60 items; codebook_sizes (16, 16)",
    ),
    (NeedsRows, testing.codes_keep_to_the_codebooks, "codes of shape (0,) for 0 items"),
    (
        CountsFromOne,
        testing.codes_keep_to_the_codebooks,
        "; keep level l in 0 … K_l - 1, of codebook_sizes (16,",
    ),
    (
        Whimsical,
        testing.codes_depend_on_the_row_alone,
        "gave an item other codes the second time; let its row",
    ),
    (Ranks, testing.codes_depend_on_the_row_alone, "gave an item other codes when asked alone"),
    (
        FirstComeFirstServed,
        testing.codes_depend_on_the_row_alone,
        "gave an item other codes in another order",
    ),
    (FirstComeFirstServed, testing.equal_rows_get_equal_codes, "encode gave equal rows different codes"),
    (
        Unchecked,
        testing.bad_embeddings_are_refused,
        "fit took no rows; derive the class that defines it from",
    ),
    (Unchecked, testing.encode_needs_fit, "encode answered before fit"),
    (
        GlobalDraws,
        testing.the_seed_alone_decides,
        "two fits with one seed gave different codes; draw from torch.",
    ),
    (NumpyDraws, testing.the_seed_alone_decides, "two fits with one seed gave different codes"),
    (
        GlobalDraws,
        testing.the_global_random_state_is_left_alone,
        "fit or encode changed the global random state",
    ),
    (
        NumpyDraws,
        testing.the_global_random_state_is_left_alone,
        "fit or encode changed the global random state",
    ),
    (
        SeedsTorch,
        testing.the_global_random_state_is_left_alone,
        "fit or encode changed the global random state",
    ),
    (
        SeedsPython,
        testing.the_global_random_state_is_left_alone,
        "fit or encode changed the global random state",
    ),
    (
        CentresInPlace,
        testing.the_embeddings_are_left_alone,
        "changed the embeddings; work on embeddings.clone()",
    ),
    (Remembers, testing.fitting_again_forgets, "a second fit gave other codes than a first one would"),
    (
        TupleArgument,
        testing.arguments_are_kept,
        "TupleArgument.hidden, a tuple, would not survive saving",
    ),
    (
        DoublesItsArgument,
        testing.arguments_are_kept,
        "arguments {'bits': 16} came back as {'bits': 32} through JSON; keep each as it is",
    ),
    (
        LosesItsArgument,
        testing.arguments_are_kept,
        "does not keep its argument 'bits': set self.bits in __init__",
    ),
    (
        ScratchIsNotKept,
        testing.a_loaded_tokenizer_is_the_same,
        "gave other codes; keep all that encode uses in",
    ),
    (
        NumpyAttribute,
        testing.a_loaded_tokenizer_is_the_same,
        "NumpyAttribute.order, a ndarray, would not survive",
    ),
    (ClassState, testing.a_fresh_process_can_load_it, "a fresh process that loaded it gave other codes"),
    (
        DoubleDecode,
        testing.decode_gives_embeddings,
        "decode gave float64 of shape (60, 16); return finite float32 of shape (60, 16)",
    ),
    (
        SingleDistances,
        testing.last_level_distances_depend_on_the_row_alone,
        "gave float32 of shape (60, 16); return finite float64 >= 0 of shape (60, 16) on the CPU, or leave",
    ),
    (
        Similarities,
        testing.last_level_distances_depend_on_the_row_alone,
        "return finite float64 >= 0",
    ),
    (
        InfiniteDistances,
        testing.last_level_distances_depend_on_the_row_alone,
        "return finite float64 >= 0",
    ),
    (
        DistancesToAllLevels,
        testing.last_level_distances_depend_on_the_row_alone,
        "gave float64 of shape (60, 32)",
    ),
    (
        DistancesInTheBatch,
        testing.last_level_distances_depend_on_the_row_alone,
        "last_level_distances gave an item others alone; let its row alone decide",
    ),
    (TensorMetrics, testing.on_step_gets_a_step_and_its_metrics, "give finite numbers, such as loss.item()"),
    (NanMetrics, testing.on_step_gets_a_step_and_its_metrics, "'loss': nan; give finite numbers"),
    *(
        (partial(Reports, name), testing.on_step_gets_a_step_and_its_metrics, f"the name {name!r}; use up to")
        for name in ("recall@10", "loss (val)", "", "/loss", "a/../b", "a//b", "x" * 201, "größe", ".")
    ),
    (LearnsNan, testing.the_seed_alone_decides, "LearnsNan holds NaN in planes after fit: its training"),
    (Explodes, testing.a_training_that_diverges_stops, "NaN or infinite values in ['planes']; raise"),
]


SMALL = {
    "levels": 2,
    "codebook_size": 8,
    "steps": 4,
    "batch_size": 6,  # fewer than codes, so that some die and are replaced
    "reset_every": 2,
    "hidden": [16],
    "iterations": 5,
    "rounds": 2,
}
ONE_OF_EACH_CLASS = {recipe.tokenizer: name for name, recipe in RECIPES.items()}.values()


def small(name: str) -> Tokenizer:
    return create(name, **{key: SMALL[key] for key in RECIPES[name].parameters() if key in SMALL})


def class_in(folder: str | Path) -> str:
    return str(json.loads(Path(folder, "model.json").read_text())["class"])


@pytest.fixture(scope="module")
def fresh_codes(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, list[list[int]]]:
    """Codes that a fresh process gets from a saved tokenizer of each class, by class.

    One process serves all, because its imports take seconds.
    """
    makes = [Planes, ClassState, *(partial(small, name) for name in ONE_OF_EACH_CLASS)]
    folders = [tmp_path_factory.mktemp("saved") for _ in makes]
    for make, folder in zip(makes, folders, strict=True):
        testing._fitted(make).save(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(request.config.rootpath)  # so that it finds the classes of this module
        codes = testing._codes_of_a_fresh_process([str(folder) for folder in folders])
    return dict(zip(map(class_in, folders), codes, strict=True))


@pytest.fixture(autouse=True)
def one_fresh_process(monkeypatch: pytest.MonkeyPatch, fresh_codes: dict[str, list[list[int]]]) -> None:
    """Give the check of a fresh process the codes of the one process that runs."""

    def remembered(folders: list[str]) -> list[list[list[int]]]:
        return [fresh_codes[class_in(folder)] for folder in folders]

    monkeypatch.setattr(testing, "_codes_of_a_fresh_process", remembered)


@pytest.mark.parametrize(
    ("make", "check", "message"),
    BROKEN,
    ids=[f"{getattr(make, '__name__', 'Reports')}-{check.__name__}" for make, check, _ in BROKEN],
)
def test_what_breaks_the_contract_is_said(
    make: Callable[[], Tokenizer], check: Callable[..., None], message: str
) -> None:
    with pytest.raises((AssertionError, ValueError), match=re.escape(message)):
        check(make)


def test_what_keeps_the_contract_passes_and_changes_nothing() -> None:
    torch.manual_seed(5)
    random_state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    results = check_tokenizer(Planes)
    assert torch.equal(torch.get_rng_state(), random_state[0])
    assert (np.random.get_state()[1] == random_state[1]).all()
    assert random.getstate() == random_state[2]
    assert list(results) == [check.__name__ for check in CHECKS]
    skipped = {name: why for name, why in results.items() if why != "passed"}
    if torch.cuda.is_available():
        assert "embeddings_may_be_on_the_gpu" not in skipped
    else:
        assert skipped.pop("embeddings_may_be_on_the_gpu") == "skipped: there is no GPU that CUDA can use"
    assert skipped == {
        "decode_gives_embeddings": "skipped: Planes cannot reconstruct embeddings from codes",
        "last_level_distances_depend_on_the_row_alone": (
            "skipped: Planes has no last level to measure distances to"
        ),
        "on_step_gets_a_step_and_its_metrics": "skipped: fit did not call on_step, here at least",
        "a_training_that_diverges_stops": "skipped: there is no argument learning_rate",
    }


class BrokenTwice(NumpyAttribute):
    def fit(self, embeddings: Tensor, **options: Any) -> Any:
        super().fit(embeddings, **options)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(AssertionError) as raised:
        check_tokenizer(BrokenTwice)
    first, *lines = str(raised.value).splitlines()
    assert first == f"3 of {len(CHECKS)} checks failed"
    assert lines[0] == "- fit_returns_the_tokenizer: end fit with: return self"
    both = "a_loaded_tokenizer_is_the_same, a_fresh_process_can_load_it"
    assert lines[1].startswith(f"- {both}: raised ValueError: BrokenTwice.order, a ndarray, would not")
    assert len(lines) == 2
    assert isinstance(raised.value.__cause__, ValueError)  # whose traceback says where it came from


def test_what_is_no_tokenizer_cannot_be_checked() -> None:
    with pytest.raises(TypeError, match=r"does not give a semantic_ids\.Tokenizer"):
        check_tokenizer(TakesAnything)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_keeps_the_contract(name: str) -> None:
    for check in CHECKS:
        # Recipes of one class are loaded alike.
        if check is not testing.a_fresh_process_can_load_it or name in ONE_OF_EACH_CLASS:
            with suppress(testing.Skip):
                check(partial(small, name))
