"""Checks that settings are numbers within their ranges, with messages that name the setting."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

MAX_COUNT = 2**31 - 1
"""Largest value of a whole number without a limit of its own."""

MAX_NUMBER = 1e18
"""Largest number without a limit of its own; what float32 can square."""

MAX_SIZE = 2**16
"""Largest width or length of a part of a model; larger ones are mistakes that exhaust memory."""

MAX_LAYERS = 1000
"""Largest number of layers of a model."""

MAX_SEED = 2**63 - 1
"""Largest seed."""

MAX_LEVELS, MAX_CODES = 64, 2**24
"""Largest number of levels of a semantic ID, and of codes of a level."""


def check_whole(low: int = 1, high: int = MAX_COUNT, /, **settings: Any) -> None:
    """Check that settings are whole numbers from ``low`` to ``high``.

    Args:
        low: Smallest allowed value.
        high: Largest allowed value.
        **settings: Name of each setting to its value.

    Raises:
        ValueError: If a value is no whole number (True and 2.0 are none) or out of range. The message names
            the setting and its range.

    Example:
        >>> check_whole(1, 64, levels=4)
        >>> check_whole(1, 64, levels=0)
        Traceback (most recent call last):
        ValueError: levels must be a whole number from 1 to 64, not 0
    """
    for name, value in settings.items():
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not (is_whole and low <= int(value) <= high):
            raise ValueError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def check_numbers(
    low: float = 0.0,
    high: float = math.inf,
    /,
    *,
    above: bool = False,
    below: bool = False,
    infinite: bool = False,
    **settings: Any,
) -> None:
    """Check that settings are numbers from ``low`` to ``high``.

    Args:
        low: Smallest allowed value.
        high: Largest allowed value.
        above: Whether ``low`` itself is refused.
        below: Whether ``high`` itself is refused.
        infinite: Whether an infinite ``high`` itself is allowed.
        **settings: Name of each setting to its value.

    Raises:
        ValueError: If a value is no number, NaN, or out of range. The message names the setting and its
            range.

    Example:
        >>> check_numbers(0, 1, below=True, dropout=0.1)
        >>> check_numbers(0, above=True, temperature=-1)
        Traceback (most recent call last):
        ValueError: temperature must be a number above 0, not -1
    """
    for name, value in settings.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if infinite and is_number and value == high:
            continue
        above_low = is_number and (low < value if above else low <= value)
        below_high = is_number and (value < high if below else value <= high)
        if not (above_low and below_high and abs(value) <= MAX_NUMBER):
            ends = f"above {low:g}" if above else f"at least {low:g}"
            if high != math.inf or (is_number and value > MAX_NUMBER):
                ends += f" and {'below' if below else 'at most'} {min(high, MAX_NUMBER):g}"
            raise ValueError(f"{name} must be a number {ends}, not {value!r}")


def check_widths(name: str, widths: Any) -> None:
    """Check that a setting is a list of layers' widths.

    Raises:
        ValueError: If it is no list of whole numbers from 1 to :data:`MAX_SIZE`. The message names it.
    """
    if isinstance(widths, str) or not isinstance(widths, Iterable):
        raise ValueError(f"{name} must be a list of widths, not {widths!r}")
    check_whole(1, MAX_SIZE, **{f"{name}[{place}]": width for place, width in enumerate(widths)})


def check_sizes(levels: int, codebook_size: int) -> None:
    """Check the number of levels of semantic IDs and the number of codes of each level.

    Raises:
        ValueError: If there is no level, if a level has fewer than two codes, or if there are far too many.
    """
    check_whole(1, MAX_LEVELS, levels=levels)
    check_whole(2, MAX_CODES, codebook_size=codebook_size)
