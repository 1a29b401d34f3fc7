"""The base class of all tokenizers, built-in and plug-ins, and the checks of their inputs."""

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
    """A method that turns item embeddings into semantic IDs of a fixed length L.

    A subclass implements :meth:`fit` and :meth:`encode` and follows the convention of
    :class:`~semantic_ids.persistence.Persistent`. Then saving and loading work without further code.

    The inputs of ``fit``, ``encode``, ``decode`` and ``last_level_distances`` are checked before the
    subclass's own methods are called. So these methods get embeddings ``(N, D)`` float32 on the CPU
    without NaN or infinite values: at least one row in ``fit``, and the fitted width elsewhere. ``decode``
    gets codes ``(N, L)`` int64 on the CPU that are within their codebooks.
    :func:`~semantic_ids.testing.check_tokenizer` checks the other rules of a tokenizer.

    Attributes:
        codebook_sizes: Number of codes of every level, ``(K_1, …, K_L)``; known after ``fit`` at the
            latest.
        fitted_width: Width D of the embeddings of the last ``fit``; None before. The subclass need not
            set it.
    """

    codebook_sizes: tuple[int, ...]
    fitted_width: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Wrap the subclass's own methods in the checks of their inputs."""
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
        """Fit the tokenizer to embeddings, and return self.

        The same seed on the same device gives the same tokenizer. The global random state is neither
        read nor changed.

        Args:
            embeddings: ``(N, D)`` float32, one row for each item.
            seed: Seed of all random draws.
            on_step: Function that gets step numbers and metrics during the fit, for curves and progress.

        Raises:
            ValueError: If there are no embeddings, or if they hold NaN or infinite values.
        """

    @abstractmethod
    def encode(self, embeddings: Tensor) -> Tensor:
        """Return the codes of embeddings, deterministically.

        The codes of an item do not depend on the other items in the batch.

        Args:
            embeddings: ``(N, D)`` float32, for any N, including 0.

        Returns:
            Codes ``(N, L)`` int64 with ``0 <= codes[:, l] < codebook_sizes[l]``.

        Raises:
            ValueError: If the tokenizer is not fitted, or if the embeddings have another width than the
                fitted ones or hold NaN or infinite values.
        """

    def decode(self, codes: Tensor) -> Tensor:
        """Return the reconstructed embeddings of codes, if the tokenizer can reconstruct.

        Args:
            codes: ``(N, L)`` int64.

        Returns:
            Embeddings ``(N, D)`` float32.

        Raises:
            ValueError: If the tokenizer is not fitted, or if the codes have another shape or dtype or are
                outside their codebooks.
            NotImplementedError: If the tokenizer cannot reconstruct.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot reconstruct embeddings from codes")

    def last_level_distances(self, embeddings: Tensor) -> Tensor:
        """Return squared distances from the last level's residuals to its codewords, if it has codewords.

        The residual is the part of an item that the first L − 1 levels leave over.
        :func:`semantic_ids.collisions.sinkhorn` reassigns last codes by these distances. Like codes, the
        distances of an item do not depend on the other items in the batch.

        Args:
            embeddings: ``(N, D)`` float32.

        Returns:
            ``(N, K_L)`` float64.

        Raises:
            ValueError: In the same cases as :meth:`encode`.
            NotImplementedError: If the last level has no codewords.
        """
        raise NotImplementedError(f"{type(self).__name__} has no last level to measure distances to")

    @property
    def measures_last_level(self) -> bool:
        """Whether the tokenizer implements :meth:`last_level_distances`; known before ``fit``."""
        return type(self).last_level_distances is not Tokenizer.last_level_distances

    def facts(self) -> dict[str, Any]:
        """Return the facts of :class:`Persistent` and the codebook sizes, which may belong to the class.

        Raises:
            ValueError: If the tokenizer is not fitted.
        """
        _fitted_width(self)
        return {**super().facts(), "codebook_sizes": list(self.codebook_sizes)}

    def restore(self, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Set what :meth:`state` and :meth:`facts` returned."""
        super().restore(state, facts)
        self.codebook_sizes = tuple(facts["codebook_sizes"])


def check_sizes(levels: int, codebook_size: int) -> None:
    """Raise a :class:`ValueError` unless there is at least one level and one code in every level."""
    if levels < 1 or codebook_size < 1:
        raise ValueError(f"semantic IDs need levels and codes, not {levels} levels of {codebook_size} codes")


def check_embeddings(embeddings: Tensor, *, at_least: int = 0, width: int | None = None) -> Tensor:
    """Check embeddings, and return them as float32 on the CPU.

    Args:
        embeddings: ``(N, D)``, of any dtype and on any device.
        at_least: Smallest number of rows N.
        width: Required width D; None allows any.

    Returns:
        The same values ``(N, D)``.

    Raises:
        ValueError: If shape or width is wrong, if there are too few rows, or if a value is NaN or
            infinite. The message names the first bad rows.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(f"embeddings must be (items, features), not of shape {tuple(embeddings.shape)}")
    if width not in (None, embeddings.shape[1]):
        raise ValueError(f"embeddings have {embeddings.shape[1]} features, but {width} were fitted")
    if len(embeddings) < at_least:
        raise ValueError(f"{len(embeddings)} embeddings are too few, at least {at_least} needed")
    embeddings = embeddings.to("cpu", torch.float32)
    # In parts, because the result of isfinite takes memory too.
    bad = torch.cat([~torch.isfinite(part).all(dim=1) for part in embeddings.split(_ROWS_AT_ONCE)])
    if bad.any():
        rows = bad.nonzero().flatten()[:5].tolist()
        raise ValueError(f"embeddings hold NaN or infinite values in {int(bad.sum())} rows, first {rows}")
    return embeddings


def check_codes(codes: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Check codes, and return them on the CPU.

    Args:
        codes: ``(N, L)`` int64, on any device.
        sizes: Number of codes of every level, ``(K_1, …, K_L)``.

    Raises:
        ValueError: If shape or dtype is wrong, or if a code is outside its codebook. The message names
            the first wrong row.
    """
    if codes.ndim != 2 or codes.shape[1] != len(sizes) or codes.dtype != torch.int64:
        dtype = str(codes.dtype).removeprefix("torch.")
        raise ValueError(f"codes must be (items, {len(sizes)}) int64, not {dtype} {tuple(codes.shape)}")
    codes = codes.cpu()
    outside = codes[((codes < 0) | (codes >= torch.tensor(sizes))).any(dim=1)]
    if len(outside):
        raise ValueError(f"codes {outside[0].tolist()} lie outside codebooks of {sizes}, counted from 0")
    return codes


def _checked_fit(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``fit`` with a check of its embeddings, which also records their width."""

    @functools.wraps(fit)
    def checked(self: Tokenizer, embeddings: Tensor, **options: Any) -> Any:
        # A subclass may call this method through super() with features of its own instead of embeddings.
        if type(self).fit is checked:
            embeddings = check_embeddings(embeddings, at_least=1)
            self.fitted_width = embeddings.shape[1]
        return fit(self, embeddings, **options)

    return checked


def _checked_encode(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``encode`` or ``last_level_distances`` with a check of its embeddings."""

    @functools.wraps(method)
    def checked(self: Tokenizer, embeddings: Tensor) -> Any:
        if checked in (type(self).encode, type(self).last_level_distances):
            embeddings = check_embeddings(embeddings, width=_fitted_width(self))
        return method(self, embeddings)

    return checked


def _checked_decode(decode: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``decode`` with a check of its codes."""

    @functools.wraps(decode)
    def checked(self: Tokenizer, codes: Tensor) -> Any:
        if type(self).decode is checked:
            _fitted_width(self)
            codes = check_codes(codes, self.codebook_sizes)
        return decode(self, codes)

    return checked


def _fitted_width(tokenizer: Tokenizer) -> int:
    """Return the width of the fitted embeddings, or raise a :class:`ValueError` if there is none."""
    if tokenizer.fitted_width is None:
        raise ValueError(f"{type(tokenizer).__name__} is not fitted yet; call fit first")
    return tokenizer.fitted_width
