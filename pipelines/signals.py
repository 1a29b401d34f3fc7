"""End a command quickly when it is told to by Ctrl-C, by SIGTERM, or by a terminal that closes.

The first signal raises :class:`Stopped`, so that files and runs are left in order; then the process ends. If
that takes longer than a few seconds, or when a second signal comes, it ends at once, even while native code
waits.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from pipelines.screen import ERR

GRACE = 3.0
"""Seconds that a stopped command has to leave everything in order."""

_WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "the terminal was closed",
}


class Stopped(SystemExit):
    """A signal told the process to end. The exit code is 128 and the signal's number, as in shells."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class EndingOnSignals:
    """A context in which a signal ends the process within seconds, with one line.

    A signal that is ignored, as under ``nohup``, stays ignored.

    Attributes:
        advice: What the line says after ``interrupted``.
    """

    def __init__(self) -> None:
        self.advice = ""
        self._taken = [number for number in _WORDS if signal.getsignal(number) != signal.SIG_IGN]
        self._handlers: dict[signal.Signals, Any] = {}
        self._has_said = False

    def __enter__(self) -> Self:
        """Take the signals over."""
        reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        # Python writes a signal's number there at once, even while native code keeps its handlers waiting.
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _stop) for number in self._taken}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process if it was stopped; if not, give the signals back."""
        if isinstance(error, Stopped):
            self._has_said = True
            ERR.print(self._line(error.number))
            sys.stdout.flush()
            _end(error.number)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._writer.close()

    def _line(self, number: int) -> str:
        """Return what is printed after a signal."""
        return "; ".join(filter(None, (_WORDS[signal.Signals(number)], self.advice)))

    def _watch(self, reader: socket.socket) -> None:
        """Wait for a signal, and then see that the process ends."""
        first = self._next_signal(reader)
        if first is None:
            return
        reader.settimeout(GRACE)
        try:
            if self._next_signal(reader) is None:
                return
        except TimeoutError:
            pass
        if not self._has_said:  # not through rich, whose lock the main thread may hold
            os.write(2, f"{self._line(first)}\n".encode(errors="replace"))
        _end(first)

    def _next_signal(self, reader: socket.socket) -> int | None:
        """Return the number of the next signal that ends the process; None if signals were given back."""
        while told := reader.recv(1):
            if told[0] in self._taken:
                return told[0]
        return None


def _end(number: int) -> NoReturn:
    """End this process and those that it has started, at once; to unload large libraries takes seconds."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join(0.5)
    os._exit(128 + number)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Raise Stopped wherever the main thread is."""
    raise Stopped(number)
