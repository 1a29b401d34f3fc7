"""Schedules by hand, and hyper-parameters that no optimizer can spoil."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semantic_ids.quantizers.schedule import SHAPES, HyperParameter, Schedule


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("linear", [1.0, 0.7525, 0.505, 0.01]),
        ("exponential", [1.0, 0.316227766, 0.1, 0.01]),  # 10^(0, −½, −1, −2)
        ("cosine", [1.0, 0.855017857, 0.505, 0.01]),  # .505 + .495 cos(π/4)
    ],
)
def test_values_by_hand(shape: str, values: list[float]) -> None:
    schedule = Schedule.of({"start": 1.0, "end": 0.01, "shape": shape})
    assert [schedule.at(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == pytest.approx(values)


def test_a_schedule_is_linear_unless_told_otherwise() -> None:
    assert Schedule.of({"start": 2, "end": 4}).at(0.5) == 3


@pytest.mark.parametrize("value", [0, -1.5, 3.0])
def test_a_number_stays(value: float) -> None:
    schedule = Schedule.of(value)
    assert [schedule.at(progress) for progress in (0.0, 0.3, 1.0)] == [value] * 3


positive = st.floats(1e-6, 1e6)


@given(positive, positive, st.sampled_from(sorted(SHAPES)), st.floats(0, 1), st.floats(0, 1))
def test_schedules_meet_their_ends_and_turn_nowhere(
    start: float, end: float, shape: str, one: float, other: float
) -> None:
    schedule = Schedule(start, end, shape)
    assert schedule.at(0.0) == start
    assert schedule.at(1.0) == pytest.approx(end, rel=1e-9, abs=1e-9 * start)
    earlier, later = schedule.at(min(one, other)), schedule.at(max(one, other))
    rounding = 1e-12 * max(start, end)
    assert (later - earlier) * math.copysign(1, end - start) >= -rounding


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"start": 1}, "tau has no 'end': {'start': 1}"),
        ({"end": 1}, "tau has no 'start'"),
        ({"start": 1, "stop": 2}, "tau has no parameter 'stop'"),
        ({"start": 1, "end": 2, "shape": "cosin"}, "tau: no shape is called 'cosin'. Did you mean 'cosine'?"),
        ({"start": 1, "end": 0, "shape": "exponential"}, "tau: an exponential goes between ends above 0"),
        ({"start": 1, "end": math.inf}, "tau: not a finite number: inf"),
        ("1e-3", "tau: not a finite number: '1e-3'"),
        (True, "tau: not a finite number: True"),
        (None, "tau: not a finite number: None"),
        (math.nan, "tau: not a finite number: nan"),
    ],
)
def test_what_makes_no_schedule_is_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Schedule.of(value, "tau")


@pytest.mark.parametrize("progress", [-0.01, 1.01, math.nan])
def test_progress_is_a_share(progress: float) -> None:
    with pytest.raises(ValueError, match=r"progress is a share of the training in \[0, 1\], not"):
        Schedule.of(1.0).at(progress)


def test_a_scheduled_hyper_parameter_follows_the_progress() -> None:
    tau = HyperParameter("tau", {"start": 4.0, "end": 1.0, "shape": "exponential"})
    assert tau() == 4.0
    tau.set_progress(0.5)
    assert tau() == pytest.approx(2.0)
    assert not list(tau.parameters())


@pytest.mark.parametrize(
    ("value", "at_most_one"), [(1e-3, False), (1.0, False), (250.0, False), (0.001, True), (0.9, True)]
)
def test_learning_starts_at_the_value(value: float, at_most_one: bool) -> None:
    learned = HyperParameter("x", value, learnable=True, at_most_one=at_most_one)
    assert learned().item() == pytest.approx(value, rel=1e-5)
    learned().backward()
    assert learned.free.grad.abs() > 0
    assert list(learned.state_dict()) == ["free"]


@pytest.mark.parametrize("at_most_one", [False, True])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_no_step_makes_it_leave_its_range(sign: float, at_most_one: bool) -> None:
    learned = HyperParameter("x", 0.5, learnable=True, at_most_one=at_most_one)
    optimizer = torch.optim.SGD(learned.parameters(), lr=1e4)
    (sign * learned()).backward()
    optimizer.step()
    assert abs(learned.free.item()) > 1e3
    assert 0 < learned().item() <= (1 if at_most_one else math.inf)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": 0.0}, "x must be above 0, not 0.0"),
        ({"value": {"start": 1.0, "end": -1.0}}, "x must be above 0, not {'start': 1.0, 'end': -1.0}"),
        ({"value": 1.5, "at_most_one": True}, "x must be in (0, 1], not 1.5"),
        ({"value": {"start": 1.0, "end": 0.5}, "learnable": True}, "x is learned or scheduled, not both"),
        ({"value": 1.0, "at_most_one": True, "learnable": True}, "x is learned in (0, 1)"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        HyperParameter("x", **arguments)
