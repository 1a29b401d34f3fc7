"""PCTM plus the likeness of texts: the sum, and the weight that validation chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.base import Retriever
from recsys.retrievers.knn import ContentKnn
from recsys.retrievers.pctm import Pctm
from recsys.retrievers.pctm_content import PctmContent
from recsys.splits import Sequences, leave_one_out
from semantic_ids.ids import SemanticIds

TEXTS = [
    "red tea",
    "green tea",
    "sponge cake",
    "black tea",
    "blue shoe",
    "tea cake",
    "red shoe",
    "green shoe",
]


def fitted(retriever: Retriever, rows: list[list[int]]) -> Retriever:
    data = leave_one_out(Sequences(np.array([f"u{u:03d}" for u in range(len(rows))]), Ragged.from_rows(rows)))
    ids = SemanticIds(np.arange(len(TEXTS))[:, None], (len(TEXTS),))
    return retriever.fit(data.train, data.valid, ids, texts=TEXTS)


def ranked(retriever: Retriever, histories: list[list[int]]) -> Ranking:
    targets, gains = Ragged.from_rows([[0]] * len(histories)), np.ones(len(histories), dtype=np.float32)
    names = np.array([f"q{i}" for i in range(len(histories))])
    queries = Examples(names, Ragged.from_rows(histories), targets, gains)
    return retriever.rank(queries, len(TEXTS))


def by_item(retriever: Retriever, histories: list[list[int]]) -> np.ndarray:
    ranking = ranked(retriever, histories)
    return np.take_along_axis(ranking.scores, ranking.items.argsort(axis=1), axis=1)


ROWS = [[0, 1, 2, 3, 5], [0, 1, 0, 4, 6], [3, 1, 2, 7, 0], [2, 4, 1, 5, 5]]


def test_scores_are_the_weighted_sum_of_both() -> None:
    histories = [[0], [2, 0, 1], [5, 5, 4], []]
    both = by_item(fitted(PctmContent(content=0.7, decay=0.4), ROWS), histories)
    counted = by_item(fitted(Pctm(decay=0.4), ROWS), histories)
    of_texts = by_item(fitted(ContentKnn(decay=0.4), ROWS), histories)
    assert (of_texts > 0).sum() > 5
    np.testing.assert_allclose(both, counted + np.float32(0.7) * of_texts, atol=1e-5)


@pytest.mark.parametrize("same_theme", [True, False])
def test_validation_chooses_the_weight(same_theme: bool) -> None:
    rng = np.random.default_rng(0)
    texts = [f"theme{item // 8} item{item}" for item in range(40)]
    themes = rng.integers(5, size=15)  # users take items of one theme, or of all
    rows = [
        (8 * theme + rng.permutation(8)[:5] if same_theme else rng.permutation(40)[:5]).tolist()
        for theme in themes
    ]
    data = leave_one_out(Sequences(np.array([f"u{u:02d}" for u in range(15)]), Ragged.from_rows(rows)))
    ids = SemanticIds(np.arange(40)[:, None], (40,))

    def ndcg(weight: float) -> float:
        retriever = PctmContent(content=weight).fit(data.train, data.valid, ids, texts=texts)
        ranking = retriever.rank(data.valid, 10, exclude_seen=True)
        return float(per_query_scores(ranking, data.valid, [10])["ndcg_at_10"].mean())

    best = max(ndcg(weight) for weight in (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3))
    chosen = PctmContent().fit(data.train, data.valid, ids, texts=texts).weight
    assert ndcg(chosen) == pytest.approx(best)
    assert chosen > 0 or not same_theme


def test_it_is_saved_whole(tmp_path: Path) -> None:
    retriever = fitted(PctmContent(content=2), ROWS)
    retriever.save(tmp_path)
    before, after = (ranked(one, [[0, 2], [], [6]]) for one in (retriever, Retriever.load(tmp_path)))
    np.testing.assert_array_equal(before.items, after.items)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_a_weight_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="content must be a number at least 0, not -1"):
        PctmContent(content=-1)
