"""What is printed, by commands in processes of their own, to terminals of every kind."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from pipelines.screen import Screen, printable, words

HEAD = """
import sys, warnings
from rich.table import Table
from pipelines.screen import ERR, OUT, survive_any_terminal
survive_any_terminal()
"""


def python(script: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LC_ALL")}
    command = [sys.executable, "-c", HEAD + script]
    return subprocess.run(command, env={**environment, **variables}, capture_output=True, check=False)


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "strict utf-8": {"PYTHONIOENCODING": "utf-8:strict"},
    "dumb": {"TERM": "dumb", "NO_COLOR": "1"},
}


@pytest.mark.parametrize("variables", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_every_character_can_be_printed_to_every_terminal(variables: dict[str, str]) -> None:
    script = """
table = Table("a")
table.add_row("\\u2212.1 \\u2026 +.2")
OUT.print("a \\u00b7 b \\u2192 \\u65e5 \\udcff")
OUT.print(table)
ERR.print("\\u2013")
print("\\u2013")
warnings.warn("\\u2013 mind")
"""
    done = python(script, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") >= 5
    assert b"Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(b"Warning: ")


def test_replacements_keep_columns_straight() -> None:
    done = python('OUT.print("\\u2212.1 \\u2026 +.2|\\n\\u65e5\\u672c = ab|")', PYTHONIOENCODING="ascii")
    assert done.stdout.decode().splitlines() == ["-.1 ~ +.2|", "???? = ab|"]


def test_progress_and_errors_are_whole_lines() -> None:
    assert python('ERR.print("word " * 50)', COLUMNS="30").stderr.decode() == "word " * 50 + "\n"


def test_a_narrow_terminal_gets_whole_tables() -> None:
    done = python(
        'table = Table("a", "b")\ntable.add_row("x" * 30, "y" * 30)\nOUT.print(table)', COLUMNS="20"
    )
    assert "x" * 30 in done.stdout.decode()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_ends_nothing(stream: str) -> None:
    script = f"""
import os
for _ in range(5000):
    ({{"stdout": OUT, "stderr": ERR}}["{stream}"]).print("x" * 70)
print("y" * 100, file=sys.{stream})
os.write({1 if stream == "stderr" else 2}, b"to the end")
"""
    reader, writer = os.pipe()
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + script], **{stream: writer, other: subprocess.PIPE}
    )
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    rest = process.communicate(timeout=60)[other == "stderr"]
    assert process.returncode == 0
    assert rest == b"to the end"


def test_a_terminal_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    script = f"""
import pathlib, signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
ERR.print("begun")
time.sleep(1)
ERR.print("after")
OUT.print("after")
pathlib.Path({str(tmp_path / "done")!r}).touch()
"""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", HEAD + script], stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert b"begun" in os.read(ours, 100)
    os.close(ours)
    assert process.wait(60) == 0
    assert (tmp_path / "done").exists()


def test_a_full_disk_loses_no_result_without_a_word() -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "pipelines.cli", "metrics"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: [Errno 28] No space left on device\n"


def test_help_can_be_printed_in_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "run", "--help"]
    shown = subprocess.check_output(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, text=True)
    assert "data > semantic IDs > retrievers" in shown


def test_names_in_brackets_are_text_and_not_markup() -> None:
    screen, table = Screen(), Table("[red]header", title="[b]title")
    table.add_row("rq-kmeans [k=64]")
    with screen.capture() as captured:
        screen.print(table)
        screen.print(":warning: [link=http://x]click[/link]", words("[i]", ("[u]", "bold")))
    shown = captured.get()
    for text in (
        "[red]header",
        "[b]title",
        "rq-kmeans [k=64]",
        ":warning: [link=http://x]click[/link] [i][u]",
    ):
        assert text in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\x07\r\x7f\x9b", r"\x07\r\x7f\x9b"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("two\nlines\tand a\u00a0blank", "two\nlines\tand a\u00a0blank"),
        ("می\u200cخواهم 日本 ü", "می\u200cخواهم 日本 ü"),
        ("\udcff", r"\udcff"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    table, screen = Table("x"), Screen()
    table.add_row(text)
    with screen.capture() as captured:
        screen.print(text, soft_wrap=True)
        screen.print(table)
    assert not {"\x1b", "\x07", "\r", "\x7f", "\x9b", "\u202e"} & set(captured.get())


def test_no_password_is_printed_by_whomever() -> None:
    script = """
uri = "http://alice:hunter2@host"
OUT.print(uri)
ERR.print(Table(uri, title=uri))
print(uri)
sys.stderr.write(uri + "\\n")
warnings.warn(uri)
raise ValueError(uri)
"""
    done = python(script)
    assert done.stdout.count(b"http://***@host") == 2
    assert done.stderr.count(b"***@host") >= 4
    assert b"hunter2" not in done.stdout + done.stderr
