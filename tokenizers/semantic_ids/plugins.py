"""Find what a benchmark file names: a built-in, what an installed package offers, or ``module:attribute``."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PLUG_IN_GROUPS = ("semantic_ids.tokenizers", "recsys.retrievers")
"""Entry-point groups in which installed packages offer classes whose objects are saved."""


def nearest_name(wrong: str, known: list[str]) -> str:
    """Return ``Did you mean 'x'?`` if one of ``known`` looks like ``wrong``, else the list of all.

    Example:
        >>> nearest_name("rq-vea", ["rq-vae", "lsh"])
        "Did you mean 'rq-vae'?"
        >>> nearest_name("opq", ["rq-vae", "lsh"])
        'Known: rq-vae, lsh.'
    """
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."


@dataclass(frozen=True)
class Registry(Generic[T]):
    """All things of one kind that can be named: tokenizers, retrievers, readers, metrics or text encoders.

    Attributes:
        kind: What one of them is called in messages, such as ``retriever``.
        group: Entry-point group in which installed packages offer their own.
        builtin: Name to object, or to ``module:attribute`` for what is imported when it is first used.
        accept: Turns what was imported into a ``T``. Raises a ValueError that says what it is not.
    """

    kind: str
    group: str
    builtin: Mapping[str, T | str]
    accept: Callable[[Any], T]

    def names(self) -> list[str]:
        """Return the names of all built-ins, then those that installed packages offer."""
        installed = entry_points(group=self.group).names
        return [*self.builtin, *sorted(installed - set(self.builtin))]

    def load(self, name: str) -> T:
        """Return the thing called ``name``.

        Args:
            name: Name of a built-in or of an entry point, or ``module:attribute`` of any importable
                module. Built-ins come first.

        Raises:
            ValueError: If there is no such name (the message suggests the nearest one), if it cannot be
                imported, or if it is not of this kind.
        """
        if name in self.builtin:
            known = self.builtin[name]
            return self._import(known, repr(name)) if isinstance(known, str) else known
        if ":" in name:
            return self._import(name, repr(name))
        installed = entry_points(group=self.group)
        if name in installed.names:
            return self._load_entry(installed[name])
        raise ValueError(
            f"no {self.kind} is called {name!r}. {nearest_name(name, self.names())} "
            "Or name one of your own as module:Name."
        )

    def all(self) -> dict[str, T]:
        """Return everything that has a name; an installed plug-in that fails is left out with a warning."""
        found = {name: self.load(name) for name in self.builtin}
        for entry in entry_points(group=self.group):
            try:
                if entry.name not in found:
                    found[entry.name] = self._load_entry(entry)
            except ValueError as error:
                warnings.warn(str(error), stacklevel=2)
        return found

    def _load_entry(self, entry: EntryPoint) -> T:
        package = entry.dist.name if entry.dist else "?"
        return self._import(entry.value, f"{entry.name!r} of the package {package}")

    def _import(self, path: str, shown: str) -> T:
        """Return what ``module:attribute`` stands for; ``shown`` is its name in messages."""
        module, _, attribute = path.partition(":")
        try:
            found = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:  # importing runs code of the plug-in, which may fail in any way
            raise ValueError(
                f"{self.kind} {shown} cannot be imported: {type(error).__name__}: {error} "
                "(modules in the current folder are found, too)"
            ) from error
        try:
            return self.accept(found)
        except ValueError as error:
            raise ValueError(f"{self.kind} {shown} cannot be used: {error}") from error


def saved_class(path: str, base: type[T], source: str) -> type[T]:
    """Return the class of a saved object, without running code that nobody asked for.

    Its module must be imported already, belong to the package of ``base`` or one of its bases, or belong to
    an installed package that offers plug-ins by entry points. Nothing else is imported, because whoever wrote
    the file chose the name.

    Args:
        path: The class, as ``module:Class``.
        base: Class of which it must be a subclass.
        source: Where the path comes from, for messages.

    Raises:
        ValueError: If the module may not be imported, if there is no such class, or if it is no subclass of
            ``base``. The message says what to do.
    """
    module, _, attribute = str(path).partition(":")
    package = module.partition(".")[0]
    if module not in sys.modules and package not in _trusted_packages(base):
        raise ValueError(
            f"{source} holds a {path}, but its module is not imported; if you trust the file and the module, "
            f"import {module or 'it'} first, then load again"
        )
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{source} holds a {path}, which does not exist here: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{source} holds a {path}, which is no {base.__name__}")
    return found


def _trusted_packages(base: type) -> set[str]:
    """Return the names of the packages of a class and its bases, and of installed plug-ins."""
    own = {ancestor.__module__.partition(".")[0] for ancestor in base.__mro__}
    offered = [entry for group in PLUG_IN_GROUPS for entry in entry_points(group=group)]
    return own | {entry.value.partition(":")[0].partition(".")[0] for entry in offered}


def subclass_of(base: type[T]) -> Callable[[Any], type[T]]:
    """Return a check for :attr:`Registry.accept` that takes concrete subclasses of ``base`` only."""

    def accept(found: Any) -> type[T]:
        name = f"{base.__module__}.{base.__qualname__}"
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ValueError(f"it is not a subclass of {name}")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(vars(found)["__abstractmethods__"]))
            raise ValueError(f"it lacks methods that {name} asks for: {missing}")
        return found

    return accept


def first_line(thing: Any) -> str:
    """Return the first line of an object's docstring, or nothing if it has none."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]
