"""What a training step of TIGER costs, beside ``T5ForConditionalGeneration`` on the same architecture.

CPU seconds of one thread; a batch of 256 examples whose histories have 1 to 20 items, 7 in the mean. The
peer pads the whole batch to the longest of them, as its data collators do, and stays in float32. Both take
one step of AdamW.
"""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from recsys.examples import Ragged
from recsys.models.t5 import PAD, T5
from recsys.models.t5_layers import T5Config
from recsys.training.batches import Histories
from tests.benchmarks.decoding import LEVELS, MALLOC, SIZE, catalogue, transformers_of
from tests.benchmarks.timing import in_turn, milliseconds, peak_growth, ratio

BATCH = 256
CONSOLE = Console()


def steps() -> Table:
    """A step of ours in float32, in bfloat16, and without dropout, each beside the peer's."""
    leaves = catalogue(12_101)
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.geometric(1 / 7.5, BATCH), 1, 20)
    history = Ragged.from_lengths(rng.integers(0, len(leaves), lengths.sum()), lengths)
    starts = 1 + SIZE * np.arange(LEVELS)
    tokens = torch.from_numpy(np.concatenate([leaves + starts, np.full((1, LEVELS), PAD)]))
    targets = torch.from_numpy(rng.integers(0, len(leaves), BATCH))
    histories = Histories.from_ragged(history, torch.device("cpu"))
    everyone = torch.arange(BATCH)
    padded = tokens[histories.padded(everyone)].flatten(1)

    title = f"a training step, {BATCH} examples of {lengths.mean():.1f} items, one thread, {MALLOC}"
    table = Table("ours in", "peer in float32, ms", "ours, ms", "ratio", "peer, MB", "ours, MB", title=title)
    for name, dropout, dtype in (
        ("float32, dropout .1", 0.1, None),
        ("float32, no dropout", 0.0, None),
        ("bfloat16, dropout .1", 0.1, torch.bfloat16),
        ("bfloat16, no dropout", 0.0, torch.bfloat16),
    ):
        ours = T5((SIZE,) * LEVELS, T5Config(dropout=dropout)).train()
        theirs = transformers_of(ours).train()
        for module in theirs.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = dropout
        own_optimizer, peer_optimizer = (torch.optim.AdamW(m.parameters(), lr=1e-4) for m in (ours, theirs))

        def own_step(ours=ours, optimizer=own_optimizer, dtype=dtype) -> None:
            for part in histories.by_length(everyone):
                sources = tokens[histories.padded(part)].flatten(1)
                with torch.autocast("cpu", dtype, enabled=dtype is not None):
                    loss = ours(sources, tokens[targets[part]])
                (loss * len(part) / BATCH).backward()
            optimizer.step()
            optimizer.zero_grad()

        def peer_step(theirs=theirs, optimizer=peer_optimizer) -> None:
            theirs(
                input_ids=padded, attention_mask=(padded != PAD).long(), labels=tokens[targets]
            ).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        peer, own = in_turn(peer_step, own_step, repetitions=3)
        memory = [f"{peak_growth(work):,.0f}" for work in (peer_step, own_step)]
        table.add_row(name, milliseconds(peer), milliseconds(own), ratio(peer, own), *memory)
    return table


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    CONSOLE.print(steps())


if __name__ == "__main__":
    main()
