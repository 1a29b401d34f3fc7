"""Says on the screen what is being done and how long it may take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from rich.console import Console
from rich.status import Status

CONSOLE = Console(stderr=True, highlight=False)
"""Progress goes to standard error, results to standard output."""


@dataclass(frozen=True)
class _Announced:
    what: str
    started: float
    status: Status


_NOW: ContextVar[_Announced | None] = ContextVar("what is being done", default=None)


@contextmanager
def announce(what: str) -> Iterator[None]:
    """A spinner while the block runs, and a line with the time it took when it ends well."""
    started = time.monotonic()
    with CONSOLE.status(what) as status:
        token = _NOW.set(_Announced(what, started, status))
        try:
            yield
        finally:
            _NOW.reset(token)
    CONSOLE.print(f"  {what} [dim]{_clock(time.monotonic() - started)}[/dim]")


def progress(done: int, total: int | None = None, remark: str = "") -> None:
    """Show how far the announced work is; nothing where none is announced.

    Args:
        done: the amount done, at least 1.
        total: the amount of all, if that is known.
        remark: to stand behind.
    """
    now = _NOW.get()
    if now:
        spent = time.monotonic() - now.started
        left = f"{done} of {total}, about {_clock(spent * (total - done) / done)} left" if total else ""
        now.status.update(" · ".join(part for part in (now.what, left, remark) if part))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
