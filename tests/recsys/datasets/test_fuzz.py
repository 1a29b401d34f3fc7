"""A short fuzzing of all readers, and a check that it finds planted faults."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.campaign import Campaign
from tests.fuzz.harness import ReaderError, Round, make_round
from tests.fuzz.mutations import HOSTILE, TRACE
from tests.fuzz.targets import Target, make_targets

FORMATS = (
    *("amazon-2014", "amazon-2018", "amazon-2023"),
    *("amazon-2014-ratings", "amazon-2018-ratings", "amazon-2023-ratings"),
    *("esci", "esci-csv", "jdsearch-True", "jdsearch-False"),
    *("movielens-25m", "movielens-latest-small", "movielens-1m", "movielens-100k"),
    *("sequences", "table", "table-csv", "table-tsv", "table-jsonl"),
    *("codes-parquet", "codes-csv", "codes-json", "codes-jsonl"),
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in make_targets(tmp_path_factory.mktemp("sound"))}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "round"


def test_every_format_is_fuzzed_and_its_valid_files_are_read(targets: dict[str, Target]) -> None:
    assert set(targets) == set(FORMATS)
    for target in targets.values():
        for options in target.options:
            assert Round(target, target.files, dict(options), min(target.files), 0).is_read(), target.name


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rng=st.randoms(use_true_random=False))
def test_whatever_the_file_only_clean_errors_come_out(
    name: str, targets: dict[str, Target], folder: Path, rng: Random
) -> None:
    make_round(targets[name], rng, folder, most=3).is_read()


def test_the_same_seed_makes_the_same_file(targets: dict[str, Target], folder: Path) -> None:
    def contents(seed: int) -> list[bytes]:
        mutated = make_round(targets["amazon-2014"], Random(seed), folder)  # noqa: S311
        return [path.read_bytes() for path in mutated.files.values()]

    assert contents(1) == contents(1) != contents(2)


def round_of(read: Callable[[Path], object], folder: Path, **options: object) -> Round:
    path = folder.parent / "lines.txt"
    path.write_bytes(b"\n".join(code for code in HOSTILE if b"\n" not in code))
    return Round(
        Target("planted", "planted", read, {"path": path}, ()), {"path": path}, dict(options), "path", 1
    )


def no_file_named(path: Path) -> None:
    raise ValueError("line 3 is broken")


def far_too_long(path: Path) -> None:
    raise ValueError(f"{path}, line 3: {'A' * 2000}")


def another_error(path: Path) -> None:
    raise KeyError(f"{path}, line 3")


def not_left_out(path: Path, skip_bad_lines: bool = True) -> None:
    raise ValueError(f"{path}, line 3: broken (skip_bad_lines leaves it out)")


def executed(path: Path) -> None:
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("__import__"):
            eval(line)  # noqa: S307 — this is the fault


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (no_file_named, "no file is named by the message"),
        (far_too_long, "characters are in the message"),
        (another_error, "KeyError came out of"),
        (executed, "a line was executed"),
    ],
)
def test_a_reader_that_does_what_it_must_not_is_found(
    read: Callable[[Path], object], complaint: str, folder: Path
) -> None:
    with pytest.raises(ReaderError, match=complaint):
        round_of(read, folder).is_read()
    assert Path(TRACE).exists() == (read is executed)


def test_a_line_that_is_not_left_out_is_found(folder: Path) -> None:
    with pytest.raises(ReaderError, match="a line was not left out"):
        round_of(not_left_out, folder, skip_bad_lines=True).is_read()


def test_an_error_that_names_file_and_line_is_a_refusal(folder: Path) -> None:
    def refused(path: Path) -> None:
        raise ValueError(f"{path}, line 3: broken")

    assert not round_of(refused, folder).is_read()


def bring_down(path: Path) -> None:
    os.abort()


def planted(folder: Path) -> list[Target]:
    folder.mkdir()
    (folder / "lines.txt").write_text("one\ntwo\n")
    return [Target("planted", "planted", bring_down, {"path": folder / "lines.txt"}, ({},))]


@pytest.mark.slow
def test_a_reader_that_ends_the_process_is_counted_and_its_file_kept(tmp_path: Path) -> None:
    result = Campaign(planted, "planted", 1, 0, tmp_path / "scratch", tmp_path / "crashes").run()
    assert (result.files, result.crashes, result.read, result.refused) == (1, 1, 0, 0)
    kept = tmp_path / "crashes" / "planted-0"
    assert sorted(path.name for path in kept.iterdir()) == ["lines.txt", "problem.txt"]
    assert (kept / "problem.txt").read_text().startswith("seed 0, target planted, round 0\n\nexit code -6")


@pytest.mark.slow
def test_the_command_prints_what_came_of_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--reader", "sequences", "--lines", "50"]
    done = subprocess.run(
        [*command, "--crashes", str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    sequences, everything = (line.split() for line in done.stdout.splitlines()[1:])
    assert (sequences[0], everything[0]) == ("sequences", "all")
    files, mutated, read, refused, crashes = map(int, everything[1:6])
    assert mutated >= 50
    assert read + refused == files
    assert crashes == 0
