"""Content-addressed folders: what was computed once, from the same inputs, is never computed again."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from semantic_ids.files import atomic_folder

_DIGITS = 16

Work = Callable[[Mapping[str, Any], Mapping[str, Path], Path], None]
"""Takes the step's settings, the folders of its inputs, and the folder to fill."""


@dataclass(frozen=True)
class Step:
    """One folder to compute, and everything that its content follows from.

    Attributes:
        stage: Kind of work, which names the parent folder.
        label: Name among steps of its kind, for people; not part of the digest.
        version: Version of the work. Raise it when the same inputs should give something else.
        config: JSON values that the work depends on.
        inputs: The steps whose folders it reads, by the names under which the work knows them.
        work: Fills the folder.
    """

    stage: str
    label: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Step]
    work: Work = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """64 hex digits that follow from stage, version, settings and the digests of the inputs."""
        identity = [self.stage, self.version, self.config, {k: s.digest for k, s in self.inputs.items()}]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def title(self) -> str:
        """What is being done, for people."""
        return f"{self.stage} {self.label}"


@dataclass(frozen=True)
class Store:
    """Where steps keep their folders.

    A folder is filled under another name, and renamed when its ``manifest.json`` is written. So a folder
    under its own name is complete. What a killed process left behind is removed.

    Attributes:
        root: Any local folder.
    """

    root: Path

    def folder(self, step: Step) -> Path:
        """Return where the step's result is, under whichever label it was computed, or will be."""
        stage, digits = self.root / step.stage, step.digest[:_DIGITS]
        return next(stage.glob(f"*-{digits}"), stage / f"{step.label.replace(' ', '_')}-{digits}")

    def done(self, step: Step) -> bool:
        """Return whether the result is there."""
        return (self.folder(step) / "manifest.json").exists()

    def inputs(self, step: Step) -> dict[str, Path]:
        """Return the folders that the step reads."""
        return {name: self.folder(source) for name, source in step.inputs.items()}

    def make(self, step: Step) -> bool:
        """Compute the step's folder if it is not there, and return whether there was work to do.

        Raises:
            FileNotFoundError: If an input has not been computed.
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
        with atomic_folder(folder) as partial:
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
        return True

    @staticmethod
    def _remove_debris(folder: Path) -> None:
        """Remove what killed attempts at this folder left behind."""
        for partial in folder.parent.glob(f"{glob.escape(folder.name)}.partial-*"):
            owner = int(partial.name.split(".partial-")[1].split("-")[0])
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                shutil.rmtree(partial, ignore_errors=True)
            except PermissionError:
                continue
