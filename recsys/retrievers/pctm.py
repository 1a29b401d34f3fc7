"""PCTM: smoothed counts of transitions between items, over several distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from recsys.examples import Examples, Ragged
from recsys.retrievers.base import FitContext, FitData
from recsys.retrievers.knn import NearestItems, steps_back
from recsys.retrievers.transitions import transition_counts
from semantic_ids.ranges import check_numbers, check_whole


class Pctm(NearestItems):
    r"""Scores an item by its smoothed probability of coming after each item of the history.

    The count :math:`C(i, j) = \sum_{d=1}^{window} d^{-fade} \, n_d(i, j)` adds up how often item j came d
    positions after item i in training sequences. With :math:`s` added to every count,

    .. math:: P(j \mid i) = \frac{C(i, j) + s}{\sum_k C(i, k) + s N}, \qquad
              score(j) = \sum_{t=1}^{n} w_t \log P(j \mid h_t) - rarity \cdot \log p(j)

    for the history :math:`h_1 … h_n`, oldest first, and with :math:`p(j)` the share of item j in training,
    after adding one to each item's count. The weights fall by the factor ``decay`` from the last item
    backwards and add up to 1. With ``older`` above 0, this share of their sum is spread evenly over the items
    before the last ``recent``. A constant of each query is left out, so that scores are at least 0.

    Equal scores are in the order of the items. Items of score 0, and all items for an empty history, are in
    the order of popularity. (PCTM of Petrov, Chandar, Bennett, Bouchard & Lalmas, *Do sequential
    recommendation benchmarks really require higher-order sequence modelling?*, RecSys 2026.)

    Args:
        window: Largest distance d that is counted, at least 1.
        fade: Power of the distance by which a count is divided, at least 0.
        smoothing: What is added to every count, the s, at least 1e-6. It is the paper's τ divided by the
            number of items.
        decay: Factor from 0 to 1 on the weight of an item for each item that follows it in the history.
        rarity: Factor on the negative log-popularity, at least 0, by which rare items are ranked higher. It
            is the paper's popularity coefficient, which is never above 0, without its sign.
        recent: Number of last items to which ``decay`` applies if ``older`` is above 0.
        older: Share from 0 to 1 of the weight of items before these, if a history has any.
        max_history: Number of last items of a history that are read.

    Attributes:
        background: ``(N,)`` float64, the score of each item without any counts.

    Raises:
        ValueError: If an argument is outside its range.
    """

    scores_are_logits = True

    def __init__(
        self,
        *,
        window: int = 10,
        fade: float = 0.5,
        smoothing: float = 0.9,
        decay: float = 0.6,
        rarity: float = 0.04,
        recent: int = 10,
        older: float = 0.0,
        max_history: int = 50,
    ) -> None:
        check_whole(window=window, recent=recent, max_history=max_history)
        check_numbers(fade=fade, rarity=rarity)
        check_numbers(1e-6, smoothing=smoothing)
        check_numbers(0, 1, older=older)
        super().__init__(decay=decay)
        self.window, self.fade, self.smoothing, self.rarity = window, fade, smoothing, rarity
        self.recent, self.older, self.max_history = recent, older, max_history

    def learn(self, data: FitData, context: FitContext) -> None:
        """Count transitions and items in the training sequences; ``data.valid`` is not read.

        Raises:
            ValueError: If there are no training examples.
        """
        super().learn(data, context)
        taken = np.bincount(data.train.sequences().flat(), minlength=data.ids.num_items) + 1.0
        background = -self.rarity * np.log(taken / taken.sum())
        self.background = torch.from_numpy(background - background.min())

    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """Return ``(N, N)``: at row i, column j the gain of log P(j | i) by the counts, log(1 + C / s)."""
        counts = transition_counts(train.sequences(), self.window, num_items, lambda d: d**-self.fade)
        return (counts / self.smoothing).log1p()

    def weights(self, history: Ragged) -> npt.NDArray[np.float64]:
        """Return the weight of each of ``history.flat()``, ``(M,)``; those of a row add up to 1."""
        back, rows = steps_back(history), history.row_ids()
        is_read = back < self.max_history
        is_older = is_read & (back >= self.recent) & (self.older > 0)
        falling = _shares(np.where(is_read & ~is_older, self.decay**back, 0.0), rows)
        even = _shares(is_older.astype(np.float64), rows)
        has_older = np.bincount(rows, is_older, minlength=len(history))[rows] > 0
        return np.where(has_older, (1 - self.older) * falling + self.older * even, falling)

    def likeness(self, weights: sp.csr_array) -> npt.NDArray[np.float64]:
        """Return scores ``(Q, N)`` for the weights ``(Q, N)`` of the items in the histories."""
        scores: npt.NDArray[np.float64] = (weights @ self._vectors).toarray()
        scores[np.diff(weights.indptr) > 0] += self.background.numpy()
        return scores


def _shares(values: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return each value's share in the sum of its row; 0 where the sum is 0."""
    sums = np.bincount(rows, values)[rows]
    return np.divide(values, sums, out=np.zeros_like(values), where=sums > 0)
