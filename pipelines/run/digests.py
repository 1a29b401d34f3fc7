"""Digests of files and of the source of plug-ins: what they change must be computed again."""

from __future__ import annotations

import ast
import difflib
import hashlib
import inspect
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pipelines.config.settings import ConfigError
from pipelines.manifest import sha256_of
from semantic_ids.plugins import Registry

_OWN_PACKAGES = ("semantic_ids", "recsys", "pipelines")


def file_digest(path: Path, setting: str) -> str:
    """Return the SHA-256 of a file's content.

    Args:
        path: The file.
        setting: What ``--set`` takes to look for the file elsewhere, for the message.

    Raises:
        ConfigError: If the file cannot be read. The message names a similar file, if there is one.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        there = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, there, n=1)
        instead = f" ({close[0]} is there)" if close else ""
        raise ConfigError(
            f"cannot read {path}: {error.strerror}{instead}; put the file there, or say where it is with "
            f"--set {setting}"
        ) from error


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 of all files below a folder, with their names."""
    return _digest_of(_files_below(folder, "*"))


def plug_in_identity(registry: Registry[Any], name: str, thing: Any) -> dict[str, Any]:
    """Return what tells one state of a plug-in from another; empty for what is built in.

    Args:
        registry: Where the plug-in was found.
        name: Its name there.
        thing: Class or function whose module is looked at.

    Returns:
        The digest of its source, and the version of its package if it is an entry point.
    """
    module = name.partition(":")[0] if ":" in name else thing.__module__
    if module.partition(".")[0] in _OWN_PACKAGES:
        return {}
    identity: dict[str, Any] = {"source_sha256": _digest_of(_source_files(module))}
    for entry in entry_points(group=registry.group, name=name):
        identity["version"] = entry.dist.version if entry.dist else None
    return identity


def _digest_of(files: Mapping[str, Path]) -> str:
    """Return one digest of the contents of named files."""
    digests = [name + sha256_of(path) for name, path in sorted(files.items())]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _files_below(folder: Path, pattern: str) -> dict[str, Path]:
    """Return the files below a folder, by their paths in it."""
    return {str(file.relative_to(folder)): file for file in folder.rglob(pattern) if file.is_file()}


def _source_files(module: str) -> dict[str, Path]:
    """Return the source of a module's whole package; for a single file, also the files that it imports.

    Only imports of files and folders in the same folder count.
    """
    top = sys.modules[module.partition(".")[0]]
    folders = list(getattr(top, "__path__", ()))
    if folders:
        return {name: file for folder in folders for name, file in _files_below(Path(folder), "*.py").items()}
    todo = [Path(inspect.getfile(top))]
    found: dict[str, Path] = {}
    while todo:
        file = todo.pop()
        found[file.name] = file
        for name in _imported_names(file):
            sibling = file.with_name(name)
            if sibling.is_dir():
                found |= {f"{name}/{path}": part for path, part in _files_below(sibling, "*.py").items()}
            elif (single := file.with_name(f"{name}.py")).is_file() and single.name not in found:
                todo.append(single)
    return found


def _imported_names(file: Path) -> set[str]:
    """Return the top-level names of everything that a Python file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    return names
