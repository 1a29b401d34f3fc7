"""Ensembles of retrievers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.base import FitContext, FitData, Retriever
from recsys.retrievers.ensemble import Ensemble
from semantic_ids.ids import SemanticIds


class Scripted(Retriever):
    """Scores items for the query whose history is item q by row q of a table; names only those above 0."""

    scores_are_logits = False

    def learn(self, data: FitData, context: FitContext) -> None:
        """Learn nothing."""

    def scoring(self, table: Sequence[Sequence[float]]) -> Self:
        self.table = torch.tensor(table)
        self.ids = SemanticIds(np.arange(self.table.shape[1])[:, None], (self.table.shape[1],))
        return self

    def candidates(self, queries: Examples, width: int) -> Ranking:
        scores = self.table.numpy()[queries.history.flat()]
        items = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        scores = np.take_along_axis(scores, items, axis=1)
        return Ranking(
            np.where(scores > 0, items, -1), np.where(scores > 0, scores, -np.inf).astype(np.float32)
        )


class Logits(Scripted):
    """The same, its scores as logarithms, shifted."""

    scores_are_logits = True

    def candidates(self, queries: Examples, width: int) -> Ranking:
        ranking = super().candidates(queries, width)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.where(ranking.items < 0, -np.inf, np.log(ranking.scores) + 7)
        return Ranking(ranking.items, scores.astype(np.float32))


def ask(targets: list[int]) -> Examples:
    count = len(targets)
    ids = np.array([f"q{i:03d}" for i in range(count)])
    history = Ragged.from_rows([[i] for i in range(count)])
    return Examples(ids, history, Ragged.from_rows([[t] for t in targets]), np.ones(count, dtype=np.float32))


def named(members: list[Retriever]) -> dict[str, Retriever]:
    return {f"m{number}": member for number, member in enumerate(members)}


def weighted(members: list[Retriever], weights: list[float], **params: Any) -> Ensemble:
    ensemble = Ensemble(**params)
    ensemble.members, ensemble.ids, ensemble.weights = named(members), members[0].ids, weights
    return ensemble


def fitted(members: list[Retriever], valid: Examples, **params: Any) -> Ensemble:
    retriever = Ensemble(**params)
    retriever.members = named(members)
    return retriever.fit(valid, valid, members[0].ids)


def test_probabilities_are_shares_of_scores_and_the_softmax_of_logits() -> None:
    one = Scripted().scoring([[1.0, 3.0, 0.0, 0.0]])
    two = Logits().scoring([[0.0, 2.0, 6.0, 0.0]])  # exp(log x + 7): shares 1/4 and 3/4
    ensemble = fitted([one, two], ask([1]))
    ensemble.weights = [0.4, 0.6]
    ranking = ensemble.rank(ask([1]), 4)
    assert ranking.items.tolist() == [[1, 2, 0, -1]]
    # item 1: .4 · 3/4 + .6 · 1/4, item 2: .6 · 3/4, item 0: .4 · 1/4
    assert ranking.scores[0, :3].tolist() == pytest.approx([0.45, 0.45, 0.1])


def test_weights_follow_the_member_that_validation_prefers() -> None:
    right, wrong = (np.eye(8)[order] + 0.01 for order in (np.arange(8), np.arange(8)[::-1]))
    members = [Scripted().scoring(wrong.tolist()), Scripted().scoring(right.tolist())]
    ensemble = fitted(members, ask(list(range(8))))
    assert ensemble.weights[1] > 0.5
    assert ensemble.rank(ask(list(range(8))), 1).items[:, 0].tolist() == list(range(8))


def test_two_that_know_different_things_beat_each_alone() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 30, 200).tolist()
    noise = rng.random((2, 200, 30)) * 0.8
    noise[0, np.arange(100), targets[:100]] += 1  # the first knows the first half
    noise[1, np.arange(100, 200), targets[100:]] += 1
    members = [Scripted().scoring(table.tolist()) for table in noise]
    queries = ask(targets)

    def ndcg(retriever: Retriever) -> float:
        return float(per_query_scores(retriever.rank(queries, 10), queries, [10])["ndcg_at_10"].mean())

    ensemble = fitted(members, queries)
    assert sum(ensemble.weights) == pytest.approx(1)
    assert min(ensemble.weights) > 0.2
    assert ndcg(ensemble) > max(map(ndcg, members)) + 0.1


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=8, max_size=8), min_size=2, max_size=4), st.integers(1, 9)
)
def test_a_ranking_names_every_item_that_a_member_does_once(rows: list[list[int]], k: int) -> None:
    members: list[Retriever] = [Scripted().scoring([row, row[::-1]]) for row in rows]
    queries = ask([0, 7])
    ensemble = weighted(members, [1 / len(rows)] * len(rows), depth=8)
    ranking = ensemble.rank(queries, k)
    for query, items in enumerate(ranking.items.tolist()):
        totals = np.zeros(8)
        for row in rows:
            own = np.array(row[::-1] if query else row, dtype=float)
            totals += own / max(own.sum(), 1) / len(rows)
        found = [item for item in items if item >= 0]
        assert len(found) == len(set(found)) == min(k, int((totals > 0).sum()))
        np.testing.assert_allclose(totals[found], np.sort(totals)[::-1][: len(found)], rtol=1e-5)
        np.testing.assert_allclose(ranking.scores[query, : len(found)], totals[found], rtol=1e-5)


def test_equals_stand_in_the_order_in_which_members_name_them() -> None:
    members: list[Retriever] = [
        Scripted().scoring([[1, 2, 2, 2, 1, 1]]),
        Scripted().scoring([[1, 1, 1, 1, 1, 1]]),
    ]

    class Backwards(Scripted):
        def candidates(self, queries: Examples, width: int) -> Ranking:
            ranking = super().candidates(queries, self.table.shape[1])
            return Ranking(ranking.items[:, ::-1][:, :width], ranking.scores[:, ::-1][:, :width])

    members[1] = Backwards().scoring([[1, 1, 1, 1, 1, 1]])  # names 5 4 3 2 1 0, the other 1 2 3 0 4 5
    ensemble = weighted(members, [0.0, 1.0])
    # Best of the first, best of the second, next of the first: 1 5 2 4 3 0; all are equally likely.
    assert ensemble.rank(ask([0]), 6).items.tolist() == [[1, 5, 2, 4, 3, 0]]


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_what_is_reported_of_validation_is_what_a_ranking_scores(exclude_seen: bool) -> None:
    rng = np.random.default_rng(3)
    tables = rng.random((2, 40, 40)) ** 4
    tables[0, np.arange(40), np.arange(40)] = 30  # the first is sure of what was seen
    members: list[Retriever] = [Scripted().scoring(tables[0].tolist()), Logits().scoring(tables[1].tolist())]
    targets = [int(np.argsort(-(tables[0] + tables[1])[q])[1 + q % 3]) for q in range(40)]
    queries, seen = ask(targets), []
    ensemble = Ensemble(depth=12, exclude_seen=exclude_seen)
    ensemble.members = named(members)
    ensemble.fit(
        queries, queries, members[0].ids, on_step=lambda step, metrics: seen.append(metrics["valid"])
    )
    ranking = ensemble.rank(queries, 10, exclude_seen=exclude_seen)
    score = per_query_scores(ranking, queries, [10])["ndcg_at_10"].mean()
    assert score == pytest.approx(seen[-1], abs=1e-9)


def test_a_longer_ranking_begins_like_a_short_one() -> None:
    rng = np.random.default_rng(4)
    members: list[Retriever] = [
        Scripted().scoring(rng.random((5, 60)).tolist()),
        Logits().scoring(rng.random((5, 60)).tolist()),
    ]
    ensemble = weighted(members, [0.5, 0.5], depth=6)
    queries = ask([0] * 5)
    short = ensemble.rank(queries, 3).scores
    np.testing.assert_allclose(ensemble.rank(queries, 6).scores[:, :3], short, rtol=1e-6)


def test_members_are_saved_with_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    queries = ask(list(range(6)))
    members = [Scripted().scoring(rng.random((6, 6)).tolist()), Logits().scoring(rng.random((6, 6)).tolist())]
    inner = fitted(members, queries)
    outer = fitted([inner, members[0]], queries, depth=4)
    outer.save(tmp_path)
    loaded = Retriever.load(tmp_path)
    assert isinstance(loaded, Ensemble)
    assert loaded.weights == outer.weights
    assert [type(member) for member in loaded.members.values()] == [Ensemble, Scripted]
    # An ensemble's scores are probabilities, so another ensemble uses them as they are.
    inner_shares = inner.rank(queries, 4).scores
    loaded.weights = [1.0, 0.0]
    np.testing.assert_allclose(
        loaded.rank(queries, 4).scores, inner_shares / inner_shares.sum(axis=1, keepdims=True), rtol=1e-5
    )
    loaded.weights = outer.weights
    before, after = outer.rank(queries, 4), loaded.rank(queries, 4)
    np.testing.assert_array_equal(before.items, after.items)
    np.testing.assert_array_equal(before.scores, after.scores)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.json").read_text() == (tmp_path / "model.json").read_text()


def test_members_that_cannot_be_combined_are_refused() -> None:
    queries = ask([0])
    with pytest.raises(ValueError, match="set members to fitted retrievers, by name"):
        Ensemble().fit(queries, queries, SemanticIds(np.zeros((2, 1), dtype=np.int64), (1,)))
    ensemble = Ensemble()
    ensemble.members = {"other": Scripted().scoring([[1.0, 2.0]])}
    with pytest.raises(ValueError, match="ranks 2 items, but the catalogue has 3"):
        ensemble.fit(queries, queries, SemanticIds(np.arange(3)[:, None], (3,)))
    with pytest.raises(ValueError, match="depth must be a whole number from 1"):
        Ensemble(depth=0)
