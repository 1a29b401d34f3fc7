"""Fuzzing with atheris, which guides the mutations by the branches that the readers take.

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
"""Number of lines of the files that atheris starts from. Short files lead to new branches sooner."""

LONGEST_FILE = 8192
"""Largest size of a file in bytes."""

LONGEST_READ = 60
"""Seconds after which a reader counts as hanging."""

MEMORY = 8192
"""Largest memory of the process in megabytes."""


def fuzz(runs: int, seed: int, scratch: Path, crashes: Path) -> int:
    """Read mutated files in a separate process, because libFuzzer ends its process.

    Args:
        runs: Number of files.
        seed: Seed of libFuzzer.
        scratch: Folder for temporary files.
        crashes: Folder for the files that crash a reader.

    Returns:
        The exit code: 1 if there was a crash, else 0.
    """
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
    output = log.read_text(errors="replace")
    done = re.search(r"Done (\d+) runs in (\d+) second", output)
    covered = re.findall(r"cov: (\d+) ft: (\d+)", output)
    if done is None or len(covered) == 0:
        (crashes / "atheris.txt").write_text(output)
        print(f"atheris ended early; its output is in {crashes / 'atheris.txt'}")
        print(output[-2000:])
        return 1
    print(
        f"{int(done[1]):,} files, {int(done[2]):,} s, {covered[0][0]} to {covered[-1][0]} branches, no crash"
    )
    return 0


def main() -> None:
    """Read files of atheris in this process.

    The first byte decides which reader and file parameter the other bytes are for.
    """
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
    for number, (target, parameter) in enumerate(goals):
        (seeds / f"{number}").write_bytes(bytes([number]) + _beginning(target.files[parameter]))

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
    """Return the content of a file with only the first lines or rows of another."""
    if path.suffix != ".parquet":
        return b"".join(path.read_bytes().splitlines(keepends=True)[:LINES])
    rows = io.BytesIO()
    pl.read_parquet(path).head(LINES).write_parquet(rows)
    return rows.getvalue()


if __name__ == "__main__":
    main()
