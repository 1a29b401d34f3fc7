"""Mutations of files: damage from transfers, and hostile content."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

TRACE = "PWNED"
"""Name of a file that appears in the working directory if a reader executes a line."""

_CODE = (
    f"__import__('os').system('touch {TRACE}')",
    f"open('{TRACE}', 'w')",
    f"{{'asin': __import__('pathlib').Path('{TRACE}').touch()}}",
    f"!!python/object/apply:os.system ['touch {TRACE}']",
    f"$(touch {TRACE})`touch {TRACE}`",
)
_NUMBERS = (
    *("NaN", "nan", "Infinity", "-Infinity", "inf", "1e999", "-1e999", "-1", "-0", "-0.0", "0.1", "1e3"),
    *("5e-324", "0x1F", "1_000", "+1", " 1", "1 ", "1.", ".5", "٣", "½", "1,5", "00012"),
    *map(str, (2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400)),
    "9" * 5000,
)
_TEXTS = (
    *("", " ", "null", "None", "true", "[]", "{}", "[null]", '""', "''", "-", "''''", '"', "'", "\\"),
    *(",", ";", "\t", "|", "::", ":", "_", "\x18", "\r", "\r\n", "\n", "\n\n", "\x00", "\x1a", "\x0b"),
    *("\ufeff", "\u2028", "\x85", "\u202e", "é", "日本", "😀", "e\u0301", "\\ud800", "\\u0000", "\\x00"),
    *("\\N{DASH}", "&#9999999999;", "&#xD800;", "&#" + "9" * 5000 + ";", "&amp;amp;", "<!--", "<b"),
    *("=1+1", "%s%n", "../../etc/passwd", "A, The (1999)", "(" * 500, "2024-05-31T18:30:00+99:99"),
    *("0000-00-00", "9999-12-31", '{"a":1}', '{"asin":null}', '"a","b"', "b'x'", "{1}", "{**{}}", "..."),
    *("[" * 3000, "(" * 300, '{"a":' * 3000, "-" * 20_000 + "1", "1+" * 20_000 + "1", "[[[[]]]]"),
    *("A" * 200, "A" * 20_000, "😀" * 300, " " * 20_000, '"' * 999),
)
_BYTES = (
    b"\xff",
    b"\xfe\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\x80abc",
    b"\x1f\x8b",
    b"PAR1",
)
HOSTILE = (*(text.encode() for text in (*_CODE, *_NUMBERS, *_TEXTS)), *_BYTES)
"""Content to put in place of a cell, or anywhere else."""

ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-7", "utf-8-sig", "cp500")
TOKEN = re.compile(rb"[^\s,:;|_\[\]{}\"'\x18]+|\"[^\"]*\"|'[^']*'")
"""Text that looks like a cell in any format."""


def mutated_text(content: bytes, rng: Random, most: int | None = None) -> tuple[bytes, int]:
    """Mutate some lines of a text file, and sometimes the whole file or its compression.

    Args:
        content: Content of the file.
        rng: Random numbers.
        most: Largest number of lines to mutate; by default at random up to all.

    Returns:
        The mutated content, and the number of mutated lines.
    """
    lines = content.splitlines(keepends=True)
    count = min(len(lines), most or rng.choice((1, 3, len(lines) // 4, len(lines))))
    for index in rng.sample(range(len(lines)), max(1, count)):
        lines[index] = rng.choice(LINE_MUTATIONS)(lines[index], rng, lines)
    whole = b"".join(lines)
    if rng.random() < 0.1:
        whole = rng.choice(FILE_MUTATIONS)(whole, rng)
    if rng.random() < 0.1:
        whole = _packed(whole, rng)
    return whole, count


def mutated_parquet(content: bytes, rng: Random, most: int | None = None) -> tuple[bytes, int]:
    """Mutate some bytes or a column of a Parquet file.

    Args:
        content: Content of the file.
        rng: Random numbers.
        most: Largest number of bytes to mutate; by default at random up to 30.

    Returns:
        The mutated content, and the number of mutated bytes or rows.
    """
    if rng.random() < 0.5:
        # With threads pyarrow 25 now and then aborts when the process ends.
        table = pq.ParquetFile(io.BytesIO(content)).read(use_threads=False)
        buffer = io.BytesIO()
        pq.write_table(_with_odd_column(table, rng), buffer)
        return buffer.getvalue(), len(table)
    damaged = bytearray(content)
    count = most or rng.choice((1, 3, 30))
    # Half of the bytes are in the metadata at the end, which describes types and positions.
    tail = int.from_bytes(content[-8:-4], "little") + 8
    for _ in range(count):
        place = len(damaged) - 1 - rng.randrange(tail if rng.random() < 0.5 else len(damaged))
        damaged[place] = rng.randrange(256)
    return (bytes(damaged) if rng.random() < 0.9 else _cut(bytes(damaged), rng)), count


def _flip(line: bytes, rng: Random, _: list[bytes]) -> bytes:
    flipped = bytearray(line)
    for _place in range(rng.choice((1, 1, 4))):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _delete(line: bytes, rng: Random, _: list[bytes]) -> bytes:
    start = rng.randrange(len(line))
    return line[:start] + line[start + rng.choice((1, 2, 10, 100)) :]


def _insert(line: bytes, rng: Random, _: list[bytes]) -> bytes:
    place = rng.randrange(len(line))
    return line[:place] + rng.choice(HOSTILE) + line[place:]


def _replace_token(line: bytes, rng: Random, _: list[bytes]) -> bytes:
    tokens = list(TOKEN.finditer(line))
    if not tokens:
        return rng.choice(HOSTILE) + line
    token = rng.choice(tokens)
    hostile = rng.choice(HOSTILE)
    quoted = token[0][:1] in (b'"', b"'") and rng.random() < 0.5
    start, end = (token.start() + quoted, token.end() - quoted)
    return line[:start] + hostile + line[end:]


def _replace_line(line: bytes, rng: Random, _: list[bytes]) -> bytes:
    return rng.choice(HOSTILE) + b"\n"


def _duplicate(line: bytes, rng: Random, _: list[bytes]) -> bytes:
    return line * rng.choice((2, 2, 3, 50))


def _swap(line: bytes, rng: Random, lines: list[bytes]) -> bytes:
    return rng.choice(lines)


def _join(line: bytes, rng: Random, lines: list[bytes]) -> bytes:
    return line.rstrip(b"\r\n") + rng.choice(lines)


def _cut_line(line: bytes, rng: Random, _: list[bytes]) -> bytes:
    return line[: rng.randrange(len(line))] + rng.choice((b"\n", b""))


def _reencode(line: bytes, rng: Random, _: list[bytes]) -> bytes:
    return line.decode(errors="replace").encode(rng.choice(ENCODINGS), errors="replace")


def _reseparate(line: bytes, rng: Random, _: list[bytes]) -> bytes:
    old, new = (
        rng.choice((b",", b"\t", b"::", b"|", b"_", b" ", b'"', b"'")),
        rng.choice((b",", b"\t", b";", b"")),
    )
    return line.replace(old, new)


def _repeat_key(line: bytes, rng: Random, lines: list[bytes]) -> bytes:
    """Give a JSON object a key a second time, with a value from elsewhere."""
    keys = re.findall(rb'"\w+":', line)
    if not keys or b"{" not in line:
        return _duplicate(line, rng, lines)
    value = rng.choice((b"null", b"7", b'"other"', b"[]", rng.choice(HOSTILE)))
    first, rest = line[: line.index(b"{") + 1], line[line.index(b"{") + 1 :]
    again = rng.choice(keys) + b" " + value
    if rng.random() < 0.5:
        return first + again + b", " + rest
    body, end = rest.rsplit(b"}", 1) if b"}" in rest else (rest, b"")
    return first + body + b", " + again + b"}" + end


LINE_MUTATIONS: tuple[Callable[[bytes, Random, list[bytes]], bytes], ...] = (
    *(_flip, _delete, _insert, _insert, _replace_token, _replace_token, _replace_token, _replace_line),
    *(_duplicate, _swap, _join, _cut_line, _reencode, _reseparate, _repeat_key),
)


def _cut(whole: bytes, rng: Random) -> bytes:
    return whole[: rng.randrange(len(whole) + 1)]


FILE_MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    _cut,
    lambda whole, rng: b"\xef\xbb\xbf" + whole,
    lambda whole, rng: whole.decode(errors="replace").encode(rng.choice(ENCODINGS), errors="replace"),
    lambda whole, rng: whole.replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
    lambda whole, rng: whole.replace(b"\n", b"\n \r\n\n"),
    lambda whole, rng: whole.replace(b"\n", b""),
    lambda whole, rng: whole + whole,
    lambda whole, rng: whole + b"\x00" * 5000,
    lambda whole, rng: rng.choice(HOSTILE) + whole,
    lambda whole, rng: b"",
)


def _packed(whole: bytes, rng: Random) -> bytes:
    """Return content in gzip or zstd, correct or with a wrong end."""
    pack = rng.choice((lambda plain: gzip.compress(plain, 1), zstandard.compress))
    packed: bytes = pack(whole)
    kind = rng.randrange(5)
    if kind == 0:
        return _cut(packed, rng)
    if kind == 1:
        return packed[:-4] + rng.randbytes(4)
    if kind == 2:
        return packed + rng.randbytes(20)
    return packed + pack(b"more\n") if kind == 3 else packed


def _with_odd_column(table: pa.Table, rng: Random) -> pa.Table:
    place = rng.randrange(table.num_columns)
    name = table.column_names[place]
    kind = rng.randrange(10)
    if kind == 0:
        return table.remove_column(place)
    if kind == 1:
        return table.append_column(name, table[name])
    if kind == 2:
        return table.slice(0, 0)
    if kind == 3:
        return table.rename_columns([rng.choice(table.column_names) for _ in table.column_names])
    return table.set_column(place, name, rng.choice(ODD_COLUMNS)(len(table)))


def _repeated(values: list[object], kind: pa.DataType) -> Callable[[int], pa.Array]:
    return lambda count: pa.array((values * count)[:count], type=kind)


def _no_text(count: int) -> pa.Array:
    """Return a text column whose bytes are not valid UTF-8."""
    bytes_ = pa.array([b"\xff\xfe\x80"] * count, type=pa.binary())
    return pa.StringArray.from_buffers(count, bytes_.buffers()[1], bytes_.buffers()[2])


ODD_COLUMNS: tuple[Callable[[int], pa.Array], ...] = (
    _repeated([None], pa.null()),
    _repeated([None, "a"], pa.string()),
    _repeated([float("nan"), float("inf"), -1.5, 1e300, 0.0], pa.float64()),
    _repeated([2**64 - 1, 2**63, 0], pa.uint64()),
    _repeated([-(2**63), 2**63 - 1, -1], pa.int64()),
    _repeated([1, 0], pa.int8()),
    _repeated([1.5, float("nan")], pa.float16()),
    _repeated([True, None], pa.bool_()),
    _repeated([b"\xff", b""], pa.binary()),
    _repeated([b"ab"], pa.binary(2)),
    _repeated([[1], None, []], pa.list_(pa.int64())),
    _repeated([["a", None], []], pa.list_(pa.string())),
    _repeated([[["a"]], [[]]], pa.list_(pa.list_(pa.string()))),
    _repeated([[1, 2]], pa.list_(pa.int32(), 2)),
    _repeated([{"a": 1}, None], pa.struct([("a", pa.int64())])),
    _repeated([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    _repeated([0, 2**31 - 1, -(2**31)], pa.date32()),
    _repeated([0, 2**63 - 1, -(2**63)], pa.timestamp("us", tz="UTC")),
    _repeated([0, 2**63 - 1], pa.timestamp("ns", tz="Mars/Phobos")),
    _repeated([0, 2**60], pa.timestamp("ms")),
    _repeated([0, 5], pa.time64("us")),
    _repeated([0, 2**63 - 1], pa.duration("ns")),
    _repeated([1, -5], pa.decimal128(38, 10)),
    _repeated([10**60], pa.decimal256(76, 0)),
    _repeated(["a", "b"], pa.dictionary(pa.int8(), pa.string())),
    _repeated(["a", "b"], pa.large_string()),
    _repeated([text.encode().decode() for text in (*_CODE, *_NUMBERS, *_TEXTS)], pa.string()),
    _no_text,
)
