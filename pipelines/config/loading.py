"""Read and check a benchmark file, and report everything that is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipelines.config.base import Section
from pipelines.config.benchmark import BenchmarkConfig
from pipelines.config.data import DataConfig
from pipelines.config.settings import ConfigError, apply_settings, read_settings
from pipelines.screen import ERR

_PLUG_IN_KEYS = ("reader", "encoder", "tokenizers", "recipe", "retrievers", "kind", "metrics")

AnySection = TypeVar("AnySection", bound=Section)


def load_config(path: str | Path, settings: Sequence[str] = ()) -> BenchmarkConfig:
    """Read a benchmark file.

    Args:
        path: A YAML file.
        settings: Overrides ``key=value`` with dotted keys. Values are read as YAML. They are applied in their
            order, and none may undo another.

    Raises:
        ConfigError: If the file or a setting cannot be used. The message has a line for each problem.
    """
    return _validated(path, BenchmarkConfig, read_settings(path, settings))


def load_data(path: Path, settings: Sequence[str]) -> DataConfig:
    """Return the section ``data`` alone, so that no code is loaded but that of its reader.

    Args:
        path: A benchmark file; or a folder of raw files, for which settings give all else, at least
            ``reader=NAME``.
        settings: Overrides ``key=value``: ``data.raw=FOLDER`` for a file, ``reviews=FILE`` for a folder.

    Raises:
        ConfigError: If the file or a setting cannot be used, or one is missing.
    """
    if path.is_dir():
        values: dict[str, Any] = {"raw": path}
        apply_settings(values, settings)
        return _validated(path, DataConfig, values)
    section = read_settings(path, settings).get("data", {})
    return _validated(path, DataConfig, section, "data")


def _validated(path: str | Path, kind: type[AnySection], values: Any, place: str = "") -> AnySection:
    """Return the section that ``values`` describe, or raise a ConfigError with all that is wrong.

    Checking names of plug-ins imports their modules, so the user is told of these first.
    """
    if modules := dict.fromkeys(_plug_in_modules(values)):
        ERR.print(f"Plug-ins: {path} runs the code of {', '.join(modules)}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        prefix = (place,) if place else ()
        lines = [_explain((*prefix, *e["loc"]), e["msg"]) for e in error.errors()]
        raise ConfigError(f"{path}:\n" + "\n".join(lines)) from error


def _plug_in_modules(values: Any, key: str = "") -> Iterator[str]:
    """Yield the modules that nested values name as ``module:Name`` where a plug-in can be named."""
    if isinstance(values, dict):
        for below, value in values.items():
            yield from _plug_in_modules(value, str(below))
    elif isinstance(values, list):
        for value in values:
            yield from _plug_in_modules(value, key)
    elif key in _PLUG_IN_KEYS and re.fullmatch(r"[\w.]+:[\w.]+", str(values)):
        yield str(values).partition(":")[0]


def _explain(where: tuple[int | str, ...], message: str) -> str:
    """Return one line for one problem."""
    place = ".".join(str(part) for part in where)
    return f"  {place}{': ' if place else ''}{message.removeprefix('Value error, ')}"
