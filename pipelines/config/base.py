"""What all sections of a benchmark file share: strict keys, and arguments checked against a signature."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from semantic_ids.choices import check_arguments
from semantic_ids.plugins import nearest_name


class Section(BaseModel):
    """A part of a benchmark file. An unknown key is an error that suggests the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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
    """Convert arguments to the types that a function's annotations ask for.

    YAML reads ``1e-3`` as text, for example. Where a parameter takes a dataclass, a mapping becomes one.

    Args:
        what: What takes the arguments, for messages, such as ``retriever 'tiger'``.
        function: Function or class that is going to be called.
        arguments: Values as they were read from a file.

    Raises:
        ValueError: If an argument is unknown or has the wrong type. The message names the first one.
    """
    check_arguments(what, function, arguments)
    types = parameter_types(function.__init__ if inspect.isclass(function) else function)
    checked = {}
    for name, value in arguments.items():
        kind = types.get(name, Any)
        group = next((part for part in get_args(kind) if dataclasses.is_dataclass(part)), None)
        if isinstance(group, type) and isinstance(value, Mapping):
            checked[name] = group(**checked_arguments(f"{name} of {what.partition(' ')[2]}", group, value))
            continue
        try:
            checked[name] = _adapter(kind).validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{what} cannot have {name} = {value!r}: {error.errors()[0]['msg']}") from error
    return checked


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what converts values to a type, and refuses numbers that are not finite."""
    try:
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError:  # a type with a configuration of its own
        return TypeAdapter(kind)


def parameter_types(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotation of each parameter. That of the result is ignored: only type checkers need it."""
    annotations = {
        name: kind for name, kind in getattr(function, "__annotations__", {}).items() if name != "return"
    }
    if not annotations:  # a class without a constructor of its own has nothing to look up
        return {}
    # get_type_hints looks names up in the module of what it is given, so it is given a class of that module.
    return get_type_hints(
        type("Parameters", (), {"__annotations__": annotations, "__module__": function.__module__})
    )
