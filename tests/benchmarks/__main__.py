"""Runs every benchmark in a process of its own, and keeps what they print: ``make bench``.

    python -m tests.benchmarks [FILE]

FILE is ``workspace/benchmarks.txt`` if it is not given.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

BENCHMARKS = ("decoding", "training", "evaluation", "quantizers")
TUNED = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**32)}
"""Spares transformers what glibc's defaults cost it; its training is compared with these."""


def main() -> None:
    """Print all tables as they come, and write them to the file."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "workspace/benchmarks.txt")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w") as file:
        file.write(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}\n")
        for name in BENCHMARKS:
            command = [sys.executable, "-m", f"tests.benchmarks.{name}"]
            wide = {**os.environ, "COLUMNS": "140", **(TUNED if name == "training" else {})}
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=wide) as process:
                for line in process.stdout or ():
                    print(line, end="", flush=True)
                    file.write(line)
            if process.returncode:
                sys.exit(f"the benchmark of {name} failed")
    print(f"All tables are in {out}")


if __name__ == "__main__":
    main()
