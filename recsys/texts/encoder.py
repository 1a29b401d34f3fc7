"""The plug-in point for text encoders: turn texts of items and queries into vectors of one space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from semantic_ids.plugins import Registry, subclass_of
from semantic_ids.types import Floats, Ints

OnProgress = Callable[[int, int], None]
"""Called with the number of texts done and the number of all texts to do."""


class TextEncoder(ABC):
    """Turns texts into vectors. A subclass writes :meth:`encode`, and if need be :meth:`encode_queries`.

    The same texts must give the same vectors on every call. Lengths of vectors do not matter: they are
    scaled to length 1 afterwards.

    Attributes:
        reads_term_ids: Whether it can read texts whose words are numbers that stand for hidden terms. A
            pretrained language model cannot.
    """

    reads_term_ids: ClassVar[bool] = False

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Floats:
        """Return the vectors ``(N, D)`` of N texts of items."""

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Return the vectors ``(T, D)`` of T texts of queries; by default those of :meth:`encode`."""
        return self.encode(texts)

    def embed(
        self, texts: Sequence[str], queries: Sequence[str], shards: Path | None, on_progress: OnProgress
    ) -> tuple[Floats, Floats]:
        """Return the vectors of all items and all queries.

        Override it to learn from the items' texts first, or to resume a long run.

        Args:
            texts: Texts of N items, at least one.
            queries: Texts of T queries; may be empty.
            shards: Folder for finished parts, from which an interrupted call resumes; None to keep none.
            on_progress: Called while texts are being encoded.

        Returns:
            ``(N, D)`` and ``(T, D)``. The second is not used if there are no queries.
        """
        items = self.encode(texts)
        asked = self.encode_queries(queries) if queries else np.empty((0, 0), dtype=np.float32)
        on_progress(len(texts) + len(queries), len(texts) + len(queries))
        return items, asked


def check_vectors(
    encoder: str, vectors: Any, texts: Sequence[str], what: str, numbers: Ints | None = None
) -> Floats:
    """Return what an encoder made of some texts, after checking that it is one finite vector for each.

    Args:
        encoder: Name of the encoder, for messages.
        vectors: What it returned.
        texts: The N texts.
        what: What the texts are, for messages, such as ``items``.
        numbers: ``(N,)`` the place of each text among all; by default 0, 1, 2 and so on.

    Returns:
        Array ``(N, D)`` of numbers, D at least 1.

    Raises:
        ValueError: If ``vectors`` is something else, or holds NaN or infinite numbers. The message names the
            encoder, and the first text with such numbers.
    """
    try:
        array = np.asarray(vectors)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of several lengths, tensors of a GPU
        raise ValueError(
            f"text encoder {encoder!r} returned no NumPy array for the {what}: {error}"
        ) from error
    if array.dtype.kind not in "fiu" or array.ndim != 2 or len(array) != len(texts) or not array.shape[1]:
        raise ValueError(
            f"text encoder {encoder!r} returned an array of shape {array.shape} and type {array.dtype} for "
            f"{len(texts)} texts of {what}, not one vector of numbers for each"
        )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        number = bad[0] if numbers is None else numbers[bad[0]]
        raise ValueError(
            f"text encoder {encoder!r} returned NaN or infinite numbers for {len(bad)} texts of {what}, "
            f"the first of them number {number}, counted from 0: {texts[bad[0]][:60]!r}"
        )
    return array


TEXT_ENCODERS: Registry[type[TextEncoder]] = Registry(
    "text encoder",
    "recsys.text_encoders",
    {
        "lsa": "recsys.texts.lsa:LatentSemanticAnalysis",
        "minilm": "recsys.texts.sentence_encoder:MiniLm",
    },
    subclass_of(TextEncoder),  # type: ignore[type-abstract]
)
"""Text encoders by name; also ``module:Class``. Any other name is one of sentence-transformers."""
