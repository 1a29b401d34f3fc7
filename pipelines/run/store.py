"""Content-addressed folders: what was made once, from the same things, is never made again."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

_DIGITS = 16

Work = Callable[[Mapping[str, Any], Mapping[str, Path], Path], None]
"""Gets its configuration, the folders of its inputs, and the folder to fill."""


@dataclass(frozen=True)
class Step:
    """One folder that is to be made, and all that its content follows from.

    Attributes:
        stage: what kind of work it is; names the folder's parent.
        label: what it is called among its kind; for people, no part of the digest.
        version: of the work; raise it when the same inputs should give something else.
        config: JSON values that the work depends on.
        inputs: the steps whose folders it reads, by the names that the work knows them under.
        work: fills the folder.
    """

    stage: str
    label: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Step]
    work: Work = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """64 hex digits: of stage, version, configuration and the inputs' digests."""
        about = [self.stage, self.version, self.config, {k: s.digest for k, s in self.inputs.items()}]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    @property
    def title(self) -> str:
        """For people: what is being done."""
        return f"{self.stage} {self.label}"


@dataclass(frozen=True)
class Store:
    """Where steps keep their folders.

    A folder is filled under another name and renamed when its ``manifest.json`` is written, so
    that a folder under its own name is complete. What a killed process left is removed.

    Attributes:
        root: any local folder.
    """

    root: Path

    def folder(self, step: Step) -> Path:
        """Where the step's result is, under whichever label it was made, or will be."""
        stage, digits = self.root / step.stage, step.digest[:_DIGITS]
        return next(stage.glob(f"*-{digits}"), stage / f"{step.label.replace(' ', '_')}-{digits}")

    def done(self, step: Step) -> bool:
        """Whether the result is there."""
        return (self.folder(step) / "manifest.json").exists()

    def inputs(self, step: Step) -> dict[str, Path]:
        """The folders that the step reads."""
        return {name: self.folder(source) for name, source in step.inputs.items()}

    def make(self, step: Step) -> bool:
        """Make the step's folder if it is not there; its inputs must be. Returns whether there was work.

        Raises:
            FileNotFoundError: an input has not been made.
        """
        if self.done(step):
            return False
        for name, source in step.inputs.items():
            if not self.done(source):
                raise FileNotFoundError(f"{step.title} needs {name}, but {source.title} has not been made")
        folder = self.folder(step)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._remove_debris(folder)
        started = time.monotonic()
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-{os.getpid()}-", dir=folder.parent))
        try:
            step.work(step.config, self.inputs(step), partial)
            manifest = {
                "stage": step.stage,
                "label": step.label,
                "digest": step.digest,
                "version": step.version,
                "config": step.config,
                "inputs": {name: source.digest for name, source in step.inputs.items()},
                "seconds": time.monotonic() - started,
            }
            (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
            partial.chmod(0o755)
            try:
                partial.rename(folder)
            except OSError:
                if not self.done(step):  # otherwise another process was first, with the same content
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return True

    @staticmethod
    def _remove_debris(folder: Path) -> None:
        for partial in folder.parent.glob(f"{glob.escape(folder.name)}.partial-*"):
            owner = int(partial.name.split(".partial-")[1].split("-")[0])
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                shutil.rmtree(partial, ignore_errors=True)
            except PermissionError:
                continue
