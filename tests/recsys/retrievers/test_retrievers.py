"""What all retrievers share, popularity, and the dual encoder."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import torch

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.base import FitContext, FitData, Retriever, drop_seen
from recsys.retrievers.dual_encoder import DualEncoder, other_targets
from recsys.retrievers.popularity import Popularity
from recsys.retrievers.sasrec import ItemTransformer, SasRec
from recsys.splits import Sequences, Split, leave_one_out
from recsys.training.batches import CausalPairs, Histories
from semantic_ids.ids import SemanticIds

ITEMS = 24


def cyclic_split(users: int = 120, items: int = ITEMS) -> Split:
    """Users walk 5 to 9 steps round the catalogue, each from an item of their own: next follows next."""
    rows = [[(user + step) % items for step in range(5 + user % 5)] for user in range(users)]
    return leave_one_out(Sequences(np.array([f"u{i:03d}" for i in range(users)]), Ragged.from_rows(rows)))


def dense(items: int = ITEMS) -> SemanticIds:
    return SemanticIds(np.arange(items)[:, None], (items,))


def two_levels(items: int = ITEMS) -> SemanticIds:
    return SemanticIds(np.stack([np.arange(items) // 5, np.arange(items) % 5], axis=1), (5, 5))


def ask(history: list[list[int]]) -> Examples:
    ids = np.array([f"q{i}" for i in range(len(history))])
    targets = Ragged.from_rows([[0]] * len(history))
    return Examples(ids, Ragged.from_rows(history), targets, np.ones(len(history), dtype=np.float32))


class Fixed(Retriever):
    """Ranks items by their row, whoever asks."""

    def learn(self, data: FitData, context: FitContext) -> None:
        """Learn nothing."""

    def over(self, ids: SemanticIds) -> Self:
        self.ids = ids
        return self

    def candidates(self, queries: Examples, width: int) -> Ranking:
        shape = (len(queries), width)
        return Ranking(
            np.broadcast_to(np.arange(width), shape),
            np.broadcast_to(-np.arange(width, dtype=np.float32), shape),
        )


def small(**changes: object) -> DualEncoder:
    training: Mapping[str, object] = {
        "steps": 300,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "warmup_steps": 10,
        "evaluate_every": 100,
    }
    return DualEncoder(
        **{"width": 32, "layers": 1, "heads": 2, "feed_forward": 64, "training": training, **changes}
    )


def test_excluding_what_was_seen_leaves_k_items_and_moves_them_up() -> None:
    retriever = Fixed().over(dense(6))
    queries = ask([[0, 2], [5], []])
    ranking = retriever.rank(queries, 3, exclude_seen=True)
    assert ranking.items.tolist() == [[1, 3, 4], [0, 1, 2], [0, 1, 2]]
    assert ranking.scores.tolist() == [[-1, -3, -4], [0, -1, -2], [0, -1, -2]]
    assert retriever.rank(queries, 3).items.tolist() == [[0, 1, 2]] * 3


def test_a_catalogue_smaller_than_k_is_padded() -> None:
    ranking = Fixed().over(dense(3)).rank(ask([[1]]), 5, exclude_seen=True)
    assert ranking.items.tolist() == [[0, 2, -1, -1, -1]]
    assert ranking.scores[0, 2:].tolist() == [-np.inf] * 3


def test_answers_do_not_depend_on_how_many_ask() -> None:
    retriever = Fixed().over(dense(50))
    rng = np.random.default_rng(0)
    history = [rng.integers(0, 50, size=rng.integers(1, 9)).tolist() for _ in range(3000)]
    together = retriever.rank(ask(history), 4, exclude_seen=True).items
    for row in (0, 1, 1499, 2999):
        assert together[row].tolist() == [i for i in range(50) if i not in history[row]][:4]


def test_padding_is_never_taken_for_an_item_that_was_seen() -> None:
    ranking = Ranking(np.array([[3, -1]]), np.array([[1.0, -np.inf]], dtype=np.float32))
    assert drop_seen(ranking, ask([[0]])).items.tolist() == [[3, -1]]


def test_popularity_counts_each_users_training_items_once() -> None:
    rows = [[0, 1, 2, 5, 6], [0, 1, 3, 5, 6], [1, 4, 6, 5]]
    split = leave_one_out(Sequences(np.array(["a", "b", "c"]), Ragged.from_rows(rows)))
    popular = Popularity().fit(split.train, split.valid, dense(8))
    assert popular.counts.tolist() == [2, 3, 1, 1, 1, 0, 0, 0]
    assert popular.rank(split.test, 4).items.tolist() == [[1, 0, 2, 3]] * 3


def test_histories_are_padded_to_the_longest_asked_for() -> None:
    ragged = Ragged(np.array([4, 5, 6, 7]), np.array([0, 1, 2, 0]), np.array([2, 1, 4, 4]))
    histories = Histories.from_ragged(ragged, torch.device("cpu"))
    assert histories.padded(torch.tensor([2, 0, 1])).tolist() == [[6, 7], [4, 5], [-1, -1]]
    assert histories.padded(torch.tensor([3, 1])).tolist() == [[4, 5, 6, 7], [-1] * 4]
    assert histories.padded(torch.tensor([1])).tolist() == [[-1]]
    parts = histories.by_length(torch.tensor([3, 2, 1, 0]))
    assert torch.cat(parts).tolist() == [1, 2, 0, 3]
    assert all(len(part) for part in parts)


def test_histories_that_begin_together_are_one_group() -> None:
    #           0       1       2          3    (the last begins elsewhere)
    values = np.array([4, 5, 6, 7])
    history = Ragged(values, np.array([0, 0, 0, 1]), np.array([2, 1, 3, 4]))
    targets = Ragged.from_rows([[6], [5], [7], [0]])
    examples = Examples(np.array(["a", "a", "a", "b"]), history, targets, np.ones(4, dtype=np.float32))
    prefixes = CausalPairs.from_examples(examples, 20, torch.device("cpu"))
    assert len(prefixes) == 2
    items, at, numbers = prefixes.batch(torch.tensor([0, 1]))
    assert items.tolist() == [[4, 5, 6], [5, 6, 7]]
    assert sorted(zip(*at.tolist(), prefixes.targets[numbers].tolist(), strict=True)) == [
        (0, 1, 5),
        (0, 2, 6),
        (0, 3, 7),
        (1, 3, 0),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("ids", [dense(), two_levels()], ids=["dense", "two levels"])
def test_the_dual_encoder_learns_a_planted_order(ids: SemanticIds, tmp_path: Path) -> None:
    split = cyclic_split()
    reports: list[dict[str, float]] = []
    state = torch.random.get_rng_state()
    retriever = small(max_history=4).fit(
        split.train, split.valid, ids, seed=1, on_step=lambda step, m: reports.append({"step": step, **m})
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    ranking = retriever.rank(split.test, 5)
    assert per_query_scores(ranking, split.test, [1])["recall_at_1"].mean() > 0.9
    assert [r["step"] for r in reports] == [100, 200, 300]
    assert reports[-1]["loss"] < reports[0]["loss"]

    retriever.save(tmp_path)
    again = Retriever.load(tmp_path).rank(split.test, 5)
    np.testing.assert_array_equal(again.items, ranking.items)
    np.testing.assert_array_equal(again.scores, ranking.scores)


def test_the_same_seed_gives_the_same_retriever() -> None:
    split, budget = cyclic_split(users=40), {"steps": 20, "batch_size": 16, "evaluate_every": 10}
    first, second, other = (
        small(training=budget).fit(split.train, split.valid, two_levels(), seed=seed).rank(split.test, 5)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.scores, second.scores)
    assert not np.array_equal(first.scores, other.scores)


def test_a_prefix_is_encoded_alike_alone_and_within_a_longer_history() -> None:
    split = cyclic_split(users=40)
    retriever = small(training={"steps": 5, "batch_size": 16, "evaluate_every": 5, "warmup_steps": 1})
    retriever.fit(split.train, split.valid, two_levels())
    codes = torch.from_numpy(retriever.ids.codes)[torch.tensor([[3, 4, 5, 6]])]
    with torch.no_grad():
        whole = retriever.model.states(codes)
        for length in range(5):
            alone = retriever.model.states(codes[:, :length])
            torch.testing.assert_close(whole[:, length], alone[:, length], rtol=1e-5, atol=1e-6)


def test_an_empty_history_and_one_longer_than_the_window_are_answered() -> None:
    split = cyclic_split(users=40)
    retriever = small(max_history=3, training={"steps": 5, "batch_size": 16, "evaluate_every": 5})
    retriever.fit(split.train, split.valid, two_levels())
    answers = retriever.rank(ask([[], [1, 2, 3, 4, 5], [3, 4, 5]]), ITEMS)
    assert [sorted(row) for row in answers.items.tolist()] == [list(range(ITEMS))] * 3
    np.testing.assert_array_equal(answers.items[1], answers.items[2])


def test_items_that_share_an_id_share_a_score_and_all_of_them_are_ranked() -> None:
    split = cyclic_split(users=40)
    ids = SemanticIds(np.stack([np.arange(ITEMS) // 6, np.zeros(ITEMS, dtype=np.int64)], axis=1), (4, 1))
    retriever = small(training={"steps": 5, "batch_size": 16, "evaluate_every": 5})
    ranking = retriever.fit(split.train, split.valid, ids).rank(split.test, ITEMS)
    assert all(sorted(row) == list(range(ITEMS)) for row in ranking.items.tolist())
    assert all(len(set(row)) == 4 for row in ranking.scores.tolist())


def test_no_training_or_no_validation_examples_is_said_plainly() -> None:
    split = cyclic_split(users=10)
    none = split.train.select(np.array([], dtype=np.int64))
    with pytest.raises(ValueError, match="no training examples"):
        small().fit(none, split.valid, dense())
    with pytest.raises(ValueError, match="validation or test examples are empty"):
        small().fit(split.train, none, dense())


def test_other_targets_of_a_row_are_no_negatives() -> None:
    # Row 0 has targets 0, 2 and 2; row 1 has target 1.
    offsets = other_targets(torch.tensor([0, 0, 1, 0]), torch.tensor([0, 2, 1, 2]), 2, 3)
    inf = float("inf")
    assert offsets.tolist() == [[0, 0, -inf], [-inf, 0, 0], [0, 0, 0], [-inf, 0, 0]]


def test_the_correction_takes_the_logarithm_of_a_leafs_share_off_its_logit() -> None:
    split, seen = cyclic_split(users=40), []
    budget = {"steps": 1, "batch_size": 40, "learning_rate": 1e-30, "evaluate_every": 1}
    for log_q in (0.0, 1.0):
        small(log_q=log_q, dropout=0.0, training=budget).fit(
            split.train, split.valid, two_levels(), on_step=lambda step, metrics: seen.append(metrics["loss"])
        )
    retriever = small(dropout=0.0, training=budget).fit(split.train, split.valid, two_levels())
    targets = torch.from_numpy(two_levels().leaf_of_item[split.train.targets.flat()])
    with torch.no_grad():
        vectors = torch.cat(
            [
                retriever.model.queries(
                    torch.from_numpy(two_levels().codes[history])[None],
                    torch.tensor([[0], [len(history)]]),
                    None,
                )
                for history in map(split.train.history.__getitem__, range(len(split.train)))
            ]
        )
        logits = (
            vectors @ retriever.model.items(torch.from_numpy(two_levels().leaves)).T / retriever.temperature
        )
        shares = targets.bincount(minlength=ITEMS) / len(targets)
        assert (shares > 0).all()  # every leaf is a target of the one batch
        expected = [
            torch.nn.functional.cross_entropy(logits - strength * shares.log(), targets).item()
            for strength in (0.0, 1.0)
        ]
    assert seen == pytest.approx(expected, rel=1e-4)
    assert seen[0] != pytest.approx(seen[1], rel=1e-3)


@pytest.mark.slow
def test_masked_hits_train_and_rank() -> None:
    split = cyclic_split()
    retriever = small(max_history=4, mask_hits=True, log_q=0.5).fit(
        split.train, split.valid, two_levels(), seed=1
    )
    ranking = retriever.rank(split.test, 5)
    assert per_query_scores(ranking, split.test, [1])["recall_at_1"].mean() > 0.9


def small_sasrec(**changes: object) -> SasRec:
    training = {
        "steps": 200,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "warmup_steps": 10,
        "evaluate_every": 50,
    }
    return SasRec(
        **{"width": 32, "layers": 1, "heads": 2, "feed_forward": 64, "dropout": 0.1, "training": training}
        | changes
    )


def test_sasrec_learns_a_planted_order_and_answers_the_same_when_loaded(tmp_path: Path) -> None:
    split = cyclic_split()
    retriever = small_sasrec(max_history=4).fit(split.train, split.valid, dense(), seed=1)
    ranking = retriever.rank(split.test, ITEMS)
    assert per_query_scores(ranking, split.test, [1])["recall_at_1"].mean() > 0.9
    assert all(sorted(row) == list(range(ITEMS)) for row in ranking.items.tolist())
    retriever.save(tmp_path)
    again = Retriever.load(tmp_path).rank(split.test, ITEMS)
    np.testing.assert_array_equal(again.items, ranking.items)
    np.testing.assert_array_equal(again.scores, ranking.scores)


def test_sasrecs_loss_is_cross_entropy_over_the_catalogue_at_every_place() -> None:
    split, seen = cyclic_split(users=40), []
    budget = {"steps": 1, "batch_size": 40, "learning_rate": 1e-30, "evaluate_every": 1}
    sasrec = small_sasrec(dropout=0.0, training=budget).fit(
        split.train, split.valid, dense(), on_step=lambda step, metrics: seen.append(metrics["loss"])
    )
    expected = 0.0
    with torch.no_grad():
        for row, target in enumerate(split.train.targets.flat()):
            read = sasrec.model.queries(torch.from_numpy(split.train.history[row])[None])[0, -1]
            expected -= (sasrec.model.embed.weight @ read).log_softmax(dim=0)[target].item() / len(
                split.train
            )
    assert seen == [pytest.approx(expected, rel=1e-5)]


def test_sasrec_reads_only_the_latest_items() -> None:
    split = cyclic_split(users=40)
    budget = {"steps": 5, "batch_size": 16, "evaluate_every": 5, "warmup_steps": 1}
    sasrec = small_sasrec(max_history=3, training=budget).fit(split.train, split.valid, dense())
    answers = sasrec.rank(ask([[], [1, 2, 3, 4, 5], [3, 4, 5]]), ITEMS)
    np.testing.assert_array_equal(answers.items[1], answers.items[2])
    assert not np.array_equal(answers.items[0], answers.items[1])


def test_sasrec_learns_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    split, seen = cyclic_split(users=40), []
    budget = {"steps": 6, "batch_size": 20, "learning_rate": 0.01, "evaluate_every": 2, "warmup_steps": 1}
    forward = ItemTransformer.forward

    def cramped(self: ItemTransformer, items: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        if len(items) > 6:
            raise torch.OutOfMemoryError("no room")
        return forward(self, items, *rest)

    for method in (forward, cramped):
        monkeypatch.setattr(ItemTransformer, "forward", method)
        losses: list[float] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            small_sasrec(dropout=0.0, training=budget).fit(
                split.train,
                split.valid,
                dense(),
                on_step=lambda step, m, losses=losses: losses.append(m["loss"]),
            )
        seen.append(losses)
    assert seen[1] == pytest.approx(seen[0], rel=1e-4)


def test_a_checkpoint_is_kept_aside_by_a_fit_with_other_settings_ids_or_data(tmp_path: Path) -> None:
    split, file = cyclic_split(users=40), tmp_path / "checkpoint"
    budget = {"steps": 6, "batch_size": 20, "evaluate_every": 2}

    class StopsError(Exception):
        pass

    def stop(step: int, metrics: Mapping[str, float]) -> None:
        if step == 4:
            raise StopsError

    with pytest.raises(StopsError):
        small(training=budget).fit(split.train, split.valid, two_levels(), on_step=stop, checkpoint=file)
    content = file.read_bytes()
    other_ids = SemanticIds(two_levels().codes[::-1].copy(), (5, 5))
    fewer = split.train.select(np.arange(len(split.train) - 1))
    for changes, train, ids in (
        ({"temperature": 0.5}, split.train, two_levels()),
        ({"width": 16}, split.train, two_levels()),
        ({}, split.train, other_ids),
        ({}, fewer, two_levels()),
    ):
        with pytest.warns(RuntimeWarning, match="checkpoint of another training"):
            small(training=budget, **changes).fit(train, split.valid, ids, checkpoint=file)
        aside = tmp_path / "checkpoint.other"
        assert aside.read_bytes() == content
        aside.rename(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(training=budget).fit(split.train, split.valid, two_levels(), checkpoint=file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("index", ["IVF", "HNSW"])
def test_a_small_catalogue_is_ranked_whole_by_any_index(index: str) -> None:
    split = cyclic_split(users=40)
    budget = {"steps": 5, "batch_size": 16, "evaluate_every": 5}
    for make in (small, small_sasrec):
        flat, other = (
            make(training=budget, index=name).fit(split.train, split.valid, dense()).rank(split.test, 5)
            for name in ("Flat", index)
        )
        np.testing.assert_array_equal(flat.items, other.items)
        with pytest.raises(ValueError, match="an index is one of"):
            make(index=index.lower())


def test_without_words_the_dual_encoder_has_no_weights_for_them() -> None:
    split = cyclic_split(users=40)
    budget = {"steps": 1, "batch_size": 16, "evaluate_every": 1}
    retriever = small(training=budget).fit(split.train, split.valid, two_levels())
    outside = {name.partition(".")[0] for name in retriever.model.state_dict()}
    assert outside == {"embed", "join", "reader", "to_item"}
    with torch.no_grad():
        codes, at = torch.from_numpy(two_levels().codes[[[3, 4, 5]]]), torch.tensor([[0, 0], [1, 3]])
        states = retriever.model.states(codes)[0, [1, 3]]
        expected = states / states.norm(dim=1, keepdim=True)
        torch.testing.assert_close(retriever.model.queries(codes, at, None), expected)
