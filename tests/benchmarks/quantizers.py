"""What GRIT costs over a plain RQ-VAE, and what encoding costs: ``make bench``.

The two train in turn, in one process, and their times are compared pair by pair, so that a
machine whose speed drifts does not decide.
"""

from __future__ import annotations

import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

import semantic_ids

ITEMS, WIDTH, STEPS, REPETITIONS = 10_000, 384, 60, 5


def seconds_of_training(name: str, embeddings: torch.Tensor) -> tuple[float, semantic_ids.Tokenizer]:
    """CPU seconds a training step, seeding and warm-up left out by a shorter run's time."""
    spent = []
    for steps in (1, STEPS + 1):
        tokenizer = semantic_ids.create(name, steps=steps, warmup=0.0, batch_size=1024)
        started = time.process_time()
        tokenizer.fit(embeddings, seed=0)
        spent.append(time.process_time() - started)
    return (spent[1] - spent[0]) / STEPS, tokenizer


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    embeddings = torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(0))
    table = Table("tokenizer", "ms a step", "encode, items/s", title=f"4 × 256 codes, {WIDTH}-d, 1 thread")
    steps: dict[str, list[float]] = {"rq-vae": [], "grit-vq": []}
    rates = {}
    for _ in range(REPETITIONS):
        for name, times in steps.items():
            seconds, tokenizer = seconds_of_training(name, embeddings)
            times.append(seconds)
            started = time.process_time()
            tokenizer.encode(embeddings)
            rates[name] = ITEMS / (time.process_time() - started)
    for name, times in steps.items():
        table.add_row(name, f"{statistics.median(times) * 1e3:.1f}", f"{rates[name]:,.0f}")
    ratio = statistics.median(g / r for g, r in zip(steps["grit-vq"], steps["rq-vae"], strict=True))
    Console().print(table)
    Console().print(f"grit-vq / rq-vae, median of {REPETITIONS} pairs: {ratio:.2f}")


if __name__ == "__main__":
    main()
