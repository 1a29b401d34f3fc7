"""Selection of the best items, against a plain sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys.retrievers.top_k import best_columns, top_items

FEW = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf])
"""Numbers of which many are equal, and those at the ends of float32."""


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    shape = draw(st.tuples(st.integers(0, 5), st.integers(0, 12)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    elements = FEW if draw(st.booleans()) else st.floats(allow_nan=False, width=np.dtype(dtype).itemsize * 8)
    values = draw(hnp.arrays(np.float64, shape, elements=elements))
    return values.astype(dtype)


def by_sorting(scores: np.ndarray, width: int) -> np.ndarray:
    """A stable sort of each row."""
    with np.errstate(over="ignore"):
        return np.argsort(-scores.astype(np.float32), axis=1, kind="stable")[:, :width]


@settings(deadline=None)
@given(matrices(), st.integers(0, 14))
def test_it_agrees_with_a_stable_sort(scores: np.ndarray, width: int) -> None:
    before = scores.copy()
    ranking = top_items(scores, width)
    expected = by_sorting(scores, width)
    assert ranking.items.dtype == np.int64
    assert ranking.scores.dtype == np.float32
    assert ranking.items.tolist() == expected.tolist()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            ranking.scores, np.take_along_axis(scores.astype(np.float32), expected, axis=1)
        )
    np.testing.assert_array_equal(scores, before)


def test_a_large_matrix_in_any_memory_layout() -> None:
    scores = np.random.default_rng(0).normal(size=(50, 4000)).round(2)
    for layout in (scores, np.asfortranarray(scores), scores[:, ::-1], scores.astype(np.float32)[::2]):
        assert top_items(layout, 100).items.tolist() == by_sorting(layout, 100).tolist()


def test_scores_that_differ_only_beyond_float32_are_equal() -> None:
    scores = np.array([[1.0, 1.0 + 1e-12, 1e300, np.inf]])
    ranking = top_items(scores, 4)
    assert ranking.items.tolist() == [[2, 3, 0, 1]]
    assert ranking.scores.tolist() == [[np.inf, np.inf, 1.0, 1.0]]


def test_a_nan_and_what_is_no_matrix_are_refused() -> None:
    scores = np.zeros((3, 4))
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="that of item 2 in row 1 is"):
        top_items(scores, 2)
    with pytest.raises(ValueError, match=r"not of shape \(4,\)"):
        top_items(np.zeros(4), 2)


@given(hnp.arrays(np.float32, (3, 9), elements=st.sampled_from([0.0, 0.5, 1.0])), st.permutations(range(9)))
def test_zeros_can_have_an_order_of_their_own(scores: np.ndarray, ranks: list[int]) -> None:
    columns = best_columns(scores, 9, np.array(ranks))
    for row, found in zip(scores.tolist(), columns.tolist(), strict=True):
        assert found == sorted(range(9), key=lambda c: (-row[c], c if row[c] > 0 else ranks[c]))
    np.testing.assert_array_equal(best_columns(scores, 5), top_items(scores, 5).items)
