"""The untrained baselines on real data: scores that others found with other code on the same files."""

from __future__ import annotations

import ast
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.datasets.amazon import read_amazon
from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Ragged
from recsys.retrievers.base import Retriever
from recsys.retrievers.knn import ItemKnn, KnnSum
from recsys.retrievers.pctm import Pctm
from recsys.retrievers.popularity import Popularity
from recsys.splits import Sequences, Split, leave_one_out, sequences_of
from semantic_ids.ids import SemanticIds

DATA = Path(__file__).parents[3] / "../shared/data/amazon2014"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the Amazon 2014 files are not in ../shared/data"),
]


@dataclass(frozen=True)
class Beauty:
    """Amazon Beauty, with the texts as they are in the file: the scores were found with those."""

    split: Split
    texts: list[str]

    def scores(self, retriever: Retriever, *, exclude_seen: bool = True) -> list[float]:
        """Recall@5, Recall@10 and NDCG@10 on the test set."""
        ids = SemanticIds(np.arange(len(self.texts))[:, None], (len(self.texts),))
        retriever.fit(self.split.train, self.split.valid, ids, texts=self.texts)
        ranking = retriever.rank(self.split.test, 10, exclude_seen=exclude_seen)
        scores = per_query_scores(ranking, self.split.test, [5, 10])
        return [scores[name].mean() for name in ("recall_at_5", "recall_at_10", "ndcg_at_10")]


@pytest.fixture(scope="module")
def beauty() -> Beauty:
    meta = DATA / "meta_Beauty.json.gz"
    corpus = read_amazon(DATA / "reviews_Beauty_5.json.gz", meta)
    with gzip.open(meta, "rt") as lines:
        known = {item["asin"]: item for item in map(ast.literal_eval, lines)}
    items = [known.get(asin, {}) for asin in corpus.items["item_id"]]
    texts = [
        " ".join(
            [m.get("title") or "", m.get("brand") or "", *(n for p in m.get("categories", []) for n in p)]
        )
        for m in items
    ]
    return Beauty(leave_one_out(sequences_of(corpus)), texts)


def test_the_sum_of_item_and_content_knn(beauty: Beauty) -> None:
    assert beauty.scores(KnnSum()) == pytest.approx([0.0693, 0.0963, 0.0582], abs=5e-5)


def test_item_knn_up_to_the_order_of_equal_scores(beauty: Beauty) -> None:
    # Many cosines are equal: Recall@5 is .0466 if the target always comes last of its equals, .0479 if first.
    assert beauty.scores(ItemKnn()) == pytest.approx([0.0473, 0.0650, 0.0398], abs=3e-4)


def test_popularity_up_to_the_order_of_equal_counts(beauty: Beauty) -> None:
    # The scores found elsewhere, .0081, .0120, .0055, count both items that share rank 5 as hits there.
    scores = beauty.scores(Popularity(), exclude_seen=False)
    assert scores == pytest.approx([0.0072, 0.0112, 0.0053], abs=5e-5)


@pytest.mark.parametrize(
    ("name", "tau", "settings", "published"),
    [
        ("Beauty", 11_250, {"decay": 0.6, "rarity": 0.04}, 0.0635),
        ("Sports_and_Outdoors", 15_000, {"decay": 0.7, "recent": 10, "older": 0.2, "rarity": 0.0}, 0.0368),
    ],
)
def test_pctm_as_published(name: str, tau: float, settings: dict[str, Any], published: float) -> None:
    """The paper learns from everything but the last item of each user; its ties are in another order."""
    corpus = read_amazon(DATA / f"reviews_{name}_5.json.gz", DATA / f"meta_{name}.json.gz")
    sequences = sequences_of(corpus)
    # Leave-one-out does not learn from the last two, so two more make it learn from all but the last.
    rows = [[*sequences.items[user][:-1].tolist(), 0, 0] for user in range(len(sequences.items))]
    train = leave_one_out(Sequences(sequences.user_ids, Ragged.from_rows(rows))).train
    split, num_items = leave_one_out(sequences), len(corpus.items)
    ids = SemanticIds(np.arange(num_items)[:, None], (num_items,))
    pctm = Pctm(window=10, fade=0.5, smoothing=tau / num_items, **settings).fit(train, split.valid, ids)
    ndcg = per_query_scores(pctm.rank(split.test, 10, exclude_seen=True), split.test, [10])["ndcg_at_10"]
    assert ndcg.mean() == pytest.approx(published, abs=1.5e-4)
