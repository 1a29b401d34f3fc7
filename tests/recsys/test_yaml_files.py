"""YAML that is ambiguous, hostile or in another encoding, and YAML that must stay as it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.yaml_files import LARGEST_FILE, parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]


def explosion(levels: int, width: int = 9) -> str:
    """A mapping whose value `level` holds ``width ** level`` texts once its aliases are replaced."""
    lines = [f"l0: &l0 [{', '.join('x' * width)}]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("data/*.yaml"), *ROOT.glob("pipelines/experiments/*.yaml")],
    ids=lambda path: path.stem,
)
def test_the_projects_files_mean_what_any_yaml_reader_takes_them_for(path: Path) -> None:
    assert read_yaml(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# only a comment", None),
        ("5", 5),
        (
            "[0, 0x10, 1_000, -1, .5, 1e3, 2024-02-29]",
            yaml.safe_load("[0, 0x10, 1_000, -1, .5, 1e3, 2024-02-29]"),
        ),
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: [*a, *a]", None),
        ("a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: [*a, *b]}\nd: *b", None),
        ("a: '010'\nb: \"1:30\"", {"a": "010", "b": "1:30"}),
        (explosion(4), None),
    ],
)
def test_plain_values_are_read_as_usual(text: str, value: Any) -> None:
    assert parse_yaml(text, "x") == (yaml.safe_load(text) if value is None else value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "b.yaml: the key 'a' is given twice, in lines 1 and 3; keep one of them"),
        ("x:\n  - c: 1\n    d: 2\n    c: 3", "the key 'c' is given twice, in lines 2 and 4"),
        ("x: {c: 1, 'c': 2}", "the key 'c' is given twice, in line 1;"),
        ("1: a\n1.0: b", "the key 1.0 is given twice, in lines 1 and 2"),
        (
            "a: &a {}\nb: {<<: *a,\n <<: *a}",
            r"'<<' is given twice, in lines 2 and 3; write '<<: \[\*one, \*other\]'",
        ),
        ("a: &a [1, *a]", r"b.yaml, line 1: the alias \*a is a part of itself"),
        ("a: 1\nb: &a {c: *a}", r"line 2: the alias \*a is a part of itself"),
        (
            "\n!!python/object/apply:os.getcwd []",
            "line 2: the tag '!!python/object/apply:os.getcwd' is not taken",
        ),
        ("a: !mine 3", "line 1: the tag '!mine' is not taken; write plain values"),
        ("a: =", "line 1: put '=' into quotes"),
        ("a: 1\n---\nb: 2", "b.yaml, line 2: a second document begins here; keep one"),
        ("? [a, b]\n: c", "line 1: a key must be a text or a number"),
        ("k_core: 010", "line 1: '010' is a number to base 8 or 60 in YAML 1.1"),
        ("at: 1:30", "line 1: '1:30' is a number to base 8 or 60 in YAML 1.1"),
        ("day: 2024-02-31", "line 1: '2024-02-31' is no valid timestamp; put a text into quotes"),
        ("n: !!bool perhaps", "line 1: 'perhaps' is no valid bool"),
        ("n: " + "9" * 5000, "line 1: '9+' is no valid int"),
        ("a: [1", r"b.yaml is not valid YAML: line 1, column 6: expected ',' or '\]'.*close every bracket"),
        ("a:\n\tb: 1", r"line 2, column 1: .*indent with blanks instead of tabs"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here; .* into quotes"),
        ("a: &a 1\nb: &a 2", "line 2, column 4: .*duplicate anchor 'a'; first occurrence, line 1"),
        ("a: 1\nb: \x1b[2J", r"line 2: remove the control character U\+001B$"),
        ("- " * 100_000, "line 1: lists and mappings are nested deeper than 50"),
    ],
)
def test_a_refused_text_is_named_with_its_line_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_yaml(text, "b.yaml")


@pytest.mark.parametrize(
    "text",
    [explosion(6), explosion(60), explosion(9) + "\nm: {<<: [{a: *l8}]}", "[" * 100_000, "{a: " * 100_000],
    ids=["6 levels", "60 levels", "merged", "brackets", "braces"],
)
def test_texts_out_of_proportion_are_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=r"more than 100000 keys and values|nested deeper than 50"):
        parse_yaml(text, "b.yaml")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: x\n".encode("utf-16"), "c.yaml is UTF-16, not UTF-8; save it as UTF-8"),
        ("name: x\n".encode("utf-16-le"), "is UTF-16, not UTF-8"),
        ("name: x\n".encode("utf-16-be"), "is UTF-16, not UTF-8"),
        (b"name: x\ntitle: caf\xe9\n", "c.yaml, line 2: not UTF-8; save it as UTF-8"),
        (b"", "c.yaml is empty"),
        (b"# nothing\n", "c.yaml is empty"),
        (b"#" * LARGEST_FILE + b"\n", f"c.yaml is larger than {LARGEST_FILE} bytes"),
    ],
)
def test_files_that_are_no_yaml_in_utf8_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_yaml(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("name: café\r\n".encode("utf-8-sig"))
    assert read_yaml(path) == {"name": "café"}
