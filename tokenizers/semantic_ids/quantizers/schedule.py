"""Hyper-parameters that change over the training: on a schedule, or because they are learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import check_arguments, nearest_name

Scheduled = float | Mapping[str, Any]
"""A number, or the fields of a :class:`Schedule`: ``{"start": 1.0, "end": 0.1, "shape": "cosine"}``."""

_SMALLEST = 1e-6


def _linear(start: float, end: float, progress: float) -> float:
    return start + progress * (end - start)


def _exponential(start: float, end: float, progress: float) -> float:
    return start * (end / start) ** progress


def _cosine(start: float, end: float, progress: float) -> float:
    return _linear(start, end, (1 - math.cos(math.pi * progress)) / 2)


SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "linear": _linear,
    "exponential": _exponential,
    "cosine": _cosine,
}


@dataclass(frozen=True)
class Schedule:
    """A number that goes from ``start`` to ``end`` while the training goes from 0 to 1.

    Attributes:
        start: value at the beginning.
        end: value when the training is over.
        shape: ``linear``; ``exponential``, by the same factor in equal times, for ends above 0; or
            ``cosine``, level at both ends.

    Raises:
        ValueError: an end is no finite number, the shape is unknown, or the ends do not allow it.
    """

    start: float
    end: float
    shape: str = "linear"

    def __post_init__(self) -> None:
        for end in (self.start, self.end):
            if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
                raise ValueError(f"not a finite number: {end!r}")
        if self.shape not in SHAPES:
            raise ValueError(
                f"no shape is called {self.shape!r}. {nearest_name(str(self.shape), list(SHAPES))}"
            )
        if self.shape == "exponential" and min(self.start, self.end) <= 0:
            raise ValueError(f"an exponential goes between ends above 0, not {self.start} and {self.end}")

    @classmethod
    def of(cls, value: Scheduled, name: str = "schedule") -> Schedule:
        """The schedule that ``value`` describes; a number is one that does not change.

        Args:
            value: a number, or a mapping of the fields.
            name: what is scheduled, for the message of an error.

        Raises:
            ValueError: a field is unknown or missing, or has no sense.
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
        """The value when the share ``progress`` of the training is done.

        Raises:
            ValueError: ``progress`` is not in [0, 1].
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is a share of the training in [0, 1], not {progress}")
        return SHAPES[self.shape](self.start, self.end, progress)


class HyperParameter(nn.Module):
    """A positive number that stays as it is, follows a schedule, or is learned.

    Where learned, it is the softplus of a free parameter, or its sigmoid if 1 is its limit, and at
    least 1e-6: no step of an optimizer, however large, makes it negative.

    Args:
        name: for the message of an error.
        value: to stay at, to follow, or to start learning from.
        learnable: learn it.
        at_most_one: refuse values above 1, and learn one that stays below.
        may_be_zero: take 0 too.

    Raises:
        ValueError: a value out of range, or a schedule for what is learned.
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
        """Its present value; where learned a scalar tensor with a gradient."""
        if self.free is None:
            return self.value
        positive = torch.sigmoid(self.free) if self.at_most_one else F.softplus(self.free)
        return positive.clamp(min=_SMALLEST)

    def set_progress(self, progress: float) -> None:
        """Move on the schedule to ``progress``, the share of the training that is done."""
        self.value = self.schedule.at(progress)

    def _inverse(self, value: Tensor) -> Tensor:
        return torch.logit(value) if self.at_most_one else value + torch.log(-torch.expm1(-value))
