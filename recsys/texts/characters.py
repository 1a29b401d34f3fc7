"""Texts in other encodings than UTF-8, and characters that must not reach a terminal."""

from __future__ import annotations

import codecs
import unicodedata

_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""Marks of UTF-16 and UTF-32. That of little-endian UTF-32 begins like that of UTF-16."""

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories of characters that control the screen, change the direction of text or show nothing."""


def is_utf16(start: bytes) -> bool:
    r"""Return whether a file is UTF-16 or UTF-32, by its byte order mark or by zeros between ASCII letters.

    Args:
        start: The first bytes of the file, at least four.

    Example:
        >>> is_utf16("name: x".encode("utf-16")), is_utf16(b"name: x")
        (True, False)
    """
    if start.startswith(_BYTE_ORDER_MARKS):
        return True
    is_zero = [byte == 0 for byte in start[:4]]
    return is_zero in ([False, True] * 2, [True, False] * 2)


def visible(text: str) -> str:
    r"""Return a text with an escape, such as ``\x1b``, in place of each character that a terminal would obey.

    Line feeds and tabs stay. Texts of files, and messages with such texts, go through this function before
    they are printed.

    Example:
        >>> visible("caf\u00e9 \x1b[2J")
        'café \\x1b[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) if _is_hidden(character) else character for character in text)


def _is_hidden(character: str) -> bool:
    """Return whether a terminal would obey or hide a character."""
    return character not in "\n\t" and unicodedata.category(character) in _HIDDEN


def _escaped(character: str) -> str:
    """Return the escape of a character in Python's notation."""
    return character.encode("unicode_escape").decode()
