"""Two processes with half of every batch each, against one process that has all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from semantic_ids.quantizers.radii import AdaptiveMahalanobis
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.randomness import seeded

WIDTH, D, SIZES = 6, 4, (16, 8)
STEPS, ROWS, REPLACEMENT = 6, 40, 3
PATIENCE = 120  # seconds, after which a rank that waits for the other is a failure

LOW_RANK = {"name": "low-rank", "rank": 2}
GRIT: dict[str, Any] = {
    "surrogate": {"name": "grit", "radius": "adaptive-mahalanobis"},
    "transform": LOW_RANK,
}
EQUAL_TO_ONE_PROCESS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "averages": {"learning": "ema"},
    "grit": GRIT,
    "grit-frozen": {**GRIT, "codebook": {"frozen": True, "spectral_clip": 1.01}},
    "grit-averages": {**GRIT, "learning": "ema"},
    "product": {"composition": "product"},
    "high-error": {"upkeep": {"replacement": "high-error"}},
}
# These runs are not one process's: with unequal shares DDP takes a mean of means, ranks draw noise of
# their own, and the latents kept last are others.
UNEQUAL_SHARES: dict[str, dict[str, Any]] = {
    "reservoir": {"upkeep": {"reservoir": 24}, "learning": "ema"},
    "noise": {
        "surrogate": {"name": "diveq", "variance": 0.1},
        "learning": "end-to-end",
        "upkeep": {"replacement": "importance"},
    },
    "transformed-averages": {**GRIT, "learning": "ema"},
}


class Autoencoder(nn.Module):
    def __init__(self, **choices: Any) -> None:
        super().__init__()
        self.encoder = nn.Linear(WIDTH, D)
        self.quantizer = VectorQuantizer(SIZES, D, **choices)
        self.decoder = nn.Linear(D, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        quantized = self.quantizer(self.encoder(x))
        return (self.decoder(quantized.latents) - x).square().mean() + quantized.loss


def data() -> Tensor:
    return torch.randn(STEPS, ROWS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def train(batches: Tensor, choices: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """What there is after training; with a process group, by DistributedDataParallel."""
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        model = Autoencoder(**choices).double()
        parallel = DistributedDataParallel(model) if dist.is_initialized() else model
        quantizer, found = model.quantizer, {}
        quantizer.seed(model.encoder(batches[0]), generator)
        for level, codebook in enumerate(quantizer.codebooks):
            found[f"seeds {level}"] = codebook.codewords().detach().clone()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.03)
        for step, batch in enumerate(batches):
            if step == REPLACEMENT:
                # Few latents since the count began, so that there are dead codes to be replaced.
                quantizer.clear_usage()
                parallel(batch[::4])
                replaced = quantizer.replace_dead_codes(model.encoder(batch), generator)
                found["replaced"] = torch.tensor(replaced)
            optimizer.zero_grad()
            parallel(batch).backward()
            optimizer.step()
            if not dist.is_initialized() or dist.get_rank() == 0:  # one rank alone may evaluate, at any time
                model.eval()
                model.train()
    found |= {f"usage {level}": quantizer.usage(level).clone() for level in range(len(SIZES))}
    model.eval()  # applies averages that are pending
    return {**found, **{name: value.clone() for name, value in model.state_dict().items()}}


def rank(number: int, folder: str) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=number,
        world_size=2,
        timeout=timedelta(seconds=PATIENCE / 2),
    )
    torch.set_num_threads(1)
    radius = AdaptiveMahalanobis(3)
    radius.observe(gaps()[:3] if number == 0 else gaps()[3:])
    torch.save({"covariance": radius.covariance()}, f"{folder}/radius-{number}")
    batches = data()
    for name, choices in {**EQUAL_TO_ONE_PROCESS, **UNEQUAL_SHARES}.items():
        cut = 12 if name in UNEQUAL_SHARES else ROWS // 2
        # Every rank has random numbers of its own, as in a run where nobody thought of it.
        mine = batches[:, :cut] if number == 0 else batches[:, cut:]
        torch.save(train(mine, choices, seed=number), f"{folder}/{name}-{number}")
    dist.destroy_process_group()


@contextmanager
def two_ranks(folder: Path) -> Iterator[Any]:
    # Both ranks start from one process that has imported what takes seconds.
    get_context("forkserver").set_forkserver_preload(["torch._dynamo", "semantic_ids.quantizers.vector"])
    context = torch.multiprocessing.start_processes(
        rank, (str(folder),), nprocs=2, join=False, start_method="forkserver"
    )
    try:
        yield context
    finally:
        for process in context.processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both ranks left what they found."""
    folder = tmp_path_factory.mktemp("ranks")
    with two_ranks(folder) as context:
        deadline = monotonic() + PATIENCE
        while not context.join(timeout=1):
            assert monotonic() < deadline, "the ranks wait for each other"
    return folder


def gaps() -> Tensor:
    return torch.arange(24.0).reshape(8, 3).sin()


def test_a_radius_averages_over_the_gaps_of_all_ranks(ranks: Path) -> None:
    alone = AdaptiveMahalanobis(3)
    alone.observe(gaps())
    for found in found_by(ranks, "radius"):
        torch.testing.assert_close(found["covariance"], alone.covariance())


def found_by(ranks: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    first, second = (torch.load(ranks / f"{name}-{number}", weights_only=True) for number in range(2))
    return first, second


@pytest.mark.parametrize("name", [*EQUAL_TO_ONE_PROCESS, *UNEQUAL_SHARES])
def test_ranks_agree_to_the_last_bit(ranks: Path, name: str) -> None:
    first, second = found_by(ranks, name)
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    assert first["replaced"] > 0


@pytest.mark.parametrize("name", EQUAL_TO_ONE_PROCESS)
def test_halves_on_two_ranks_train_what_the_whole_does_on_one(ranks: Path, name: str) -> None:
    first, _ = found_by(ranks, name)
    alone = train(data(), EQUAL_TO_ONE_PROCESS[name], seed=0)
    for key, expected in alone.items():
        torch.testing.assert_close(
            first[key], expected, rtol=1e-6, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
        )


@pytest.mark.parametrize("name", [*EQUAL_TO_ONE_PROCESS, *UNEQUAL_SHARES])
def test_usage_is_that_of_all_ranks(ranks: Path, name: str) -> None:
    first, _ = found_by(ranks, name)
    # From the replacement on: a quarter of one batch, then whole ones.
    for level in range(len(SIZES)):
        assert first[f"usage {level}"].sum() == ROWS // 4 + (STEPS - REPLACEMENT) * ROWS
