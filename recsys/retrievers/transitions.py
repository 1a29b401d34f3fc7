"""A neighbour baseline that knows order: rank items that users took soon after the items of the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsys.examples import Examples, Ragged
from recsys.retrievers.knn import NearestItems
from semantic_ids.ranges import check_numbers, check_whole


class TransitionKnn(NearestItems):
    r"""Scores item j by how often it was taken soon after the items of the history, or soon before them.

    With the history :math:`h_1 … h_n`, oldest first:

    .. math:: score(j) = \sum_{t=1}^{n} decay^{\,n-t} \frac{c(h_t, j)}{\sqrt{(n_{h_t} + s)(n_j + s)}}

    The count :math:`c(i, j)` is a sum over training sequences: every j that comes d positions after an i adds
    :math:`fade^{\,d-1}`, and every j that comes d positions before an i adds half of that. :math:`n_i` is the
    number of times that i was taken. The shrinkage s keeps rare items from getting a high score by chance.
    (This is related to the sequential rules of Ludewig & Jannach, *Evaluation of session-based recommendation
    algorithms*, 2018, §3.2.)

    Sequences are in the order of the examples. If a user's last training query has several targets, these are
    in the order of their item rows.

    Args:
        shrinkage: The shrinkage s, at least 0.
        fade: Factor on a count for each further position between the two items, from 0 to 1.
        window: Largest distance d that is counted, at least 1.
        decay: See :class:`~recsys.retrievers.knn.NearestItems`.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self, *, shrinkage: float = 16.0, fade: float = 0.8, window: int = 20, decay: float = 0.7
    ) -> None:
        check_numbers(shrinkage=shrinkage)
        check_numbers(0, 1, fade=fade)
        check_whole(window=window)
        super().__init__(decay=decay)
        self.shrinkage, self.fade, self.window = shrinkage, fade, window

    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """Return ``(N, N)``: row i holds the scores of all items for a history that consists of i alone."""
        sequences = train.sequences()
        counts = transition_counts(sequences, self.window, num_items, lambda d: self.fade ** (d - 1))
        both = sp.csr_array(counts + 0.5 * counts.T)
        both.setdiag(0)
        both.eliminate_zeros()
        scale = sp.diags_array(
            1 / np.sqrt(np.bincount(sequences.flat(), minlength=num_items) + self.shrinkage + 1e-12)
        )
        return sp.csr_array(scale @ both @ scale)

    def likeness(self, weights: sp.csr_array) -> npt.NDArray[np.float64]:
        """Return scores ``(Q, N)`` for the weights ``(Q, N)`` of the items in the histories."""
        scores: npt.NDArray[np.float64] = (weights @ self._vectors).toarray()
        return scores


def transition_counts(
    sequences: Ragged, window: int, num_items: int, weight: Callable[[int], float]
) -> sp.csr_array:
    """Count how often one item comes soon after another.

    Args:
        sequences: Each user's items, oldest first.
        window: Largest distance that is counted.
        num_items: Number of items N.
        weight: What a pair of items at a distance d, from 1 to ``window``, adds to the count.

    Returns:
        ``(N, N)`` float64: at row i, column j the count of j after i.
    """
    longest = min(window, int(sequences.lengths.max(initial=1)) - 1)
    by_distance = (weight(d) * _pair_counts(sequences, d, num_items) for d in range(1, longest + 1))
    return sum(by_distance, sp.csr_array((num_items, num_items)))


def _pair_counts(sequences: Ragged, distance: int, num_items: int) -> sp.csr_array:
    """Return ``(N, N)``: how often item j comes ``distance`` positions after item i, at row i, column j."""
    items, users = sequences.flat(), sequences.row_ids()
    first, second = items[:-distance], items[distance:]
    same_user = users[:-distance] == users[distance:]
    pairs = (first[same_user], second[same_user])
    return sp.csr_array((np.ones(int(same_user.sum())), pairs), (num_items, num_items))
