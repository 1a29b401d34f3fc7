"""Checkpoints: an interrupted training resumes from a file and ends with the numbers it would have had.

A digest of the content is part of the file, so that a damaged file is noticed.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from semantic_ids.digest import content_digest
from semantic_ids.files import atomic_write


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        step: Step of the last evaluation on the validation set; 0 before the first one.
        best: Best validation score so far.
        best_weights: Weights with that score; the initial weights before the first evaluation.
        evaluations_since_best: Number of evaluations since the best one.
        reports: Step and reported metrics of each evaluation.
    """

    step: int = 0
    best: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    evaluations_since_best: int = 0
    reports: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    @classmethod
    def start(cls, model: nn.Module) -> Self:
        """Return the progress before the first step; the initial weights are the best so far."""
        return cls(best_weights=_copied_weights(model))

    def record(self, step: int, score: float, report: dict[str, float], model: nn.Module) -> None:
        """Record an evaluation on the validation set, and copy the weights if they are the best so far.

        Args:
            step: Number of the step.
            score: Validation score; higher is better.
            report: Metrics that are reported for this step.
            model: The model that was evaluated.
        """
        self.step = step
        self.reports.append((step, report))
        if score > self.best:
            self.best, self.evaluations_since_best = score, 0
            self.best_weights = _copied_weights(model)
        else:
            self.evaluations_since_best += 1

    def restore_best(self, model: nn.Module) -> None:
        """Set the model to its best weights and to eval mode."""
        model.load_state_dict(self.best_weights)
        model.eval()


@dataclass(frozen=True)
class Checkpoint:
    """A safetensors file with all state of a training: weights, best weights, optimizer, random state.

    Attributes:
        path: Path of the file.
        training: JSON values that identify the training: everything that its numbers depend on. A training
            resumes only from a file with equal values.
    """

    path: Path
    training: Mapping[str, Any]

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Write the file; the previous one stays until the new one is complete."""
        tensors = {"random.cpu": torch.get_rng_state()}
        for device in range(torch.cuda.device_count()):
            tensors[f"random.cuda.{device}"] = torch.cuda.get_rng_state(device)
        tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in progress.best_weights.items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        metadata = {
            "training": self.training,
            "step": progress.step,
            "best": progress.best,
            "looks_since_best": progress.evaluations_since_best,
            "reports": progress.reports,
        }
        # Cloned, because tied weights share memory, and the format refuses tensors that do.
        cloned = {name: value.detach().cpu().clone() for name, value in tensors.items()}
        about = {**metadata, "digest": content_digest(cloned, metadata)}
        with atomic_write(self.path) as partial:
            save_file(cloned, partial, metadata={"about": json.dumps(about)})

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Restore the model, the optimizer and torch's random state from the file, if there is one.

        A damaged file is removed. The file of another training is renamed, so that its progress is not lost.
        In both cases there is a warning, and nothing is restored.

        Args:
            model: The model of the training; its weights are overwritten.
            optimizer: The optimizer of the training; its state is overwritten.

        Returns:
            The progress at the time of saving; None if there is no file to resume from.
        """
        if not self.path.exists():
            return None
        content = self._read()
        if content is None:
            self.remove()
            warnings.warn(f"{self.path} was damaged: training starts anew", RuntimeWarning, stacklevel=3)
            return None
        metadata, tensors = content
        weights = _with_prefix("model.", tensors)
        if metadata["training"] != json.loads(json.dumps(self.training)) or not _fit(model, weights):
            aside = self.path.with_name(f"{self.path.name}.other")
            self.path.replace(aside)
            warnings.warn(
                f"{self.path} is the checkpoint of another training: it is now called {aside.name}, and this "
                "training starts anew",
                RuntimeWarning,
                stacklevel=3,
            )
            return None
        model.load_state_dict(weights)
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _with_prefix("optimizer.", tensors).items():
            number, _, key = name.partition(".")
            states.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
        for name, value in _with_prefix("random.", tensors).items():
            device = name.partition(".")[2]
            if device:
                torch.cuda.set_rng_state(value, int(device))
            else:
                torch.set_rng_state(value)
        return Progress(
            step=metadata["step"],
            best=metadata["best"],
            best_weights=_with_prefix("best.", tensors),
            evaluations_since_best=metadata["looks_since_best"],
            reports=[(step, report) for step, report in metadata["reports"]],
        )

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the metadata and the tensors of the file; None if it is damaged."""
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {})["about"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata.pop("digest") == content_digest(tensors, metadata):
                return metadata, tensors
        except (SafetensorError, KeyError, ValueError):
            pass
        return None

    def remove(self) -> None:
        """Delete the file if it exists."""
        self.path.unlink(missing_ok=True)


def _fit(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the names and shapes of the model's."""
    own = {name: value.shape for name, value in model.state_dict().items()}
    return own == {name: value.shape for name, value in weights.items()}


def _copied_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the model's weights by name."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
