"""Checks of what tokenizers get and of what they return."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor

from semantic_ids.errors import ContractError

_ROWS_AT_ONCE = 1 << 16
_SMALLEST, _LARGEST = 1e-15, 1e15


def check_embeddings(embeddings: Tensor, *, at_least: int = 0, width: int | None = None) -> Tensor:
    """Check embeddings, and return them as float32 on the CPU.

    Args:
        embeddings: ``(N, D)``, of any dtype and on any device.
        at_least: Smallest number of rows N.
        width: Required width D; None allows any.

    Returns:
        The same values ``(N, D)``, without gradient.

    Raises:
        ValueError: If shape or width is wrong, if there are too few rows, if a value is NaN or infinite
            (the message names the first bad rows), or if values are so large or so small that their squares
            are no longer float32 numbers.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(f"embeddings must be (items, features), not of shape {tuple(embeddings.shape)}")
    if width not in (None, embeddings.shape[1]):
        raise ValueError(f"embeddings have {embeddings.shape[1]} features, but {width} were fitted")
    if len(embeddings) < at_least:
        raise ValueError(f"{len(embeddings)} embeddings are too few, at least {at_least} needed")
    embeddings = (embeddings.detach() if embeddings.requires_grad else embeddings).to("cpu", torch.float32)
    # In parts, because the absolute values take memory too. The largest one of a row with NaN is NaN.
    largest = torch.cat([part.abs().amax(dim=1) for part in embeddings.split(_ROWS_AT_ONCE)])
    bad = ~largest.isfinite()
    if bad.any():
        rows = bad.nonzero().flatten()[:5].tolist()
        raise ValueError(f"embeddings hold NaN or infinite values in {int(bad.sum())} rows, first {rows}")
    most = float(largest.max()) if len(largest) else 0.0
    if most > _LARGEST or 0 < most < _SMALLEST:
        raise ValueError(
            f"embeddings of this size (the largest value is {most:.0e}) have squares outside float32; "
            "scale them to about 1"
        )
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
        raise ValueError(
            f"codes must be (items, {len(sizes)}) int64, not {_dtype(codes)} {tuple(codes.shape)}"
        )
    codes = codes.cpu()
    outside = codes[_outside(codes, sizes)]
    if len(outside):
        raise ValueError(f"codes {outside[0].tolist()} lie outside codebooks of {sizes}, counted from 0")
    return codes


def check_returned_codes(method: str, codes: Any, sizes: Any, rows: int) -> None:
    """Check the codes that a tokenizer gave to ``rows`` items.

    Args:
        method: Name of class and method, for the message.
        codes: What the method returned.
        sizes: The tokenizer's ``codebook_sizes``.
        rows: Number of items.

    Raises:
        ContractError: If the codes are not ``(rows, L)`` int64 on the CPU and within their codebooks, or if
            the sizes are no tuple of positive integers.
    """
    check_codebook_sizes(method.partition(".")[0], sizes)
    shape = (rows, len(sizes))
    _check_tensor(method, "codes", codes, torch.int64, shape, f"for {rows} items; codebook_sizes {sizes} ask")
    outside = _outside(codes, sizes)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise ContractError(
            f"{method} gave codes like {codes[row].tolist()}, in row {row}; keep level l in 0 … K_l - 1, of "
            f"codebook_sizes {sizes}"
        )


def check_codebook_sizes(owner: str, sizes: Any) -> None:
    """Raise a :class:`ContractError` unless sizes are a tuple of positive integers, one for each level."""
    if not (isinstance(sizes, tuple) and sizes and all(type(size) is int and size > 0 for size in sizes)):
        raise ContractError(
            f"{owner}.codebook_sizes is {sizes!r} after fit; make it a tuple of positive ints, one a level"
        )


def check_returned_numbers(
    method: str, numbers: Any, dtype: torch.dtype, shape: tuple[int, int], *, at_least: float | None = None
) -> None:
    """Check decoded embeddings or distances.

    Args:
        method: Name of class and method, for the message.
        numbers: What the method returned.
        dtype: The dtype that it must have.
        shape: The shape that it must have.
        at_least: Smallest allowed value; None allows any finite number.

    Raises:
        ContractError: If dtype, shape or device is wrong, or if a number is NaN, infinite or too small.
    """
    name = method.partition(".")[2]
    wanted = f"finite {_name(dtype)}" + ("" if at_least is None else f" >= {at_least:g}")
    advice = f"return {wanted} of shape {shape} on the CPU, or leave {name} out"
    if not isinstance(numbers, Tensor):
        raise ContractError(f"{method} gave a {type(numbers).__name__}; {advice}")
    if numbers.shape != shape or numbers.dtype != dtype or numbers.device.type != "cpu":
        place = "" if numbers.device.type == "cpu" else f" on {numbers.device}"
        raise ContractError(
            f"{method} gave {_dtype(numbers)} of shape {tuple(numbers.shape)}{place}; {advice}"
        )
    for part in numbers.split(_ROWS_AT_ONCE):
        if not part.isfinite().all() or (at_least is not None and (part < at_least).any()):
            low = (
                "NaN or infinite values"
                if at_least is None
                else f"NaN, infinite values or some < {at_least:g}"
            )
            raise ContractError(f"{method} gave {low}; {advice}")


def checksum(embeddings: Tensor) -> int:
    """Return a number that changes when values of embeddings change or move."""
    return zlib.crc32(embeddings.contiguous().numpy())


def _check_tensor(
    method: str, what: str, value: Any, dtype: torch.dtype, shape: tuple[int, ...], reason: str
) -> None:
    """Raise a :class:`ContractError` unless ``value`` is a tensor of this dtype and shape on the CPU."""
    if not isinstance(value, Tensor):
        raise ContractError(f"{method} gave a {type(value).__name__}; return a tensor of {what}, {shape}")
    if value.shape != shape:
        raise ContractError(f"{method} gave {what} of shape {tuple(value.shape)} {reason} for {shape}")
    if value.dtype != dtype or value.device.type != "cpu":
        raise ContractError(
            f"{method} gave {what} of dtype {_dtype(value)} on {value.device}; return {_name(dtype)} on the "
            f"CPU: {what}.long().cpu()"
        )


def _outside(codes: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return ``(N,)`` bool: whether a code of the row is outside its codebook."""
    return ((codes < 0) | (codes >= torch.tensor(sizes))).any(dim=1)


def _dtype(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype."""
    return _name(tensor.dtype)


def _name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without that of its package."""
    return str(dtype).removeprefix("torch.")
