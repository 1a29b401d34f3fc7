"""Hide passwords and tokens in texts that are shown or kept, and tell which settings would hold one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAMES = (
    r"(?:\w+_)?(?:password|passwd|passphrase|secret|credentials?|(?:api|access|secret|private)_?key)",
    r"(?:(?:hf|hub|api|auth|use_auth|access|bearer|refresh|session)_)?token",  # but not pad_token
)
_SECRET_NAME = re.compile("|".join(_NAMES), re.IGNORECASE)
_HIDDEN = (
    # Up to the last @, as a password may hold some, and slashes too if a user's name and a colon precede.
    (re.compile(r"(\w://)(?:[^\s:/?#@]*:\S*|[^\s/?#]*)@"), r"\1***@"),
    (re.compile(rf"(?i)\b((?:{'|'.join(_NAMES)}|pwd|sig|signature)=)[^\s&;,'\"}}]+"), r"\1***"),
)


def redacted(text: str) -> str:
    """Return a text with its secrets hidden: the user part of every address, and values such as ``token=…``.

    Example:
        >>> redacted("http://alice:secret@host:5000/path?token=abc&page=1")
        'http://***@host:5000/path?token=***&page=1'
    """
    for pattern, hidden in _HIDDEN:
        text = pattern.sub(hidden, text)
    return text


def redact_error(error: BaseException | None) -> None:
    """Hide secrets in the message of an error, and in those of the errors that led to it."""
    while error:
        error.args = tuple(redacted(part) if isinstance(part, str) else part for part in error.args)
        error = error.__cause__ or error.__context__


def secrets_in(values: Any, place: str = "") -> Iterator[str]:
    """Yield the places in nested values, such as ``text.params.token``, that hold a secret."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            below = f"{place}.{key}" if place else str(key)
            if isinstance(value, str | int) and value and not isinstance(value, bool) and _names_secret(key):
                yield below
            else:
                yield from secrets_in(value, below)
    elif isinstance(values, list | tuple):
        for number, value in enumerate(values):
            yield from secrets_in(value, f"{place}.{number}")
    elif isinstance(values, str) and redacted(values) != values:
        yield place


def _names_secret(key: Any) -> bool:
    """Return whether a key is called like a secret."""
    return bool(_SECRET_NAME.fullmatch(str(key).replace("-", "_")))
