"""Queries in words: the retrievers that are trained on them, and the others among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, QueryTexts, Ragged, Ranking
from recsys.retrievers.base import Retriever
from recsys.retrievers.bm25 import Bm25
from recsys.retrievers.dual_encoder import DualEncoder
from recsys.retrievers.ensemble import Ensemble
from recsys.retrievers.knn import ContentKnn, ItemKnn, KnnSum
from recsys.retrievers.popularity import Popularity
from recsys.retrievers.sasrec import SasRec
from recsys.retrievers.tiger import Tiger
from recsys.retrievers.trained import TrainedRetriever
from recsys.retrievers.transitions import TransitionKnn
from recsys.training.batches import CausalPairs
from semantic_ids.ids import SemanticIds
from semantic_ids.types import Floats

# 64 items: item (a, b) has code (a, b) and the vector A[a] + B[b].
IDS = SemanticIds(np.array(list(np.ndindex(8, 8))), (8, 8))
FIRST, SECOND = np.random.default_rng(0).normal(size=(2, 8, 16))

PLAN = {"steps": 100, "batch_size": 64, "learning_rate": 1e-2, "warmup_steps": 20, "evaluate_every": 50}
LONGER = {**PLAN, "steps": 200}
BRIEF = {"steps": 3, "batch_size": 16, "learning_rate": 1e-2, "warmup_steps": 1, "evaluate_every": 2}


def tiger(**changes: Any) -> Tiger:
    sizes = {"width": 32, "layers": 1, "heads": 2, "head_width": 16, "feed_forward": 64, "max_history": 4}
    return Tiger(**sizes | {"search": {"beam": 20}, "dropout": 0.0, "training": PLAN} | changes)


def dual(**changes: Any) -> DualEncoder:
    sizes = {"width": 32, "layers": 1, "heads": 2, "feed_forward": 64, "max_history": 4}
    return DualEncoder(**sizes | {"dropout": 0.0, "training": PLAN} | changes)


both = pytest.mark.parametrize("make", [tiger, dual])


def unit(vectors: np.ndarray) -> Floats:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def search(
    vectors: np.ndarray,
    targets: list[list[int]],
    histories: list[list[int]] | None = None,
    gains: list[float] | None = None,
) -> Examples:
    """A query for each vector, the texts in another order than the queries."""
    count = len(targets)
    rows = np.random.default_rng(1).permutation(count)
    table = np.empty((count, vectors.shape[1]), dtype=np.float32)
    table[rows] = unit(vectors)
    flat = Ragged.from_rows(targets)
    return Examples(
        np.array([f"q{i:04d}" for i in range(count)]),
        Ragged.from_rows(histories or [[]] * count),
        flat,
        np.ones(len(flat.flat()), dtype=np.float32) if gains is None else np.array(gains, dtype=np.float32),
        QueryTexts([f"words {row}" for row in range(count)], table),
        rows,
    )


def noisy(rng: np.random.Generator, vectors: np.ndarray) -> np.ndarray:
    return vectors + rng.normal(scale=0.3, size=vectors.shape)


def by_item(count: int, seed: int) -> Examples:
    """Asks for random items by noisy copies of their vectors."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, 64, count)
    vectors = FIRST[items // 8] + SECOND[items % 8]
    return search(noisy(rng, vectors), [[item] for item in items.tolist()])


def by_half(count: int, seed: int) -> Examples:
    """Asks for item (a, b): the history's last item is one of (a, ·), and the text speaks of b alone."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 8, (2, count))
    histories = [
        [*rng.integers(0, 64, rng.integers(0, 3)).tolist(), int(a) * 8 + int(rng.integers(0, 8))]
        for a in first
    ]
    targets = [[item] for item in (first * 8 + second).tolist()]
    return search(noisy(rng, SECOND[second]), targets, histories)


def with_texts(examples: Examples, texts: QueryTexts | None, rows: np.ndarray | None) -> Examples:
    return Examples(examples.query_ids, examples.history, examples.targets, examples.gains, texts, rows)


def shuffled(examples: Examples) -> Examples:
    rows = np.random.default_rng(2).permutation(examples.text_rows)
    return with_texts(examples, examples.texts, rows)


def unasked(examples: Examples) -> Examples:
    return with_texts(examples, None, None)


def recall(retriever: Retriever, queries: Examples, k: int = 1) -> float:
    return float(per_query_scores(retriever.rank(queries, k), queries, [k])[f"recall_at_{k}"].mean())


def assert_same(left: Ranking, right: Ranking) -> None:
    np.testing.assert_array_equal(left.items, right.items)
    np.testing.assert_array_equal(left.scores, right.scores)


@pytest.mark.slow
@both
def test_an_item_is_found_by_its_text_and_by_nothing_else(make: Any) -> None:
    train, valid, test = by_item(1000, 0), by_item(50, 1), by_item(200, 2)
    retriever = make().fit(train, valid, IDS)
    assert recall(retriever, test) > 0.8
    assert recall(retriever, shuffled(test)) < 0.1
    astray = make().fit(shuffled(train), valid, IDS)
    assert recall(astray, test) < 0.1


@pytest.mark.slow
@both
def test_history_and_text_are_read_together(make: Any) -> None:
    retriever = make(training=LONGER).fit(by_half(1000, 0), by_half(50, 1), IDS)
    test = by_half(200, 2)
    assert recall(retriever, test) > 0.8
    assert recall(retriever, shuffled(test)) < 0.3
    alone = Ragged.from_rows([[]] * 200)
    wordy = Examples(test.query_ids, alone, test.targets, test.gains, test.texts, test.text_rows)
    assert recall(retriever, wordy) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [tiger, dual, lambda **changes: dual(mask_hits=True, **changes)], ids=["tiger", "dual", "masked"]
)
def test_all_targets_of_a_query_are_found(make: Any) -> None:
    def by_two(count: int, seed: int) -> Examples:
        """Asks for items 2n and 2n + 1 by the sum of their vectors."""
        rng = np.random.default_rng(seed)
        items = 2 * rng.integers(0, 32, count)
        vectors = 2 * FIRST[items // 8] + SECOND[items % 8] + SECOND[items % 8 + 1]
        targets = [[item, item + 1] for item in items.tolist()]
        return search(noisy(rng, vectors), targets, gains=[1.0, 0.1] * count)

    retriever = make().fit(by_two(1000, 0), by_two(50, 1), IDS)
    assert recall(retriever, by_two(100, 2), k=2) > 0.9


@both
def test_what_is_loaded_answers_as_what_was_saved(make: Any, tmp_path: Path) -> None:
    retriever = make(training=BRIEF).fit(by_half(60, 0), by_half(30, 1), IDS)
    retriever.save(tmp_path)
    loaded = Retriever.load(tmp_path)
    assert isinstance(loaded, TrainedRetriever)
    assert loaded.text_width == 16
    for queries in (by_half(40, 2), by_half(50, 3)):  # each with texts of its own
        assert_same(loaded.rank(queries, 64), retriever.rank(queries, 64))
    assert_same(loaded.rank(by_half(40, 2), 64), retriever.rank(by_half(40, 2), 64))


@both
def test_what_was_saved_before_queries_had_texts_is_loaded(make: Any, tmp_path: Path) -> None:
    retriever = make(training=BRIEF).fit(unasked(by_half(60, 0)), unasked(by_half(30, 1)), IDS)
    assert not any(name.startswith(("text.", "head.", "project.")) for name in retriever.model.state_dict())
    retriever.save(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    del description["facts"]["text_width"], description["digest"]
    description["params"].pop("text_tokens", None)
    (tmp_path / "model.json").write_text(json.dumps(description))
    queries = unasked(by_half(40, 2))
    assert_same(Retriever.load(tmp_path).rank(queries, 64), retriever.rank(queries, 64))


@both
def test_validation_by_other_texts_does_not_touch_training(make: Any) -> None:
    plan = {**BRIEF, "steps": 8, "evaluate_every": 4, "patience": 9}
    weights = []
    for valid in (by_item(30, 1), by_item(45, 2)):
        losses: list[float] = []
        retriever = make(training=plan)
        retriever.fit(by_item(60, 0), valid, IDS, on_step=lambda _, m, to=losses: to.append(m["loss"]))
        weights.append(losses)
    assert weights[0] == weights[1]


@both
def test_a_query_is_answered_alike_alone_and_among_others(make: Any) -> None:
    retriever, queries = make(training=BRIEF).fit(by_half(60, 0), by_half(30, 1), IDS), by_half(80, 2)
    together = retriever.rank(queries, 64)
    for row in range(0, 80, 16):
        alone = retriever.rank(queries.select(np.array([row])), 64)
        np.testing.assert_allclose(together.scores[row], alone.scores[0], rtol=0, atol=1e-5)


@both
def test_queries_of_another_kind_are_refused(make: Any) -> None:
    asked, unheard = by_half(60, 0), unasked(by_half(60, 0))
    narrow = with_texts(asked, QueryTexts(asked.texts.words, asked.texts.vectors[:, :5]), asked.text_rows)
    wordy, wordless = (make(training=BRIEF).fit(data, data, IDS) for data in (asked, unheard))
    for retriever, queries, message in (
        (wordy, unheard, "with texts of 16 numbers each, but asked queries with no texts"),
        (wordy, narrow, "with texts of 16 numbers each, but asked queries with texts of 5 numbers"),
        (wordless, asked, "with no texts, but asked queries with texts of 16 numbers each"),
    ):
        with pytest.raises(ValueError, match=message):
            retriever.rank(queries, 5)
    retriever = make()
    with pytest.raises(ValueError, match="asked queries with no texts"):
        retriever.fit(asked, unheard, IDS)
    assert not hasattr(retriever, "model")  # said before the training, not behind it


def test_the_source_of_tiger_is_text_then_history() -> None:
    retriever = tiger(training=BRIEF, text_tokens=3)
    retriever.fit(by_half(60, 0), by_half(30, 1), IDS)
    queries, model = by_half(5, 2), retriever.model
    ranking = retriever.rank(queries, 64)
    first_text = 1 + 8 + 8
    for row in range(5):
        text = first_text + 3 * int(queries.text_rows[row])
        codes = IDS.codes[queries.history[row]] + np.array([1, 9])
        model.texts = torch.from_numpy(queries.texts.vectors)
        source = torch.tensor([[text, text + 1, text + 2, *codes.flatten()]])
        best = IDS.codes[ranking.items[row, 0]]
        with torch.no_grad():
            hidden = model.decode(torch.tensor([[0, 1 + best[0]]]), model.encode(source))
            score = sum(
                model.logits(hidden[0, level], block).log_softmax(0)[best[level]]
                for level, block in enumerate([slice(1, 9), slice(9, 17)])
            )
        assert float(score) == pytest.approx(ranking.scores[row, 0], abs=1e-5)


def overlapping() -> Examples:
    """Two queries of one user, the history of one beginning that of the other; and two without any."""
    values = np.array([4, 5, 6])
    history = Ragged(values, np.array([0, 0, 0, 0]), np.array([1, 3, 0, 0]))
    words = QueryTexts(["one", "two", "three"], unit(np.random.default_rng(3).normal(size=(3, 16))))
    targets = Ragged.from_rows([[6, 7], [8], [9, 10], [6]])
    ids = np.array(["a", "a", "b", "c"])
    return Examples(ids, history, targets, np.ones(6, dtype=np.float32), words, np.array([2, 0, 1, 1]))


def test_queries_without_a_history_are_groups_of_their_own() -> None:
    device = torch.device("cpu")
    pairs = CausalPairs.from_examples(overlapping(), 20, device)
    items, at, numbers = pairs.batch(torch.arange(len(pairs)))
    asked = [
        (items[row, :length].tolist(), pairs.queries[n].item(), pairs.targets[n].item())
        for row, length, n in zip(*at.tolist(), numbers.tolist(), strict=True)
    ]
    assert sorted(asked) == [([], 2, 9), ([], 2, 10), ([], 3, 6), ([4], 0, 6), ([4], 0, 7), ([4, 5, 6], 1, 8)]
    groups = [set(pairs.queries[torch.from_numpy(pairs.pairs[g])].tolist()) for g in range(len(pairs))]
    assert sorted(groups, key=min) == [{0, 1}, {2}, {3}]
    assert len(CausalPairs.from_examples(unasked(overlapping()), 20, device)) == 1


@pytest.mark.parametrize("mask_hits", [False, True])
def test_negatives_of_the_dual_encoder_are_the_other_targets_of_a_batch(mask_hits: bool) -> None:
    train, seen = overlapping(), []
    plan = {"steps": 1, "batch_size": 10, "learning_rate": 1e-30, "evaluate_every": 1}
    retriever = dual(mask_hits=mask_hits, training=plan)
    retriever.fit(train, train, IDS, on_step=lambda step, metrics: seen.append(metrics["loss"]))
    model, leaves, loss = retriever.model, [6, 7, 8, 9, 10], 0.0
    with torch.no_grad():
        of_items = model.items(torch.from_numpy(IDS.codes[leaves]))
        for query in range(4):
            codes = torch.from_numpy(IDS.codes[train.history[query]]).view(1, -1, 2)
            text = torch.from_numpy(train.texts.vectors[[train.text_rows[query]]])
            state = model.reader(model.join(model.embed(codes + model.offsets).flatten(2)))[:, -1]
            vector = F.normalize(model.head(state + model.text(text)), dim=-1)
            logits = (vector @ of_items.T / retriever.temperature)[0]
            for target in train.targets[query].tolist():
                others = set(train.targets[query].tolist()) - {target} if mask_hits else set()
                kept = torch.tensor([leaf not in others for leaf in leaves])
                own = [leaf for leaf in leaves if leaf not in others].index(target)
                loss -= logits[kept].log_softmax(0)[own].item() / 6
    assert seen == [pytest.approx(loss, rel=1e-5)]


def test_a_checkpoint_is_kept_aside_where_texts_are_others(tmp_path: Path) -> None:
    class StopsError(Exception):
        pass

    def stop(step: int, metrics: object) -> None:
        raise StopsError

    data, file = by_item(60, 0), tmp_path / "checkpoint"
    with pytest.raises(StopsError):
        dual(training=BRIEF).fit(data, data, IDS, on_step=stop, checkpoint=file)
    with pytest.warns(RuntimeWarning, match="checkpoint of another training"):
        dual(training=BRIEF).fit(shuffled(data), data, IDS, checkpoint=file)
    assert [left.name for left in tmp_path.iterdir()] == ["checkpoint.other"]


@pytest.mark.parametrize("make", [Popularity, ItemKnn, ContentKnn, KnnSum, TransitionKnn])
def test_who_reads_histories_alone_answers_by_popularity_where_there_are_none(make: Any) -> None:
    train, test = by_item(300, 0), by_item(20, 2)
    texts = [f"first{a} second{b}" for a, b in IDS.codes.tolist()]
    ranking = make().fit(train, train, IDS, texts=texts).rank(test, 64)
    counts = np.bincount(train.targets.flat(), minlength=64)
    assert ranking.items.tolist() == [np.argsort(-counts, kind="stable").tolist()] * 20


def test_sasrec_answers_all_alike_where_there_are_no_histories() -> None:
    train, test = by_item(300, 0), by_item(20, 2)
    sasrec = SasRec(width=16, layers=1, heads=2, feed_forward=16, training=BRIEF).fit(train, train, IDS)
    ranking = sasrec.rank(test, 64)
    assert sorted(ranking.items[0].tolist()) == list(range(64))
    assert (ranking.items == ranking.items[0]).all()


def test_an_ensemble_joins_words_and_codes() -> None:
    def worded(examples: Examples) -> Examples:
        words = [""] * len(examples)
        for row, item in zip(examples.text_rows.tolist(), examples.targets.flat().tolist(), strict=True):
            words[row] = f"first{item // 8}"
        return with_texts(examples, QueryTexts(words, examples.texts.vectors), examples.text_rows)

    train, valid, test = (worded(by_half(count, seed)) for seed, count in enumerate((500, 200, 200)))
    texts = [f"first{a} second{b}" for a, b in IDS.codes.tolist()]
    ensemble = Ensemble(depth=64)
    plan = {**PLAN, "steps": 60, "evaluate_every": 30}
    ensemble.members = {
        name: member.fit(train, valid, IDS, texts=texts)
        for name, member in {"words": Bm25(), "towers": dual(training=plan)}.items()
    }
    ensemble.fit(train, valid, IDS)
    alone = [recall(member, test) for member in ensemble.members.values()]
    assert recall(ensemble, test) > max(alone)


def test_user_tokens_are_refused_where_examples_are_queries() -> None:
    with pytest.raises(ValueError, match="queries have ids of their own"):
        Tiger(user_tokens=8).fit(by_item(20, 0), by_item(5, 1), IDS)
