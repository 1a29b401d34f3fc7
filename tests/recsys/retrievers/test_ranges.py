"""Every number of every retriever is refused by name where it is out of range, or works."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from recsys.retrievers.base import Retriever
from recsys.retrievers.registry import RETRIEVERS
from recsys.retrievers.testing import _ids, _texts, made_up_examples
from recsys.retrievers.tiger import Search
from recsys.training.loop import Training

WRONG = (-1, 0, 0.5, 7, 1e30, 10**30, 10**9, -1e-3, math.nan, math.inf, -math.inf, True, "1", None)
QUICK = {"steps": 2, "batch_size": 16, "evaluate_every": 2}
SMALL = {"width": 8, "layers": 1, "heads": 2, "head_width": 4, "feed_forward": 8, "training": QUICK}


def numbers_of(function: Any) -> Iterator[str]:
    """Yield the names of the parameters whose defaults are numbers, but not bools."""
    for parameter in inspect.signature(function).parameters.values():
        if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
            yield parameter.name


PARTS = [
    *((kind, number, ()) for kind in RETRIEVERS.builtin for number in numbers_of(RETRIEVERS.load(kind))),
    *(("sasrec", number, ("training",)) for number in numbers_of(Training)),
    *(("tiger", number, ("search",)) for number in numbers_of(Search)),
]


def fitted(kind: str, params: Mapping[str, Any]) -> Retriever:
    """Return a retriever fitted on a made-up catalogue of 40 items."""
    retriever = RETRIEVERS.load(kind)(**params)
    data = made_up_examples(with_texts=retriever.needs_query_texts)
    if retriever.takes_members:
        popular = RETRIEVERS.load("popularity")()
        retriever.members = {"popular": popular.fit(data.train, data.valid, _ids())}
    return retriever.fit(data.train, data.valid, _ids(), texts=_texts())


def test_all_kinds_of_numbers_are_walked_over() -> None:
    names = {number for _, number, _ in PARTS}
    assert names >= {
        "steps",
        "learning_rate",
        "max_history",
        "temperature",
        "heads",
        "dropout",
        "beam",
        "decay",
    }
    assert names >= {
        "clip_norm",
        "patience",
        "warmup_steps",
        "k1",
        "window",
        "depth",
        "text_tokens",
        "content",
    }


@pytest.mark.parametrize(
    ("kind", "number", "group"), PARTS, ids=[f"{kind}-{name}" for kind, name, _ in PARTS]
)
def test_a_number_out_of_range_is_named_or_works(kind: str, number: str, group: tuple[str, ...]) -> None:
    known = inspect.signature(RETRIEVERS.load(kind)).parameters
    small = {name: value for name, value in SMALL.items() if name in known}
    for value in WRONG:
        if number == "steps" and value == 10**9:
            continue  # this only takes long
        given = {number: value}
        for name in group:
            given = {name: {**small.get(name, {}), **given}}
        refusal = ""
        try:
            retriever = fitted(kind, {**small, **given})
            test = made_up_examples(with_texts=retriever.needs_query_texts).test
            assert retriever.rank(test, 3).items.shape == (30, 3)
        except ValueError as error:
            refusal = str(error)
        assert number in refusal or not refusal, (value, refusal)
        works = type(value) in (int, float) and math.isfinite(value) and value >= 0
        assert refusal or works, value


@pytest.mark.parametrize("k", [0, -1, 2.0, None])
def test_rankings_have_a_length(k: object) -> None:
    retriever = fitted("popularity", {})
    with pytest.raises(ValueError, match=r"^k must be a whole number from 1 to"):
        retriever.rank(made_up_examples(with_texts=False).test, k)  # type: ignore[arg-type]


def test_a_seed_is_a_whole_number() -> None:
    data = made_up_examples(with_texts=False)
    with pytest.raises(ValueError, match=r"^seed must be a whole number from 0 to"):
        RETRIEVERS.load("popularity")().fit(data.train, data.valid, _ids(), seed=-1)
