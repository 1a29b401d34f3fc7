"""The plug-in point: what a tokenizer is."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from semantic_ids.persistence import Persistent
from semantic_ids.types import OnStep

_ROWS_AT_ONCE = 1 << 16


class Tokenizer(Persistent, ABC):
    """Turns item embeddings into semantic IDs of a fixed length L.

    A subclass writes :meth:`fit` and :meth:`encode` and keeps to the convention of
    :class:`~semantic_ids.persistence.Persistent`; saving and loading then come for free. So do the
    checks of what ``fit``, ``encode``, ``decode`` and ``last_level_distances`` are given, which are put
    in front of a subclass's own methods: these see ``(N, D)`` float32 on the CPU without NaN, in ``fit``
    at least one row, in the others the width that was fitted; and in ``decode`` codes ``(N, L)`` int64
    on the CPU within their codebooks. :func:`~semantic_ids.testing.check_tokenizer` tries the rest.

    Attributes:
        codebook_sizes: ``(K_1, …, K_L)``; known after ``fit`` at the latest.
        fitted_width: D of the embeddings last fitted; None before. Set for the subclass.
    """

    codebook_sizes: tuple[int, ...]
    fitted_width: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Put the checks in front of the subclass's own methods."""
        super().__init_subclass__(**options)
        for name, checked in (
            ("fit", _checked_fit),
            ("encode", _checked_encode),
            ("last_level_distances", _checked_encode),
            ("decode", _checked_decode),
        ):
            if name in vars(cls):
                setattr(cls, name, checked(vars(cls)[name]))

    @abstractmethod
    def fit(self, embeddings: Tensor, *, seed: int = 0, on_step: OnStep | None = None) -> Self:
        """Learn from ``embeddings`` ``(N, D)`` float32, and return self.

        The same ``seed`` on the same device gives the same tokenizer; the global random state is
        neither read nor changed.

        Raises:
            ValueError: there are no embeddings, or they hold NaN or infinite values.
        """

    @abstractmethod
    def encode(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` float32 → codes ``(N, L)`` int64 with ``0 <= codes[:, l] < codebook_sizes[l]``.

        Deterministic, for any N, and the same for an item in whichever batch it stands.

        Raises:
            ValueError: nothing was fitted, or embeddings of another width; or they hold NaN or
                infinite values.
        """

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(N, L)`` int64 → embeddings ``(N, D)`` float32, for tokenizers that can reconstruct.

        Raises:
            ValueError: nothing was fitted, or codes of another shape or dtype, or outside their codebooks.
            NotImplementedError: the tokenizer cannot reconstruct.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot reconstruct embeddings from codes")

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        """``(N, D)`` float32 → ``(N, K_L)`` float64: how far items are from the last level's codewords.

        Squared distances of what the first L − 1 levels leave over, for tokenizers that have such a
        level; :func:`semantic_ids.collisions.sinkhorn` deals last codes out by them. Like codes they
        are the same for an item in whichever batch it stands.

        Raises:
            ValueError: as :meth:`encode`.
            NotImplementedError: the tokenizer has no such level.
        """
        raise NotImplementedError(f"{type(self).__name__} has no last level to measure distances to")

    @property
    def measures_last_level(self) -> bool:
        """Whether there is a :meth:`last_level_distances`; known before ``fit``."""
        return type(self).last_level_distances is not Tokenizer.last_level_distances

    def facts(self) -> dict[str, Any]:
        """What :class:`Persistent` keeps, with the codebook sizes also where they are the class's."""
        _fitted_width(self)
        return {**super().facts(), "codebook_sizes": list(self.codebook_sizes)}

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` and :meth:`facts` gave."""
        super().restore(state, facts)
        self.codebook_sizes = tuple(facts["codebook_sizes"])


def check_sizes(levels: int, codebook_size: int) -> None:
    """Raise a :class:`ValueError` unless there is a level at least and a code to choose in it."""
    if levels < 1 or codebook_size < 1:
        raise ValueError(f"semantic IDs need levels and codes, not {levels} levels of {codebook_size} codes")


def check_embeddings(embeddings: Tensor, *, at_least: int = 0, width: int | None = None) -> Tensor:
    """``(N, D)`` as float32 on the CPU, or a :class:`ValueError` that says what is wrong with them."""
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(f"embeddings must be (items, features), not of shape {tuple(embeddings.shape)}")
    if width not in (None, embeddings.shape[1]):
        raise ValueError(f"embeddings have {embeddings.shape[1]} features, but {width} were fitted")
    if len(embeddings) < at_least:
        raise ValueError(f"{len(embeddings)} embeddings are too few, at least {at_least} needed")
    embeddings = embeddings.to("cpu", torch.float32)
    # In parts, for isfinite takes as much memory again as what it looks at.
    bad = torch.cat([~torch.isfinite(part).all(dim=1) for part in embeddings.split(_ROWS_AT_ONCE)])
    if bad.any():
        rows = bad.nonzero().flatten()[:5].tolist()
        raise ValueError(f"embeddings hold NaN or infinite values in {int(bad.sum())} rows, first {rows}")
    return embeddings


def check_codes(codes: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """``(N, L)`` int64 on the CPU, or a :class:`ValueError` that says what is wrong with them."""
    if codes.ndim != 2 or codes.shape[1] != len(sizes) or codes.dtype != torch.int64:
        dtype = str(codes.dtype).removeprefix("torch.")
        raise ValueError(f"codes must be (items, {len(sizes)}) int64, not {dtype} {tuple(codes.shape)}")
    codes = codes.cpu()
    outside = codes[((codes < 0) | (codes >= torch.tensor(sizes))).any(dim=1)]
    if len(outside):
        raise ValueError(f"codes {outside[0].tolist()} lie outside codebooks of {sizes}, counted from 0")
    return codes


def _checked_fit(fit: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fit)
    def checked(self: Tokenizer, embeddings: Tensor, **options: Any) -> Any:
        if type(self).fit is checked:  # not where a subclass calls it on what it made of its embeddings
            embeddings = check_embeddings(embeddings, at_least=1)
            self.fitted_width = embeddings.shape[1]
        return fit(self, embeddings, **options)

    return checked


def _checked_encode(method: Callable[..., Any]) -> Callable[..., Any]:
    """``encode`` or ``last_level_distances``, which take the same."""

    @functools.wraps(method)
    def checked(self: Tokenizer, embeddings: Tensor) -> Any:
        if checked in (type(self).encode, type(self).last_level_distances):
            embeddings = check_embeddings(embeddings, width=_fitted_width(self))
        return method(self, embeddings)

    return checked


def _checked_decode(decode: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(decode)
    def checked(self: Tokenizer, codes: Tensor) -> Any:
        if type(self).decode is checked:
            _fitted_width(self)
            codes = check_codes(codes, self.codebook_sizes)
        return decode(self, codes)

    return checked


def _fitted_width(tokenizer: Tokenizer) -> int:
    if tokenizer.fitted_width is None:
        raise ValueError(f"{type(tokenizer).__name__} is not fitted yet; call fit first")
    return tokenizer.fitted_width
