"""Latent semantic analysis: vectors learned from the texts of the catalogue themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys.texts.encoder import OnProgress, TextEncoder
from recsys.texts.words import words
from semantic_ids.ranges import MAX_SIZE, check_whole
from semantic_ids.types import Floats

MAX_TERMS = 2**15
"""Number of the most frequent words and word pairs that are looked at: a bound on memory."""

MAX_TEXTS = 2**18
"""Number of texts, evenly spaced among all, that are learned from: the other bound on memory."""


class LatentSemanticAnalysis(TextEncoder):
    """TF-IDF of words and word pairs, projected on the leading singular directions (Deerwester et al. 1990).

    Words are those of :func:`~recsys.texts.words.words`: also those of languages that set no blanks.

    It learns from the items' texts only, and needs no pretrained model. Where there are queries, or more
    than :data:`MAX_TEXTS` items, items get slightly different vectors than without.

    Args:
        dimensions: Width D of the vectors; fewer where there are fewer texts or terms.
        seed: Seed of the randomized decomposition, below 2³².

    Raises:
        ValueError: If an argument is out of range.
    """

    reads_term_ids = True

    def __init__(self, *, dimensions: int = 256, seed: int = 0) -> None:
        check_whole(1, MAX_SIZE, dimensions=dimensions)
        check_whole(0, 2**32 - 1, seed=seed)
        self.dimensions, self.seed = dimensions, seed

    def encode(self, texts: Sequence[str]) -> Floats:
        """Learn from ``texts``, and return their vectors."""
        return self.embed(texts, (), None, lambda done, total: None)[0]

    def embed(
        self, texts: Sequence[str], queries: Sequence[str], shards: Path | None, on_progress: OnProgress
    ) -> tuple[Floats, Floats]:
        """Learn from ``texts``, and return the vectors of items and queries.

        Raises:
            ValueError: If no text holds a word.
        """
        if not any(map(words, self._sample(texts))):
            raise ValueError("there are no words in any of the texts to embed")
        vectors = self._vectors(texts, queries)
        on_progress(len(vectors), len(vectors))
        return vectors[: len(texts)], vectors[len(texts) :]

    def _sample(self, texts: Sequence[str]) -> Sequence[str]:
        """Return the texts that are learned from."""
        return texts[:: max(1, math.ceil(len(texts) / MAX_TEXTS))]

    def _vectors(self, texts: Sequence[str], queries: Sequence[str]) -> Floats:
        """Return the vectors ``(N + T, D)`` of items and queries."""
        # Imported here, because scikit-learn takes a second that reading a benchmark file need not.
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415
        from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415

        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2),
            sublinear_tf=True,
            tokenizer=words,
            token_pattern=None,
            lowercase=False,
            max_features=MAX_TERMS,
            dtype=np.float32,
        )
        sample = self._sample(texts)
        weights = vectorizer.fit_transform(sample)
        rank = min(self.dimensions, *weights.shape)
        left, values, right = randomized_svd(weights, rank, random_state=self.seed)
        if len(sample) == len(texts) and not queries:
            exact: Floats = left * values
            return exact
        # The decomposition is approximate: left * values only comes near weights @ right.T. All texts take
        # the second way here, because a query with the words of an item must be where the item is.
        projected: Floats = vectorizer.transform([*texts, *queries]) @ right.T
        return projected
