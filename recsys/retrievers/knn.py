"""Floors that are not trained: items like those of the history, by who took them and by their texts."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from recsys.examples import Examples, Ragged, Ranking
from recsys.retrievers.base import FitContext, FitData, Retriever
from recsys.retrievers.top_k import best_columns
from semantic_ids.types import Floats

_SCORES_AT_ONCE = 2**22
"""Bounds memory: so many scores, of queries by items, are held at a time."""

_ROUNDING = 1e-12
"""Below this a score is what is left of subtracting equals."""


class NearestItems(Retriever):
    r"""Scores an item by how like it is to each item of the history, later ones counting for more.

    With :math:`v_i` the vector of item i, and the history :math:`h_1 … h_n` oldest first,

    .. math:: score(j) = \sum_{t=1}^{n} decay^{\,n-t} \, [h_t \neq j] \; v_{h_t} \cdot v_j

    An item is not its own neighbour. Of equal scores the smaller row leads. Items that are like
    nothing of the history have score 0 and follow in order of popularity. (Item-based neighbours:
    Deshpande & Karypis, *Item-based top-N recommendation algorithms*, TOIS 2004.)

    A subclass writes :meth:`vectors`.

    Args:
        decay: the weight of each item of the history as a part of that of the next, 0 … 1.

    Raises:
        ValueError: ``decay`` is out of its range.
    """

    uses_ids = False
    is_random = False
    scores_are_logits = False

    def __init__(self, *, decay: float = 0.5) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, not {decay}")
        self.decay = decay

    @abstractmethod
    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """One non-negative float64 row an item; what it is compared by."""

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
        """Put together what all queries share."""
        count = self.ids.num_items
        parts = (self.values.numpy(), self.columns.numpy(), self.starts.numpy())
        self._vectors = sp.csr_array(parts, shape=(count, self.width))
        self._lengths_squared = self._vectors.power(2).sum(axis=1)
        self._places = np.empty(count, dtype=np.int64)
        self._places[self.popular.numpy()] = np.arange(count)

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """The ``width`` best items for each query; scores are at least 0."""
        count = self.ids.num_items
        items = np.empty((len(queries), min(width, count)), dtype=np.int64)
        scores = np.empty(items.shape, dtype=np.float32)
        step = max(1, _SCORES_AT_ONCE // count)
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            of_all = self._scores(queries.history.select(block))
            items[block] = best_columns(of_all, items.shape[1], self._places)
            scores[block] = np.take_along_axis(of_all, items[block], axis=1)
        return Ranking(items, scores)

    def _scores(self, history: Ragged) -> Floats:
        """``(Q, N)`` float32, at least 0."""
        lengths = history.lengths
        steps_back = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum())
        weights = sp.csr_array(
            (self.decay**steps_back, (history.row_ids(), history.flat())), (len(history), self.ids.num_items)
        )
        return self.likeness(weights).astype(np.float32)

    def likeness(self, weights: sp.csr_array) -> npt.NDArray[np.float64]:
        """``(Q, N)`` scores, of the weights ``(Q, N)`` that items of the histories have."""
        scores: npt.NDArray[np.float64] = ((weights @ self._vectors) @ self._vectors.T).toarray()
        row, item = weights.nonzero()
        scores[row, item] -= weights[row, item] * self._lengths_squared[item]
        scores[scores < _ROUNDING] = 0.0
        return scores


class ItemKnn(NearestItems):
    """Compares items by who took them: the cosine of their sets of users in training.

    (Sarwar et al., *Item-based collaborative filtering recommendation algorithms*, WWW 2001.)
    """

    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """``(N, users)``: 1 / √n for each of an item's n users."""
        return _users(train, num_items)


class ContentKnn(NearestItems):
    """Compares items by their texts: the cosine of their words' TF-IDF."""

    uses_texts = True

    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """``(N, words)``, of length 1, or 0 where nothing is known of an item."""
        return _words(texts)


class KnnSum(NearestItems):
    """Adds the cosine of the texts, times a weight, to that of the users.

    Args:
        content: what a cosine of texts counts beside one of users, at least 0.
        decay: see :class:`NearestItems`.

    Raises:
        ValueError: an argument is out of its range.
    """

    uses_texts = True

    def __init__(self, *, content: float = 0.5, decay: float = 0.5) -> None:
        if content < 0:
            raise ValueError(f"content must be at least 0, not {content}")
        super().__init__(decay=decay)
        self.content = content

    def vectors(self, train: Examples, texts: Sequence[str], num_items: int) -> sp.csr_array:
        """``(N, users + words)``: inner products of the joined vectors are the sum."""
        return sp.hstack([_users(train, num_items), np.sqrt(self.content) * _words(texts)], format="csr")


def _users(train: Examples, num_items: int) -> sp.csr_array:
    taken = train.sequences()
    pairs = np.unique(np.stack([taken.flat(), taken.row_ids()]), axis=1)
    counts = np.bincount(pairs[0], minlength=num_items)
    return sp.csr_array((1 / np.sqrt(counts[pairs[0]]), tuple(pairs)), (num_items, len(taken)))


def _words(texts: Sequence[str]) -> sp.csr_array:
    # Only here, so that the other retrievers need no scikit-learn.
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    from recsys.texts.item_texts import NO_TEXT  # noqa: PLC0415

    known = ["" if text == NO_TEXT else text for text in texts]
    if not any(re.search(r"\w\w", text) for text in known):
        raise ValueError("there are no words of two letters or more in any of the texts to compare items by")
    return sp.csr_array(TfidfVectorizer(sublinear_tf=True).fit_transform(known))
