"""For all tests: threads that wait must not spin, and tests that share a costly fixture share a process."""

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

collect_ignore = ["plugin"]  # a package of its own, which test_plugin.py installs and tests

SHARED = ("served", "finished")
"""Fixtures that take long to set up, for tests of several files; once is enough, whatever the processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `pytest -n`: those that share a costly fixture together, all others by their file."""
    for item in items:
        used = [name for name in SHARED if name in getattr(item, "fixturenames", ())]
        item.add_marker(pytest.mark.xdist_group(used[0] if used else str(item.path)))
