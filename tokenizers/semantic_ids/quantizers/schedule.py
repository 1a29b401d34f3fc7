"""Hyper-parameters that change during training, by a schedule or by learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import check_arguments
from semantic_ids.plugins import nearest_name

Scheduled = float | Mapping[str, Any]
"""A number, or the fields of a :class:`Schedule`: ``{"start": 1.0, "end": 0.1, "shape": "cosine"}``."""

_SMALLEST_LEARNED = 1e-6


def _linear(start: float, end: float, progress: float) -> float:
    """Interpolate with equal differences in equal times."""
    return start + progress * (end - start)


def _exponential(start: float, end: float, progress: float) -> float:
    """Interpolate with equal factors in equal times."""
    return start * (end / start) ** progress


def _cosine(start: float, end: float, progress: float) -> float:
    """Interpolate along half a cosine wave, with slope 0 at both ends."""
    return _linear(start, end, (1 - math.cos(math.pi * progress)) / 2)


SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "linear": _linear,
    "exponential": _exponential,
    "cosine": _cosine,
}
"""Interpolations by name; each is called with start, end and progress."""


@dataclass(frozen=True)
class Schedule:
    """A number that changes from ``start`` to ``end`` over the training.

    Attributes:
        start: Value at the beginning of the training.
        end: Value at the end of the training.
        shape: Name of the interpolation. ``linear``: by equal differences in equal times.
            ``exponential``: by equal factors in equal times; both values must be above 0. ``cosine``: along
            half a cosine wave, with slope 0 at both ends.

    Raises:
        ValueError: If a value is not a finite number, if the shape is unknown, or if it does not allow
            the values.

    Example:
        >>> Schedule(start=1.0, end=0.01, shape="exponential").at(0.5)
        0.1
    """

    start: float
    end: float
    shape: str = "linear"

    def __post_init__(self) -> None:
        for value in (self.start, self.end):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"not a finite number: {value!r}")
        if self.shape not in SHAPES:
            raise ValueError(
                f"no shape is called {self.shape!r}. {nearest_name(str(self.shape), list(SHAPES))}"
            )
        if self.shape == "exponential" and min(self.start, self.end) <= 0:
            raise ValueError(f"an exponential goes between ends above 0, not {self.start} and {self.end}")

    @classmethod
    def of(cls, value: Scheduled, name: str = "schedule") -> Schedule:
        """Return the schedule that ``value`` describes; a number describes a constant schedule.

        Args:
            value: A number, or a mapping with the fields of :class:`Schedule`.
            name: Name of the hyper-parameter, for error messages.

        Raises:
            ValueError: If a field is unknown, missing or invalid.
        """
        fields = value if isinstance(value, Mapping) else {"start": value, "end": value}
        check_arguments(name, cls, fields)
        for field in ("start", "end"):
            if field not in fields:
                raise ValueError(f"{name} has no {field!r}: {dict(fields)}")
        try:
            return cls(**fields)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def at(self, progress: float) -> float:
        """Return the value at the time when the share ``progress`` of the training is completed.

        Raises:
            ValueError: If ``progress`` is not in [0, 1].
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is a share of the training in [0, 1], not {progress}")
        return SHAPES[self.shape](self.start, self.end, progress)


class HyperParameter(nn.Module):
    """A positive number that is constant, follows a schedule, or is learned.

    A learned number is the softplus of a free parameter, or its sigmoid if the number is at most 1. It is
    clamped to at least 1e-6. So no optimizer step, however large, makes it negative.

    Args:
        name: Name of the hyper-parameter, for error messages.
        value: The constant, the schedule, or the start value for learning.
        learnable: True to learn the number.
        at_most_one: True to refuse values above 1 and to learn the number within (0, 1).
        may_be_zero: True to accept 0 too.

    Raises:
        ValueError: If a value is out of range, or if a learned number has a schedule.
    """

    def __init__(
        self,
        name: str,
        value: Scheduled,
        learnable: bool = False,
        at_most_one: bool = False,
        may_be_zero: bool = False,
    ) -> None:
        super().__init__()
        self.schedule = Schedule.of(value, name)
        self.at_most_one = at_most_one
        start, end = self.schedule.start, self.schedule.end
        low, high = min(start, end), max(start, end)
        if low < 0 or (low == 0 and not may_be_zero) or high > (1 if at_most_one else math.inf):
            allowed = "in (0, 1]" if at_most_one else "at least 0" if may_be_zero else "above 0"
            raise ValueError(f"{name} must be {allowed}, not {value}")
        if learnable and start != end:
            raise ValueError(f"{name} is learned or scheduled, not both: {value}")
        if learnable and at_most_one and start == 1:
            raise ValueError(f"{name} is learned in (0, 1), so it cannot start at 1")
        self.free = nn.Parameter(self._inverse(torch.tensor(start))) if learnable else None
        self.set_progress(0.0)

    def forward(self) -> Tensor | float:
        """Return the current value; a learned one is a scalar tensor with gradient."""
        if self.free is None:
            return self.value
        positive = torch.sigmoid(self.free) if self.at_most_one else F.softplus(self.free)
        return positive.clamp(min=_SMALLEST_LEARNED)

    def set_progress(self, progress: float) -> None:
        """Set the value to that of the schedule at ``progress``, the completed share of the training."""
        self.value = self.schedule.at(progress)

    def _inverse(self, value: Tensor) -> Tensor:
        """Return the free parameter at which the learned number is ``value``."""
        return torch.logit(value) if self.at_most_one else value + torch.log(-torch.expm1(-value))
