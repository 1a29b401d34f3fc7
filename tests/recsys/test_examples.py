import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.examples import Examples, QueryTexts, Ragged

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=8)


def lists(ragged: Ragged) -> list[list[int]]:
    return [ragged[row].tolist() for row in range(len(ragged))]


@given(ROWS)
def test_rows_come_back_as_they_went_in(rows: list[list[int]]) -> None:
    ragged = Ragged.from_rows(rows)
    assert lists(ragged) == rows
    assert ragged.flat().tolist() == [v for row in rows for v in row]
    assert ragged.row_ids().tolist() == [i for i, row in enumerate(rows) for _ in row]
    assert [[v for v in row if v >= 0] for row in ragged.padded().tolist()] == rows


@given(ROWS, st.integers(1, 5), st.randoms())
def test_select_and_last_agree_with_lists(rows: list[list[int]], n: int, random: object) -> None:
    ragged = Ragged.from_rows(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    chosen = ragged.select(np.array(order, dtype=np.int64))
    assert lists(chosen.last(n)) == [rows[i][-n:] for i in order]
    assert chosen.last(n).flat().tolist() == [v for i in order for v in rows[i][-n:]]


def test_overlapping_rows_are_views() -> None:
    values = np.array([5, 6, 7])
    prefixes = Ragged(values, np.zeros(3, dtype=np.int64), np.array([1, 2, 3]))
    assert lists(prefixes) == [[5], [5, 6], [5, 6, 7]]
    assert prefixes.flat().tolist() == [5, 5, 6, 5, 6, 7]
    assert prefixes.padded(fill=0).tolist() == [[5, 0, 0], [5, 6, 0], [5, 6, 7]]


def make(history: list[list[int]], targets: list[list[int]], gains: list[float]) -> Examples:
    return Examples(
        np.array([f"u{i}" for i in range(len(history))]),
        Ragged.from_rows(history),
        Ragged.from_rows(targets),
        np.array(gains, dtype=np.float32),
    )


def test_select_keeps_each_target_with_its_gain() -> None:
    examples = make([[1], [2], [3]], [[4, 5], [6], [7, 8]], [0.1, 0.2, 0.3, 0.4, 0.5])
    chosen = examples.select(np.array([2, 0]))
    assert chosen.query_ids.tolist() == ["u2", "u0"]
    assert lists(chosen.targets) == [[7, 8], [4, 5]]
    np.testing.assert_allclose(chosen.gains, [0.4, 0.5, 0.1, 0.2])


def test_pairs_give_every_target_its_own_query() -> None:
    pairs = make([[1], [2, 3]], [[4, 5], [6]], [1, 2, 3]).pairs()
    assert pairs.names().tolist() == ["u0", "u0", "u1"]
    assert lists(pairs.history) == [[1], [1], [2, 3]]
    assert lists(pairs.targets) == [[4], [5], [6]]


def test_the_digest_sees_content_and_not_layout() -> None:
    examples = make([[1, 2], [2]], [[3], [4]], [1, 1])
    views = Examples(
        examples.query_ids,
        Ragged(np.array([1, 2, 9]), np.array([0, 1]), np.array([2, 2])),
        examples.targets,
        examples.gains,
    )
    assert views.digest() == examples.digest()
    others = [
        make([[1], [2, 2]], [[3], [4]], [1, 1]),
        make([[1, 2], [2]], [[3], [5]], [1, 1]),
        make([[1, 2], [2]], [[3], [4]], [1, 0.5]),
    ]
    assert len({examples.digest(), *(other.digest() for other in others)}) == 4


def test_select_and_pairs_keep_what_each_query_says() -> None:
    plain = make([[], [2], []], [[4, 5], [6], [7]], [1, 1, 1, 1])
    texts = QueryTexts(["red", "blue"], np.eye(2, dtype=np.float32))
    examples = Examples(
        plain.query_ids, plain.history, plain.targets, plain.gains, texts, np.array([1, 0, 1])
    )
    assert examples.select(np.array([2, 1])).text_rows.tolist() == [1, 0]
    assert examples.pairs().text_rows.tolist() == [1, 1, 0, 1]
    assert examples.select(np.array([2, 1])).pairs().texts is texts
    assert plain.pairs().text_rows is None
