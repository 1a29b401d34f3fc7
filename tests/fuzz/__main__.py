"""Read a million mutated lines with all readers; anything but a clean error is a crash: ``make fuzz``.

    python -m tests.fuzz [--lines 1000000] [--seed 0] [--reader NAME] [--crashes workspace/crashes]
    python -m tests.fuzz --atheris [--runs 100000]

Each crash is kept in a folder with its files and the error. The exit code is 1 if there are crashes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz import guided
from tests.fuzz.campaign import Campaign, Result
from tests.fuzz.targets import make_targets

RAM_DISK = Path("/dev/shm")  # noqa: S108 — fast, for many small files


def main() -> None:
    """Run the fuzzing that the command line describes."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--lines", type=int, default=1_000_000, help="number of lines to mutate")
    parser.add_argument("--seed", type=int, default=0, help="seed of all mutations")
    parser.add_argument("--reader", help="fuzz this reader only")
    parser.add_argument("--crashes", type=Path, default=Path("workspace/crashes"), help="folder for crashes")
    parser.add_argument("--atheris", action="store_true", help="let coverage guide the mutations")
    parser.add_argument("--runs", type=int, default=100_000, help="with --atheris: number of files to read")
    options = parser.parse_args()
    crashes = options.crashes.resolve()
    crashes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as scratch:
        if options.atheris:
            sys.exit(guided.fuzz(options.runs, options.seed, Path(scratch), crashes))
        names = [
            target.name
            for target in make_targets(Path(scratch) / "sound")
            if options.reader in (None, target.reader)
        ]
        if not names:
            parser.error(f"no reader is called {options.reader!r}")
        print(HEADER, flush=True)
        results = []
        for name in names:
            lines = -(-options.lines // len(names))
            campaign = Campaign(make_targets, name, lines, options.seed, Path(scratch) / name, crashes)
            results.append(campaign.run())
            print(_row(results[-1]), flush=True)
    print(_row(_total(results)))
    if any(result.crashes for result in results):
        sys.exit(f"Crashes are in {crashes}")


HEADER = f"{'target':24}" + "".join(
    f"{name:>12}" for name in ("files", "mutated", "read", "refused", "crashes", "lines/s")
)


def _row(result: Result) -> str:
    """Return a line of the report."""
    counts = (result.files, result.lines, result.read, result.refused, result.crashes)
    figures = [*counts, round(result.lines / result.seconds)]
    return f"{result.target:24}" + "".join(f"{figure:12,}" for figure in figures)


def _total(results: list[Result]) -> Result:
    """Return the sums of all results, under the name ``all``."""
    fields = ("files", "lines", "read", "refused", "crashes", "seconds")
    return Result("all", *(sum(getattr(result, field) for result in results) for field in fields))


if __name__ == "__main__":
    main()
