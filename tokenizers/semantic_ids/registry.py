"""Finds a tokenizer by name: a recipe, an installed plug-in, or any importable class."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from semantic_ids.choices import check_arguments, nearest_name, override
from semantic_ids.recipes import RECIPES, Recipe
from semantic_ids.tokenizer import Tokenizer

ENTRY_POINTS = "semantic_ids.tokenizers"


def recipes() -> dict[str, Recipe]:
    """All tokenizers known by name: the built-in table, then plug-ins of installed packages.

    A plug-in that cannot be used is left out with a warning that names its package.
    """
    found = dict(RECIPES)
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            found.setdefault(entry.name, _installed(entry))
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def recipe(name: str) -> Recipe:
    """The recipe called ``name``, or one made of the class that ``module:Class`` names.

    Raises:
        ValueError: there is neither, and the message names the nearest known recipe; or it is a
            plug-in that cannot be imported, or no tokenizer.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        return _plug_in(repr(name), lambda: getattr(importlib.import_module(module), attribute), name)
    if name in RECIPES:
        return RECIPES[name]
    installed = entry_points(group=ENTRY_POINTS)
    if name not in installed.names:
        raise ValueError(
            f"no tokenizer is called {name!r}. {nearest_name(name, [*RECIPES, *sorted(installed.names)])}"
        )
    return _installed(installed[name])


def _installed(entry: EntryPoint) -> Recipe:
    package = entry.dist.name if entry.dist else "?"
    return _plug_in(f"{entry.name!r} of the package {package}", entry.load, entry.value)


def _plug_in(whose: str, load: Callable[[], Any], source: str) -> Recipe:
    try:
        tokenizer = load()
    except Exception as error:  # an import runs the plug-in's own code, which may fail in any way
        raise ValueError(f"tokenizer {whose} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(tokenizer, type) and issubclass(tokenizer, Tokenizer)):
        raise ValueError(f"{whose} is not a subclass of semantic_ids.Tokenizer")
    return Recipe(tokenizer, (inspect.getdoc(tokenizer) or "").partition("\n")[0], source)


def create(name: str, **params: Any) -> Tokenizer:
    """An unfitted tokenizer: the recipe's choices, with ``params`` put over them.

    Args:
        name: of a recipe or plug-in, or ``module:Class``.
        params: constructor arguments; see :func:`~semantic_ids.choices.override` for those that are choices.

    Raises:
        ValueError: the name or a parameter is unknown.
    """
    chosen = recipe(name)
    check_arguments(f"tokenizer {name!r}", chosen.tokenizer, params)
    return chosen.tokenizer(**override(chosen.choices, params))
