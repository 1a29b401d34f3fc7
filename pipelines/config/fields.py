"""Types of single values in a benchmark file: names, paths and addresses."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from pipelines.paths import user_path

LONGEST_NAME = 100
"""Largest number of characters in the name of a benchmark or a method."""

_TRACKING = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks")


def check_name(name: str) -> str:
    """Return the name of a method, which is shown in tables and may be any text of one line.

    Raises:
        ValueError: If it could not be told from others there, or could not name a folder.
    """
    if not 0 < len(name) <= LONGEST_NAME:
        raise ValueError(f"a name must have 1 to {LONGEST_NAME} characters, not {len(name)}; give a 'name'")
    if name != name.strip() or not name.isprintable():
        raise ValueError(f"{name!r} is no name: take out control characters, and blanks at its ends")
    if name.startswith(".") or re.search(r"[/\\]", name):
        raise ValueError(f"{name!r} is no name: it must not begin with a dot or hold a slash; give a 'name'")
    return name


def check_tracking_uri(uri: str) -> str:
    """Return the address of an MLflow server or database.

    Raises:
        ValueError: If MLflow would take it for a local folder, or misread it. The message does not repeat it,
            as it may hold a password.
    """
    if uri in ("", "databricks"):
        return uri
    scheme, separator, rest = uri.partition("://")
    kind = scheme.partition("+")[0]
    if not separator or kind not in _TRACKING:
        raise ValueError(f"give an address that begins with {', '.join(_TRACKING[:5])} or {_TRACKING[5]}://")
    if not uri.isprintable() or " " in uri:
        raise ValueError("an address holds no blanks or control characters; write a blank as %20")
    if kind in ("sqlite", "file"):
        if rest.lstrip("/").startswith("~"):
            raise ValueError("~ is not replaced in an address; write the whole path")
        return uri
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(
            "the part after the host is no port; in a password write / as %2F and @ as %40"
        ) from error
    if kind in ("http", "https") and not host:
        raise ValueError("the address names no host")
    return uri


def not_finite(values: Any, place: str = "") -> Iterator[str]:
    """Yield the places in nested values where a number is infinite or not a number."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from not_finite(value, f"{place}.{key}" if place else str(key))
    elif isinstance(values, list | tuple):
        for number, value in enumerate(values):
            yield from not_finite(value, f"{place}.{number}")
    elif isinstance(values, float) and not math.isfinite(values):
        yield place


UserPath = Annotated[
    Path, BeforeValidator(lambda value: user_path(value) if isinstance(value, str) else value)
]
"""A path on this machine; ``~`` is the home folder."""

BenchmarkName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]
"""Letters, digits, dots, hyphens and underscores; it names folders and MLflow's experiment."""

TrackingUri = Annotated[str, AfterValidator(check_tracking_uri)]
"""The address of an MLflow server or database."""
