"""Show on the screen what is being done and how long it may take, and log metrics while fitting."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from rich.status import Status

from pipelines.screen import ERR, words


@dataclass(frozen=True)
class _Announcement:
    """What is being done since when, and where it is shown."""

    title: str
    started: float
    status: Status


_CURRENT: ContextVar[_Announcement | None] = ContextVar("current announcement", default=None)


@contextmanager
def announce(title: str) -> Iterator[None]:
    """Show a spinner while the block runs, and a line with its time when it succeeds."""
    started = time.monotonic()
    with ERR.status(words(title), spinner=ERR.spinner) as status:
        token = _CURRENT.set(_Announcement(title, started, status))
        try:
            yield
        finally:
            _CURRENT.reset(token)
    ERR.print(words(f"  {title} ", (_clock(time.monotonic() - started), "dim")))


def progress(done: int, total: int | None = None, remark: str = "") -> None:
    """Show how far the announced work is; do nothing if none is announced.

    Args:
        done: Amount done, at least 1.
        total: Amount in all, if it is known.
        remark: Text to add.
    """
    current = _CURRENT.get()
    if current:
        spent = time.monotonic() - current.started
        left = f"{done} of {total}, about {_clock(spent * (total - done) / done)} left" if total else ""
        current.status.update(words(" · ".join(part for part in (current.title, left, remark) if part)))


class MetricLogger:
    """Writes the metrics of each step of a fit to a file of JSON lines, and shows them.

    Args:
        path: The file.
        total: Largest number of steps, if it is known.
    """

    def __init__(self, path: Path, total: int | None) -> None:
        self.path, self.total = path, total
        path.touch()

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one step."""
        numbers = {name: float(value) for name, value in metrics.items()}  # also tensors and NumPy's numbers
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        shown = " ".join(f"{name} {value:.4g}" for name, value in list(numbers.items())[:3])
        progress(step, self.total, shown)


def _clock(seconds: float) -> str:
    """Return minutes and seconds, such as ``2:05``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
