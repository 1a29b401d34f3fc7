"""Check that a retriever keeps the contract of :class:`~recsys.retrievers.base.Retriever`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory

import numpy as np

from recsys.examples import Examples, QueryTexts, Ragged, Ranking
from recsys.retrievers.base import Retriever, is_seen
from recsys.splits import Sequences, Split, leave_one_out
from semantic_ids.contract import (
    Skip,
    draw_random_state,
    expect,
    expect_arguments_kept,
    expect_name,
    expect_reports,
    run_checks,
    run_in_fresh_process,
    set_random_state,
)
from semantic_ids.ids import SemanticIds

Make = Callable[[], Retriever]
"""Returns a new, unfitted retriever: a class whose arguments all have defaults, or a function."""

NUM_ITEMS = 40
_WORDS = ("red", "green", "blue", "soap", "brush", "tent", "stove", "rope")


def check_retriever(make: Make) -> dict[str, str]:
    """Check everything that the benchmark relies on, with a small made-up catalogue.

    Call it in the tests of your own retriever.

    Args:
        make: ``MyRetriever``, or a function with arguments that make it quick, such as
            ``partial(MyRetriever, training={"steps": 20, "evaluate_every": 10})``.

    Returns:
        Name of each check in :data:`CHECKS` to ``passed``, or to ``skipped: `` and the reason.

    Raises:
        AssertionError: If a check failed. The message names every check that did, and what to do.
        TypeError: If ``make`` returns no retriever.

    Example:
        >>> from recsys.retrievers.popularity import Popularity
        >>> check_retriever(Popularity)["candidates_are_rankings"]
        'passed'
    """
    if not isinstance(make(), Retriever):
        raise TypeError(f"{make!r} does not give a recsys.retrievers.base.Retriever")
    return run_checks(CHECKS, make)


def fit_returns_the_retriever(make: Make) -> None:
    """Check that ``fit`` returns self, so that ``MyRetriever().fit(...).rank(...)`` works."""
    retriever, data = make(), _data(make)
    fitted = retriever.fit(data.train, data.valid, _ids(), texts=_texts(), seed=3)
    expect(fitted is retriever, "write learn(self, data, context) and leave fit as it is")


def candidates_are_rankings(make: Make) -> None:
    """Check that ``candidates`` gives rankings of the catalogue's items, also for no query and for all items.

    Rankings are ``(Q, width)`` int64 items, each once, with float32 scores that fall, and item -1 with score
    -inf where there is no further item.
    """
    retriever, queries = _fitted(make), _data(make).test
    retriever.prepare()
    for some, width in ((queries, 7), (queries.select(np.arange(0)), 7), (queries, NUM_ITEMS)):
        retriever.checked_candidates(some, width)


def fewer_candidates_than_asked_for(make: Make) -> None:
    """Check that a ranking longer than the catalogue is padded."""
    ranking = _fitted(make).rank(_data(make).test, NUM_ITEMS + 5)
    good = (ranking.items[:, -5:] == -1).all()
    expect(good, f"a ranking of {NUM_ITEMS + 5} over {NUM_ITEMS} items must end with five times -1")


def the_query_alone_decides(make: Make) -> None:
    """Check that a query gets the same items asked again, in another order, and alone."""
    retriever, queries = _fitted(make), _data(make).test
    ranking = retriever.rank(queries, 8)
    backwards = np.arange(len(queries))[::-1]
    again = {
        "the second time": retriever.rank(queries, 8),
        "in another order": _reordered(retriever.rank(queries.select(backwards), 8), backwards),
        "when asked alone": _stacked([retriever.rank(queries.select(np.array([i])), 8) for i in range(6)]),
    }
    for when, other in again.items():
        _expect_same(ranking, other, f"a query got another ranking {when}; let the query alone decide")


def seen_items_are_left_out(make: Make) -> None:
    """Check that ``exclude_seen`` leaves no item of the own history in, and full rankings."""
    queries = _data(make).test
    ranking = _fitted(make).rank(queries, 8, exclude_seen=True)
    expect(not is_seen(ranking.items, queries).any(), "exclude_seen left items of the own history in")
    full = (ranking.items >= 0).all()
    expect(full, "with exclude_seen rankings became short; candidates must give as many items as asked for")


def empty_histories_are_answered(make: Make) -> None:
    """Check that a query without a history gets a ranking."""
    queries = _data(make).test
    empty = replace(queries, history=Ragged.from_rows([[]] * len(queries)))
    ranking = _fitted(make).rank(empty, 5)
    expect((ranking.items >= 0).all(), "an empty history got no full ranking; rank by popularity")


def the_seed_alone_decides(make: Make) -> None:
    """Check that two fits with one seed agree, whatever the global random state."""
    rankings = []
    for state in (1, 2):
        set_random_state(state)
        rankings.append(_fit(make).rank(_data(make).test, 8))
    _expect_same(rankings[0], rankings[1], f"two fits with one seed gave different rankings; {_DRAW}")


def a_retriever_that_is_not_random_ignores_the_seed(make: Make) -> None:
    """Check that ``is_random = False`` is true; a benchmark then fits it for one seed only."""
    if make().is_random:
        raise Skip("is_random is true")
    other = _fit(make, seed=4).rank(_data(make).test, 8)
    _expect_same(_ranking(make), other, "another seed gave another ranking; set is_random = True")


def the_global_random_state_is_left_alone(make: Make) -> None:
    """Check that fitting changes no global random state, so that the order of a benchmark's steps is free."""
    set_random_state(1)
    expected = draw_random_state()
    set_random_state(1)
    _fit(make).rank(_data(make).test, 3)
    expect(draw_random_state() == expected, f"fit or rank changed the global random state; {_DRAW}")


def the_data_are_left_alone(make: Make) -> None:
    """Check that the examples are not changed, because all retrievers of a benchmark share them."""
    data = _new_data(make)
    before = [part.digest() for part in (data.train, data.valid, data.test)]
    retriever = make().fit(data.train, data.valid, _ids(), texts=_texts(), seed=3)
    retriever.rank(data.test, 5, exclude_seen=True)
    after = [part.digest() for part in (data.train, data.valid, data.test)]
    expect(before == after, "fit or rank changed the examples; work on copies")


def baselines_ignore_the_codes(make: Make) -> None:
    """Check that ``uses_ids = False`` is true; a benchmark then fits it once for all tokenizers."""
    if make().uses_ids:
        raise Skip("uses_ids is true")
    shuffled = SemanticIds(np.random.default_rng(1).permutation(_ids().codes), _ids().codebook_sizes)
    other = _fit(make, ids=shuffled).rank(_data(make).test, 8)
    _expect_same(_ranking(make), other, "other codes gave another ranking; set uses_ids = True")


def arguments_are_kept(make: Make) -> None:
    """Check that ``params()`` returns JSON values that construct the same retriever again."""
    expect_arguments_kept(make)


def a_loaded_retriever_is_the_same(make: Make) -> None:
    """Check that a loaded retriever gives the same rankings."""
    retriever = _fitted(make)
    with TemporaryDirectory() as folder:
        retriever.save(folder)
        loaded = Retriever.load(folder)
    _expect_same(_ranking(make), loaded.rank(_data(make).test, 8), f"a loaded one ranks otherwise; {_KEEP}")


def a_fresh_process_can_load_it(make: Make) -> None:
    """Check that another process can load the saved retriever and gives the same rankings."""
    with TemporaryDirectory() as folder:
        _fitted(make).save(folder)
        items, scores = run_in_fresh_process(_LOAD, folder)
    other = Ranking(np.array(items), np.array(scores, dtype=np.float32))
    _expect_same(_ranking(make), other, f"a fresh process that loaded it ranks otherwise; {_KEEP}")


def fitting_again_forgets(make: Make) -> None:
    """Check that a second fit equals a first one."""
    data = _data(make)
    few = data.train.select(np.arange(len(data.train) // 2))
    retriever = make().fit(few, data.valid, _ids(), texts=_texts(), seed=5)
    again = retriever.fit(data.train, data.valid, _ids(), texts=_texts(), seed=3).rank(data.test, 8)
    _expect_same(_ranking(make), again, "a second fit ranks otherwise than a first one; learn all anew")


def diagnostics_are_numbers_or_texts(make: Make) -> None:
    """Check that ``diagnostics`` returns names that MLflow takes, with finite numbers or texts."""
    retriever = _fitted(make)
    retriever.prepare()
    for name, value in retriever.diagnostics(_data(make).test, 8).items():
        good = isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))
        expect(good, f"diagnostics gave {name!r}: {value!r}; give finite numbers or texts")
        expect_name(name, "diagnostics gave")


def on_step_gets_a_step_and_its_metrics(make: Make) -> None:
    """Check that ``context.report`` gets an int and finite numbers, with names that MLflow takes."""
    calls: list[tuple[int, Mapping[str, float]]] = []
    data = _data(make)
    make().fit(
        data.train,
        data.valid,
        _ids(),
        texts=_texts(),
        on_step=lambda step, metrics: calls.append((step, metrics)),
    )
    expect_reports(calls, "learn")
    if not calls:
        raise Skip("learn did not report a step, here at least")


CHECKS: tuple[Callable[[Make], None], ...] = (
    fit_returns_the_retriever,
    candidates_are_rankings,
    fewer_candidates_than_asked_for,
    the_query_alone_decides,
    seen_items_are_left_out,
    empty_histories_are_answered,
    the_seed_alone_decides,
    a_retriever_that_is_not_random_ignores_the_seed,
    the_global_random_state_is_left_alone,
    the_data_are_left_alone,
    baselines_ignore_the_codes,
    arguments_are_kept,
    a_loaded_retriever_is_the_same,
    a_fresh_process_can_load_it,
    fitting_again_forgets,
    diagnostics_are_numbers_or_texts,
    on_step_gets_a_step_and_its_metrics,
)

_DRAW = "draw from a generator with context.seed, or learn in: with semantic_ids.randomness.seeded(seed)"
_KEEP = "keep all that candidates uses in attributes of self, without _ before their names"
_LOAD = """import json, sys; from recsys.retrievers import testing
from recsys.retrievers.base import Retriever
from semantic_ids.contract import import_class_of
import_class_of(sys.argv[1])
retriever = Retriever.load(sys.argv[1])
queries = testing.made_up_examples(with_texts=retriever.needs_query_texts).test
ranking = retriever.rank(queries, 8)
print(json.dumps([ranking.items.tolist(), ranking.scores.tolist()]))"""


def made_up_examples(*, with_texts: bool) -> Split:
    """Return the examples that retrievers are checked with: 30 users, 40 items, some regularity.

    Args:
        with_texts: Whether queries have texts.
    """
    rng = np.random.default_rng(0)
    starts = rng.integers(NUM_ITEMS, size=30)
    rows = [
        [int(start + step * (1 + step % 2)) % NUM_ITEMS for step in range(5 + user % 6)]
        for user, start in enumerate(starts)
    ]
    users = np.array([f"u{user:02d}" for user in range(len(rows))])
    split = leave_one_out(Sequences(users, Ragged.from_rows(rows)))
    if not with_texts:
        return split
    texts = QueryTexts(list(_WORDS), np.eye(len(_WORDS), dtype=np.float32))

    def asked(examples: Examples) -> Examples:
        return replace(examples, texts=texts, text_rows=np.arange(len(examples)) % len(_WORDS))

    return Split(asked(split.train), asked(split.valid), asked(split.test))


def _data(make: Make) -> Split:
    return _cached_examples(make().needs_query_texts)


def _new_data(make: Make) -> Split:
    return made_up_examples(with_texts=make().needs_query_texts)


@cache
def _cached_examples(with_texts: bool) -> Split:
    return made_up_examples(with_texts=with_texts)


def _ids() -> SemanticIds:
    """Return semantic IDs of two levels in which some items collide."""
    items = np.arange(NUM_ITEMS)
    return SemanticIds(np.stack([items // 8, items % 7], axis=1), (5, 7))


def _texts() -> list[str]:
    return [f"Title: {_WORDS[item % 8]} {_WORDS[item * 3 % 7]}" for item in range(NUM_ITEMS)]


def _fit(make: Make, *, seed: int = 3, ids: SemanticIds | None = None) -> Retriever:
    data = _data(make)
    return make().fit(data.train, data.valid, ids or _ids(), texts=_texts(), seed=seed)


_FITTED: dict[Make, tuple[Retriever, Ranking]] = {}
"""The retriever last checked, fitted once for all checks that only ask it."""


def _fitted_with_ranking(make: Make) -> tuple[Retriever, Ranking]:
    if make not in _FITTED:
        _FITTED.clear()
        retriever = _fit(make)
        _FITTED[make] = retriever, retriever.rank(_data(make).test, 8)
    return _FITTED[make]


def _fitted(make: Make) -> Retriever:
    return _fitted_with_ranking(make)[0]


def _ranking(make: Make) -> Ranking:
    return _fitted_with_ranking(make)[1]


def _reordered(ranking: Ranking, order: np.ndarray) -> Ranking:
    return Ranking(ranking.items[order], ranking.scores[order])


def _stacked(rankings: list[Ranking]) -> Ranking:
    items, scores = (np.concatenate([getattr(r, part) for r in rankings]) for part in ("items", "scores"))
    return Ranking(items, scores)


def _expect_same(one: Ranking, other: Ranking, otherwise: str) -> None:
    """Expect equal scores up to rounding; items of nearly equal scores may change places."""
    rows = min(len(one.items), len(other.items))
    a, b = (Ranking(r.items[:rows], r.scores[:rows]) for r in (one, other))
    close = np.isclose(a.scores, b.scores, rtol=1e-4, atol=1e-5)
    expect(close.all(), otherwise)
    differ = a.items != b.items
    near = np.zeros_like(differ)
    for shift in (-1, 1):
        near |= np.isclose(np.roll(a.scores, shift, axis=1), a.scores, rtol=1e-4, atol=1e-5)
    expect(not (differ & ~near).any(), otherwise)
