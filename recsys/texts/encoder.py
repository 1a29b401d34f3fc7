"""The plug-in point for text encoders: turn texts of items and queries into vectors of one space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from semantic_ids.plugins import Registry, subclass_of
from semantic_ids.types import Floats

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
            ``(N, D)`` and ``(T, D)``.
        """
        items = self.encode(texts)
        asked = self.encode_queries(queries) if queries else items[:0]
        on_progress(len(texts) + len(queries), len(texts) + len(queries))
        return items, asked


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
