"""Every number of every tokenizer is refused by name where it is out of range, or works."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from semantic_ids.quantizers.assignment import ASSIGNMENTS
from semantic_ids.quantizers.codebook import Codebook
from semantic_ids.quantizers.learning import LEARNINGS
from semantic_ids.quantizers.radii import RADII
from semantic_ids.quantizers.regularizer import REGULARIZERS
from semantic_ids.quantizers.safeguard import Safeguards
from semantic_ids.quantizers.scalar import SCALAR_QUANTIZERS
from semantic_ids.quantizers.surrogate import SURROGATES
from semantic_ids.quantizers.transform import TRANSFORMS
from semantic_ids.quantizers.upkeep import Upkeep
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.ranges import check_numbers, check_whole, check_widths
from semantic_ids.recipes import RECIPES
from semantic_ids.registry import create

WRONG = (-1, 0, -5, 0.5, 1e30, 10**30, 10**9, -1e-3, math.nan, math.inf, -math.inf, True, "1", None)
FOR_DATA = {"levels": 2, "codebook_size": 8, "steps": 2, "batch_size": 16, "hidden": [8], "iterations": 2}


def numbers_of(function: Any) -> Iterator[str]:
    """Yield the names of the parameters whose defaults are numbers, but not bools."""
    for parameter in inspect.signature(function).parameters.values():
        if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
            yield parameter.name


QUANTIZER_PARTS = {"assignment": ASSIGNMENTS, "learning": LEARNINGS, "surrogate": SURROGATES}
QUANTIZER_PARTS |= {"transform": TRANSFORMS}


def quantizer_parts() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield a recipe, the name of a number, and options of its quantizer with ``...`` for the number."""
    for kind, table in QUANTIZER_PARTS.items():
        for option, entry in table.items():
            # Soft assignments go with one surrogate only.
            others = {"surrogate": "direct"} if option == "soft" else {}
            yield from (("rq-vae", n, {kind: {"name": option, n: ...}, **others}) for n in numbers_of(entry))
    for option, entry in RADII.items():
        for number in numbers_of(entry):
            yield "grit-vq", number, {"surrogate": {"name": "grit", "radius": {"name": option, number: ...}}}
    for option, entry in REGULARIZERS.items():
        yield from (("rq-vae", n, {"regularizers": [{"name": option, n: ...}]}) for n in numbers_of(entry))
    for group, function in {"codebook": Codebook, "upkeep": Upkeep}.items():
        yield from (("rq-vae", n, {group: {n: ...}}) for n in numbers_of(function))
    for option, entry in SCALAR_QUANTIZERS.items():
        yield from ((option, n, {"name": option, n: ...}) for n in numbers_of(entry))
    yield "rq-vae", "dim", {"dim": ...}


def parts() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield a recipe, the name of a number, and choices in which :data:`WRONG` takes the place of ``...``."""
    for name in ("grit-vq", "rq-kmeans", "opq", "lsh", "random-id"):
        yield from ((name, n, {n: ...}) for n in numbers_of(RECIPES[name].tokenizer))
    yield from (("rq-vae", n, {"safeguards": {n: ...}}) for n in numbers_of(Safeguards))
    yield from ((name, n, {"quantizer": options}) for name, n, options in quantizer_parts())


def filled(choices: Any, value: object) -> Any:
    """Return choices with ``value`` in the place of ``...``."""
    if isinstance(choices, Mapping):
        return {name: filled(inner, value) for name, inner in choices.items()}
    if isinstance(choices, list):
        return [filled(inner, value) for inner in choices]
    return value if choices is ... else choices


PARTS = list(parts())


def test_all_kinds_of_numbers_are_walked_over() -> None:
    names = {number for _, number, _ in PARTS}
    assert names >= {"levels", "steps", "learning_rate", "rounds", "rank", "tau", "p", "variance", "s", "dim"}
    assert names >= {"decay", "temperature", "weight", "dead_below", "max_row_norm", "diversity", "epsilon"}
    assert set(numbers_of(VectorQuantizer)) == {"dim"}
    assert len(PARTS) > 50


@pytest.mark.parametrize(
    ("name", "number", "choices"),
    PARTS,
    ids=[f"{place}-{number}" for place, (_, number, _) in enumerate(PARTS)],
)
@pytest.mark.filterwarnings("ignore:the codes say little:RuntimeWarning")
def test_a_number_out_of_range_is_named_or_works(name: str, number: str, choices: Mapping[str, Any]) -> None:
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    parameters = RECIPES[name].parameters()
    for value in WRONG:
        if value == 10**9 and number in ("steps", "rounds"):
            continue  # this only takes long
        given = {key: small for key, small in FOR_DATA.items() if key in parameters}
        given |= filled(choices, value)
        refusal = ""
        try:
            assert create(name, **given).fit(x).encode(x).shape[0] == 40
        except ValueError as error:
            refusal = str(error)
        assert number in refusal or not refusal, (value, refusal)
        works = type(value) in (int, float) and (math.isfinite(value) or number == "p")
        assert refusal or works, value


@pytest.mark.parametrize("value", [0, 65, 2.0, True, None, "3"])
def test_what_is_no_whole_number_in_the_range_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=rf"^levels must be a whole number from 1 to 64, not {value!r}$"):
        check_whole(1, 64, levels=value)
    check_whole(1, 64, levels=1, more=64)


def test_ends_of_ranges() -> None:
    check_numbers(0, 1, a=0, b=1, c=0.5)
    check_numbers(1, infinite=True, p=math.inf)
    for options, value, message in (
        ({"above": True}, 0, "x must be a number above 0 and at most 1, not 0"),
        ({"below": True}, 1, "x must be a number at least 0 and below 1, not 1"),
        ({}, 1.5, "x must be a number at least 0 and at most 1, not 1.5"),
        ({}, math.nan, "x must be a number at least 0 and at most 1, not nan"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            check_numbers(0, 1, **options, x=value)
    with pytest.raises(ValueError, match=r"^x must be a number at least 0 and at most 1e\+18, not inf$"):
        check_numbers(x=math.inf)


@pytest.mark.parametrize(("widths", "named"), [(5, "hidden"), ("8", "hidden"), ([8, 0], r"hidden\[1\]")])
def test_what_is_no_list_of_widths_is_named(widths: object, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} must be a"):
        check_widths("hidden", widths)
    check_widths("hidden", [8, 4])
    check_widths("hidden", ())
