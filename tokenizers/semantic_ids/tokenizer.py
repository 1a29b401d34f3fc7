"""The plug-in point: what a tokenizer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from semantic_ids.persistence import Persistent

OnStep = Callable[[int, Mapping[str, float]], None]
"""Called while fitting with the step and the metrics of that step, for curves and progress."""


class Tokenizer(Persistent, ABC):
    """Turns item embeddings into semantic IDs of a fixed length L.

    A subclass writes :meth:`fit` and :meth:`encode` and keeps to the convention of
    :class:`~semantic_ids.persistence.Persistent`; saving and loading then come for free.

    Attributes:
        codebook_sizes: ``(K_1, …, K_L)``; known after ``fit`` at the latest.
    """

    codebook_sizes: tuple[int, ...]

    @abstractmethod
    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Learn from ``embeddings`` ``(N, D)`` float32, and return self.

        The same ``seed`` on the same device gives the same tokenizer; the global random state is
        neither read nor changed.
        """

    @abstractmethod
    def encode(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` float32 → codes ``(N, L)`` int64 with ``0 <= codes[:, l] < codebook_sizes[l]``.

        Deterministic, for any N, and the same for an item in whichever batch it stands.
        """

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(N, L)`` int64 → embeddings ``(N, D)`` float32, for tokenizers that can reconstruct."""
        raise NotImplementedError(f"{type(self).__name__} cannot reconstruct embeddings from codes")

    def facts(self) -> dict[str, Any]:
        """The codebook sizes, which some tokenizers know only after fitting."""
        return {"codebook_sizes": list(self.codebook_sizes)}

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` and :meth:`facts` gave."""
        super().restore(state, facts)
        self.codebook_sizes = tuple(facts["codebook_sizes"])


def check_sizes(levels: int, codebook_size: int) -> None:
    """Raise a :class:`ValueError` unless there is a level at least and a code to choose in it."""
    if levels < 1 or codebook_size < 1:
        raise ValueError(f"semantic IDs need levels and codes, not {levels} levels of {codebook_size} codes")


def check_embeddings(embeddings: Tensor, *, at_least: int = 0) -> Tensor:
    """``(N, D)`` as float32 on the CPU, or a :class:`ValueError` that says what is wrong with them."""
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(f"embeddings must be (items, features), not of shape {tuple(embeddings.shape)}")
    if len(embeddings) < at_least:
        raise ValueError(f"{len(embeddings)} embeddings are too few, at least {at_least} needed")
    bad = ~torch.isfinite(embeddings).all(dim=1)
    if bad.any():
        rows = bad.nonzero().flatten()[:5].tolist()
        raise ValueError(f"embeddings hold NaN or infinite values in {int(bad.sum())} rows, first {rows}")
    return embeddings.to("cpu", torch.float32)
