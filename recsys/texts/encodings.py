"""Recognition of texts that are not UTF-8."""

from __future__ import annotations

import codecs

_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
"""Marks of UTF-16 and UTF-32. That of little-endian UTF-32 begins like that of UTF-16."""


def is_utf16(start: bytes) -> bool:
    r"""Return whether a file is UTF-16 or UTF-32, by its byte order mark or by zeros between ASCII letters.

    Args:
        start: The first bytes of the file, at least four.

    Example:
        >>> is_utf16("name: x".encode("utf-16")), is_utf16(b"name: x")
        (True, False)
    """
    is_zero = [byte == 0 for byte in start[:4]]
    return start.startswith(_BYTE_ORDER_MARKS) or is_zero in ([False, True] * 2, [True, False] * 2)
