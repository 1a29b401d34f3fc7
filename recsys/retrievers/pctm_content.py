"""PCTM plus the likeness of texts: what follows the items of a history, and what is described like them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from recsys.evaluation.metrics import per_query_scores
from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.base import FitContext, FitData, evenly_spaced
from recsys.retrievers.knn import inner_products, steps_back, word_vectors
from recsys.retrievers.pctm import Pctm
from recsys.retrievers.top_k import best_columns
from semantic_ids.ranges import check_numbers, check_whole
from semantic_ids.types import Floats

_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Weights of the texts that are tried."""

_AT_ONCE = 256
"""Number of validation queries that are scored at once."""


class PctmContent(Pctm):
    r"""Scores an item by :class:`~recsys.retrievers.pctm.Pctm` plus a weighted likeness of texts.

    For the history :math:`h_1 … h_n` item j gets
    :math:`content \cdot \sum_t decay^{\,n-t} \, [h_t \neq j] \cos(h_t, j)` beside its score there. The cosine
    is that of TF-IDF vectors, and the sum the score of :class:`~recsys.retrievers.knn.ContentKnn`.

    The weight of the texts is the one of 0, .25, .5, .75, 1, 1.25, 1.5, 2 and 3 with the best NDCG@10 on
    validation queries, ranked without the items of their own histories.

    Args:
        content: Weight of the texts, at least 0; chosen by validation if it is None.
        queries: Number of validation queries, evenly spaced, on which it is chosen; all if there are fewer.
        window: See :class:`~recsys.retrievers.pctm.Pctm`, as for all that follow.
        fade: Power of the distance by which a count is divided.
        smoothing: What is added to every count.
        decay: Factor on the weight of an item for each item that follows it in the history.
        rarity: Factor on the negative log-popularity.

    Attributes:
        weight: The weight of the texts.
        word_values: Non-zero elements of the items' TF-IDF vectors, row after row, float64.
        word_columns: Column of each element of ``word_values``, int64.
        word_starts: ``(N + 1,)`` int64, where each item's elements begin in ``word_values``.
        words: Number of distinct words.

    Raises:
        ValueError: If an argument is outside its range.
    """

    uses_texts = True

    def __init__(
        self,
        *,
        content: float | None = None,
        queries: int = 4000,
        window: int = 10,
        fade: float = 0.5,
        smoothing: float = 0.9,
        decay: float = 0.6,
        rarity: float = 0.04,
    ) -> None:
        if content is not None:
            check_numbers(content=content)
        check_whole(queries=queries)
        super().__init__(window=window, fade=fade, smoothing=smoothing, decay=decay, rarity=rarity)
        self.content, self.queries = content, queries

    def learn(self, data: FitData, context: FitContext) -> None:
        """Count transitions and words of the texts, and choose the weight by validation.

        Raises:
            ValueError: If there are no training examples, if no text holds a word, or if there are no
                validation queries to choose by.
        """
        super().learn(data, context)
        vectors = word_vectors(data.texts)
        self.words = int(vectors.shape[1])
        self.word_values = torch.from_numpy(vectors.data)
        self.word_columns = torch.from_numpy(vectors.indices.astype(np.int64))
        self.word_starts = torch.from_numpy(vectors.indptr.astype(np.int64))
        if self.content is not None:
            self.weight = float(self.content)
            return
        self.prepare()
        self.weight = self._best_weight(evenly_spaced(data.valid, self.queries))

    def _best_weight(self, queries: Examples) -> float:
        """Return the weight of the texts with the best NDCG@10."""
        gains = np.zeros(len(_WEIGHTS))
        for start in range(0, len(queries), _AT_ONCE):
            block = queries.select(slice(start, start + _AT_ONCE))
            counted, of_texts = super()._scores(block.history), self._text_scores(block.history)
            seen = block.history.row_ids(), block.history.flat()
            for number, weight in enumerate(_WEIGHTS):
                scores = counted + np.float32(weight) * of_texts
                scores[seen] = -1
                best = best_columns(scores, min(10, scores.shape[1]))
                items = np.pad(best, ((0, 0), (0, 10 - best.shape[1])), constant_values=-1)
                ranking = Ranking(items, np.zeros(items.shape, dtype=np.float32))
                gains[number] += per_query_scores(ranking, block, [10])["ndcg_at_10"].sum()
        return _WEIGHTS[int(gains.argmax())]

    def prepare(self) -> None:
        """Build the sparse matrices of counts and of words."""
        super().prepare()
        parts = (self.word_values.numpy(), self.word_columns.numpy(), self.word_starts.numpy())
        self._words = sp.csr_array(parts, shape=(self.ids.num_items, self.words))
        self._words_squared = self._words.power(2).sum(axis=1)

    def _scores(self, history: Ragged) -> Floats:
        """Return the score of every item for each history, ``(Q, N)`` float32, at least 0."""
        return super()._scores(history) + np.float32(self.weight) * self._text_scores(history)

    def _text_scores(self, history: Ragged) -> Floats:
        """Return the weighted sums of cosines of texts, ``(Q, N)`` float32."""
        falling = np.power(self.decay, steps_back(history), dtype=np.float64)
        weights = self._matrix(history, falling)
        return inner_products(weights, self._words, self._words_squared).astype(np.float32)

    def diagnostics(self, queries: Examples, width: int) -> dict[str, float | str]:
        """Return the weight of the texts."""
        return {"content_weight": self.weight}
