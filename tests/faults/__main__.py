"""Disturb benchmarks in every way and tell what was lost: ``make faults``.

    python -m tests.faults [--fault "disk full"] [--seed 0] [--table docs/reliability.md]

After every trial a rerun must end with the scores of an undisturbed run, bit for bit, with every result in
MLflow once, no run left running, no process left and no half file. Disks are mounted, which takes root;
without it those faults are left out. The exit code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.benchmark import Benchmark
from tests.faults.faults import FAULTS, Arena

NEED_ROOT = ("disk full", "read-only disk")
BEGIN, END = "<!-- table of make faults -->\n", "<!-- end of the table -->\n"


def main() -> None:
    """Cause the faults that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--fault", choices=[*FAULTS], action="append", help="cause this fault only")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times at which things happen")
    parser.add_argument("--table", type=Path, help="file in which to put the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gritrec-faults-") as folder:
        arena = _arena(Path(folder), options.seed)
        lines = ["| fault | tried | survived | lost |", "|---|---|---|---|"]
        problems = []
        for name in options.fault or FAULTS:
            if name in NEED_ROOT and os.geteuid():
                print(f"{name}: left out, because it takes root", flush=True)
                continue
            began, trials = time.monotonic(), []
            for found in FAULTS[name](arena):
                trials.append(found)
                if found:
                    print(f"{name}, trial {len(trials)}: {'; '.join(found)}", flush=True)
            lost = sum(map(bool, trials))
            problems += [name] * lost
            about = (FAULTS[name].__doc__ or name).rstrip(".")
            lines.append(f"| {about} | {len(trials)} | {len(trials) - lost} | {lost} |")
            print(f"{name}: {len(trials)} tried, {lost} lost, {time.monotonic() - began:.0f} s", flush=True)
    print("\n".join(lines))
    if options.table:
        text = options.table.read_text()
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        options.table.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)
    sys.exit(bool(problems))


def _arena(folder: Path, seed: int) -> Arena:
    """Run the benchmark undisturbed, twice, and return where faults happen."""
    done, again = Benchmark(folder / "done"), Benchmark(folder / "again")
    for benchmark in (done, again):
        began = time.monotonic()
        code, output = benchmark.run()
        seconds = time.monotonic() - began
        if code:
            sys.exit(f"the undisturbed run failed:\n{output}")
    if again.scores() != done.scores():
        sys.exit("two undisturbed runs have different scores")
    shutil.rmtree(again.workspace)
    return Arena(folder, done.workspace, done.scores(), seconds, random.Random(seed))  # noqa: S311


if __name__ == "__main__":
    main()
