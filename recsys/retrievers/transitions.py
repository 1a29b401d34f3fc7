"""A floor that is not trained but knows of order: what users took soon after the items of the history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsys.examples import Examples, Ragged
from recsys.retrievers.knn import NearestItems


class TransitionKnn(NearestItems):
    r"""Counts how often j was taken after i, and half as much for before; a near one counts for more.

    .. math:: score(j) = \sum_{t=1}^{n} decay^{\,n-t} \frac{c(h_t, j)}{\sqrt{(n_{h_t} + s)(n_j + s)}}

    With :math:`c(i, j)` the sum over training sequences of :math:`fade^{\,d-1}` for every j that stands d
    places behind an i, and half of that for every j that stands d places before one; :math:`n_i` the
    number of times that i was taken. The shrinkage s keeps rare items from leading by chance. (A
    relative of the sequential rules of Ludewig & Jannach, *Evaluation of session-based
    recommendation algorithms*, 2018, §3.2.)

    Order is that of the examples: where training ends in a query with several answers, these stand in the
    order of their rows.

    Args:
        shrinkage: s, at least 0.
        fade: what a place more between two items leaves of their count, 0 … 1.
        window: the farthest places that count.
        decay: as in :class:`~recsys.retrievers.knn.NearestItems`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self, *, shrinkage: float = 16.0, fade: float = 0.8, window: int = 20, decay: float = 0.7
    ) -> None:
        if shrinkage < 0 or not 0 <= fade <= 1 or window < 1:
            raise ValueError(
                "shrinkage must be at least 0, fade from 0 to 1 and window at least 1, "
                f"not {shrinkage}, {fade} and {window}"
            )
        super().__init__(decay=decay)
        self.shrinkage, self.fade, self.window = shrinkage, fade, window

    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """``(N, N)``: row i holds what i alone in a history scores the others."""
        taken = train.sequences()
        counts = sum(
            (
                self.fade ** (distance - 1) * _pairs(taken, distance, num_items)
                for distance in range(1, self.window + 1)
            ),
            sp.csr_array((num_items, num_items)),
        )
        both = sp.csr_array(counts + 0.5 * counts.T)
        both.setdiag(0)
        both.eliminate_zeros()
        scale = sp.diags_array(
            1 / np.sqrt(np.bincount(taken.flat(), minlength=num_items) + self.shrinkage + 1e-12)
        )
        return sp.csr_array(scale @ both @ scale)

    def likeness(self, weights: sp.csr_array) -> npt.NDArray[np.float64]:
        """``(Q, N)`` scores, of the weights ``(Q, N)`` that items of the histories have."""
        scores: npt.NDArray[np.float64] = (weights @ self._vectors).toarray()
        return scores


def _pairs(taken: Ragged, distance: int, num_items: int) -> sp.csr_array:
    """``(N, N)``: how often the column stands so many places behind the row."""
    items, rows = taken.flat(), taken.row_ids()
    first, second = items[:-distance], items[distance:]
    same = rows[:-distance] == rows[distance:]
    return sp.csr_array((np.ones(int(same.sum())), (first[same], second[same])), (num_items, num_items))
