"""What quantizers cost, beside the ``vector-quantize-pytorch`` package and each other: ``make bench``.

CPU seconds of one thread.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from vector_quantize_pytorch import ResidualVQ

import semantic_ids
from semantic_ids.quantizers.codebook import Codebook
from semantic_ids.quantizers.vector import VectorQuantizer
from tests.benchmarks.timing import REPETITIONS, in_turn, milliseconds, ratio, seconds

DIM = 32
SHAPES = [(4, 256, 1024), (4, 256, 8192), (3, 1024, 8192), (3, 8192, 8192)]
CONSOLE = Console()


def residual_quantization() -> None:
    """EMA codebooks, straight-through gradient and commitment loss, against the same of the peer."""
    table = Table("levels × codes, batch", "", "peer, ms", "ours, ms", "ratio", title="residual VQ, 32-d")
    for levels, size, batch in SHAPES:
        x = torch.randn(batch, DIM, generator=torch.Generator().manual_seed(0))
        ours = VectorQuantizer((size,) * levels, DIM, learning="ema")
        ours.seed(x, torch.Generator().manual_seed(0))
        peer = ResidualVQ(
            dim=DIM, num_quantizers=levels, codebook_size=size, decay=0.99, commitment_weight=0.25
        )
        for layer, book in zip(peer.layers, ours.codebooks, strict=True):
            layer._codebook.embed.data.copy_(book.codewords()[None])
            layer._codebook.embed_avg.data.copy_(book.codewords()[None])
            layer._codebook.cluster_size.data.fill_(1.0)

        def train_peer(peer: ResidualVQ = peer, x: torch.Tensor = x) -> None:
            z = x.clone().requires_grad_()
            quantized, _, loss = peer(z[None])
            (quantized.square().mean() + loss.sum()).backward()

        def train_ours(ours: VectorQuantizer = ours, x: torch.Tensor = x) -> None:
            z = x.clone().requires_grad_()
            quantized = ours(z)
            (quantized.latents.square().mean() + quantized.loss).backward()

        def encode_peer(peer: ResidualVQ = peer, x: torch.Tensor = x) -> None:
            with torch.no_grad():
                peer(x[None])

        def encode_ours(ours: VectorQuantizer = ours, x: torch.Tensor = x) -> None:
            with torch.no_grad():
                ours(x)  # the peer, too, has its codes only together with what they decode to

        for what, works in (("train", (train_peer, train_ours)), ("encode", (encode_peer, encode_ours))):
            for module in (peer, ours):
                module.train(what == "train")
            theirs, mine = in_turn(*works)
            name = f"{levels} × {size}, {batch}" if what == "train" else ""
            table.add_row(name, what, milliseconds(theirs), milliseconds(mine), ratio(theirs, mine))
    CONSOLE.print(table)


def training_steps() -> None:
    """A whole training step of each GRIT-VQ against RQ-VAE's, default MLP on 384-d embeddings."""
    embeddings = torch.randn(10_000, 384, generator=torch.Generator().manual_seed(0))
    names = [name for name in semantic_ids.recipes() if name.startswith("grit-vq")]

    def steps(name: str, count: int) -> Callable[[], object]:
        return lambda: semantic_ids.create(name, steps=count, warmup=0.0, reset_every=0).fit(embeddings)

    def a_step(name: str) -> float:
        """Seeding left out by a shorter run's time."""
        return (seconds(steps(name, 41)) - seconds(steps(name, 1))) / 40

    table = Table("tokenizer", "ms a step", "rq-vae, ms", "ratio", title="a training step of 1,024, 4 × 256")
    for name in names:
        pairs = [(a_step(name), a_step("rq-vae")) for _ in range(REPETITIONS if name == "grit-vq" else 3)]
        own, reference = ([pair[side] for pair in pairs] for side in (0, 1))
        table.add_row(name, milliseconds(own), milliseconds(reference), ratio(own, reference))
    CONSOLE.print(table)


def caching() -> None:
    """The transformed codebook made every 8 steps against every step."""
    table = Table("codes", "every step, ms", "every 8, ms", "ratio", title="low-rank transform, rank 64")
    for size in (256, 8192):
        books = [
            Codebook(size, DIM, {"name": "low-rank", "rank": 64}, refresh_every=every) for every in (1, 8)
        ]

        def eight_steps(book: Codebook) -> Callable[[], object]:
            return lambda: [book.codewords().sum().backward() for _ in range(8)]

        each, cached = in_turn(*(eight_steps(book) for book in books))
        per_step = [[total / 8 for total in totals] for totals in (each, cached)]
        table.add_row(f"{size}", *map(milliseconds, per_step), ratio(each, cached))
    CONSOLE.print(table)


def a_million_items() -> None:
    """How fast a catalogue is encoded, and what it takes above the embeddings themselves."""
    table = Table("tokenizer", "items/s", "memory above input, MB", title="1,000,000 items of 64-d")
    x = torch.randn(1_000_000, 64, generator=torch.Generator().manual_seed(0))
    for name in ("grit-vq", "rq-kmeans", "lsh"):
        chosen = {"steps": 20} if name == "grit-vq" else {}
        tokenizer = semantic_ids.create(name, **chosen).fit(x[:10_000])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rate = len(x) / seconds(lambda tokenizer=tokenizer: tokenizer.encode(x))
        above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        table.add_row(name, f"{rate:,.0f}", f"{above:.0f}")
    CONSOLE.print(table)


def main() -> None:
    """Print all tables."""
    torch.set_num_threads(1)
    a_million_items()  # first, for the peak of the process's memory is what it measures
    residual_quantization()
    training_steps()
    caching()


if __name__ == "__main__":
    main()
