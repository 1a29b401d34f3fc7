"""The examples in docstrings of recsys print what they show. (Those of datasets have a test of their own.)"""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import recsys

ROOT = Path(recsys.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text() and "datasets" not in path.relative_to(ROOT).parts
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
