"""Read the values of a benchmark file and of ``--set``, before anything in them is checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.redaction import redacted
from recsys.yaml_files import parse_yaml, read_yaml


class ConfigError(ValueError):
    """A benchmark file or ``--set`` cannot be used. The message says what to change."""


def read_settings(path: str | Path, settings: Sequence[str]) -> dict[str, Any]:
    """Return the values of a benchmark file, unchecked, with settings applied.

    Args:
        path: A YAML file.
        settings: Overrides ``key=value`` with dotted keys.

    Raises:
        ConfigError: If the file or a setting cannot be read.
    """
    try:
        values = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a benchmark file") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys such as name, data, tokenizers and retrievers")
    apply_settings(values, settings)
    return values


def apply_settings(values: dict[str, Any], settings: Sequence[str]) -> None:
    """Apply settings to nested values, in their order.

    A later setting may change a part of what an earlier one set, but not undo it.

    Args:
        values: The values, which are changed.
        settings: Overrides ``key=value`` with dotted keys. Values are read as YAML.

    Raises:
        ConfigError: If a setting cannot be applied. The message names it.
    """
    keys: list[str] = []
    for setting in settings:
        key = _apply(values, setting)
        for number, earlier in enumerate(keys):
            if f"{earlier}.".startswith(f"{key}."):
                raise ConfigError(
                    f"--set {redacted(setting)} would undo --set {redacted(settings[number])} before it; "
                    "give one of them, or first the one that sets more"
                )
        keys.append(key)


def _apply(values: dict[str, Any], setting: str) -> str:
    """Put one ``a.b=value`` into nested values, and return ``a.b``. Positions in lists count from 0."""
    key, equals, text = setting.partition("=")
    shown = redacted(f"--set {setting}")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(f"{shown}: write key=value, for example --set data.k_core=5")
    try:
        value = parse_yaml(text, shown)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if re.search(r"\s#", text) and str(value).count("#") < text.count("#"):
        raise ConfigError(f"{shown}: YAML takes what follows ' #' for a comment; put the value in quotes")
    *path, last = key.split(".")
    place: Any = values
    try:
        for part in path:
            place = place[_position(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[_position(last) if isinstance(place, list) else last] = value
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"{shown}: there is no place called {key!r}") from error
    return key


def _position(part: str) -> int:
    """Return the position in a list that a part of a key names."""
    if not re.fullmatch("0|[1-9][0-9]*", part):
        raise ValueError(f"{part!r} is no position")
    return int(part)
