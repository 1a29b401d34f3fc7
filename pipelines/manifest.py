"""The manifest of a folder: what it was made of, and a digest of every file, so that damage is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


class DamagedError(ValueError):
    """A folder is not as it was written. The message names the folder and what is wrong with it."""


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` into a folder that is complete.

    Args:
        folder: The folder.
        facts: JSON values to keep. Size, time and SHA-256 of every file are added, and a SHA-256 of all this.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            state = path.stat()
            name = path.relative_to(folder).as_posix()
            files[name] = {"bytes": state.st_size, "time_ns": state.st_mtime_ns, "sha256": sha256_of(path)}
    manifest = {**facts, "files": files}
    text = json.dumps({**manifest, "sha256": digest_of_values(manifest)}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder.

    Raises:
        DamagedError: If it is not as it was written.
        FileNotFoundError: If there is none.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        intact = manifest.pop("sha256") == digest_of_values(manifest)
    except (ValueError, KeyError, AttributeError, TypeError):  # not JSON, or JSON of another kind
        intact = False
    if not intact:
        raise DamagedError(f"{folder.name}: {MANIFEST} is not as it was written")
    return manifest


def check_files(folder: Path, *, every_byte: bool) -> None:
    """Compare the files of a folder with its manifest.

    Args:
        folder: The folder.
        every_byte: Whether to read all files. Otherwise only those are read whose time has changed, as a copy
            changes it; if nothing else has changed, the file gets its former time back, so that it need not
            be read again.

    Raises:
        DamagedError: If a file is missing or is not as it was written.
        FileNotFoundError: If there is no manifest.
    """
    for name, written in read_manifest(folder)["files"].items():
        path = folder / name
        try:
            state = path.stat()
        except FileNotFoundError:
            raise DamagedError(f"{folder.name}: {name} is missing") from None
        if state.st_size != written["bytes"]:
            raise DamagedError(f"{folder.name}: {name} has {state.st_size} bytes, not {written['bytes']}")
        moved = state.st_mtime_ns != written["time_ns"]
        if (moved or every_byte) and sha256_of(path) != written["sha256"]:
            raise DamagedError(f"{folder.name}: {name} is not as it was written")
        if moved:
            _set_time(path, written["time_ns"])


def _set_time(path: Path, time_ns: int) -> None:
    """Set the time of a file's last change, where that is allowed."""
    try:
        os.utime(path, ns=(time_ns, time_ns))
    except OSError:  # a file of somebody else, or on a read-only disk: it is read again the next time
        return


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_values(values: Any) -> str:
    """Return the SHA-256 of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
