"""Dropout against its definition: how many numbers fall out, which, and by how much the others grow."""

from __future__ import annotations

import pytest
import torch

from recsys.dropout import Dropout


@pytest.mark.parametrize("probability", [0.1, 0.5])
@pytest.mark.parametrize("shape", [(997, 1003), (1_000_001,)])
def test_so_many_numbers_fall_out_and_the_others_keep_the_mean(
    probability: float, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x = torch.full(shape, 2.0)
    y = Dropout(probability)(x)
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 2 / (1 - probability)), rtol=1e-4, atol=0)
    # Four standard deviations of a million draws, and the rounding of the probability.
    assert abs(1 - len(kept) / y.numel() - probability) < 4 * 0.5 / 1000 + 2**-16


def test_neighbours_fall_out_independently() -> None:
    # Four neighbours are cut from one integer.
    torch.manual_seed(1)
    gone = (Dropout(0.5)(torch.ones(1_000_000)) == 0).view(-1, 4).float()
    together = torch.cov(gone.T)
    assert (together - torch.eye(4) / 4).abs().max() < 0.003


def test_gradients_fall_out_and_grow_with_their_numbers() -> None:
    torch.manual_seed(2)
    x = torch.randn(50, 7, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_draws_follow_the_seed() -> None:
    x, dropout = torch.ones(101), Dropout(0.4)
    draws = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        draws.append(dropout(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_nothing_is_done_when_training_is_over_or_the_probability_is_nought() -> None:
    x = torch.randn(9)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_what_is_no_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="dropout must be from 0"):
        Dropout(probability)


def test_other_types_keep_their_type() -> None:
    x = torch.ones(64, 3, dtype=torch.bfloat16)
    assert Dropout(0.1)(x).dtype == torch.bfloat16
