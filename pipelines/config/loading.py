"""Read a benchmark file, apply ``--set`` overrides, and report everything that is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from pipelines.config.base import ConfigError, Section
from pipelines.config.benchmark import BenchmarkConfig
from pipelines.config.data import DataConfig

AnySection = TypeVar("AnySection", bound=Section)


def load_config(path: str | Path, settings: Sequence[str] = ()) -> BenchmarkConfig:
    """Read a benchmark file.

    Args:
        path: A YAML file.
        settings: Overrides ``key=value`` with dotted keys. Values are read as YAML.

    Raises:
        ConfigError: If the file or a setting cannot be used. The message has a line for each problem.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a benchmark file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys such as name, data, tokenizers and retrievers")
    for setting in settings:
        _apply(values, setting)
    return _validated(path, BenchmarkConfig, values)


def load_data(folder: Path, settings: Sequence[str]) -> DataConfig:
    """Return the section ``data`` for a folder of raw files, with all else given by settings.

    Args:
        folder: Folder of the raw files.
        settings: Overrides ``key=value``, at least ``reader=NAME``.

    Raises:
        ConfigError: If a setting cannot be used, or one is missing.
    """
    values: dict[str, Any] = {"raw": folder}
    for setting in settings:
        _apply(values, setting)
    return _validated(folder, DataConfig, values)


def _validated(path: str | Path, kind: type[AnySection], values: dict[str, Any]) -> AnySection:
    """Return the section that ``values`` describe, or raise a ConfigError with all that is wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_explain(e["loc"], e["msg"]) for e in error.errors()]
        raise ConfigError(f"{path}:\n" + "\n".join(lines)) from error


def _apply(values: dict[str, Any], setting: str) -> None:
    """Put one ``a.b=value`` into nested ``values``; a number in the key is a position in a list, from 0."""
    key, equals, text = setting.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(f"--set {setting}: write key=value, for example --set data.k_core=5")
    *path, last = key.split(".")
    place: Any = values
    try:
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[int(last) if isinstance(place, list) else last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: {text!r} is not valid YAML") from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"--set {setting}: there is no place called {key!r}") from error


def _explain(where: tuple[int | str, ...], message: str) -> str:
    """Return one line for one problem."""
    place = ".".join(str(part) for part in where)
    return f"  {place}{': ' if place else ''}{message.removeprefix('Value error, ')}"
