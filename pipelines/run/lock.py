"""One process at a time in a workspace: the others wait, and say for whom."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.screen import ERR

_POLL_SECONDS = 0.3


@contextmanager
def exclusive(folder: Path, purpose: str) -> Iterator[None]:
    """Hold a folder for this process; wait, and say for whom, while another process holds it.

    The lock is a file lock of the operating system, so it holds between containers and hosts that share the
    folder, and ends with the process, however that ends. A process may take it several times.

    Args:
        folder: The folder. It is created if it does not exist.
        purpose: What this process does, for the others to say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", is_singleton=True, thread_local=False)
    holder = folder / ".lock.holder"
    first = not lock.is_locked
    try:
        lock.acquire(blocking=False)
    except Timeout:
        ERR.print(f"waiting for {_describe(holder)}, which works in {folder.parent}", style="yellow")
        lock.acquire(poll_interval=_POLL_SECONDS)
    try:
        if first:
            since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
            facts = {"purpose": purpose, "host": socket.gethostname(), "pid": os.getpid(), "since": since}
            holder.write_text(json.dumps(facts) + "\n")
        yield
    finally:
        lock.release()


def _describe(holder: Path) -> str:
    """Return who holds a lock, in words; the file may be missing or half written."""
    try:
        facts = json.loads(holder.read_text())
        return "process {pid} on {host} ({purpose}, since {since})".format(**facts)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
