"""The residual quantizer against a hand-written walk, in float64."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from semantic_ids.choices import Choice
from semantic_ids.learning import GradientLearning
from semantic_ids.residual import ResidualQuantizer

SIZES, D, N = (8, 5, 7), 4, 30
LOW_RANK = {"name": "low-rank", "rank": 2}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quantizer(
    surrogate: Choice = "grit", transform: Choice = "plain", **choices: Choice
) -> ResidualQuantizer:
    """A quantizer whose parameters are all away from their start."""
    torch.manual_seed(0)
    made = ResidualQuantizer(SIZES, D, surrogate=surrogate, transform=transform, **choices).double()
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.add_(0.5 * normal(*parameter.shape, seed=100 + number))
    return made


def walk(made: ResidualQuantizer, z: Tensor) -> tuple[np.ndarray, list[Tensor], list[Tensor]]:
    """Greedy by brute force: codes ``(n, L)``, and every level's residuals and codewords ``(n, D)``."""
    codes, residuals, chosen, left = [], [], [], z.detach()
    for codebook in made.codebooks:
        codewords = codebook.codewords().detach()
        residuals.append(left)
        squares = (left[:, None, :] - codewords[None, :, :]).square().sum(dim=2)
        codes.append(squares.numpy().argmin(axis=1))
        chosen.append(codewords[codes[-1]])
        left = left - chosen[-1]
    return np.stack(codes, axis=1), residuals, chosen


@pytest.mark.parametrize("transform", ["plain", LOW_RANK])
def test_codes_are_those_of_a_greedy_walk(transform: Choice) -> None:
    made, z = quantizer(transform=transform), normal(N, D)
    codes, _, chosen = walk(made, z)
    quantized = made(z)
    assert quantized.codes.tolist() == codes.tolist()
    assert quantized.codes.dtype == torch.int64
    torch.testing.assert_close(quantized.latents, sum(chosen))
    assert made.encode(z).tolist() == codes.tolist()
    torch.testing.assert_close(made.decode(torch.from_numpy(codes)), sum(chosen))


def test_forward_and_encode_agree_on_many_points() -> None:
    made = ResidualQuantizer((64,) * 6, 8)
    z = normal(4096, 8).float()
    made.seed(z[:500], torch.Generator().manual_seed(0))
    assert torch.equal(made(z).codes, made.encode(z))


@pytest.mark.parametrize("kappa", [0.5, 1.0])
@pytest.mark.parametrize("transform", ["plain", LOW_RANK])
def test_the_encoder_has_one_surrogates_gradient_however_many_levels(kappa: float, transform: Choice) -> None:
    made, z = (
        quantizer({"name": "grit", "radius": {"name": "power", "alpha": kappa}}, transform),
        normal(N, D),
    )
    _, _, chosen = walk(made, z)
    s = torch.nn.functional.normalize(sum(chosen) - z, dim=1)
    expected = torch.eye(D, dtype=torch.float64) - kappa * torch.einsum("ni,nj->nij", s, s)
    rows = torch.arange(N)
    found = jacobian(lambda latents: made(latents).latents, z)[rows, :, rows, :]
    torch.testing.assert_close(found, expected)


def test_straight_through_has_gain_one_and_gives_codewords_nothing() -> None:
    made, z, g = quantizer("straight-through"), normal(N, D).requires_grad_(), normal(N, D, seed=1)
    made(z).latents.backward(g)
    torch.testing.assert_close(z.grad, g)
    for codebook in made.codebooks:
        assert codebook.table.grad is None or not codebook.table.grad.any()


@pytest.mark.parametrize("kappa", [0.5, 1.0])
def test_every_levels_codeword_gets_the_gradient_along_the_total_gap(kappa: float) -> None:
    made = quantizer({"name": "grit", "radius": {"name": "power", "alpha": kappa}})
    z, g = normal(N, D), normal(N, D, seed=1)
    codes, _, chosen = walk(made, z)
    s = torch.nn.functional.normalize(sum(chosen) - z, dim=1)
    share = kappa * s * (s * g).sum(dim=1, keepdim=True)
    made(z).latents.backward(g)
    for level, codebook in enumerate(made.codebooks):
        expected = torch.zeros_like(codebook.table)
        for row, code in enumerate(codes[:, level]):
            expected[code] += share[row]
        torch.testing.assert_close(codebook.table.grad, expected)


@pytest.mark.parametrize(("codebook_weight", "commitment_weight"), [(1.0, 0.25), (0.3, 0.0), (0.0, 2.0)])
def test_losses_hold_earlier_levels_fixed(codebook_weight: float, commitment_weight: float) -> None:
    learning = {
        "name": "gradient",
        "codebook_weight": codebook_weight,
        "commitment_weight": commitment_weight,
    }
    made, z = quantizer(learning=learning), normal(N, D).requires_grad_()
    codes, residuals, chosen = walk(made, z)
    loss = made(z).loss
    loss.backward()
    gaps = [r - q for r, q in zip(residuals, chosen, strict=True)]
    weights = codebook_weight + commitment_weight
    torch.testing.assert_close(loss, sum(weights * gap.square().mean() for gap in gaps))
    torch.testing.assert_close(z.grad, sum(commitment_weight * 2 * gap / gap.numel() for gap in gaps))
    for level, codebook in enumerate(made.codebooks):
        expected = torch.zeros_like(codebook.table)
        for row, code in enumerate(codes[:, level]):
            expected[code] -= codebook_weight * 2 * gaps[level][row] / gaps[level].numel()
        torch.testing.assert_close(codebook.table.grad, expected)


def test_the_loss_is_a_mean_over_batch_and_features() -> None:
    residual, codeword = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    # squares 1, 4, 0, 9: their mean 3.5, counted once and a quarter
    assert float(GradientLearning().loss(residual, codeword)) == pytest.approx(3.5 * 1.25)


def test_usage_is_counted_in_training_only() -> None:
    made, z = quantizer(), normal(N, D)
    made.eval()
    made(z)
    assert [int(made.usage(level).sum()) for level in range(3)] == [0, 0, 0]
    made.train()
    codes = torch.cat([made(z).codes, made(2 * z).codes])
    for level, size in enumerate(SIZES):
        assert made.usage(level).tolist() == np.bincount(codes[:, level], minlength=size).tolist()


def test_usage_is_no_part_of_what_is_saved() -> None:
    assert not any("usage" in name for name in quantizer().state_dict())


@pytest.mark.parametrize("transform", ["plain", LOW_RANK])
def test_seeding_with_as_many_points_as_codes_loses_nothing(transform: Choice) -> None:
    made, z = quantizer(transform=transform), normal(SIZES[0], D)
    made.seed(z, torch.Generator().manual_seed(0))
    codes = made.encode(z)
    assert sorted(codes[:, 0].tolist()) == list(range(SIZES[0]))
    torch.testing.assert_close(made.decode(codes), z)


@pytest.mark.parametrize("transform", ["plain", LOW_RANK])
def test_seeded_levels_leave_less_and_less(transform: Choice) -> None:
    made, z = quantizer(transform=transform), normal(200, D)
    made.seed(z, torch.Generator().manual_seed(0))
    _, residuals, chosen = walk(made, z)
    left = [float(r.square().mean()) for r in [*residuals, residuals[-1] - chosen[-1]]]
    assert all(after < 0.8 * before for before, after in pairwise(left))
    for codebook, residual, code in zip(made.codebooks, residuals, made.encode(z).T, strict=True):
        means = torch.stack([residual[code == k].mean(dim=0) for k in range(codebook.size)])
        torch.testing.assert_close(codebook.codewords().detach(), means, rtol=0, atol=0.2)


@pytest.mark.parametrize("transform", ["plain", LOW_RANK])
def test_dead_codes_are_moved_onto_residuals(transform: Choice) -> None:
    made, z = quantizer(transform=transform), normal(N, D)
    with torch.no_grad():
        made.codebooks[1].place(torch.tensor([1, 4]), torch.full((2, D), 1e3, dtype=torch.float64))
    made(z)
    dead = [(made.usage(level) == 0).nonzero().flatten().tolist() for level in range(3)]
    assert {1, 4} <= set(dead[1])
    assert made.replace_dead_codes(z, torch.Generator().manual_seed(0)) == sum(map(len, dead))
    _, residuals, _ = walk(made, z)
    for codebook, residual, rows in zip(made.codebooks, residuals, dead, strict=True):
        placed = codebook.codewords().detach()[rows]
        gaps = (placed[:, None] - residual[None]).abs().amax(dim=2)
        assert (gaps.amin(dim=1) < 1e-9).all()
        assert len(set(gaps.argmin(dim=1).tolist())) == len(rows)  # each onto another point
    assert [int(made.usage(level).sum()) for level in range(3)] == [0, 0, 0]


def test_codes_in_use_stay_where_they_are() -> None:
    made, z = quantizer(), normal(N, D)
    with torch.no_grad():
        made.codebooks[0].place(torch.tensor([2]), torch.full((1, D), 1e3, dtype=torch.float64))
    made(z)
    before = [codebook.codewords().detach().clone() for codebook in made.codebooks]
    used = [made.usage(level) > 0 for level in range(3)]
    assert not used[0][2]
    made.replace_dead_codes(z, torch.Generator().manual_seed(0))
    for codebook, old, alive in zip(made.codebooks, before, used, strict=True):
        assert torch.equal(codebook.codewords()[alive], old[alive])


def test_more_dead_codes_than_points() -> None:
    made, z = quantizer(), normal(2, D)
    made(z)
    dead = [int((made.usage(level) == 0).sum()) for level in range(3)]
    assert made.replace_dead_codes(z, torch.Generator().manual_seed(0)) == sum(min(2, d) for d in dead)


def test_a_latent_that_is_its_codeword_brings_no_nan() -> None:
    made = ResidualQuantizer((2, 2), 2, surrogate="grit")
    for codebook, target in zip(made.codebooks, ([1.0, 2.0], [0.0, 0.0]), strict=True):
        codebook.place(torch.arange(2), torch.tensor([target, [50.0, 50.0]]))
    z = torch.tensor([[1.0, 2.0]], requires_grad=True)
    quantized = made(z)
    (quantized.latents.sum() + quantized.loss).backward()
    assert quantized.latents.tolist() == [[1.0, 2.0]]
    assert z.grad.tolist() == [[1.0, 1.0]]
    assert all(torch.isfinite(parameter.grad).all() for parameter in made.parameters())


def test_gradients_are_the_same_every_time() -> None:
    z = normal(4096, 32).float()
    made = ResidualQuantizer((16, 16), 32, surrogate="grit")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        grads = []
        for _ in range(6):
            made.zero_grad()
            quantized = made(z)
            (quantized.latents.square().mean() + quantized.loss).backward()
            grads.append([codebook.table.grad.clone() for codebook in made.codebooks])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for again in grads[1:] for a, b in zip(grads[0], again, strict=True))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"surrogate": "girt"}, "no surrogate is called 'girt'. Did you mean 'grit'?"),
        ({"transform": "lowrank"}, "no transform is called 'lowrank'. Did you mean 'low-rank'?"),
        ({"learning": "ema"}, "no learning is called 'ema'. Known: gradient."),
        (
            {"learning": {"name": "gradient", "comitment_weight": 1}},
            "learning 'gradient' has no parameter 'comitment_weight'. Did you mean 'commitment_weight'?",
        ),
        (
            {"surrogate": {"name": "grit", "radius": "powr"}},
            "no radius is called 'powr'. Did you mean 'power'?",
        ),
    ],
)
def test_unknown_choices_are_named(choices: dict[str, Choice], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ResidualQuantizer((4,), 2, **choices)
