"""Picks a choice by name from a table: how recipes, configs and saved files say what they mean."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Choice = str | Mapping[str, Any]
"""A name, or a mapping with ``name`` and the choice's own arguments: ``{"name": "power", "alpha": 0.5}``."""


def nearest_name(wrong: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` if one of ``known`` looks like ``wrong``, else the whole list."""
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


def check_arguments(
    what: str, function: Callable[..., Any], arguments: Mapping[str, Any], context: Collection[str] = ()
) -> None:
    """Raise a :class:`ValueError` naming the first argument that ``function`` does not take from a choice.

    ``context`` names the arguments it is given anyway, which no choice can set.
    """
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind != p.VAR_KEYWORD and p.name not in context]
    for name in arguments:
        if name not in known:
            raise ValueError(f"{what} has no parameter {name!r}. {nearest_name(name, known)}")


def override(choices: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``choices`` with ``changes``, which reach into a choice unless they name another.

    ``{"radius": {"name": "power", "alpha": 0.5}}`` with ``{"radius": {"alpha": 0.7}}`` stays a power
    radius; with ``{"radius": "huber"}`` nothing of it is left.
    """
    changed = dict(choices)
    for key, change in changes.items():
        before = changed.get(key)
        before = {"name": before} if isinstance(before, str) else before
        if (
            isinstance(before, Mapping)
            and isinstance(change, Mapping)
            and change.get("name", before.get("name")) == before.get("name")
        ):
            changed[key] = override(before, change)
        else:
            changed[key] = change
    return changed


def build(kind: str, table: Mapping[str, Callable[..., T]], choice: Choice, **context: Any) -> T:
    """The chosen entry of ``table``, called with the choice's own arguments and ``context``.

    Args:
        kind: what is chosen, for the message of an error.
        table: name → constructor.
        choice: a name, or a mapping of ``name`` and arguments.
        context: arguments that every entry of the table takes.

    Raises:
        ValueError: the name or an argument is unknown, or the argument is the context's to give; the
            message names the nearest known one.
    """
    arguments = {"name": choice} if isinstance(choice, str) else dict(choice)
    name = str(arguments.pop("name", None))
    if name not in table:
        raise ValueError(f"no {kind} is called {name!r}. {nearest_name(name, list(table))}")
    check_arguments(f"{kind} {name!r}", table[name], arguments, context)
    return table[name](**context, **arguments)
