from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, Ragged, Ranking

NUM_ITEMS = 12


def examples_of(targets: list[list[int]], gains: list[list[float]] | None = None) -> Examples:
    gains = gains or [[1.0] * len(row) for row in targets]
    return Examples(
        query_ids=np.array([f"q{i:03}" for i in range(len(targets))]),
        history=Ragged.from_rows([[0] for _ in targets]),
        targets=Ragged.from_rows(targets),
        gains=np.array([g for row in gains for g in row], dtype=np.float32),
    )


def ranking_of(items: list[list[int]]) -> Ranking:
    rows = np.array(items, dtype=np.int64)
    return Ranking(rows, -np.arange(rows.size, dtype=np.float32).reshape(rows.shape))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], list[list[float]]]:
    """Rankings of width 8 (padded behind a drawn length), targets, and graded gains."""
    items, targets, gains = [], [], []
    for _ in range(draw(st.integers(1, 6))):
        ranked = draw(st.permutations(range(NUM_ITEMS)))[: draw(st.integers(0, 8))]
        items.append([*ranked, *[-1] * (8 - len(ranked))])
        wanted = draw(st.permutations(range(NUM_ITEMS)))[: draw(st.integers(1, 9))]
        targets.append(list(wanted))
        some = draw(
            st.lists(st.sampled_from([0.0, 0.1, 1.0, 3.0]), min_size=len(wanted), max_size=len(wanted))
        )
        gains.append([1.0, *some[1:]])  # something must be relevant
    return items, targets, gains


def naive(ranked: list[int], gain_of: dict[int, float], k: int) -> tuple[float, float]:
    top = [gain_of.get(item, 0.0) for item in ranked[:k]]
    ideal = sorted(gain_of.values(), reverse=True)[:k]
    dcg, idcg = (sum(g / math.log2(rank + 2) for rank, g in enumerate(gains)) for gains in (top, ideal))
    relevant = sum(g > 0 for g in gain_of.values())
    return sum(g > 0 for g in top) / relevant, dcg / idcg


def test_scores_computed_by_hand() -> None:
    examples = examples_of([[4], [4], [2, 5, 6]], [[1], [1], [3, 0, 1]])
    ranking = ranking_of([[4, 1, 2, 3], [1, 2, 4, 3], [6, 5, 2, 0]])
    scores = per_query_scores(ranking, examples, cutoffs=[2, 3])
    assert list(scores) == ["recall_at_2", "ndcg_at_2", "recall_at_3", "ndcg_at_3"]
    assert scores["recall_at_2"].tolist() == [1, 0, 0.5]
    assert scores["recall_at_3"].tolist() == [1, 1, 1]
    # Third query: gains 1, 0, 3 by rank against the ideal 3, 1: (1 + 3/2) / (3 + 1/log2(3)).
    assert scores["ndcg_at_3"] == pytest.approx([1, 0.5, 2.5 / 3.6309297], abs=1e-7)
    assert scores["ndcg_at_2"] == pytest.approx([1, 0, 1 / 3.6309297], abs=1e-7)
    assert all(values.dtype == np.float64 for values in scores.values())


def test_padding_is_never_a_hit_on_the_last_item_of_the_query_before() -> None:
    scores = per_query_scores(ranking_of([[0, 1], [2, -1]]), examples_of([[9], [3]]), cutoffs=[2])
    assert scores["recall_at_2"].tolist() == [0, 0]


@given(cases())
@settings(max_examples=60, deadline=None)
def test_agrees_with_the_definition_written_as_loops(case: tuple) -> None:
    items, targets, gains = case
    scores = per_query_scores(ranking_of(items), examples_of(targets, gains), cutoffs=[1, 5, 8])
    for k in (1, 5, 8):
        pairs = zip(targets, gains, strict=True)
        expected = [
            naive(ranked, dict(zip(t, g, strict=True)), k)
            for ranked, (t, g) in zip(items, pairs, strict=True)
        ]
        assert scores[f"recall_at_{k}"] == pytest.approx([recall for recall, _ in expected])
        assert scores[f"ndcg_at_{k}"] == pytest.approx([ndcg for _, ndcg in expected])


def test_agrees_with_scikit_learn_on_full_rankings() -> None:
    rng = np.random.default_rng(0)
    relevance = rng.integers(0, 4, size=(50, NUM_ITEMS)).astype(np.float64)
    relevance[:, 0] = 1
    predicted = rng.random((50, NUM_ITEMS))
    ranking = Ranking(np.argsort(-predicted, axis=1), -np.sort(-predicted, axis=1).astype(np.float32))
    everything = [list(range(NUM_ITEMS))] * 50
    scores = per_query_scores(ranking, examples_of(everything, relevance.tolist()), cutoffs=[10])
    expected = [ndcg_score([r], [p], k=10) for r, p in zip(relevance, predicted, strict=True)]
    assert scores["ndcg_at_10"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("items", "targets", "gains", "message"),
    [
        (
            [[1, 2], [3, 3]],
            [[1], [1]],
            None,
            "1 of 2 queries have an item twice in their ranking; first: q001",
        ),
        ([[1, 2], [3, 4]], [[1], [5, 5]], None, "repeat a target; first: q001"),
        ([[1, 2], [3, 4]], [[1], [5]], [[1], [0]], "no target with a gain above 0.*first: q001"),
        ([[1, 2], [3, 4]], [[1], []], None, "no target with a gain above 0.*first: q001"),
        ([[1, 2], [3, 4]], [[1], [5]], [[1], [-1]], "must not be negative"),
        ([[1, 2]], [[1], [5]], None, "1 queries does not answer 2"),
        ([[1], [3]], [[1], [5]], None, "too narrow for a cutoff of 2"),
    ],
)
def test_bad_input_is_refused(items: list, targets: list, gains: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        per_query_scores(ranking_of(items), examples_of(targets, gains), cutoffs=[2])


def test_repeated_padding_is_no_repeated_item() -> None:
    scores = per_query_scores(ranking_of([[1, -1, -1]]), examples_of([[1]]), cutoffs=[3])
    assert scores["recall_at_3"].tolist() == [1]


def test_recall_counts_targets_from_the_relevant_gain_on_and_ndcg_sees_all_gains() -> None:
    examples = examples_of([[1, 2, 3]], [[1.0, 0.1, 0.01]])
    ranking = ranking_of([[2, 3, 1, 0]])
    anything = per_query_scores(ranking, examples, [2, 3])
    relevant = per_query_scores(ranking, examples, [2, 3], relevant_gain=0.1)
    exact = per_query_scores(ranking, examples, [2, 3], relevant_gain=1.0)
    assert [scores["recall_at_2"].item() for scores in (anything, relevant, exact)] == [2 / 3, 1 / 2, 0.0]
    assert [scores["recall_at_3"].item() for scores in (anything, relevant, exact)] == [1.0, 1.0, 1.0]
    assert anything["ndcg_at_3"] == relevant["ndcg_at_3"] == exact["ndcg_at_3"]
    with pytest.raises(ValueError, match=r"have no target with a gain of at least 2"):
        per_query_scores(ranking, examples, [2], relevant_gain=2.0)
