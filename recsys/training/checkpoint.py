"""A training that was cut short goes on from a file, and ends with the numbers it would have had."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from semantic_ids.files import atomic_write


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        step: of the last look at the validation set; 0 before the first.
        best: the best value so far.
        best_weights: those that had it; before the first look those of the start.
        looks_since_best: looks that found no better one.
        reports: what was reported at each look, with its step.
    """

    step: int = 0
    best: float = -math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    looks_since_best: int = 0
    reports: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    @classmethod
    def start(cls, model: nn.Module) -> Self:
        """Nothing done yet; the weights at hand are the best so far."""
        return cls(best_weights=_copied(model))

    def look(self, step: int, value: float, report: dict[str, float], model: nn.Module) -> None:
        """Take note of a look at the validation set, and of the weights if they are the best."""
        self.step = step
        self.reports.append((step, report))
        if value > self.best:
            self.best, self.looks_since_best = value, 0
            self.best_weights = _copied(model)
        else:
            self.looks_since_best += 1

    def restore_best(self, model: nn.Module) -> None:
        """Leave the model with its best weights, in eval mode."""
        model.load_state_dict(self.best_weights)
        model.eval()


@dataclass(frozen=True)
class Checkpoint:
    """One safetensors file: weights, the best weights, the optimizer's state and torch's random state.

    Attributes:
        path: of the file.
        training: JSON values, all that decides over the numbers: a training must share them with the file
            to go on from it.
    """

    path: Path
    training: Mapping[str, Any]

    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return self.path.exists()

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Write the file anew; the one before stays until this one is whole."""
        tensors = {"random.cpu": torch.get_rng_state()}
        for device in range(torch.cuda.device_count()):
            tensors[f"random.cuda.{device}"] = torch.cuda.get_rng_state(device)
        tensors |= {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in progress.best_weights.items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        about = {
            "training": self.training,
            "step": progress.step,
            "best": progress.best,
            "looks_since_best": progress.looks_since_best,
            "reports": progress.reports,
        }
        # Cloned, because tied weights share memory, which the format refuses.
        cloned = {name: value.detach().cpu().clone() for name, value in tensors.items()}
        with atomic_write(self.path) as partial:
            save_file(cloned, partial, metadata={"about": json.dumps(about)})

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
        """Put everything back to where the file was written.

        Raises:
            ValueError: the file is of another training, or damaged; the message names it.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{self.path} is no checkpoint of a training; remove it") from error
        if about["training"] != json.loads(json.dumps(self.training)):
            raise ValueError(
                f"{self.path} is the checkpoint of a training with other settings; remove it, or "
                "give this training another file"
            )
        try:
            model.load_state_dict(_below("model.", tensors))
        except RuntimeError as error:
            raise ValueError(f"{self.path} is the checkpoint of another model; remove it") from error
        states: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer.", tensors).items():
            number, _, key = name.partition(".")
            states.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
        for name, value in _below("random.", tensors).items():
            device = name.partition(".")[2]
            if device:
                torch.cuda.set_rng_state(value, int(device))
            else:
                torch.set_rng_state(value)
        return Progress(
            step=about["step"],
            best=about["best"],
            best_weights=_below("best.", tensors),
            looks_since_best=about["looks_since_best"],
            reports=[(step, report) for step, report in about["reports"]],
        )

    def remove(self) -> None:
        """Delete the file, if it is there."""
        self.path.unlink(missing_ok=True)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins so, under the rest of it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
