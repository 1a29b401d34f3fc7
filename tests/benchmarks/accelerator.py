"""TIGER on prepared folders: how well, how fast, and how far from the limit of whatever device there is.

    PYTHONPATH=tokenizers:. python -m tests.benchmarks.accelerator --out results [--peak-tflops 989] \
        --corpus workspace/stages/ingest/… --ids workspace/stages/tokenize/…

Needs torch, accelerate, numpy, pyarrow and safetensors only, so that a bare machine with a GPU can run it on
folders that ``gritrec run`` has made elsewhere. Writes ``scores_with_seen.parquet`` and
``scores_without_seen.parquet``, a row a user, and ``results.json`` into the folder ``--out``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from recsys.evaluation.metrics import per_query_scores
from recsys.evaluation.scores import QueryScores, evaluation_set_digest
from recsys.retrievers.tiger import Tiger
from recsys.splits import leave_one_out, read_sequences
from recsys.training.loop import Training
from semantic_ids.ids import SemanticIds


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder of an ingest stage")
    parser.add_argument("--ids", type=Path, required=True, help="folder of a tokenize stage")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is found")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.035)
    parser.add_argument("--evaluate-every", type=int, default=1000)
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--users", type=int, default=None, help="evaluate so many evenly spaced users only")
    parser.add_argument("--peak-tflops", type=float, default=None, help="of the device, in that precision")
    return parser.parse_args()


def main() -> None:
    """Train, rank, measure; print what is found and write it."""
    chosen = arguments()
    split = leave_one_out(read_sequences(chosen.corpus / "sequences.parquet"))
    about = json.loads((chosen.corpus / "corpus.json").read_text())
    test = split.test
    if chosen.users:
        test = test.select(np.linspace(0, len(test) - 1, chosen.users).astype(np.int64))
    plan = Training(
        steps=chosen.steps,
        batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate,
        warmup_steps=min(10_000, chosen.steps // 10),
        weight_decay=chosen.weight_decay,
        evaluate_every=chosen.evaluate_every,
        precision=chosen.precision,
        compile=chosen.compile,
    )
    tiger = Tiger(width=chosen.width, layers=chosen.layers, dropout=chosen.dropout, training=plan)
    chosen.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {"arguments": {k: str(v) for k, v in vars(chosen).items()}}

    started, curve = time.perf_counter(), []

    def on_step(step: int, metrics: dict[str, float]) -> None:
        curve.append({"step": step, "seconds": time.perf_counter() - started, **metrics})
        print(curve[-1], flush=True)

    tiger.fit(split.train, split.valid, SemanticIds.load(chosen.ids), on_step=on_step)
    seconds = time.perf_counter() - started
    found |= {"device": device_name(), "training_seconds": seconds, "curve": curve}
    found |= utilization(tiger, split.train.pairs().history.last(tiger.max_history).lengths, curve, chosen)

    for exclude_seen in (False, True):
        started = time.perf_counter()
        ranking = tiger.rank(test, 10, exclude_seen=exclude_seen)
        name = "without_seen" if exclude_seen else "with_seen"
        scores = QueryScores(
            test.query_ids,
            per_query_scores(ranking, test, [5, 10]),
            evaluation_set_digest(test, about["item_ids_digest"], exclude_seen),
        )
        scores.write(chosen.out / f"scores_{name}.parquet")
        found[name] = {**scores.mean(), "users_per_second": len(test) / (time.perf_counter() - started)}
    found |= tiger.diagnostics(test, 10)
    (chosen.out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({k: v for k, v in found.items() if k != "curve"}, indent=2))


def device_name() -> str:
    """What it runs on."""
    return (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )


def utilization(
    tiger: Tiger, lengths: np.ndarray, curve: list[dict[str, float]], chosen: argparse.Namespace
) -> dict[str, float]:
    """Steps, source tokens and FLOPs a second between the first and the last look, validation left in.

    FLOPs are counted on one example of mean length, forward and backward, so padding is no work done.
    """
    if len(curve) < 2:
        return {}
    steps_a_second = (curve[-1]["step"] - curve[0]["step"]) / (curve[-1]["seconds"] - curve[0]["seconds"])
    levels, items = tiger.ids.num_levels, round(float(lengths.mean()))
    device = next(tiger.model.parameters()).device
    tokens = torch.ones(1, levels, dtype=torch.int64, device=device)
    targets = tokens * torch.tensor([block.start for block in tiger.model.blocks], device=device)
    with FlopCounterMode(display=False) as counter:
        tiger.model(targets.repeat(1, items), targets).backward()
    tiger.model.zero_grad()
    flops = counter.get_total_flops() * chosen.batch_size * steps_a_second
    found = {
        "steps_per_second": steps_a_second,
        "source_tokens_per_second": steps_a_second * chosen.batch_size * float(lengths.mean()) * levels,
        "model_tflops": flops / 1e12,
    }
    return found | ({"utilization": flops / 1e12 / chosen.peak_tflops} if chosen.peak_tflops else {})


if __name__ == "__main__":
    main()
