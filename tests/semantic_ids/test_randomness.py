"""Seeded work and its batches."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semantic_ids.randomness import default_device, seeded, shuffled_batches


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
