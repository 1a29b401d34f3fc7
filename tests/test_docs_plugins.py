"""The plug-ins that README and docs/plugins.md show are run: checked, and benchmarked together."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from recsys.evaluation.metrics import METRICS, per_query_scores
from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.testing import check_retriever
from recsys.texts.embedding import embed_texts
from semantic_ids.testing import check_tokenizer

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/plugins.md")


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def block_with(page: str, words: str) -> str:
    (found,) = [block for block in blocks(page) if words in block]
    return found


def lines_of_class(code: str) -> int:
    return sum(bool(line.strip()) for line in code[code.index("class ") :].splitlines())


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """All blocks of docs/plugins.md as one module, as a reader would save them."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "mine_from_docs.py").write_text("\n\n".join(blocks("docs/plugins.md")))
    sys.path.insert(0, str(folder))
    yield importlib.import_module("mine_from_docs")
    sys.path.remove(str(folder))
    del sys.modules["mine_from_docs"]


@pytest.mark.parametrize("page", PAGES)
def test_both_pages_show_the_same_short_classes(page: str) -> None:
    tokenizer, retriever = block_with(page, "class RandomProjection"), block_with(page, "class NextItem")
    assert lines_of_class(tokenizer) <= 10
    assert lines_of_class(retriever) <= 15
    assert tokenizer == block_with("README.md", "class RandomProjection")
    assert retriever == block_with("README.md", "class NextItem")


def test_the_tokenizer_keeps_the_contract(mine: ModuleType) -> None:
    check_tokenizer(mine.RandomProjection)


def test_the_retriever_keeps_the_contract(mine: ModuleType) -> None:
    check_retriever(mine.NextItem)


def test_the_retriever_ranks_what_followed_first(mine: ModuleType) -> None:
    from recsys.splits import Sequences, leave_one_out
    from semantic_ids.ids import SemanticIds

    rows = [[0, 1, 2, 3, 4], [0, 1, 3, 2, 4], [5, 1, 2, 3, 4]]
    split = leave_one_out(Sequences(np.array(["a", "b", "c"]), Ragged.from_rows(rows)))
    ids = SemanticIds(np.arange(6)[:, None], (6,))
    retriever = mine.NextItem().fit(split.train, split.valid, ids)
    asked = Examples(
        np.array(["q"]), Ragged.from_rows([[3, 0]]), Ragged.from_rows([[1]]), np.ones(1, np.float32)
    )
    assert retriever.rank(asked, 2).items.tolist() == [
        [1, 0]
    ]  # of users' first three items, 1 follows 0 twice


def test_the_metric_is_what_it_says(mine: ModuleType) -> None:
    examples = Examples(
        np.array(["q"]), Ragged.from_rows([[0]]), Ragged.from_rows([[1, 2]]), np.ones(2, np.float32)
    )
    ranking = Ranking(np.array([[2, 3, 1, 4]]), np.zeros((1, 4), np.float32))
    name = f"{mine.__name__}:PRECISION"
    assert METRICS.load(name) is mine.PRECISION
    scores = per_query_scores(ranking, examples, [2, 4], metrics=[name])
    assert {metric: values.tolist() for metric, values in scores.items()} == {
        "precision_at_2": [0.5],
        "precision_at_4": [0.5],
    }


def test_the_text_encoder_embeds_both_sides(mine: ModuleType) -> None:
    items, queries = embed_texts(["abba", "cab"], f"{mine.__name__}:Letters", queries=["BAAB"])
    assert items.shape == (2, 26)
    assert items.dtype == np.float32
    np.testing.assert_allclose(items[0], queries[0])
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, rtol=1e-6)
