"""The examples in the docstrings of the readers run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from recsys import datasets

MODULES = [module.name for module in pkgutil.walk_packages(datasets.__path__, "recsys.datasets.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    assert {"recsys.datasets.plain", "recsys.datasets.interactions"} <= set(MODULES)
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [
        test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples
    ]
    assert len(examples) > 20
