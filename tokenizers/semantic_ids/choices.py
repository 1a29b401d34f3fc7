"""Picks a choice by name from a table: how recipes, configs and saved files say what they mean."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Choice = str | Mapping[str, Any]
"""A name, or a mapping with ``name`` and the choice's own arguments: ``{"name": "power", "alpha": 0.5}``."""


def nearest_name(wrong: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` if one of ``known`` looks like ``wrong``, else the whole list."""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


def check_arguments(what: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raise a :class:`ValueError` naming the first argument that ``function`` does not take."""
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_KEYWORD]
    for name in arguments:
        if name not in known:
            raise ValueError(f"{what} has no parameter {name!r}. {nearest_name(name, known)}")


def build(kind: str, table: Mapping[str, Callable[..., T]], choice: Choice, **context: Any) -> T:
    """The chosen entry of ``table``, called with the choice's own arguments and ``context``.

    Args:
        kind: what is chosen, for the message of an error.
        table: name → constructor.
        choice: a name, or a mapping of ``name`` and arguments.
        context: arguments that every entry of the table takes.

    Raises:
        ValueError: the name or an argument is unknown; the message names the nearest known one.
    """
    arguments = {"name": choice} if isinstance(choice, str) else dict(choice)
    name = str(arguments.pop("name", None))
    if name not in table:
        raise ValueError(f"no {kind} is called {name!r}. {nearest_name(name, list(table))}")
    check_arguments(f"{kind} {name!r}", table[name], arguments)
    return table[name](**context, **arguments)
