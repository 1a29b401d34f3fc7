"""Says on the screen what is being done and how long it may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

CONSOLE = Console(stderr=True, highlight=False)
"""Progress goes to standard error, results to standard output."""


Progress = Callable[[int, int | None, str], None]
"""Called with the amount done, the amount of all (None if unknown) and a remark."""


@contextmanager
def announce(what: str) -> Iterator[Progress]:
    """A spinner while the block runs, and a line with the time it took when it ends.

    Yields:
        What is to be told how far the work is.
    """
    started = time.monotonic()
    with CONSOLE.status(what) as status:

        def progress(done: int, total: int | None, remark: str) -> None:
            spent = time.monotonic() - started
            of = f" · {done} of {total}, about {_clock(spent * (total - done) / done)} left" if total else ""
            status.update(f"{what}{of} · {remark}" if remark else f"{what}{of}")

        yield progress
    CONSOLE.print(f"  {what} [dim]{_clock(time.monotonic() - started)}[/dim]")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
