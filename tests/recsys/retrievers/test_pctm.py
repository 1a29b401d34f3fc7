"""PCTM, against its formula written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from recsys.examples import Examples, Ragged
from recsys.retrievers.base import Retriever
from recsys.retrievers.pctm import Pctm
from recsys.splits import Sequences, leave_one_out
from semantic_ids.ids import SemanticIds

TAKEN = [[0, 1, 2, 3], [0, 1, 0], [3, 1, 2], [2, 4, 1], [1, 1, 3, 0, 2]]
"""What each user took in training; nobody took item 5."""
ITEMS = 6


def ask(histories: Sequence[list[int]]) -> Examples:
    targets, gains = Ragged.from_rows([[0]] * len(histories)), np.ones(len(histories), dtype=np.float32)
    return Examples(
        np.array([f"q{i}" for i in range(len(histories))]), Ragged.from_rows(list(histories)), targets, gains
    )


def fitted(retriever: Pctm) -> Pctm:
    users = np.array([f"u{user}" for user in range(len(TAKEN))])
    data = leave_one_out(Sequences(users, Ragged.from_rows([[*row, 5, 5] for row in TAKEN])))
    return retriever.fit(data.train, data.valid, SemanticIds(np.arange(ITEMS)[:, None], (ITEMS,)))


def log_probability(item: int, after: int, *, window: int, fade: float, smoothing: float) -> float:
    """The smoothed log-probability of one item after another, with its normalisation."""
    counts = [0.0] * ITEMS
    for row in TAKEN:
        for place, first in enumerate(row):
            for distance in range(1, window + 1):
                if first == after and place + distance < len(row):
                    counts[row[place + distance]] += distance**-fade
    return math.log((counts[item] + smoothing) / (sum(counts) + smoothing * ITEMS))


def scores_of(retriever: Pctm, history: list[int]) -> list[float]:
    """The score of each item, in the order of the items, relative to that of item 5, which has no counts."""
    ranking = retriever.rank(ask([history]), ITEMS)
    by_item = dict(zip(ranking.items[0].tolist(), ranking.scores[0].tolist(), strict=True))
    return [by_item[item] - by_item[5] for item in range(ITEMS)]


@pytest.mark.parametrize("window", [1, 2, 9])
@pytest.mark.parametrize("rarity", [0.0, 0.3])
def test_scores_are_weighted_log_probabilities(window: int, rarity: float) -> None:
    retriever = fitted(Pctm(window=window, fade=0.5, smoothing=0.7, decay=0.25, rarity=rarity))
    shares = [
        (sum(row.count(item) for row in TAKEN) + 1) / (sum(map(len, TAKEN)) + ITEMS) for item in range(6)
    ]
    for history in ([0], [2, 0, 1], [3, 3, 4]):
        powers = [0.25**back for back in range(len(history))][::-1]
        expected = [
            sum(
                power / sum(powers) * log_probability(item, past, window=window, fade=0.5, smoothing=0.7)
                for power, past in zip(powers, history, strict=True)
            )
            - rarity * math.log(shares[item])
            for item in range(ITEMS)
        ]
        relative = [score - expected[5] for score in expected]
        np.testing.assert_allclose(scores_of(retriever, history), relative, atol=1e-5)


def test_older_items_share_a_weight_evenly() -> None:
    retriever = fitted(Pctm(decay=0.5, recent=2, older=0.4, max_history=4, rarity=0))
    alone = np.array([scores_of(retriever, [item]) for item in range(ITEMS)])
    # Of six items four are read; the last two have .6 in proportions 2 : 1, those before have .2 each.
    expected = 0.4 * alone[1] + 0.2 * alone[0] + 0.2 * (alone[3] + alone[2])
    np.testing.assert_allclose(scores_of(retriever, [4, 4, 2, 3, 0, 1]), expected, atol=1e-5)
    # Without older items the last ones have all the weight.
    np.testing.assert_allclose(scores_of(retriever, [0, 1]), (2 * alone[1] + alone[0]) / 3, atol=1e-5)


def test_items_without_counts_and_empty_histories_fall_back_to_popularity() -> None:
    # Taken 4, 6, 4, 3, 1 and 0 times.
    assert fitted(Pctm(rarity=0)).rank(ask([[5], []]), ITEMS).items.tolist() == [[1, 0, 2, 3, 4, 5]] * 2
    rare_first, popular_first = fitted(Pctm(rarity=0.1)).rank(ask([[5], []]), ITEMS).items.tolist()
    assert rare_first == [5, 4, 3, 0, 2, 1]
    assert popular_first == [1, 0, 2, 3, 4, 5]


def test_it_is_saved_whole(tmp_path: Path) -> None:
    retriever, queries = fitted(Pctm(older=0.3, recent=1)), ask([[0, 2], [], [1, 1, 3]])
    retriever.save(tmp_path)
    before, after = retriever.rank(queries, ITEMS), Retriever.load(tmp_path).rank(queries, ITEMS)
    np.testing.assert_array_equal(before.items, after.items)
    np.testing.assert_array_equal(before.scores, after.scores)
