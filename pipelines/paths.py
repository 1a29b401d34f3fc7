"""Paths that users write in benchmark files and on the command line."""

from __future__ import annotations

import re
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """Return a path with ``~`` replaced by the home folder, as a shell does it.

    Variables are not replaced. Where no file has such a name, they are an error, because a folder called
    ``$HOME`` is never what is meant.

    Raises:
        ValueError: If the path is empty, is the address of something elsewhere, or holds a variable or a
            control character.
    """
    text = str(text)
    if not text.strip():
        raise ValueError("the path is empty; write . for the current folder")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"the path {text!r} holds a control character")
    if re.match(r"[\w+-]+://?", text) and not Path(text).exists():
        raise ValueError(f"{text!r} is an address; give the path of a file or folder on this machine")
    if re.search(r"\$[\w{]", text) and not Path(text).exists():
        raise ValueError(f"variables are not replaced in {text!r}; write the whole path, or ~ for your home")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"no home folder is known for {text!r}; write the whole path") from error
