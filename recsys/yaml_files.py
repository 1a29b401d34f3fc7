"""Strict reading of YAML: ambiguous or oversized documents are errors that name the file and the line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from recsys.texts.encodings import is_utf16

LARGEST_FILE = 2**20
"""Largest size of a YAML file in bytes. Cards and benchmark files have a few thousand."""

MOST_NODES = 100_000
"""Largest number of keys and values in a document, after every alias is replaced by its anchor's content."""

DEEPEST = 50
"""Largest depth of nested lists and mappings."""

_MERGE = "tag:yaml.org,2002:merge"

_HINTS = {
    r"\t": "indent with blanks instead of tabs",
    "cannot start any token": "put the text into quotes",
    "mapping values are not allowed": "indent keys alike, and put a text with ': ' into quotes",
    "expected ',' or": "close every bracket and brace",
    "expected <block end>": "indent keys alike, and close every quote",
    "could not find expected ':'": "write 'key: value'",
    "found unexpected end of stream": "close every quote",
}
"""What to do, by a part of PyYAML's message."""


def read_yaml(path: str | Path) -> Any:
    """Return the content of a YAML file.

    The file must be UTF-8, with or without a byte order mark, and hold one document.

    Args:
        path: Path of the file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is empty, too large or not UTF-8, or if :func:`parse_yaml` refuses its text.
            The message names the file and says what to do.
    """
    with Path(path).open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"{path} is larger than {LARGEST_FILE} bytes; is this the YAML file?")
    value = parse_yaml(_decoded(content, path), path)
    if value is None:
        raise ValueError(f"{path} is empty; give a YAML file with keys and values")
    return value


def parse_yaml(text: str, source: str | Path) -> Any:
    r"""Return the value of a YAML text; None if the text is empty.

    Args:
        text: One YAML document.
        source: Name of the text in error messages, such as the path of its file.

    Raises:
        ValueError: If the text is not valid YAML; if a key is given twice; if a tag asks for anything but
            plain values; if a number has one value in YAML 1.1 and another one in YAML 1.2; or if the
            document is too deep or too large, aliases included. The message has the source and the line.

    Example:
        >>> parse_yaml("{seeds: [0, 1]}", "an example")
        {'seeds': [0, 1]}
        >>> parse_yaml("seeds: 0\nname: x\nseeds: 1", "b.yaml")
        Traceback (most recent call last):
        ValueError: b.yaml: the key 'seeds' is given twice, in lines 1 and 3; keep one of them
    """
    try:
        loader = _StrictLoader(text)
        return loader.get_single_data()
    except _RefusedError as error:
        raise ValueError(f"{source}{error}") from error
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{source} is not valid YAML: {_explained(error)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(
            f"{source} is not valid YAML: line {line}: remove the control character U+{error.character:04X}"
        ) from error


class _RefusedError(Exception):
    """A document that is valid YAML but not taken; the message continues the name of the source."""


class _StrictLoader(yaml.SafeLoader):
    """A loader of plain values that refuses repeated keys, other tags, and documents out of proportion.

    Everything is checked while nodes are composed, before an alias can multiply or a value is made.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.count = 0
        self.sizes: dict[int, int] = {}

    def get_single_node(self) -> Any:
        """Return the only document of the text."""
        self.get_event()  # type: ignore[no-untyped-call]
        node = None if self.check_event(yaml.StreamEndEvent) else self.compose_document()
        if not self.check_event(yaml.StreamEndEvent):
            line = _line(self.peek_event())  # type: ignore[no-untyped-call]
            raise _RefusedError(f", line {line}: a second document begins here; keep one document in a file")
        return node

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node, after counting it with all that it contains."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        before = self.count
        self.depth += 1
        if self.depth > DEEPEST:
            raise _RefusedError(f", line {_line(event)}: lists and mappings are nested deeper than {DEEPEST}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self.sizes:
                raise _RefusedError(f", line {_line(event)}: the alias *{event.anchor} is a part of itself")
            self.count += self.sizes[id(node)]
        else:
            self.count += 1
            self.sizes[id(node)] = self.count - before
        if self.count > MOST_NODES:
            raise _RefusedError(
                f", line {_line(event)}: more than {MOST_NODES} keys and values, aliases counted as what "
                "they repeat; make the document smaller"
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Return the next mapping, after checking that no key is given twice."""
        node = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _RefusedError(f", line {_line(key_node)}: a key must be a text or a number")
            merge = key_node.tag == _MERGE
            key = key_node.value if merge else self.construct_object(key_node)
            if key in lines:
                remedy = "write '<<: [*one, *other]'" if merge else "keep one of them"
                places = dict.fromkeys((lines[key], _line(key_node)))
                where = f"line{'s' * (len(places) - 1)} {' and '.join(map(str, places))}"
                raise _RefusedError(f": the key {key!r} is given twice, in {where}; {remedy}")
            lines[key] = _line(key_node)
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Return the value of a node."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # such as the 31st of February
            kind = node.tag.rpartition(":")[2]
            raise _RefusedError(
                f", line {_line(node)}: {str(node.value)[:60]!r} is no valid {kind}; put a text into quotes"
            ) from error

    def construct_yaml_int(self, node: Any) -> int:
        """Return a whole number."""
        _check_number(node)
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: Any) -> float:
        """Return a decimal number."""
        _check_number(node)
        return super().construct_yaml_float(node)

    def construct_undefined(self, node: Any) -> NoReturn:
        """Refuse a tag that asks for more than plain values, and the marks ``=`` and ``<<`` as values."""
        if node.tag in ("tag:yaml.org,2002:value", _MERGE):
            raise _RefusedError(f", line {_line(node)}: put {node.value!r} into quotes")
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise _RefusedError(
            f", line {_line(node)}: the tag {tag!r} is not taken; write plain values without tags"
        )


for _tag, _construct in (
    ("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int),
    ("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float),
    (None, _StrictLoader.construct_undefined),
):
    _StrictLoader.add_constructor(_tag, _construct)


def _check_number(node: Any) -> None:
    """Refuse ``010`` and ``1:30``, which YAML 1.1 reads as 8 and 90, but YAML 1.2 as 10 and as a text."""
    if re.match(r"[-+]?0[0-9_]+$|.*:", node.value):
        raise _RefusedError(
            f", line {_line(node)}: {node.value!r} is a number to base 8 or 60 in YAML 1.1; put a text into "
            "quotes, and write a number without leading zeros"
        )


def _line(place: Any) -> int:
    """Return the line of a node or an event, from 1."""
    return place.start_mark.line + 1


def _decoded(content: bytes, path: str | Path) -> str:
    """Return the text of a UTF-8 file, or raise a ValueError that says what the file is instead."""
    remedy = "save it as UTF-8"
    if is_utf16(content[:4]):
        raise ValueError(f"{path} is UTF-16, not UTF-8; {remedy}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8; {remedy}") from error


def _explained(error: yaml.MarkedYAMLError) -> str:
    """Return where a syntax error is, what is wrong there, and what to do."""
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    start = error.context_mark
    context = f" ({error.context}, line {start.line + 1})" if error.context and start else ""
    hint = next((f"; {hint}" for part, hint in _HINTS.items() if part in str(error.problem)), "")
    return f"{place}{error.problem}{context}{hint}"
