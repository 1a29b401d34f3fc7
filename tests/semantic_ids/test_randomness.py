"""Seeded work and its batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semantic_ids.randomness import default_device, float32_numbers, is_distributed, seeded, shuffled_batches
from semantic_ids.registry import create
from semantic_ids.tokenizer import Tokenizer


def batches(count: int, batch_size: int, how_many: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [rows.tolist() for rows in islice(shuffled_batches(count, batch_size, generator), how_many)]


def test_inside_the_seed_decides_and_outside_nothing_changes() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1):
        assert torch.equal(torch.rand(3), first)
    with seeded(2):
        assert not torch.equal(torch.rand(3), first)


def test_after_an_error_nothing_has_changed_either() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(1):
        torch.rand(3) @ torch.rand(4)
    assert torch.equal(torch.random.get_rng_state(), state)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_an_epoch_has_each_row_at_most_once(count: int, batch_size: int, seed: int) -> None:
    full = max(1, count // batch_size)
    size = min(batch_size, count)
    drawn = batches(count, batch_size, 2 * full, seed)
    assert all(len(rows) == size for rows in drawn)
    for epoch in (drawn[:full], drawn[full:]):
        rows = [row for batch in epoch for row in batch]
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(range(count))
        if count % size == 0:
            assert set(rows) == set(range(count))


def test_every_epoch_is_shuffled_anew() -> None:
    first, second = batches(50, 50, 2)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != list(range(50))


def test_batches_follow_from_the_generator() -> None:
    assert batches(30, 4, 20, seed=1) == batches(30, 4, 20, seed=1)
    assert batches(30, 4, 20, seed=1) != batches(30, 4, 20, seed=2)


def test_the_device_can_be_used() -> None:
    assert torch.zeros(1, device=default_device()).item() == 0.0


@contextmanager
def other_defaults() -> Iterator[None]:
    """Set other defaults of torch than its own, as a plug-in may when it is imported."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_float32_matmul_precision("highest")


def test_defaults_of_torch_are_restored_after_the_block() -> None:
    with other_defaults():
        with suppress(ZeroDivisionError), float32_numbers():
            assert torch.zeros(1).dtype == torch.float32
            assert torch.zeros(1).device.type == "cpu"
            assert torch.get_float32_matmul_precision() == "highest"
            _ = 1 / 0
        assert torch.get_default_dtype() == torch.float64
        assert torch.zeros(1).device.type == "meta"
        assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize("name", ["rq-kmeans", "rq-vae", "lsh"])
def test_defaults_of_torch_change_no_tokenizer(name: str, tmp_path: Path) -> None:
    sizes = {"levels": 2, "codebook_size": 8}
    params = {**sizes, "steps": 60, "hidden": [16]} if name == "rq-vae" else sizes
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    expected = create(name, **params).fit(x)
    tokenizer = create(name, **params)
    with other_defaults():
        tokenizer.fit(x)
        codes = tokenizer.encode(x)
        tokenizer.save(tmp_path)
        assert torch.equal(Tokenizer.load(tmp_path).encode(x), codes)
    assert torch.equal(codes, expected.encode(x))
    for key, value in expected.state().items():
        assert torch.equal(tokenizer.state()[key], value)


def test_a_process_is_one_of_several_only_if_a_launcher_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "4")
    assert not is_distributed()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    assert is_distributed()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_distributed()
