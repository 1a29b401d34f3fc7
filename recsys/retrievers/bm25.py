"""BM25, the baseline of search: it needs no training and no semantic IDs, only words in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from recsys.examples import Examples, Ranking
from recsys.retrievers.base import FitContext, FitData, Retriever
from semantic_ids.ranges import check_numbers
from semantic_ids.types import Floats, Ints

_HASHES = 2**31 - 1
"""Number of hash values. Terms are kept as hashes, so that no vocabulary of strings is needed."""

_MATCHES_AT_ONCE = 2**22
"""Number of scores, of items that share a term with a query, that are in memory at once."""


class Bm25(Retriever):
    r"""BM25: scores an item by the words that its text shares with the query; rare words count for more.

    Let :math:`tf` be the number of times that a term occurs in an item's text, n the number of terms in that
    text, :math:`\bar n` the mean of n, and :math:`df` the number of texts, out of N, that contain the term.
    The score of the item is the sum of

    .. math::
        \ln\left(1 + \frac{N - df + .5}{df + .5}\right) \frac{tf}{tf + k_1 (1 - b + b \, n / \bar n)}

    over all terms of the query; a term that occurs twice in the query is added twice. (Robertson & Zaragoza,
    *The Probabilistic Relevance Framework: BM25 and Beyond*, 2009, §3.4. The 1 inside the logarithm keeps the
    weight of a term above 0 even if most texts contain it.)

    Terms are the :func:`~recsys.texts.words.words` of the texts: runs of letters and digits, and pairs of
    neighbouring characters in Chinese, Japanese, Korean, Thai and the like. Equal scores are in the order of
    the items; this includes items without any word of the query, whose score is 0.

    Args:
        k1: Saturation, at least 0: the larger it is, the more further occurrences of a term add.
        b: Strength of the normalisation by the length of the text, from 0 (none) to 1 (full).

    Attributes:
        terms: ``(T,)`` int64, the hashes of all terms, ascending.
        weights: Postings of all terms one after the other: the term's contribution to the item's score,
            float32.
        items: The item row of each posting, int32; ascending for each term.
        starts: ``(T + 1,)`` int64, where the postings of each term begin.

    Raises:
        ValueError: If an argument is outside its range.
    """

    uses_ids = False
    uses_texts = True
    needs_query_texts = True
    is_random = False
    scores_are_logits = False

    def __init__(self, *, k1: float = 1.2, b: float = 0.75) -> None:
        check_numbers(k1=k1)
        check_numbers(0, 1, b=b)
        self.k1, self.b = k1, b

    def learn(self, data: FitData, context: FitContext) -> None:
        """Count the words of the items' texts; only the number of items is read from ``data.ids``.

        Raises:
            ValueError: If no text holds a word.
        """
        from recsys.texts.item_texts import without_labels  # noqa: PLC0415 — ranking does not need it

        counts = _counts([without_labels(text) for text in data.texts])
        if not counts.nnz:
            raise ValueError("there are no words in any of the texts to search in")
        terms = np.unique(counts.indices)
        self.terms = torch.from_numpy(terms.astype(np.int64))
        postings = self._weighted(_select_terms(terms, counts)).T.tocsr()
        self.weights = torch.from_numpy(postings.data)
        self.items = torch.from_numpy(postings.indices.astype(np.int32))
        self.starts = torch.from_numpy(postings.indptr.astype(np.int64))

    def _weighted(self, counts: sp.csr_array) -> sp.csr_array:
        """Return each term's contribution to an item's score, float32, for its counts ``(N, T)``."""
        lengths = counts.sum(axis=1)
        frequency = np.bincount(counts.indices, minlength=counts.shape[1])
        rarity = np.log1p((counts.shape[0] - frequency + 0.5) / (frequency + 0.5))
        saturation = self.k1 * (1 - self.b + self.b * lengths / lengths.mean())
        saturation = np.repeat(saturation, np.diff(counts.indptr))
        weights = rarity[counts.indices] * counts.data / (counts.data + saturation)
        return sp.csr_array((weights.astype(np.float32), counts.indices, counts.indptr), counts.shape)

    def prepare(self) -> None:
        """Build the sparse matrix of postings."""
        parts = (self.weights.numpy(), self.items.numpy(), self.starts.numpy())
        self._postings = sp.csr_array(parts, shape=(len(self.terms), self.ids.num_items))

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Return the ``width`` best items for each query; scores are at least 0."""
        query_terms = _select_terms(self.terms.numpy(), _counts(_query_texts(queries)))
        items = np.empty((len(queries), min(width, self.ids.num_items)), dtype=np.int64)
        scores = np.empty(items.shape, dtype=np.float32)
        # An upper bound on the number of items that share a term with each query.
        most_matches = query_terms.astype(bool).astype(np.int64) @ np.diff(self._postings.indptr)
        for block in _blocks(most_matches, _MATCHES_AT_ONCE):
            matches = sp.csr_array(query_terms[block] @ self._postings)
            for row, query in enumerate(range(block.start, block.stop)):
                own = slice(matches.indptr[row], matches.indptr[row + 1])
                items[query], scores[query] = _best(matches.indices[own], matches.data[own], items.shape[1])
        return Ranking(items, scores)


def _query_texts(queries: Examples) -> list[str]:
    """Return the text of each query; :meth:`Retriever.rank` has refused queries without one."""
    assert queries.texts is not None and queries.text_rows is not None  # noqa: S101, PT018
    return [queries.texts.words[row] for row in queries.text_rows.tolist()]


def _counts(texts: Sequence[str]) -> sp.csr_array:
    """Return how often each term occurs in each text, ``(texts, hashes)`` float32."""
    if not texts:  # scikit-learn ends in StopIteration
        return sp.csr_array((0, _HASHES), dtype=np.float32)
    # Imported here, because scikit-learn imports slowly and most retrievers do not need it.
    from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415

    from recsys.texts.words import words  # noqa: PLC0415

    hashing = HashingVectorizer(
        n_features=_HASHES,
        alternate_sign=False,
        norm=None,
        analyzer=words,
        dtype=np.float32,
    )
    return sp.csr_array(hashing.transform(texts))


def _select_terms(terms: Ints, counts: sp.csr_array) -> sp.csr_array:
    """Return the counts ``(texts, T)`` of the given terms only; ``terms`` are ascending hashes."""
    column = np.searchsorted(terms, counts.indices).clip(max=len(terms) - 1)
    known = terms[column] == counts.indices
    starts = np.concatenate([[0], np.cumsum(known)])[counts.indptr]
    return sp.csr_array((counts.data[known], column[known], starts), (counts.shape[0], len(terms)))


def _blocks(sizes: Ints, bound: int) -> list[slice]:
    """Group neighbours so that the sizes of a block add up to at most the bound, or the block has one."""
    blocks, start, total = [], 0, 0
    for position, size in enumerate(sizes.tolist()):
        if total + size > bound and position > start:
            blocks.append(slice(start, position))
            start, total = position, 0
        total += size
    return [*blocks, slice(start, len(sizes))] if len(sizes) else []


def _best(items: Ints, scores: Floats, width: int) -> tuple[Ints, Floats]:
    """Return the ``width`` best of the given items, followed by the first other items with score 0."""
    if len(scores) > width:
        is_candidate = scores >= np.partition(scores, -width)[-width]
        items, scores = items[is_candidate], scores[is_candidate]
    order = np.lexsort((items, -scores))[:width]
    # The given items are at most len(order) of the first ``width`` rows, so enough others are left.
    others = np.setdiff1d(np.arange(width), items[order])[: width - len(order)]
    return np.append(items[order], others), np.append(scores[order], np.zeros(len(others), np.float32))
