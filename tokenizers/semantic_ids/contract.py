"""Run the checks that a plug-in must pass, and report all failures at once."""

from __future__ import annotations

import importlib
import json
import math
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from semantic_ids.errors import ContractError, TrainingDivergedError
from semantic_ids.persistence import Persistent
from semantic_ids.randomness import seeded

T = TypeVar("T")


class Skip(Exception):  # noqa: N818 — no error
    """Raised by a check that does not apply to this plug-in, or cannot run on this machine."""


def run_checks(checks: Sequence[Callable[[T], None]], subject: T) -> dict[str, str]:
    """Call every check with ``subject``; each starts from the same random state and changes nothing outside.

    Args:
        checks: Functions that raise an AssertionError saying what to do, or :class:`Skip` with a reason.
        subject: What is checked.

    Returns:
        Name of each check to ``passed``, or to ``skipped: `` and the reason.

    Raises:
        AssertionError: If a check failed. The message names every check that did, and what to do.
    """
    results: dict[str, str] = {}
    failed: dict[str, list[str]] = {}
    unforeseen: Exception | None = None
    for check in checks:
        name = check.__name__
        try:
            with ExitStack() as restore, seeded(0):
                restore.callback(np.random.set_state, np.random.get_state())
                restore.callback(random.setstate, random.getstate())
                check(subject)
            results[name] = "passed"
        except Skip as reason:
            results[name] = f"skipped: {reason}"
        except (AssertionError, ContractError, TrainingDivergedError) as error:
            failed.setdefault(str(error), []).append(name)
        except Exception as error:
            failed.setdefault(f"raised {type(error).__name__}: {error}", []).append(name)
            unforeseen = unforeseen or error
    if failed:
        lines = [f"- {', '.join(names)}: {what}" for what, names in failed.items()]
        head = f"{len(checks) - len(results)} of {len(checks)} checks failed"
        raise AssertionError("\n".join([head, *lines])) from unforeseen
    return results


def expect(holds: object, otherwise: str) -> None:
    """Raise an AssertionError with the message ``otherwise`` unless ``holds`` is true."""
    if not holds:
        raise AssertionError(otherwise)


def expect_arguments_kept(make: Callable[[], Persistent]) -> None:
    """Expect that ``params()`` returns JSON values that construct the same object again."""
    params = make().params()
    again = type(make())(**json.loads(json.dumps(params))).params()
    wrong = f"arguments {params} came back as {again} through JSON"
    expect(again == params, f"{wrong}; keep each as it is given in an attribute of its name, as a JSON value")


def expect_reports(calls: Sequence[tuple[object, object]], caller: str) -> None:
    """Expect that calls of ``on_step`` got a step and metrics that can become curves.

    Args:
        calls: Step and metrics of each call.
        caller: Name of the method that called, for the message.

    Raises:
        AssertionError: If a step is no int, or if metrics are no mapping, or if a name or a value is wrong,
            see :func:`expect_named_numbers`.
    """
    for step, metrics in calls:
        good = type(step) is int and isinstance(metrics, Mapping)
        expect(good, f"{caller} called on_step({step!r}, {metrics!r}); give an int and a mapping")
        expect_named_numbers(metrics, f"{caller} called on_step({step!r}, …) with")


def expect_named_numbers(values: Any, where: str) -> None:
    """Expect names that MLflow takes, with finite numbers.

    Args:
        values: Name to number.
        where: Beginning of the message.
    """
    for name, value in values.items():
        good = isinstance(value, int | float) and math.isfinite(value)
        expect(good, f"{where} {name!r}: {value!r}; give finite numbers, such as loss.item()")
        expect_name(name, where)


def expect_name(name: object, where: str) -> None:
    """Expect a name that MLflow takes for a metric.

    Args:
        name: The name.
        where: Beginning of the message.
    """
    good = re.fullmatch(r"\w[-\w. /]{0,199}", str(name), re.ASCII) and isinstance(name, str)
    whole = not {"", ".", ".."} & {*str(name).split("/")}
    expect(
        good and whole,
        f"{where} the name {name!r}; use up to 200 of the characters a-z, A-Z, 0-9, _, -, ., blank and /, "
        "with a letter or digit first",
    )


def set_random_state(seed: int) -> None:
    """Seed torch's, NumPy's and Python's global random state."""
    for set_seed in (torch.manual_seed, np.random.seed, random.seed):
        set_seed(seed)


def draw_random_state() -> tuple[object, ...]:
    """Return a number drawn from each global random state; equal states give equal numbers."""
    return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: S311 — no secret


def import_class_of(folder: str) -> None:
    """Import the module of the class that was saved into ``folder``, which loading does not do for all."""
    description = json.loads(Path(folder, "model.json").read_bytes())
    importlib.import_module(description["class"].partition(":")[0])


def run_in_fresh_process(script: str, *arguments: str) -> Any:
    """Run a Python script in a new process that finds the same modules, and return the JSON it prints last.

    Args:
        script: Source of the script.
        *arguments: What it finds in ``sys.argv`` behind its name.

    Raises:
        AssertionError: If the script fails. The message has its last words.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout if done.returncode == 0 else done.stderr
    last = output.strip().rpartition("\n")[2]
    expect(done.returncode == 0, f"a fresh process failed ({last}); define the class at the top of a module")
    return json.loads(last)
