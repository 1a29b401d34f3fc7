"""Remember finished benchmarks, so that a second run need not import PyTorch to find out that it is done.

To lay out the steps of a benchmark takes all its methods, and so PyTorch, whose import alone takes seconds.
What is remembered counts only while everything that the steps follow from is as it was: the settings, the
code of gritrec, and the raw files. Benchmarks with plug-ins are not remembered: their code may be anywhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.settings import read_settings
from pipelines.manifest import DamagedError, check_files
from pipelines.paths import user_path
from pipelines.report.overview import Overview
from pipelines.tracking.database import is_kept

if TYPE_CHECKING:
    from pipelines.config.benchmark import BenchmarkConfig
    from pipelines.run.plan import Plan
    from pipelines.run.store import Store

State = list[int] | None


@dataclass(frozen=True)
class Finished:
    """A benchmark that is done.

    Attributes:
        name: Its name.
        workspace: Its workspace.
        steps: Number of its steps.
        report: Folder of its report.
        overview: What the console shows of it.
    """

    name: str
    workspace: Path
    steps: int
    report: Path
    overview: Overview


class Memory:
    """What a workspace remembers of one benchmark, as its settings and our code are now.

    Args:
        config: A benchmark file.
        settings: Overrides ``key=value``.

    Raises:
        ConfigError: If the file or a setting cannot be read.
    """

    def __init__(self, config: Path, settings: Sequence[str]) -> None:
        values = read_settings(config, settings)
        identity = [values, os.getcwd(), os.path.expanduser("~"), [*_code()]]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        self.workspace = values.get("workspace", "workspace")
        self.file_name = f"{digest[:32]}.json"
        self.raw_files: dict[str, State] = {}

    def recall(self) -> Finished | None:
        """Return the benchmark if it is done, its files are as they were written, and MLflow has it."""
        try:
            workspace = user_path(self.workspace)
            known = json.loads((workspace / "finished" / self.file_name).read_bytes())
            report, *others = (workspace / folder for folder in known["folders"])
            check_files(report, every_byte=True)
            for folder in others:
                check_files(folder, every_byte=False)
            unchanged = all(_state(Path(path)) == state for path, state in known["raw_files"].items())
            if unchanged and is_kept(workspace, known["name"], known["digest"], known["cells"]):
                overview = Overview.from_json(known["overview"])
                return Finished(known["name"], workspace, len(others), report, overview)
        except (OSError, DamagedError, ValueError, KeyError, TypeError):
            pass  # whatever is wrong, it is found when the steps are laid out
        return None

    def look_at_raw_files(self, config: BenchmarkConfig) -> None:
        """Note how the raw files are, before their content is looked at."""
        self.raw_files = {str(path): _state(path) for path in _raw_files(config)}

    def remember(self, planned: Plan, store: Store, overview: Overview) -> None:
        """Remember that the benchmark is done, unless it has plug-ins or an MLflow server.

        Args:
            planned: Its steps.
            store: Where their folders are.
            overview: What the console shows of it.
        """
        from semantic_ids.files import atomic_write  # noqa: PLC0415 — imports PyTorch

        config = planned.config
        if config.tracking_uri or not _is_built_in(config):
            return
        known = {
            "name": config.name,
            "digest": planned.report.digest,
            "cells": len(planned.cells),
            "folders": [
                os.path.relpath(store.folder(step), config.workspace)
                for step in (planned.report, *planned.steps())
            ],
            "raw_files": self.raw_files,
            "overview": overview.as_json(),
        }
        path = config.workspace / "finished" / self.file_name
        with suppress(OSError), atomic_write(path) as partial:  # what is not remembered is found out again
            partial.write_text(json.dumps(known))


def _code() -> Iterator[tuple[str, State]]:
    """Yield every file of our own code, and its state."""
    for package in ("pipelines", "recsys", "semantic_ids"):
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield from ((str(path), _state(path)) for path in sorted(Path(folder).rglob("*.py")))


def _state(path: Path) -> State:
    """Return what changes when a file does; None if it cannot be looked at."""
    try:
        state = path.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _raw_files(config: BenchmarkConfig) -> Iterator[Path]:
    """Yield the files that a benchmark reads."""
    for name in config.data.files.values():
        yield ((config.data.raw or Path()) / name).absolute()
    for tokenizer in config.tokenizers:
        if tokenizer.codes:
            yield tokenizer.codes.file.absolute()


def _is_built_in(config: BenchmarkConfig) -> bool:
    """Return whether a benchmark uses nothing but what comes with gritrec."""
    from recsys.datasets.readers import READERS  # noqa: PLC0415 — these import slowly
    from recsys.evaluation.metrics import METRICS  # noqa: PLC0415
    from recsys.retrievers.registry import RETRIEVERS  # noqa: PLC0415
    from recsys.texts.encoder import TEXT_ENCODERS  # noqa: PLC0415
    from semantic_ids.registry import TOKENIZERS  # noqa: PLC0415

    return (
        config.data.reader in READERS.builtin
        and config.text.encoder in TEXT_ENCODERS.builtin
        and all(one.codes or one.recipe in TOKENIZERS.builtin for one in config.tokenizers)
        and all(one.kind in RETRIEVERS.builtin for one in config.retrievers)
        and all(name in METRICS.builtin for name in config.evaluation.metrics)
    )
