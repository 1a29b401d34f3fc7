"""For all tests: threads that wait must not spin, and tests that share a costly fixture share a process."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

collect_ignore = ["plugin"]  # a package of its own, which test_plugin.py installs and tests

SERVER_FIXTURES = {"prefect_server", "served", "gritrec", "finished"}
"""Fixtures that start a server or hang on one; it should run once, not once a process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `pytest -n`: those that need the server together, all others by their file."""
    for item in items:
        needs_server = SERVER_FIXTURES & {*getattr(item, "fixturenames", ())}
        group = "server" if needs_server else str(Path(item.path).name)
        item.add_marker(pytest.mark.xdist_group(group))
