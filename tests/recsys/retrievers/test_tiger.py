from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.base import Retriever
from recsys.retrievers.tiger import Tiger
from recsys.training.loop import Training
from semantic_ids.ids import SemanticIds

SMALL = {
    "width": 32,
    "layers": 1,
    "heads": 2,
    "head_width": 16,
    "feed_forward": 64,
    "max_history": 4,
    "search": {"beam": 20},
}
BRIEF = Training(steps=3, batch_size=16, warmup_steps=1, evaluate_every=2)

# 15 items on 13 leaves: items 0, 5 and 10 share one.
CODES = np.array([[i % 5, i % 3, i % 2] for i in range(15)])
CODES[[5, 10]] = CODES[0]
COLLIDING = SemanticIds(CODES, (5, 3, 2))


def examples(histories: list[list[int]], targets: list[list[int]]) -> Examples:
    ragged = Ragged.from_rows(targets)
    ids = np.array([f"u{i:04d}" for i in range(len(histories))])
    return Examples(ids, Ragged.from_rows(histories), ragged, np.ones(len(ragged.flat()), dtype=np.float32))


def successors(count: int, items: int, seed: int) -> Examples:
    """Histories of 0 … 7 random items and a last one that alone says what follows: the item after it."""
    rng = np.random.default_rng(seed)
    histories = [rng.integers(0, items, rng.integers(1, 9)).tolist() for _ in range(count)]
    return examples(histories, [[(history[-1] + 1) % items] for history in histories])


def fitted(ids: SemanticIds = COLLIDING, seed: int = 0, **changes: Any) -> Tiger:
    data = successors(60, ids.num_items, seed=0)
    return Tiger(**SMALL | {"training": BRIEF} | changes).fit(data, data, ids, seed=seed)


def assert_same(left: Ranking, right: Ranking) -> None:
    np.testing.assert_array_equal(left.items, right.items)
    np.testing.assert_array_equal(left.scores, right.scores)


@pytest.mark.slow
@pytest.mark.parametrize(
    "ids",
    [
        SemanticIds(np.array([[i // 5, i % 5] for i in range(25)]), (5, 5)),
        SemanticIds(np.arange(25)[::-1, None].copy(), (25,)),
    ],
    ids=["two levels", "dense IDs"],
)
def test_learns_which_item_follows(ids: SemanticIds) -> None:
    plan = Training(steps=300, batch_size=64, learning_rate=1e-2, warmup_steps=20, evaluate_every=100)
    train, valid, test = (successors(count, 25, seed) for seed, count in enumerate((2000, 50, 200)))
    tiger = Tiger(**SMALL, dropout=0.0, training=plan).fit(train, valid, ids)
    best = tiger.rank(test, 1).items[:, 0]
    assert (best == test.targets.flat()).mean() > 0.9


def test_reports_a_falling_loss_and_a_validation_score() -> None:
    data, seen = successors(300, 15, seed=0), []
    plan = Training(steps=60, batch_size=64, learning_rate=3e-3, warmup_steps=5, evaluate_every=20)
    tiger = Tiger(**SMALL, training=plan)
    tiger.fit(data, data, COLLIDING, on_step=lambda step, metrics: seen.append((step, dict(metrics))))
    assert [step for step, _ in seen] == [20, 40, 60]
    assert seen[-1][1]["loss"] < seen[0][1]["loss"]
    assert 0 <= seen[0][1]["valid"] <= 1


def test_every_target_of_a_query_is_learned_from() -> None:
    many = examples([[1, 2], [3]], [[4, 5], [6]])
    singly = examples([[1, 2], [1, 2], [3]], [[4], [5], [6]])
    left, right = (Tiger(**SMALL, training=BRIEF).fit(data, singly, COLLIDING) for data in (many, singly))
    assert_same(left.rank(singly, 15), right.rank(singly, 15))


@pytest.mark.parametrize("over_catalogue", [False, True])
def test_the_loss_is_the_mean_cross_entropy_of_a_levels_own_codes(over_catalogue: bool) -> None:
    tiger, seen = fitted(), []
    data = successors(60, 15, seed=0)
    plan = Training(steps=1, batch_size=60, learning_rate=1e-30, evaluate_every=1)
    model, loss = tiger.model, 0.0
    for history, target in zip(range(60), data.targets.flat(), strict=True):
        codes = COLLIDING.codes[data.history[history][-SMALL["max_history"] :]] + [1, 6, 9]
        written = COLLIDING.codes[target]
        inputs = torch.tensor([[0, *(written[:2] + np.array([1, 6]))]])
        with torch.no_grad():
            hidden = model.decode(inputs, model.encode(torch.from_numpy(codes.reshape(1, -1))))
            for level, block in enumerate([slice(1, 6), slice(6, 9), slice(9, 11)]):
                logits = model.logits(hidden[0, level], block)
                if over_catalogue:
                    catalogue = COLLIDING.codes[(COLLIDING.codes[:, :level] == written[:level]).all(axis=1)]
                    gone = set(range(len(logits))) - set(catalogue[:, level].tolist())
                    logits[list(gone)] = -torch.inf
                log_p = logits.log_softmax(dim=0)
                loss -= log_p[written[level]].item() / (60 * 3)
    again = Tiger(**SMALL | {"training": plan, "dropout": 0.0, "over_catalogue": over_catalogue})
    again.build = lambda facts, build=again.build: (
        build(facts),
        again.model.load_state_dict(model.state_dict()),
    )
    again.fit(data, data, COLLIDING, on_step=lambda step, metrics: seen.append(metrics["loss"]))
    assert seen == [pytest.approx(loss, rel=1e-5)]  # although the batch was worked through in parts


def test_ranks_each_item_of_the_catalogue_once() -> None:
    ranking = fitted().rank(successors(40, 15, seed=1), 15)
    assert np.sort(ranking.items, axis=1).tolist() == [list(range(15))] * 40
    assert np.isfinite(ranking.scores).all()
    assert (np.diff(ranking.scores, axis=1) <= 0).all()


def test_items_that_share_an_id_share_its_score_and_all_appear() -> None:
    ranking = fitted().rank(successors(10, 15, seed=1), 15)
    for items, scores in zip(ranking.items, ranking.scores, strict=True):
        at = {item: place for place, item in enumerate(items.tolist())}
        places = [at[item] for item in COLLIDING.items_by_leaf.tolist() if item in {0, 5, 10}]
        assert places == list(range(places[0], places[0] + 3))  # in the order of their digits
        assert len(set(scores[places].tolist())) == 1


def test_an_id_that_all_items_share_tells_nothing() -> None:
    ids = SemanticIds(np.zeros((15, 2), dtype=np.int64), (4, 4))
    ranking = fitted(ids).rank(successors(30, 15, seed=1), 15)
    assert (ranking.items == ids.items_by_leaf).all()


def test_scores_are_log_probabilities_of_leaves() -> None:
    full = SemanticIds(np.array(list(np.ndindex(3, 4))), (3, 4))
    ranking = fitted(full).rank(successors(5, 12, seed=1), 12)
    assert np.exp(ranking.scores).sum(axis=1) == pytest.approx(np.ones(5), rel=1e-5)


def test_over_the_catalogue_scores_of_its_leaves_add_up_to_one() -> None:
    ranking = fitted(over_catalogue=True).rank(successors(5, 15, seed=1), 15)
    of_leaves = [np.unique(scores).astype(np.float64) for scores in ranking.scores]
    assert [np.exp(scores).sum() for scores in of_leaves] == pytest.approx([1.0] * 5, rel=1e-5)
    paper = fitted().rank(successors(5, 15, seed=1), 15)
    assert all(np.exp(np.unique(scores)).sum() < 0.99 for scores in paper.scores)


def test_as_many_items_as_are_asked_for_whatever_the_beam() -> None:
    ids = SemanticIds(np.array(list(np.ndindex(4, 5))), (4, 5))
    tiger, queries = fitted(ids, search={"beam": 3}), successors(7, 20, seed=1)
    for k in (2, 7, 20):
        ranking = tiger.rank(queries, k)
        assert all(len(set(row) - {-1}) == k for row in ranking.items.tolist())
    ranking = tiger.rank(queries, 18, exclude_seen=True)
    assert (
        (ranking.items >= 0).sum(axis=1)
        == [min(18, 20 - len(set(h.tolist()))) for h in map(queries.history.__getitem__, range(7))]
    ).all()


def test_an_exact_search_finds_what_a_wide_beam_does() -> None:
    ids = SemanticIds(np.array(list(np.ndindex(9, 8, 7))), (9, 8, 7))
    queries = successors(30, 504, seed=1)
    wide, narrow, exact = (
        fitted(ids, search=search) for search in ({"beam": 504}, {"beam": 2}, {"beam": 2, "exact": True})
    )
    likeliest = wide.rank(queries, 10).items
    np.testing.assert_array_equal(exact.rank(queries, 10).items, likeliest)
    found = narrow.rank(queries, 10).items
    missed = [
        len(set(best) - set(some)) / 10 for best, some in zip(likeliest.tolist(), found.tolist(), strict=True)
    ]
    assert np.mean(missed) > 0  # of a model as good as untrained a beam of 10 loses something
    assert narrow.diagnostics(queries, 10) == {
        "certified": 1.0,
        "search_error_at_10": pytest.approx(np.mean(missed)),
    }
    assert wide.diagnostics(queries, 10) == {"certified": 1.0, "search_error_at_10": 0.0}
    assert exact.diagnostics(queries, 10) == {"certified": 1.0}


def test_a_ranking_depends_on_nobody_else() -> None:
    ids = SemanticIds(np.array(list(np.ndindex(4, 5, 3))), (4, 5, 3))
    tiger = fitted(ids, search={"beam": 2})
    few = successors(30, 60, seed=1)
    long = [*map(few.history.__getitem__, range(30)), np.arange(40)]
    more = examples([row.tolist() for row in long], [[0]] * 31)
    for exclude_seen in (False, True):
        alone = tiger.rank(few, 5, exclude_seen=exclude_seen)
        beside = tiger.rank(more, 5, exclude_seen=exclude_seen)
        np.testing.assert_array_equal(alone.items, beside.items[:30])


@pytest.mark.slow
def test_a_user_token_tells_users_apart_by_a_hash_of_their_ids() -> None:
    users = [f"u{i:04d}" for i in range(40)]
    train = examples([[1, 2]] * 40, [[1 + i % 2 * 8] for i in range(40)])
    plan = Training(steps=150, batch_size=40, learning_rate=1e-2, warmup_steps=10, evaluate_every=50)
    tiger = Tiger(**SMALL, dropout=0.0, user_tokens=1000, training=plan).fit(train, train, COLLIDING)
    assert len({zlib.crc32(user.encode()) % 1000 for user in users}) > 35
    assert (tiger.rank(train, 1).items[:, 0] == train.targets.flat()).mean() > 0.9
    backwards = train.select(np.arange(40)[::-1])
    np.testing.assert_array_equal(tiger.rank(backwards, 5).items[::-1], tiger.rank(train, 5).items)


def test_seen_items_can_be_left_out() -> None:
    queries = examples([[3, 4, 5, 6, 7, 8], [1]], [[9], [2]])
    ranking = fitted().rank(queries, 9, exclude_seen=True)
    assert set(ranking.items[0].tolist()) == set(range(15)) - {3, 4, 5, 6, 7, 8}
    assert 1 not in ranking.items[1]


def test_only_the_latest_items_are_read() -> None:
    tiger = fitted()  # reads four items
    long, short = examples([[9, 8, 7, 1, 2, 3, 4]], [[5]]), examples([[1, 2, 3, 4]], [[5]])
    assert_same(tiger.rank(long, 10), tiger.rank(short, 10))
    reversed_ = tiger.rank(examples([[4, 3, 2, 1]], [[5]]), 10)
    assert (reversed_.scores != tiger.rank(short, 10).scores).any()


def test_a_query_is_answered_alike_alone_and_among_others() -> None:
    tiger, queries = fitted(), successors(80, 15, seed=1)
    together = tiger.candidates(queries, 15)
    for row in range(0, 80, 16):
        alone = tiger.candidates(queries.select(slice(row, row + 1)), 15)
        np.testing.assert_allclose(together.scores[row], alone.scores[0], rtol=0, atol=1e-5)


def test_an_empty_history_gets_an_answer_of_its_own() -> None:
    tiger = fitted()
    alone = tiger.rank(examples([[]], [[1]]), 15)
    beside = tiger.rank(examples([[], [1, 2, 3]], [[1], [1]]), 15)
    assert sorted(alone.items[0].tolist()) == list(range(15))
    np.testing.assert_allclose(alone.scores[0], beside.scores[0], rtol=0, atol=1e-5)


def test_no_queries_get_no_answers() -> None:
    assert fitted().candidates(successors(5, 15, seed=1).select(slice(0, 0)), 4).items.shape == (0, 4)


def test_what_is_loaded_answers_as_what_was_saved(tmp_path: Path) -> None:
    tiger, queries = fitted(), successors(20, 15, seed=1)
    tiger.save(tmp_path)
    loaded = Retriever.load(tmp_path)
    assert isinstance(loaded, Tiger)
    assert loaded.params() == tiger.params()
    assert loaded.training == BRIEF
    assert_same(loaded.rank(queries, 15), tiger.rank(queries, 15))


def test_the_seed_decides_everything_and_leaves_the_global_state_alone() -> None:
    queries = successors(20, 15, seed=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fitted(seed=1).rank(queries, 15)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert_same(fitted(seed=1).rank(queries, 15), first)
    assert (fitted(seed=2).rank(queries, 15).scores != first.scores).any()
