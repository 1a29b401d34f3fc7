"""Read a benchmark file, apply ``--set`` overrides, and report everything that is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipelines.config.base import ConfigError, Section
from pipelines.config.benchmark import BenchmarkConfig
from pipelines.config.data import DataConfig
from pipelines.redaction import redacted
from pipelines.screen import ERR
from recsys.yaml_files import parse_yaml, read_yaml

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
    return _validated(path, BenchmarkConfig, _read(path, settings))


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
        _apply_all(values, settings)
        return _validated(path, DataConfig, values)
    section = _read(path, settings).get("data", {})
    return _validated(path, DataConfig, section, "data")


def _read(path: str | Path, settings: Sequence[str]) -> dict[str, Any]:
    """Return the values of a benchmark file with settings applied."""
    try:
        values = read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a benchmark file") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys such as name, data, tokenizers and retrievers")
    _apply_all(values, settings)
    return values


def _validated(path: str | Path, kind: type[AnySection], values: Any, place: str = "") -> AnySection:
    """Return the section that ``values`` describe, or raise a ConfigError with all that is wrong.

    Checking names of plug-ins imports their modules, so the user is told of these first.
    """
    if modules := dict.fromkeys(_plug_in_modules(values)):
        ERR.print(f"Plug-ins: {path} runs the code of {', '.join(modules)}", soft_wrap=True)
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


def _apply_all(values: dict[str, Any], settings: Sequence[str]) -> None:
    """Apply settings in their order. A later one may change a part of what an earlier one set."""
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


def _explain(where: tuple[int | str, ...], message: str) -> str:
    """Return one line for one problem."""
    place = ".".join(str(part) for part in where)
    return f"  {place}{': ' if place else ''}{message.removeprefix('Value error, ')}"
