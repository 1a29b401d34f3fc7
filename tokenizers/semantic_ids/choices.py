"""Build an object from a name and arguments, as recipes, benchmark files and saved models write it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from semantic_ids.plugins import nearest_name

T = TypeVar("T")
Choice = str | Mapping[str, Any]
"""A name, or a mapping with ``name`` and arguments, such as ``{"name": "power", "alpha": 0.5}``."""


def check_arguments(
    what: str, function: Callable[..., Any], arguments: Mapping[str, Any], context: Collection[str] = ()
) -> None:
    """Refuse arguments that ``function`` does not have.

    Args:
        what: What takes the arguments, for the message.
        function: Function or class that is going to be called. If it has an attribute ``moved_arguments``,
            a mapping from former names to the present places, the message names the present place.
        arguments: Arguments that the user gave.
        context: Names of parameters that are always passed by us, so that no user can set them.

    Raises:
        ValueError: If an argument is unknown, or if ``arguments`` is no mapping. The message names the
            first unknown argument and the nearest known name.
    """
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{what} takes a mapping from names to values, not {arguments!r}")
    moved = getattr(function, "moved_arguments", {})
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind != p.VAR_KEYWORD and p.name not in context]
    for name in arguments:
        if name in moved and name not in known:
            raise ValueError(f"{what} has no parameter {name!r}: it is now {moved[name]}")
        if name not in known:
            raise ValueError(f"{what} has no parameter {name!r}. {nearest_name(name, known)}")


def override(choices: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``choices`` with ``changes`` applied.

    A change to a choice keeps the choice's other arguments, unless the change names another choice.

    Example:
        >>> choices = {"radius": {"name": "power", "alpha": 0.5}}
        >>> override(choices, {"radius": {"alpha": 0.7}})
        {'radius': {'name': 'power', 'alpha': 0.7}}
        >>> override(choices, {"radius": "huber"})
        {'radius': 'huber'}
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
    """Call the chosen entry of ``table`` with the choice's own arguments and those of ``context``.

    Args:
        kind: What is chosen, for error messages, such as ``quantizer``.
        table: Name to constructor.
        choice: A name, or a mapping with ``name`` and arguments.
        **context: Arguments that every entry of the table takes and no choice can set.

    Raises:
        ValueError: If the choice is neither, or if the name or an argument is unknown. The message suggests
            the nearest known one.
    """
    if not isinstance(choice, str | Mapping):
        raise ValueError(f"a {kind} is a name, or a mapping with a name and arguments, not {choice!r}")
    arguments = {"name": choice} if isinstance(choice, str) else dict(choice)
    name = str(arguments.pop("name", None))
    if name not in table:
        raise ValueError(f"no {kind} is called {name!r}. {nearest_name(name, list(table))}")
    check_arguments(f"{kind} {name!r}", table[name], arguments, context)
    return table[name](**context, **arguments)
