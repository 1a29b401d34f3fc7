"""Print to the terminal. All output of the commands goes through this module.

Names and messages come from files that others wrote. So no text is read as markup, control characters are
written as escapes, secrets are hidden, and what a terminal cannot show is replaced.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
import warnings
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from pipelines.redaction import redacted

_NARROWEST = 80
"""Fewest columns in which results are laid out; a narrower terminal wraps them itself."""

_ASCII = dict(zip("–—−…·•→←×±─│┃━⠋“”‘’", "---~-*><x~-||-*\"\"''", strict=True))
"""Characters of our own output, and what is shown for each where the terminal has no such character."""


def printable(text: str) -> str:
    r"""Return a text as it may be shown: control characters as escapes such as ``\x1b``, and without secrets.

    Line breaks and tabs are kept.
    """
    text = redacted(text)
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else c.encode("unicode_escape").decode() for c in text)


def _is_harmless(character: str) -> bool:
    """Return whether a character cannot steer a terminal. Joiners are part of words in some languages."""
    return (
        character.isprintable() or character in "\n\t\u200c\u200d" or unicodedata.category(character) == "Zs"
    )


def words(*parts: str | tuple[str, str]) -> Text:
    """Return one text of several parts; a part may be a pair of a text and its style, such as ``bold``."""
    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((printable(text), style) for text, style in pairs))


class Screen(Console):
    """A console that takes every text literally.

    Args:
        stderr: Whether to write to standard error.
        narrowest: Fewest columns in which to lay out.
    """

    def __init__(self, *, stderr: bool = False, narrowest: int = 1) -> None:
        # Lines of standard error are for logs, too, which are searched: only the terminal itself wraps them.
        super().__init__(stderr=stderr, soft_wrap=stderr, markup=False, emoji=False, highlight=False)
        self.narrowest = narrowest

    @property
    def size(self) -> ConsoleDimensions:
        """Return the size in which output is laid out."""
        size = super().size
        return ConsoleDimensions(max(size.width, self.narrowest), size.height)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        Console.size.fset(self, size)  # type: ignore[attr-defined]

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text as rich prints it."""
        return super().render_str(printable(text), **options)

    @property
    def spinner(self) -> str:
        """The name of a spinner that the terminal can show."""
        return "dots" if self.encoding.startswith("utf") else "line"


OUT = Screen(narrowest=_NARROWEST)
"""Results go to standard output."""

ERR = Screen(stderr=True)
"""Progress, warnings and errors go to standard error."""


def survive_any_terminal() -> None:
    """Let nothing that is printed, by whomever, end the process.

    Characters that the terminal's encoding lacks are replaced. Once nobody reads a pipe or terminal any more,
    what is written there is dropped. Warnings are one line.
    """
    codecs.register_error("gritrec", _in_ascii)
    warnings.showwarning = _show_warning
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            raw = _Descriptor(stream.fileno(), is_vital=name == "stdout")
            setattr(sys, name, _Stream(io.BufferedWriter(raw), stream.encoding, "gritrec", None, True))


class _Stream(io.TextIOWrapper):
    """A stream of text in which secrets are hidden."""

    def write(self, text: str) -> int:
        """Write a text."""
        return super().write(redacted(text))


class _Descriptor(io.RawIOBase):
    """An open file that takes, and drops, what is written after its reader has gone.

    Args:
        descriptor: Number of the open file.
        is_vital: Whether to raise other errors, such as that of a full disk, once.
    """

    def __init__(self, descriptor: int, *, is_vital: bool) -> None:
        self.descriptor, self.is_vital, self.is_open = descriptor, is_vital, True

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def fileno(self) -> int:
        """Return the number of the open file."""
        return self.descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        """Write some bytes and return how many."""
        while self.is_open:
            try:
                return os.write(self.descriptor, data)
            except BlockingIOError:
                select.select([], [self.descriptor], [])
            except OSError as error:
                self.is_open = False
                if self.is_vital and error.errno not in (errno.EPIPE, errno.EIO):
                    raise
        return len(data)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return a replacement as wide as the characters that cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_ASCII.get(character, "?" * cell_len(character)) for character in lacking), error.end


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning."""
    ERR.print(words(("Warning: ", "yellow"), str(message)))
