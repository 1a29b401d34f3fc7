"""Choices by name, and what is said about a wrong one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from semantic_ids.choices import Choice, build, check_arguments, override
from semantic_ids.plugins import nearest_name

TABLE: dict[str, Callable[..., Any]] = {
    "pair": lambda left=1, *, right=2, context=0: (left, right, context),
    "single": lambda only=3, *, context=0, **rest: (only, context, rest),
}


def test_nearest_name() -> None:
    assert nearest_name("levls", ["levels", "latent"]) == "Did you mean 'levels'?"
    assert nearest_name("zzz", ["levels", "latent"]) == "Known: levels, latent."


def test_choices_are_names_or_mappings() -> None:
    assert build("thing", TABLE, "pair") == (1, 2, 0)
    assert build("thing", TABLE, {"name": "pair", "right": 5}, context=9) == (1, 5, 9)
    choice = {"name": "pair", "left": 7}
    build("thing", TABLE, choice)
    assert choice == {"name": "pair", "left": 7}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("par", "no thing is called 'par'. Did you mean 'pair'?"),
        ({"name": "zzz"}, "no thing is called 'zzz'. Known: pair, single."),
        ({"right": 5}, "no thing is called 'None'. Known: pair, single."),
        ({"name": "pair", "rihgt": 5}, "thing 'pair' has no parameter 'rihgt'. Did you mean 'right'?"),
        ({"name": "pair", "context": 5}, "thing 'pair' has no parameter 'context'. Known: left, right."),
        ({"name": "single", "rest": 5}, "thing 'single' has no parameter 'rest'. Known: only."),
    ],
)
def test_wrong_choices(choice: Choice, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build("thing", TABLE, choice, context=9)


def test_the_first_unknown_argument_is_named() -> None:
    check_arguments("it", TABLE["pair"], {"left": 1, "context": 2})
    with pytest.raises(ValueError, match="it has no parameter 'b'"):
        check_arguments("it", TABLE["pair"], {"left": 1, "b": 2, "c": 3})


def test_the_present_place_of_an_argument_is_named() -> None:
    function = partial(TABLE["pair"])
    function.moved_arguments = {"port": "left.port", "right": "elsewhere"}  # type: ignore[attr-defined]
    check_arguments("it", function, {"right": 1})  # an argument of that name exists
    with pytest.raises(ValueError, match=r"it has no parameter 'port': it is now left\.port$"):
        check_arguments("it", function, {"port": 1})


def test_arguments_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(ValueError, match="it takes a mapping from names to values, not 'left'"):
        check_arguments("it", TABLE["pair"], "left")  # type: ignore[arg-type]


def test_changes_reach_into_a_choice_unless_they_name_another() -> None:
    choices = {
        "quantizer": {"name": "vector", "surrogate": {"name": "grit", "radius": "power"}},
        "reset_every": 100,
    }
    changes = {"quantizer": {"surrogate": {"radius": {"alpha": 0.7}}, "dim": 8}, "steps": 5}
    assert override(choices, changes) == {
        "quantizer": {
            "name": "vector",
            "surrogate": {"name": "grit", "radius": {"name": "power", "alpha": 0.7}},
            "dim": 8,
        },
        "reset_every": 100,
        "steps": 5,
    }
    assert override(choices, {"quantizer": {"name": "fsq"}})["quantizer"] == {"name": "fsq"}
    assert override(choices, {"quantizer": "fsq"})["quantizer"] == "fsq"
    assert choices["quantizer"]["surrogate"]["radius"] == "power"
