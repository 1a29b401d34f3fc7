"""Finds a tokenizer by name: a recipe, an installed plug-in, or any importable class."""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import entry_points
from typing import Any

from semantic_ids.choices import check_arguments, nearest_name
from semantic_ids.recipes import RECIPES, Recipe
from semantic_ids.tokenizer import Tokenizer

ENTRY_POINTS = "semantic_ids.tokenizers"


def recipes() -> dict[str, Recipe]:
    """All tokenizers known by name: the built-in table, then plug-ins of installed packages."""
    found = dict(RECIPES)
    for entry in entry_points(group=ENTRY_POINTS):
        tokenizer = entry.load()
        summary = (inspect.getdoc(tokenizer) or "").partition("\n")[0]
        found.setdefault(entry.name, Recipe(tokenizer, summary, entry.value))
    return found


def recipe(name: str) -> Recipe:
    """The recipe called ``name``, or one made of the class that ``module:Class`` names.

    Raises:
        ValueError: there is neither; the message names the nearest known recipe.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            tokenizer = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"tokenizer {name!r} cannot be imported: {error}") from error
        if not (isinstance(tokenizer, type) and issubclass(tokenizer, Tokenizer)):
            raise ValueError(f"{name!r} is not a subclass of semantic_ids.Tokenizer")
        return Recipe(tokenizer, (inspect.getdoc(tokenizer) or "").partition("\n")[0], name)
    if name in RECIPES:  # a plug-in that cannot be loaded must not break these
        return RECIPES[name]
    known = recipes()
    if name not in known:
        raise ValueError(f"no tokenizer is called {name!r}. {nearest_name(name, list(known))}")
    return known[name]


def create(name: str, **params: Any) -> Tokenizer:
    """An unfitted tokenizer: the recipe's choices, overridden by ``params``.

    Raises:
        ValueError: the name or a parameter is unknown.
    """
    chosen = recipe(name)
    check_arguments(f"tokenizer {name!r}", chosen.tokenizer, params)
    return chosen.tokenizer(**{**chosen.choices, **params})
