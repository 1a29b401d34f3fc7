"""The floor of search: BM25, which needs no training and no semantic IDs, only words in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from recsys.examples import Examples, Ranking
from recsys.retrievers.base import FitContext, FitData, Retriever
from semantic_ids.types import Floats, Ints

_HASHES = 2**31 - 1
"""Terms are told apart by a hash of so many values, so that of a vocabulary only numbers are kept."""

_MATCHES_AT_ONCE = 2**22
"""Bounds memory: so many scores of items that share a term with a query are held at a time."""


class Bm25(Retriever):
    r"""Scores an item's text by the words of the query that stand in it, rare ones counting for more.

    With :math:`tf` the times that a term stands in a text of n terms, :math:`\bar n` their mean number, and
    :math:`df` of N texts holding the term, the score is the sum over the query's terms, repeated ones
    repeatedly, of

    .. math::
        \ln\left(1 + \frac{N - df + .5}{df + .5}\right) \frac{tf}{tf + k_1 (1 - b + b \, n / \bar n)}

    (Robertson & Zaragoza, *The Probabilistic Relevance Framework: BM25 and Beyond*, 2009, §3.4; the 1
    inside the logarithm keeps terms that most texts hold from counting against a text.) Terms are runs
    of letters and digits in lower case. Of equal scores the smaller row leads, and so it is
    among items that have no word of the query, whose score is 0.

    Args:
        k1: how soon more of the same term counts no more, at least 0.
        b: how far long texts are held to say more of everything, 0 … 1.

    Attributes:
        terms: ``(T,)`` int64, the hashes of all terms, ascending.
        weights, items, starts: postings, those of a term behind each other: what its standing there counts,
            float32; the rows of items, ascending, int32; where each term begins, ``(T + 1,)`` int64.

    Raises:
        ValueError: an argument is out of its range.
    """

    uses_ids = False
    uses_texts = True
    needs_query_texts = True
    is_random = False
    scores_are_logits = False

    def __init__(self, *, k1: float = 1.2, b: float = 0.75) -> None:
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"k1 must be at least 0 and b from 0 to 1, not {k1} and {b}")
        self.k1, self.b = k1, b

    def learn(self, data: FitData, context: FitContext) -> None:
        """Count the words of the items' texts; only the number of items is read from ``data.ids``.

        Raises:
            ValueError: If no text holds a word.
        """
        from recsys.texts.item_texts import without_labels  # noqa: PLC0415 — needs more than ranking does

        counts = _counts([without_labels(text) for text in data.texts])
        if not counts.nnz:
            raise ValueError("there are no words in any of the texts to search in")
        terms = np.unique(counts.indices)
        self.terms = torch.from_numpy(terms.astype(np.int64))
        postings = self._weighed(_among(terms, counts)).T.tocsr()
        self.weights = torch.from_numpy(postings.data)
        self.items = torch.from_numpy(postings.indices.astype(np.int32))
        self.starts = torch.from_numpy(postings.indptr.astype(np.int64))

    def _weighed(self, counts: sp.csr_array) -> sp.csr_array:
        """``(N, terms)`` counts → what each counts in a score, float32."""
        lengths = counts.sum(axis=1)
        frequency = np.bincount(counts.indices, minlength=counts.shape[1])
        rarity = np.log1p((counts.shape[0] - frequency + 0.5) / (frequency + 0.5))
        saturation = self.k1 * (1 - self.b + self.b * lengths / lengths.mean())
        saturation = np.repeat(saturation, np.diff(counts.indptr))
        weights = rarity[counts.indices] * counts.data / (counts.data + saturation)
        return sp.csr_array((weights.astype(np.float32), counts.indices, counts.indptr), counts.shape)

    def prepare(self) -> None:
        """Put the postings together."""
        parts = (self.weights.numpy(), self.items.numpy(), self.starts.numpy())
        self._postings = sp.csr_array(parts, shape=(len(self.terms), self.ids.num_items))

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Return the ``width`` best items for each query; scores are at least 0."""
        asked = _among(self.terms.numpy(), _counts(_query_texts(queries)))
        items = np.empty((len(queries), min(width, self.ids.num_items)), dtype=np.int64)
        scores = np.empty(items.shape, dtype=np.float32)
        # Of each query no more items than this have a term of it.
        matches = asked.astype(bool).astype(np.int64) @ np.diff(self._postings.indptr)
        for block in _blocks(matches, _MATCHES_AT_ONCE):
            found = sp.csr_array(asked[block] @ self._postings)
            for row, query in enumerate(range(block.start, block.stop)):
                own = slice(found.indptr[row], found.indptr[row + 1])
                items[query], scores[query] = _best(found.indices[own], found.data[own], items.shape[1])
        return Ranking(items, scores)


def _query_texts(queries: Examples) -> list[str]:
    """Return the text of each query; :meth:`Retriever.rank` has refused queries without one."""
    assert queries.texts is not None and queries.text_rows is not None  # noqa: S101, PT018
    return [queries.texts.words[row] for row in queries.text_rows.tolist()]


def _counts(texts: Sequence[str]) -> sp.csr_array:
    """``(texts, hashes)`` float32: how often each term stands in each text."""
    # Only here, so that the other retrievers need no scikit-learn.
    from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415

    hashing = HashingVectorizer(
        n_features=_HASHES,
        alternate_sign=False,
        norm=None,
        token_pattern=r"\w+",  # noqa: S106  (sizes, shades and term ids may have one digit)
        dtype=np.float32,
    )
    return sp.csr_array(hashing.transform(texts))


def _among(terms: Ints, counts: sp.csr_array) -> sp.csr_array:
    """``(texts, T)``: the counts of some terms, by their sorted hashes; the others are left out."""
    place = np.searchsorted(terms, counts.indices).clip(max=len(terms) - 1)
    known = terms[place] == counts.indices
    starts = np.concatenate([[0], np.cumsum(known)])[counts.indptr]
    return sp.csr_array((counts.data[known], place[known], starts), (counts.shape[0], len(terms)))


def _blocks(sizes: Ints, bound: int) -> list[slice]:
    """Neighbours in blocks whose sizes add up to the bound at most, but for blocks of one."""
    blocks, start, total = [], 0, 0
    for place, size in enumerate(sizes.tolist()):
        if total + size > bound and place > start:
            blocks.append(slice(start, place))
            start, total = place, 0
        total += size
    return [*blocks, slice(start, len(sizes))] if len(sizes) else []


def _best(items: Ints, scores: Floats, width: int) -> tuple[Ints, Floats]:
    """The best of some items, filled up with the first rows of the others, whose score is 0."""
    if len(scores) > width:
        enough = scores >= np.partition(scores, -width)[-width]
        items, scores = items[enough], scores[enough]
    order = np.lexsort((items, -scores))[:width]
    # At most ``len(order)`` of the first ``width`` rows are taken.
    others = np.setdiff1d(np.arange(width), items[order])[: width - len(order)]
    return np.append(items[order], others), np.append(scores[order], np.zeros(len(others), np.float32))
