"""Neighbour baselines: rank items by their similarity to the history, by common users or similar texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.base import FitContext, FitData, Retriever
from recsys.retrievers.top_k import best_columns
from semantic_ids.ranges import check_numbers
from semantic_ids.types import Floats, Ints

_SCORES_AT_ONCE = 2**22
"""Number of scores, queries times items, that are in memory at once."""

_ROUNDING = 1e-12
"""Scores below this are rounding errors of subtracting equal numbers, and count as 0."""


class NearestItems(Retriever):
    r"""Scores an item by its similarity to each item of the history; later items count for more.

    With :math:`v_i` the vector of item i, and the history :math:`h_1 … h_n`, oldest first:

    .. math:: score(j) = \sum_{t=1}^{n} decay^{\,n-t} \, [h_t \neq j] \; v_{h_t} \cdot v_j

    An item is not its own neighbour. Equal scores are in the order of the items. Items without any
    similarity to the history have score 0 and follow in the order of popularity. (Item-based neighbours:
    Deshpande & Karypis, *Item-based top-N recommendation algorithms*, TOIS 2004.)

    A subclass writes :meth:`vectors`.

    Args:
        decay: Factor from 0 to 1 on the weight of an item for each item that follows it in the history.

    Attributes:
        width: Number of columns of the vectors.
        values: Non-zero elements of the items' vectors, row after row, float64.
        columns: Column of each element of ``values``, int64.
        starts: ``(N + 1,)`` int64, where each item's elements begin in ``values``.
        popular: ``(N,)`` int64, item rows by falling number of occurrences in training.

    Raises:
        ValueError: If ``decay`` is outside its range.
    """

    uses_ids = False
    is_random = False
    scores_are_logits = False

    def __init__(self, *, decay: float = 0.5) -> None:
        check_numbers(0, 1, decay=decay)
        self.decay = decay

    @abstractmethod
    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """Return the items' vectors, by which they are compared.

        Args:
            train: Training examples.
            texts: One text per item; empty unless ``uses_texts`` is true.
            num_items: Number of items N.

        Returns:
            ``(N, any width)`` float64, no element below 0.
        """

    def learn(self, data: FitData, context: FitContext) -> None:
        """Compute the items' vectors from training sequences and texts; ``data.valid`` is not read.

        Raises:
            ValueError: If there are no training examples, or if no text holds a word.
        """
        vectors = self.vectors(data.train, data.texts, data.ids.num_items)
        self.width = int(vectors.shape[1])
        self.values = torch.from_numpy(vectors.data)
        self.columns = torch.from_numpy(vectors.indices.astype(np.int64))
        self.starts = torch.from_numpy(vectors.indptr.astype(np.int64))
        counts = np.bincount(data.train.sequences().flat(), minlength=data.ids.num_items)
        self.popular = torch.from_numpy(np.argsort(-counts, kind="stable"))

    def prepare(self) -> None:
        """Build the sparse matrix of vectors and the popularity rank of each item."""
        count = self.ids.num_items
        parts = (self.values.numpy(), self.columns.numpy(), self.starts.numpy())
        self._vectors = sp.csr_array(parts, shape=(count, self.width))
        self._lengths_squared = self._vectors.power(2).sum(axis=1)
        self._popularity_rank = np.empty(count, dtype=np.int64)
        self._popularity_rank[self.popular.numpy()] = np.arange(count)

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Return the ``width`` best items for each query; scores are at least 0."""
        count = self.ids.num_items
        items = np.empty((len(queries), min(width, count)), dtype=np.int64)
        scores = np.empty(items.shape, dtype=np.float32)
        step = max(1, _SCORES_AT_ONCE // count)
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            item_scores = self._scores(queries.history.select(block))
            items[block] = best_columns(item_scores, items.shape[1], self._popularity_rank)
            scores[block] = np.take_along_axis(item_scores, items[block], axis=1)
        return Ranking(items, scores)

    def _scores(self, history: Ragged) -> Floats:
        """Return the score of every item for each history, ``(Q, N)`` float32, at least 0."""
        return self.likeness(self._matrix(history, self.weights(history))).astype(np.float32)

    def _matrix(self, history: Ragged, weights: npt.NDArray[np.float64]) -> sp.csr_array:
        """Return ``(Q, N)``: the weights of ``history.flat()`` at their queries and items."""
        cells = (history.row_ids(), history.flat())
        return sp.csr_array((weights, cells), (len(history), self.ids.num_items))

    def weights(self, history: Ragged) -> npt.NDArray[np.float64]:
        """Return the weight of each of ``history.flat()``, ``(M,)``; by default a power of :attr:`decay`."""
        return np.power(self.decay, steps_back(history), dtype=np.float64)

    def likeness(self, weights: sp.csr_array) -> npt.NDArray[np.float64]:
        """Return the scores of all items, given the weights of the items in the histories.

        Args:
            weights: ``(Q, N)``, the weight of each item in each history; 0 for items outside it.

        Returns:
            ``(Q, N)`` float64.
        """
        return inner_products(weights, self._vectors, self._lengths_squared)


class ItemKnn(NearestItems):
    """Compares items by their users: the cosine of their sets of users in training.

    (Sarwar et al., *Item-based collaborative filtering recommendation algorithms*, WWW 2001.)
    """

    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """Return ``(N, users)``: 1 / √n for each of an item's n users."""
        return _user_vectors(train, num_items)


class ContentKnn(NearestItems):
    """Compares items by their texts: the cosine of the TF-IDF of their :func:`~recsys.texts.words.words`."""

    uses_texts = True

    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """Return ``(N, words)``: rows of length 1, or zeros for an item without a known text."""
        return word_vectors(texts)


class KnnSum(NearestItems):
    """Compares items by a weighted sum: the cosine of their users, plus ``content`` times that of the texts.

    Args:
        content: Weight of the cosine of texts, at least 0; the cosine of users has the weight 1.
        decay: See :class:`NearestItems`.

    Raises:
        ValueError: If an argument is outside its range.
    """

    uses_texts = True

    def __init__(self, *, content: float = 0.5, decay: float = 0.5) -> None:
        check_numbers(content=content)
        super().__init__(decay=decay)
        self.content = content

    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """Return ``(N, users + words)``: inner products of the joined vectors are the weighted sum."""
        of_users, of_words = _user_vectors(train, num_items), word_vectors(texts)
        return sp.hstack([of_users, np.sqrt(self.content) * of_words], format="csr")


def inner_products(
    weights: sp.csr_array, vectors: sp.csr_array, lengths_squared: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the weighted sums of inner products with the items of each history, ``(Q, N)``, at least 0.

    Args:
        weights: ``(Q, N)``, the weight of each item in each history.
        vectors: ``(N, any width)``, the items' vectors, no element below 0.
        lengths_squared: ``(N,)``, the inner product of each item with itself, which does not count.
    """
    scores: npt.NDArray[np.float64] = ((weights @ vectors) @ vectors.T).toarray()
    row, item = weights.nonzero()
    scores[row, item] -= weights[row, item] * lengths_squared[item]
    scores[scores < _ROUNDING] = 0.0
    return scores


def steps_back(history: Ragged) -> Ints:
    """Return for each of ``history.flat()`` the number of items that follow it in its row, ``(M,)``."""
    lengths = history.lengths
    return np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum())


def _user_vectors(train: Examples, num_items: int) -> sp.csr_array:
    """Return ``(N, users)``: 1 / √n for each of an item's n users in training."""
    sequences = train.sequences()
    items, users = np.unique(np.stack([sequences.flat(), sequences.row_ids()]), axis=1)
    counts = np.bincount(items, minlength=num_items)
    return sp.csr_array((1 / np.sqrt(counts[items]), (items, users)), (num_items, len(sequences)))


def word_vectors(texts: Sequence[str]) -> sp.csr_array:
    """Return ``(N, words)``: the TF-IDF of each text, scaled to length 1; zeros for unknown items.

    Raises:
        ValueError: If no text has a word.
    """
    # Imported here, because scikit-learn imports slowly and most retrievers do not need it.
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    from recsys.texts.item_texts import NO_TEXT  # noqa: PLC0415
    from recsys.texts.words import words  # noqa: PLC0415

    known = ["" if text == NO_TEXT else text for text in texts]
    if not any(map(words, known)):
        raise ValueError("there are no words in any of the texts to compare items by")
    return sp.csr_array(TfidfVectorizer(analyzer=words, sublinear_tf=True).fit_transform(known))
