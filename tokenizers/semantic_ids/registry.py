"""Find a tokenizer by name: a recipe, a plug-in of an installed package, or any importable class."""

from __future__ import annotations

from typing import Any

from semantic_ids.choices import check_arguments, override
from semantic_ids.plugins import Registry, first_line, subclass_of
from semantic_ids.recipes import RECIPES, Recipe
from semantic_ids.tokenizer import Tokenizer


def _as_recipe(plug_in: Any) -> Recipe:
    """Return the recipe of a plug-in's class: the class with its own defaults."""
    tokenizer = subclass_of(Tokenizer)(plug_in)  # type: ignore[type-abstract]
    return Recipe(tokenizer, first_line(tokenizer), f"{tokenizer.__module__}:{tokenizer.__qualname__}")


TOKENIZERS: Registry[Recipe] = Registry("tokenizer", "semantic_ids.tokenizers", RECIPES, _as_recipe)
"""All tokenizers that a benchmark can name."""


def recipes() -> dict[str, Recipe]:
    """Return all named tokenizers: the built-in table, then plug-ins of installed packages.

    A plug-in that cannot be used is left out with a warning that names its package.
    """
    return TOKENIZERS.all()


def recipe(name: str) -> Recipe:
    """Return the recipe called ``name``.

    Args:
        name: Name of a recipe or of an installed plug-in, or ``module:Class``.

    Raises:
        ValueError: If there is no such tokenizer (the message suggests the nearest name), if it cannot be
            imported, or if it is no tokenizer.
    """
    return TOKENIZERS.load(name)


def create(name: str, **params: Any) -> Tokenizer:
    """Return an unfitted tokenizer: a recipe's choices, with ``params`` put over them.

    Args:
        name: Name of a recipe or of an installed plug-in, or ``module:Class``.
        **params: Constructor arguments. Those that are choices may be changed in part, see
            :func:`~semantic_ids.choices.override`.

    Raises:
        ValueError: If the name or a parameter is unknown.

    Example:
        >>> tokenizer = create("rq-kmeans", levels=2, codebook_size=16)
        >>> tokenizer.codebook_sizes
        (16, 16)
    """
    chosen = recipe(name)
    check_arguments(f"tokenizer {name!r}", chosen.tokenizer, params)
    return chosen.tokenizer(**override(chosen.choices, params))
