"""The base class of all tokenizers, built-in and plug-ins, which checks what they get and return."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor

from semantic_ids.checks import (
    check_codes,
    check_embeddings,
    check_returned_codes,
    check_returned_numbers,
    checksum,
)
from semantic_ids.errors import ContractError, TrainingDivergedError
from semantic_ids.persistence import Persistent
from semantic_ids.randomness import float32_numbers
from semantic_ids.ranges import MAX_SEED, check_whole
from semantic_ids.types import OnStep

_CHECKED = "_semantic_ids_checked"
"""Attribute of methods that are checked already."""


class Tokenizer(Persistent, ABC):
    """A method that turns item embeddings into semantic IDs of a fixed length L.

    A subclass implements :meth:`fit` and :meth:`encode` and follows the convention of
    :class:`~semantic_ids.persistence.Persistent`. Then saving and loading work without further code.

    The inputs of ``fit``, ``encode``, ``decode`` and ``last_level_distances`` are checked before the
    subclass's own methods are called. So these methods get embeddings ``(N, D)`` float32 on the CPU
    without NaN or infinite values: at least one row in ``fit``, and the fitted width elsewhere. ``decode``
    gets codes ``(N, L)`` int64 on the CPU that are within their codebooks.

    Their results are checked too: what ``fit`` learns holds no NaN, codes are within ``codebook_sizes``, and
    neither ``fit`` nor ``encode`` changes the embeddings. A wrong result is a
    :class:`~semantic_ids.errors.ContractError` or a :class:`~semantic_ids.errors.TrainingDivergedError`.
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
        """Wrap the subclass's own methods in checks of what they get and return."""
        super().__init_subclass__(**options)
        for name, checked in (
            ("fit", _checked_fit),
            ("encode", _checked_encode),
            ("last_level_distances", _checked_distances),
            ("decode", _checked_decode),
        ):
            method = getattr(cls, name)  # also one of a class beside Tokenizer, which nothing else checks
            if not (hasattr(method, _CHECKED) or method is getattr(Tokenizer, name)):
                setattr(cls, name, checked(method))
                setattr(vars(cls)[name], _CHECKED, True)

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
            TrainingDivergedError: If the training diverged. The message names the setting to change.
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
        _require_no_nan(self)


def _checked_fit(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``fit`` with checks of its embeddings and of what it learned; it also records their width."""

    @functools.wraps(fit)
    @float32_numbers()
    def checked(self: Tokenizer, embeddings: Tensor, **options: Any) -> Any:
        # A subclass may call this method through super() with features of its own instead of embeddings.
        if type(self).fit is not checked:
            return fit(self, embeddings, **options)
        check_whole(0, MAX_SEED, seed=options.get("seed", 0))
        embeddings = check_embeddings(embeddings, at_least=1)
        self.fitted_width = embeddings.shape[1]
        with _unchanged(self, "fit", embeddings):
            fitted = fit(self, embeddings, **options)
        _require_no_nan(self)
        return fitted

    return checked


def _checked_encode(encode: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``encode`` with checks of its embeddings and of its codes."""

    @functools.wraps(encode)
    @float32_numbers()
    def checked(self: Tokenizer, embeddings: Tensor) -> Any:
        if type(self).encode is not checked:
            return encode(self, embeddings)
        embeddings = check_embeddings(embeddings, width=_fitted_width(self))
        with _unchanged(self, "encode", embeddings):
            codes = encode(self, embeddings)
        sizes = getattr(self, "codebook_sizes", None)
        check_returned_codes(f"{type(self).__name__}.encode", codes, sizes, len(embeddings))
        return codes

    return checked


def _checked_distances(measure: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``last_level_distances`` with checks of its embeddings and of its distances."""

    @functools.wraps(measure)
    @float32_numbers()
    def checked(self: Tokenizer, embeddings: Tensor) -> Any:
        if type(self).last_level_distances is not checked:
            return measure(self, embeddings)
        embeddings = check_embeddings(embeddings, width=_fitted_width(self))
        distances = measure(self, embeddings)
        shape = (len(embeddings), self.codebook_sizes[-1])
        method = f"{type(self).__name__}.last_level_distances"
        check_returned_numbers(method, distances, torch.float64, shape, at_least=0)
        return distances

    return checked


def _checked_decode(decode: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``decode`` with checks of its codes and of its embeddings."""

    @functools.wraps(decode)
    @float32_numbers()
    def checked(self: Tokenizer, codes: Tensor) -> Any:
        if type(self).decode is not checked:
            return decode(self, codes)
        width = _fitted_width(self)
        codes = check_codes(codes, self.codebook_sizes)
        decoded = decode(self, codes)
        check_returned_numbers(f"{type(self).__name__}.decode", decoded, torch.float32, (len(codes), width))
        return decoded

    return checked


@contextmanager
def _unchanged(tokenizer: Tokenizer, method: str, embeddings: Tensor) -> Iterator[None]:
    """Raise a :class:`ContractError` if the block changes the embeddings, which all tokenizers share."""
    before = checksum(embeddings)
    yield
    if checksum(embeddings) != before:
        raise ContractError(
            f"{type(tokenizer).__name__}.{method} changed the embeddings; work on embeddings.clone()"
        )


def _require_no_nan(tokenizer: Tokenizer) -> None:
    """Raise a :class:`TrainingDivergedError` if a tensor or a weight of a fitted tokenizer holds NaN."""
    bad = [
        name
        for name, value in tokenizer.state().items()
        if value.is_floating_point() and bool(value.isnan().any())
    ]
    if bad:
        raise TrainingDivergedError(
            f"{type(tokenizer).__name__} holds NaN in {', '.join(bad[:3])} after fit: its training diverged; "
            "try smaller steps, such as a smaller learning rate"
        )


def _fitted_width(tokenizer: Tokenizer) -> int:
    """Return the width of the fitted embeddings, or raise a :class:`ValueError` if there is none."""
    if tokenizer.fitted_width is None:
        raise ValueError(f"{type(tokenizer).__name__} is not fitted yet; call fit first")
    return tokenizer.fitted_width
