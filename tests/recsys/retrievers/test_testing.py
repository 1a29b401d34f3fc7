"""`check_retriever` accepts what keeps the contract, and names each fault with what to do."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from recsys.retrievers import testing
from recsys.retrievers.registry import RETRIEVERS
from recsys.retrievers.testing import CHECKS, check_retriever
from semantic_ids.errors import ContractError

MODULE = '''
import numpy as np
import torch

from recsys.examples import Ranking
from recsys.retrievers.base import Retriever


class Counting(Retriever):
    """Keeps the contract: the most popular items of the training sequences."""

    uses_ids = is_random = scores_are_logits = False

    def __init__(self, power=1.0):
        self.power = power

    def learn(self, data, context):
        counts = np.bincount(data.train.sequences().flat(), minlength=data.ids.num_items)
        self.counts = torch.from_numpy(counts**self.power)
        context.report(1, {"most": float(counts.max())})

    def scores(self, queries):
        return np.tile(self.counts.numpy().astype(np.float32), (len(queries), 1))

    def candidates(self, queries, width):
        scores = self.scores(queries)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        return Ranking(best, np.take_along_axis(scores, best, axis=1))


class ReturnsNothing(Counting):
    def fit(self, *arguments, **options):
        super().fit(*arguments, **options)


class DoublesScores(Counting):
    def candidates(self, queries, width):
        ranking = super().candidates(queries, width)
        return Ranking(ranking.items, ranking.scores.astype(np.float64))


class RepeatsItems(Counting):
    def candidates(self, queries, width):
        ranking = super().candidates(queries, width)
        return Ranking(np.repeat(ranking.items[:, ::2], 2, axis=1)[:, :width], ranking.scores)


class RanksBackwards(Counting):
    def candidates(self, queries, width):
        ranking = super().candidates(queries, width)
        return Ranking(ranking.items[:, ::-1].copy(), ranking.scores[:, ::-1].copy())


class ScoresNan(Counting):
    def scores(self, queries):
        return super().scores(queries) * np.nan


class LooksAtOthers(Counting):
    def scores(self, queries):
        return super().scores(queries) * (1 + np.arange(len(queries), dtype=np.float32)[:, None])


class GivesTooFew(Counting):
    def candidates(self, queries, width):
        return super().candidates(queries, min(width, 8))


class NeedsHistory(Counting):
    def candidates(self, queries, width):
        ranking = super().candidates(queries, width)
        empty = (queries.history.lengths == 0)[:, None]
        return Ranking(np.where(empty, -1, ranking.items), np.where(empty, -np.inf, ranking.scores))


class DrawsGlobally(Counting):
    is_random = True

    def learn(self, data, context):
        super().learn(data, context)
        self.counts = self.counts + torch.rand(len(self.counts))


class IsRandomAfterAll(Counting):
    def learn(self, data, context):
        super().learn(data, context)
        generator = torch.Generator().manual_seed(context.seed)
        self.counts = self.counts + torch.rand(len(self.counts), generator=generator)


class ChangesHistories(Counting):
    def candidates(self, queries, width):
        queries.history.values[:] = 0
        return super().candidates(queries, width)


class UsesCodes(Counting):
    def learn(self, data, context):
        super().learn(data, context)
        self.counts = self.counts + torch.from_numpy(data.ids.codes[:, 0])


class ChangesItsArgument(Counting):
    def __init__(self, power=1.0):
        self.power = 2 * power


class ForgetsOnDisk(Counting):
    def learn(self, data, context):
        super().learn(data, context)
        self._bonus = 1.0

    def scores(self, queries):
        return super().scores(queries) + getattr(self, "_bonus", 0.0)


class RemembersTheFirstFit(Counting):
    counts = None

    def learn(self, data, context):
        if self.counts is None:
            super().learn(data, context)


class OneRowShort(Counting):
    def candidates(self, queries, width):
        ranking = super().candidates(queries, width)
        return Ranking(ranking.items[:-1], ranking.scores[:-1])


class ShortItems(Counting):
    def candidates(self, queries, width):
        ranking = super().candidates(queries, width)
        return Ranking(ranking.items.astype(np.int32), ranking.scores)


class CountsFromOne(Counting):
    def candidates(self, queries, width):
        ranking = super().candidates(queries, width)
        return Ranking(ranking.items * 0 + 40 - np.arange(width), ranking.scores)


class ScoresMissing(Counting):
    def candidates(self, queries, width):
        ranking = super().candidates(queries, width)
        ranking.items[:, -1:] = -1
        return ranking


class PadsWithNothing(Counting):
    def candidates(self, queries, width):
        ranking = super().candidates(queries, width)
        ranking.items[:, 8:], ranking.scores[:, 8:] = -1, -np.inf
        return ranking


class DiagnosesOddly(Counting):
    def diagnostics(self, queries, width):
        return {"recall@10": 0.5}


class ReportsOddly(Counting):
    def learn(self, data, context):
        super().learn(data, context)
        context.report(1, {"loss (val)": 1.0})


class DiagnosesNan(Counting):
    def diagnostics(self, queries, width):
        return {"share": float("nan")}


class ReportsTensors(Counting):
    def learn(self, data, context):
        super().learn(data, context)
        context.report(1, {"loss": torch.tensor(1.0)})
'''


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("retrievers")
    (folder / "made_up_retrievers.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("made_up_retrievers")
    sys.path.remove(str(folder))
    del sys.modules["made_up_retrievers"]


def test_a_retriever_that_keeps_the_contract_passes_every_check(module: ModuleType) -> None:
    assert check_retriever(module.Counting) == {check.__name__: "passed" for check in CHECKS}


@pytest.mark.parametrize(
    ("fault", "check", "advice"),
    [
        ("ReturnsNothing", "fit_returns_the_retriever", "leave fit as it is"),
        ("DoublesScores", "candidates_are_rankings", "int64 items and float64 scores for"),
        ("RepeatsItems", "candidates_are_rankings", "an item twice in 30 rankings for 30 queries"),
        ("RanksBackwards", "candidates_are_rankings", "scores that rise along a ranking"),
        (
            "OneRowShort",
            "candidates_are_rankings",
            "items of shape (29, 8) and scores of shape (29, 8) for 30",
        ),
        ("ShortItems", "candidates_are_rankings", "returned int32 items"),
        ("CountsFromOne", "candidates_are_rankings", "items from 33 to 40"),
        ("ScoresMissing", "candidates_are_rankings", "item -1 and score -inf at different places"),
        (
            "ScoresNan",
            "candidates_are_rankings",
            "scores that are NaN for 30 queries, width 8 and 40 items; ret",
        ),
        ("LooksAtOthers", "the_query_alone_decides", "let the query alone decide"),
        ("GivesTooFew", "seen_items_are_left_out", "items of shape"),
        ("PadsWithNothing", "seen_items_are_left_out", "as many items as asked for"),
        ("NeedsHistory", "empty_histories_are_answered", "rank by popularity"),
        ("DrawsGlobally", "the_seed_alone_decides", "context.seed"),
        ("DrawsGlobally", "the_global_random_state_is_left_alone", "global random state"),
        ("IsRandomAfterAll", "a_retriever_that_is_not_random_ignores_the_seed", "set is_random = True"),
        ("ChangesHistories", "the_data_are_left_alone", "work on copies"),
        ("UsesCodes", "baselines_ignore_the_codes", "set uses_ids = True"),
        ("ChangesItsArgument", "arguments_are_kept", "an attribute of its name"),
        ("ForgetsOnDisk", "a_loaded_retriever_is_the_same", "without _ before their names"),
        ("RemembersTheFirstFit", "fitting_again_forgets", "learn all anew"),
        ("DiagnosesNan", "diagnostics_are_numbers_or_texts", "give finite numbers or texts"),
        ("DiagnosesOddly", "diagnostics_are_numbers_or_texts", "the name 'recall@10'; use up to 200 of the"),
        (
            "ReportsOddly",
            "on_step_gets_a_step_and_its_metrics",
            "the name 'loss (val)'; use up to 200 of the",
        ),
        ("ReportsTensors", "on_step_gets_a_step_and_its_metrics", "loss.item()"),
    ],
)
def test_a_fault_is_named_with_what_to_do(module: ModuleType, fault: str, check: str, advice: str) -> None:
    make = getattr(module, fault)
    with pytest.raises((AssertionError, ContractError)) as caught:
        getattr(testing, check)(make)
    assert advice in str(caught.value)
    getattr(testing, check)(module.Counting)  # the same check passes without the fault


def test_nan_scores_are_refused_in_every_ranking(module: ModuleType) -> None:
    retriever, data = module.ScoresNan(), testing.made_up_examples(with_texts=False)
    retriever.fit(data.train, data.valid, testing._ids())
    with pytest.raises(ContractError, match=r"ScoresNan.candidates returned scores that are NaN for \d+ que"):
        retriever.rank(data.test, 3)


def test_what_is_no_retriever_is_refused() -> None:
    with pytest.raises(TypeError, match=r"does not give a recsys\.retrievers\.base\.Retriever"):
        check_retriever(Path)  # type: ignore[arg-type]


QUICK = {"training": {"steps": 4, "batch_size": 16, "evaluate_every": 2}}
SMALL = {"width": 8, "heads": 1, "feed_forward": 8, **QUICK}
ARGUMENTS = {
    "sasrec": SMALL,
    "dual-encoder": SMALL,
    "tiger": {**SMALL, "layers": 1, "head_width": 8, "search": {"beam": 12}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RETRIEVERS.builtin if name != "ensemble"])
def test_every_retriever_of_ours_keeps_the_contract(name: str) -> None:
    found = check_retriever(partial(RETRIEVERS.load(name), **ARGUMENTS.get(name, {})))
    assert not [check for check, result in found.items() if not result.startswith(("passed", "skipped"))]
