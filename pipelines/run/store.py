"""Content-addressed folders: what was computed once, from the same inputs, is never computed again."""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.manifest import MANIFEST, DamagedError, check_files, digest_of_values, write_manifest
from pipelines.run.lock import exclusive
from pipelines.screen import ERR
from semantic_ids.files import atomic_folder

_DIGITS = 16
_LABEL_LENGTH = 100

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
        return digest_of_values(identity)

    @property
    def title(self) -> str:
        """What is being done, for people."""
        return f"{self.stage} {self.label}"


@dataclass(frozen=True)
class Store:
    """Where steps keep their folders.

    A folder is filled under another name, and renamed when its manifest is written. So a folder under its
    own name is complete. What a killed process left behind is removed. A folder that is no longer as it was
    written is moved to ``damaged``, and made again.

    Attributes:
        root: Any local folder.
    """

    root: Path
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

    def folder(self, step: Step) -> Path:
        """Return where the step's result is, under whichever label it was computed, or will be."""
        stage, digits = self.root / step.stage, step.digest[:_DIGITS]
        # In ASCII, as not every locale can write other characters in names of files.
        label = re.sub(r"[^\w.-]+", "_", step.label, flags=re.ASCII)[:_LABEL_LENGTH]
        return next(stage.glob(f"*-{digits}"), stage / f"{label}-{digits}")

    def done(self, step: Step) -> bool:
        """Return whether the result is there, by the sizes and times of its files."""
        return self._is_intact(step, every_byte=False)

    def make(self, step: Step) -> bool:
        """Compute the step's folder if it is not there, and return whether there was work to do.

        Raises:
            FileNotFoundError: If an input has not been computed.
        """
        with self.locked(step.title):
            if self.done(step):
                return False
            inputs = {name: self._checked_input(source, step) for name, source in step.inputs.items()}
            folder = self.folder(step)
            self._set_aside(folder)
            self._remove_debris(folder)
            started = time.monotonic()
            with atomic_folder(folder) as partial:
                step.work(step.config, inputs, partial)
                facts = {
                    "stage": step.stage,
                    "label": step.label,
                    "digest": step.digest,
                    "version": step.version,
                    "config": step.config,
                    "inputs": {name: source.digest for name, source in step.inputs.items()},
                    "seconds": time.monotonic() - started,
                }
                write_manifest(partial, facts)
            self._checked.add(step.digest)
        return True

    def checked_folder(self, step: Step) -> Path:
        """Return the folder of a step that is done, after every byte of it has been checked, once.

        If it is damaged, it is made again.
        """
        if step.digest not in self._checked:
            if not self._is_intact(step, every_byte=True):
                self._set_aside(self.folder(step))
                self.make(step)
            self._checked.add(step.digest)
        return self.folder(step)

    def damaged(self) -> Iterator[str]:
        """Check every byte of every folder; set aside what is damaged, and yield what is wrong with it."""
        with self.locked("verify"):
            for folder in sorted(self.root.glob(f"*/*-{'[0-9a-f]' * _DIGITS}")):
                if folder.parent.name == "damaged":
                    continue
                try:
                    check_files(folder, every_byte=True)
                except (DamagedError, FileNotFoundError) as error:
                    missing = isinstance(error, FileNotFoundError)
                    what = f"{folder.name}: {MANIFEST} is missing" if missing else str(error)
                    yield f"{folder.parent.name}/{what}"
                    self._set_aside(folder, say=False)

    def locked(self, purpose: str) -> AbstractContextManager[None]:
        """Hold the folder for this process; wait, and say for whom, while another process holds it.

        Args:
            purpose: What this process does, for the others to say.
        """
        return exclusive(self.root, purpose)

    def _checked_input(self, source: Step, step: Step) -> Path:
        """Return the folder of an input, checked."""
        if not self.folder(source).exists():
            raise FileNotFoundError(f"{step.title} needs {source.title}, which has not been made")
        return self.checked_folder(source)

    def _is_intact(self, step: Step, *, every_byte: bool) -> bool:
        """Return whether the result is there and as it was written."""
        try:
            check_files(self.folder(step), every_byte=every_byte)
        except (DamagedError, FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _set_aside(self, folder: Path, *, say: bool = True) -> None:
        """Move a folder out of the way if it is damaged, and say what is wrong with it."""
        if not folder.exists():
            return
        try:
            check_files(folder, every_byte=True)
        except (DamagedError, FileNotFoundError, NotADirectoryError) as error:
            place = self.root / "damaged" / folder.parent.name
            place.mkdir(parents=True, exist_ok=True)
            earlier = len(list(place.glob(f"{glob.escape(folder.name)}.*")))
            folder.rename(place / f"{folder.name}.{earlier + 1}")
            if say:
                ERR.print(f"  damaged, so it is made again: {error} (kept in {place})", style="yellow")

    @staticmethod
    def _remove_debris(folder: Path) -> None:
        """Remove the unfinished folders and files that killed processes left of this folder.

        This process holds the lock, so all others that worked on it are dead. Other threads of it may live.
        """
        for left in folder.parent.glob(f"{glob.escape(folder.name)}.*"):
            ending = left.name.removeprefix(folder.name)
            if "partial" in ending and f"{os.getpid()}-" not in ending:
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
