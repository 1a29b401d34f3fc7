"""Dropout against its definition: how many numbers fall out, which, and by how much the others grow."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from recsys.models.causal_transformer import CausalTransformer
from recsys.models.dropout import Dropout
from recsys.models.t5 import T5
from recsys.models.t5_layers import T5Config


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
    with pytest.raises(ValueError, match="dropout must be a number at least 0 and at most"):
        Dropout(probability)


def test_other_types_keep_their_type() -> None:
    x = torch.ones(64, 3, dtype=torch.bfloat16)
    assert Dropout(0.1)(x).dtype == torch.bfloat16


@pytest.mark.slow
def test_compiled_it_is_torchs_own() -> None:
    x = torch.ones(1000)
    dropout = torch.compile(Dropout(0.5), backend="eager", fullgraph=True)
    torch.manual_seed(3)
    y = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(y, nn.functional.dropout(x, 0.5))


def calls(model: nn.Module, *batch: torch.Tensor) -> Counter[str]:
    """How often each dropout of a model is asked in a training pass, by the last part of its name."""
    asked: Counter[str] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, Dropout | nn.Dropout):
            assert isinstance(module, Dropout)
            assert module.probability == 0.3
            module.register_forward_hook(lambda *_, name=name: asked.update([".".join(name.split(".")[-2:])]))
    model.train()(*batch)
    return asked


def test_t5_drops_out_everywhere() -> None:
    config = T5Config(width=8, layers=2, heads=2, head_width=4, feed_forward=8, dropout=0.3)
    sources, targets = torch.tensor([[1, 4, 2, 5]]), torch.tensor([[3, 6]])
    assert calls(T5((3, 4), config), sources, targets) == {
        "dropout": 4,  # what goes into each stack and what comes out
        "0.dropout": 2 + 3,  # what each sub-layer adds, of an encoder and of a decoder layer
        "1.dropout": 2 + 3,
        "self_attention.dropout": 4,
        "cross_attention.dropout": 2,
        "feed_forward.dropout": 4,
    }


def test_the_causal_transformer_drops_out_everywhere() -> None:
    model = CausalTransformer(8, max_history=5, layers=2, heads=2, feed_forward=8, dropout=0.3)
    assert all(block.self_attn.dropout == 0.3 for block in model.blocks.layers)
    asked = calls(model, torch.randn(3, 4, 8))
    of_blocks = {f"{block}.{name}": 1 for block in (0, 1) for name in ("dropout", "dropout1", "dropout2")}
    assert asked == {"dropout": 1, **of_blocks}
