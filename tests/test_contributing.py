"""The code of CONTRIBUTING.md and of the documentation's first page runs."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from recsys.evaluation import hypothesis_tests, metrics
from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.registry import RETRIEVERS
from recsys.retrievers.testing import check_retriever
from recsys.texts.embedding import embed_texts
from semantic_ids.recipes import Recipe

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def block(word: str) -> str:
    return next(code for code in BLOCKS if word in code)


@pytest.fixture
def contributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module ``contributed``, which holds the page's retriever, metric and text encoder."""
    code = "\n\n".join(block(word) for word in ("RandomItems", "PRECISION", "HashedWords"))
    (tmp_path / "contributed.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "contributed", raising=False)
    return importlib.import_module("contributed")


def test_the_retriever_keeps_the_contract(contributed: ModuleType) -> None:
    assert RETRIEVERS.load("contributed:RandomItems") is contributed.RandomItems
    check_retriever(contributed.RandomItems)


@pytest.mark.usefixtures("contributed")
def test_the_metric_is_found_and_counts_relevant_items() -> None:
    examples = Examples(
        query_ids=np.array(["u1"]),
        history=Ragged.from_rows([[1]]),
        targets=Ragged.from_rows([[7, 3]]),
        gains=np.ones(2, dtype=np.float32),
    )
    ranking = Ranking(items=np.array([[5, 7, 9]]), scores=np.zeros((1, 3), dtype=np.float32))
    metric = metrics.METRICS.load("contributed:PRECISION")
    assert metric.values(metrics.judge(ranking, examples, 3), 2).tolist() == [0.5]


@pytest.mark.usefixtures("contributed")
def test_the_text_encoder_is_found_and_embeds() -> None:
    items, _ = embed_texts(["blue cup", "Cup blue", "garden shears"], "contributed:HashedWords")
    assert np.allclose(items[0], items[1])
    assert items[0] @ items[2] < 1


def test_the_recipe_gives_codes() -> None:
    helpers = vars(sys.modules[Recipe.__module__])
    (recipe,) = eval("{" + block("grit-vq-huber") + "}", helpers).values()  # noqa: S307 — our own page
    tokenizer = recipe.tokenizer(**recipe.choices, levels=2, codebook_size=8, steps=5)
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    assert tokenizer.fit(x).encode(x).shape == (50, 2)


def test_the_sign_test_finds_what_is_there() -> None:
    names = dict(vars(hypothesis_tests))
    exec("from __future__ import annotations\n" + block("_sign_tests"), names)  # noqa: S102 — our own page
    scores = np.random.default_rng(0).random((2, 200))
    better = np.stack([scores[0], scores[0] + 0.1])
    alike, apart, same = (
        names["_sign_tests"](hypothesis_tests.Family(rows, [(0, 1)]))[0]
        for rows in (scores, better, scores[[0, 0]])
    )
    assert (alike.verdict, apart.verdict, same.verdict) == ("undecided", "better", "undecided")


def test_the_first_page_of_the_documentation_prints_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/index.md").read_text(), flags=re.DOTALL)
    exec(compile(code, "docs/index.md", "exec"), {})  # noqa: S102 — our own page
    assert capsys.readouterr().out.strip() == re.search(r"# (torch.Size.*)", code).group(1)


def test_every_file_that_the_page_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGE):
        assert (ROOT / target).exists(), target
