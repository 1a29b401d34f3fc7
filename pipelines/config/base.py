"""What all parts of a benchmark file have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from semantic_ids.choices import check_arguments, nearest_name


class Section(BaseModel):
    """A part of a benchmark file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}. {nearest_name(str(key), list(cls.model_fields))}")
        return values


def checked_arguments(
    what: str, function: Callable[..., Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments as their annotations want them: YAML reads ``1e-3`` as text, for one.

    Raises:
        ValueError: names the first argument that is unknown or not of its type.
    """
    check_arguments(what, function, arguments)
    hints = parameter_types(function.__init__ if inspect.isclass(function) else function)
    checked = {}
    for name, value in arguments.items():
        try:
            checked[name] = TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{what} cannot have {name} = {value!r}: {error.errors()[0]['msg']}") from error
    return checked


def parameter_types(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotation of each parameter; what is returned may be known to type checkers only."""
    given = {
        name: kind for name, kind in getattr(function, "__annotations__", {}).items() if name != "return"
    }
    if not given:  # nothing to look up, as in a class without a constructor of its own
        return {}
    # Names in annotations are looked up in the module of what is asked, here of a class made for it.
    return get_type_hints(
        type("Parameters", (), {"__annotations__": given, "__module__": function.__module__})
    )
