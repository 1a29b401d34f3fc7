"""Commands that are told to end, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAD = """
import os, signal, sys, threading, time
from pipelines import signals
from pipelines.signals import EndingOnSignals
ending = EndingOnSignals()
ending.advice = "give it again"
def ready():
    os.write(1, b"ready")
"""


def start(script: str, *, ignoring: signal.Signals | None = None) -> subprocess.Popen[bytes]:
    """A process that has printed that it is ready."""
    ignore = f"import signal; signal.signal({int(ignoring)}, signal.SIG_IGN)\n" if ignoring else ""
    process = subprocess.Popen(
        [sys.executable, "-c", ignore + HEAD + script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.read(5) == b"ready"
    return process


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGINT, b"interrupted; give it again\n"),
        (signal.SIGTERM, b"terminated; give it again\n"),
        (signal.SIGHUP, b"the terminal was closed; give it again\n"),
    ],
)
def test_a_signal_ends_the_block_in_order(number: signal.Signals, line: bytes) -> None:
    process = start("""
with ending:
    try:
        ready()
        time.sleep(60)
    finally:
        os.write(1, b", in order")
""")
    process.send_signal(number)
    printed = process.communicate(timeout=30)
    assert printed == (b", in order", line)
    assert process.returncode == 128 + number


@pytest.mark.parametrize("stuck", ["native", "swallowing", "cleaning", "exiting"])
@pytest.mark.parametrize("signals", [1, 2])
def test_a_process_that_cannot_end_by_itself_is_ended(stuck: str, signals: int) -> None:
    script = {
        "native": """
import ctypes
with ending:
    ready()
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second call waits for ever, and no signal interrupts it
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
""",
        "swallowing": """
with ending:
    ready()
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
""",
        "cleaning": """
with ending:
    try:
        ready()
        time.sleep(60)
    finally:
        time.sleep(60)
""",
        "exiting": """
threading.Thread(target=time.sleep, args=(60,)).start()
with ending:
    ready()
    time.sleep(60)
""",
    }[stuck]
    process = start(script)
    started = time.monotonic()
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 143
    assert complaint == b"terminated; give it again\n"
    spent = time.monotonic() - started
    assert spent < (2.5 if signals == 2 else 5)


def test_processes_that_it_has_started_end_too() -> None:
    process = start("""
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
with ending:
    os.write(1, b"ready%d\\n" % child.pid)
    time.sleep(60)
""")
    assert process.stdout
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    script = 'with ending:\n    ready()\n    time.sleep(1)\nos.write(1, b", whole")'
    process = start(script, ignoring=signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30) == (b", whole", b"")
    assert process.returncode == 0


def test_afterwards_the_signals_are_as_before() -> None:
    process = start("""
def mine(*_):
    os.write(1, b", mine")
    sys.exit(7)
signal.signal(signal.SIGTERM, mine)
with ending:
    pass
try:
    with ending:
        raise ValueError
except ValueError:
    pass
assert threading.active_count() < 3
ready()
time.sleep(60)
""")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == b", mine"
    assert process.returncode == 7
