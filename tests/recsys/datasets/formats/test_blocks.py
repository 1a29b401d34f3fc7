"""Files of text that would fill the memory, take hours or end the process."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from recsys.datasets.formats.blocks import LONGEST_LINE, MOST_BLANK_LINES, ahead, blocks_of, check_text
from recsys.datasets.formats.limits import SETTING
from recsys.datasets.formats.lines import MOST_BROKEN_LINES, json_object, lines_of, parsed

Pack = Callable[[bytes], bytes]
PACKS: list[Pack] = [bytes, gzip.compress, zstandard.compress]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


def read_all(path: Path) -> None:
    for _ in lines_of(path):
        pass


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("size", [1, 10, 2**24])
def test_blocks_have_the_whole_file_and_end_at_lines(tmp_path: Path, pack: Pack, size: int) -> None:
    content = b"".join(b"%d %s\r\n" % (line, b"x" * (line % 4000)) for line in range(1000)) + b"no end"
    blocks = list(blocks_of(written(tmp_path, pack(content)), size))
    assert b"".join(block for _, block in blocks) == content
    for number, block in blocks:
        assert block.startswith(b"%d " % (number - 1) if number <= 1000 else b"no end")
    assert all(block.endswith(b"\n") for _, block in blocks[:-1])


@pytest.mark.parametrize("pack", PACKS)
def test_lines_are_numbered_and_a_mark_is_removed(tmp_path: Path, pack: Pack) -> None:
    path = written(tmp_path, pack(b"\xef\xbb\xbfa\n\n \t\r\nb\n\xef\xbb\xbfc"))
    assert list(lines_of(path)) == [(1, b"a\n"), (4, b"b\n"), (5, b"\xef\xbb\xbfc")]


@pytest.mark.parametrize("read", [read_all, check_text])
@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("end", [b"\n", b"", b"\nmore\n"])
def test_a_line_that_is_too_long_is_named(
    tmp_path: Path, read: Callable[[Path], None], pack: Pack, end: bytes
) -> None:
    path = written(tmp_path, pack(b"a\nb\n" + b"x" * (LONGEST_LINE - 1) + b"\nd\n"))
    read(path)
    path = written(tmp_path, pack(b"a\nb\n" + b"x" * (LONGEST_LINE + 1) + end))
    with pytest.raises(ValueError, match=rf"file, line 3: longer than {LONGEST_LINE} bytes"):
        read(path)


@pytest.mark.parametrize("read", [read_all, check_text])
@pytest.mark.parametrize("line", [b"\n", b"\r\n", b" \t\n"])
def test_a_flood_of_blank_lines_is_refused(tmp_path: Path, read: Callable[[Path], None], line: bytes) -> None:
    read(written(tmp_path, b"a\n" + line * 1000))
    path = written(tmp_path, b"a\n" + line * (MOST_BLANK_LINES + 2_000_000))
    start = time.process_time()
    with pytest.raises(ValueError, match=r"file: \d+ of \d+ lines are blank; is this the right file"):
        read(path)
    assert time.process_time() - start < 20


@pytest.mark.parametrize("read", [read_all, check_text])
@pytest.mark.parametrize("pack", PACKS[1:])
def test_a_file_that_unpacks_to_too_many_bytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], None], pack: Pack
) -> None:
    path = written(tmp_path, pack((b"x" * 99 + b"\n") * 50_000))
    monkeypatch.setenv(SETTING, "0.004")
    with pytest.raises(ValueError, match=rf"file has .*, but unpacks to more than 4\.0 MB.*{SETTING}"):
        read(path)
    monkeypatch.setenv(SETTING, "0.005")
    read(path)


@pytest.mark.parametrize("read", [read_all, check_text])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_named(tmp_path: Path, read: Callable[[Path], None], encoding: str) -> None:
    path = written(tmp_path, '{"a": 1}\n'.encode(encoding))
    with pytest.raises(ValueError, match="file is UTF-16, not UTF-8; save it as UTF-8"):
        read(path)


def test_all_whole_lines_before_the_damage_are_read(tmp_path: Path) -> None:
    content = b"".join(b"line %d\n" % number for number in range(100_000))
    packed = gzip.compress(content)
    path = written(tmp_path, packed[:-8] + b"\0\0\0\0" + packed[-4:])
    lines: list[bytes] = []
    with pytest.raises(ValueError, match="file: cut off or damaged after line 100000; download it again"):
        lines.extend(line for _, line in lines_of(path))
    assert b"".join(lines) == content


def test_broken_lines_may_not_be_nearly_all(tmp_path: Path) -> None:
    path = written(tmp_path, b"1\n" * 10 + b"x\n" * MOST_BROKEN_LINES)
    assert parsed(path, int, skip_bad_lines=True) == ([1] * 10, MOST_BROKEN_LINES)
    path = written(tmp_path, b"1\n" * 10 + b"x\n" * (MOST_BROKEN_LINES + 1))
    with pytest.raises(ValueError, match=r"100001 of 100011 lines are broken; .* line 11: invalid literal"):
        parsed(path, int, skip_bad_lines=True)


def test_fetching_ahead_changes_nothing_and_keeps_errors() -> None:
    def numbers() -> Iterator[int]:
        yield from range(5)
        raise ValueError("the end")

    seen: list[int] = []
    with pytest.raises(ValueError, match="the end"):
        seen.extend(ahead(numbers()))
    assert seen == [0, 1, 2, 3, 4]
    assert list(ahead(iter([None, 0, 1]))) == [None, 0, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is given twice"),
        (b'{"z": {"a": 1, "a": 3}}', "the key 'a' is given twice"),
        (b'{"b": 1}{"b": 2}', "not JSON .Extra data, character 9"),
        (b'{"b": 1,}', "not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "not JSON .nested too deeply"),
        (b'[{"b": 1}]', "not a JSON object"),
        (b'{"b": "\x01"}', "not JSON .Invalid control character at, character 8"),
        (b'{"b": "\xff"}', "not utf-8"),
        (b'{"b": ' + b"9" * 5000 + b"}", "4300 digits"),
    ],
)
def test_broken_json_is_described(line: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        json_object(line, unique=["a"])


def test_of_other_keys_given_twice_the_first_value_counts() -> None:
    assert json_object(b'{"a": 1, "b": 2, "b": 3, "c": {"d": 4, "d": 5}}', unique=["a"]) == {
        "a": 1,
        "b": 2,
        "c": {"d": 4},
    }
