"""Files that atheris makes, guided by the branches that the readers take.

Source: https://github.com/google/atheris.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl

LINES = 8
"""Of the files that mutation begins with; the fewer, the sooner it meets what matters."""

LONGEST_FILE = 8192
"""Bytes."""

LONGEST_READ = 60
MEMORY = 8192
"""Megabytes."""


def fuzz(runs: int, seed: int, scratch: Path, crashes: Path) -> int:
    """Read so many files in a process of its own, as libFuzzer ends it; 1 if there is a crash."""
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit("atheris is not installed; pip install -e '.[fuzz]'")
    log = scratch / "log.txt"
    command = [sys.executable, "-m", "tests.fuzz.guided", str(scratch), f"-runs={runs}", f"-seed={seed}"]
    limits = [f"-max_len={LONGEST_FILE}", f"-timeout={LONGEST_READ}", f"-rss_limit_mb={MEMORY}"]
    with log.open("w") as file:
        subprocess.run(
            [*command, *limits, "-print_final_stats=1", f"-artifact_prefix={crashes}/atheris-"],
            stderr=file,
            stdout=file,
            check=False,
        )
    said = log.read_text(errors="replace")
    done = re.search(r"Done (\d+) runs in (\d+) second", said)
    covered = re.findall(r"cov: (\d+) ft: (\d+)", said)
    if done is None or len(covered) == 0:
        (crashes / "atheris.txt").write_text(said)
        print(f"atheris ended early; what it said is in {crashes / 'atheris.txt'}")
        print(said[-2000:])
        return 1
    print(
        f"{int(done[1]):,} files, {int(done[2]):,} s, {covered[0][0]} to {covered[-1][0]} branches, no crash"
    )
    return 0


def main() -> None:
    """Read files in this process: the first byte tells which file of which reader the others make up."""
    import atheris  # type: ignore[import-untyped]

    scratch = Path(sys.argv.pop(1))
    with atheris.instrument_imports(include=["recsys.datasets", "recsys.datasets.published_codes"]):
        from tests.fuzz.harness import Round
        from tests.fuzz.targets import make_targets

        targets = make_targets(scratch / "sound")  # imports the readers
    logging.disable()
    os.chdir(scratch)
    goals = [(target, parameter) for target in targets for parameter in sorted(target.files)]
    seeds = scratch / "seeds"
    seeds.mkdir()
    for place, (target, parameter) in enumerate(goals):
        (seeds / f"{place}").write_bytes(bytes([place]) + _beginning(target.files[parameter]))

    def read(content: bytes) -> None:
        if not content:
            return
        target, parameter = goals[content[0] % len(goals)]
        path = scratch / target.files[parameter].name
        path.write_bytes(content[1:])
        options = target.options[len(content) % len(target.options)]
        Round(target, target.files | {parameter: path}, dict(options), parameter, lines=1).is_read()

    atheris.Setup([*sys.argv, str(seeds)], read)
    atheris.Fuzz()


def _beginning(path: Path) -> bytes:
    """The first lines or rows of a file, as a file."""
    if path.suffix != ".parquet":
        return b"".join(path.read_bytes().splitlines(keepends=True)[:LINES])
    rows = io.BytesIO()
    pl.read_parquet(path).head(LINES).write_parquet(rows)
    return rows.getvalue()


if __name__ == "__main__":
    main()
