"""Codebooks: what is seeded, frozen, normalised, clipped and watched."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import normal
from semantic_ids.choices import Choice
from semantic_ids.quantizers.codebook import Codebook

K, D = 6, 4
LOW_RANK = {"name": "low-rank", "rank": 3}


def trained(transform: Choice = LOW_RANK, **choices: bool | float) -> Codebook:
    """A codebook with every parameter somewhere else than at the start."""
    torch.manual_seed(0)
    codebook = Codebook(K, D, transform, **choices).double()
    with torch.no_grad():
        for number, parameter in enumerate(codebook.parameters()):
            parameter.add_(0.3 * normal(*parameter.shape, seed=number))
    return codebook


def test_a_low_rank_codebook_starts_and_computes_as_trained_ones_on_disk_expect() -> None:
    torch.manual_seed(0)
    codebook = Codebook(256, 32, {"name": "low-rank", "rank": 64})
    torch.manual_seed(0)
    table, b = torch.randn(256, 32), torch.randn(256, 64) / 16
    state = codebook.state_dict()
    assert state.keys() == {"table", "transform.a", "transform.b", "transform.w"}
    assert torch.equal(state["table"], table)
    assert torch.equal(state["transform.b"], b)
    assert torch.equal(state["transform.w"], torch.eye(32))
    assert not state["transform.a"].any()
    assert torch.equal(codebook.codewords(), table)


def test_size_dim_and_shape() -> None:
    codebook = Codebook(7, 3, "low-rank")
    assert (codebook.size, codebook.dim) == (7, 3)
    assert codebook.codewords().shape == (7, 3)


@pytest.mark.parametrize("transform", ["linear", LOW_RANK])
def test_a_frozen_table_learns_through_its_transform_only(transform: Choice) -> None:
    codebook = trained(transform, frozen=True)
    codebook.codewords().square().sum().backward()
    assert codebook.table.grad is None
    assert all(parameter.grad.any() for parameter in codebook.transform.parameters())


def test_placing_in_a_frozen_table_changes_only_its_rows() -> None:
    codebook, targets = trained(frozen=True), normal(2, D, seed=5)
    before = codebook.table.clone()
    codebook.place(torch.tensor([1, 4]), targets)
    torch.testing.assert_close(codebook.codewords()[[1, 4]], targets)
    assert torch.equal(codebook.table[[0, 2, 3, 5]], before[[0, 2, 3, 5]])
    assert not codebook.table.requires_grad


def test_placing_in_a_table_that_learns_moves_no_other_codeword() -> None:
    codebook, targets = trained(), normal(2, D, seed=5)
    with torch.no_grad():
        codebook.transform.a.mul_(0.3)
    before = codebook.codewords().detach()
    codebook.place(torch.tensor([1, 4]), targets)
    torch.testing.assert_close(codebook.codewords()[[1, 4]], targets)
    torch.testing.assert_close(codebook.codewords()[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


def test_all_rows_of_a_normalised_codebook_are_as_long_as_the_gain() -> None:
    codebook = trained(normalize=True)
    transformed = codebook.transform(codebook.table)
    directions = transformed / transformed.norm(dim=1, keepdim=True)
    torch.testing.assert_close(codebook.codewords(), codebook.log_gain.exp() * directions)
    assert abs(codebook.log_gain.item()) > 0.01


def test_gradients_of_normalised_rows() -> None:
    codebook, g = trained("plain", normalize=True), normal(K, D, seed=9)
    codewords = codebook.codewords()
    codewords.backward(g)
    gain, length = codebook.log_gain.exp().detach(), codebook.table.detach().norm(dim=1, keepdim=True)
    unit = codebook.table.detach() / length
    across = g - unit * (unit * g).sum(dim=1, keepdim=True)
    torch.testing.assert_close(codebook.table.grad, gain * across / length)
    torch.testing.assert_close(codebook.log_gain.grad, (g * codewords.detach()).sum())


def test_a_zero_row_of_a_normalised_codebook_stays_zero_with_gradients_that_are_finite() -> None:
    codebook = Codebook(K, D, normalize=True)
    codebook.place(torch.tensor([2]), torch.zeros(1, D))
    codewords = codebook.codewords()
    codewords.sum().backward()
    assert not codewords[2].any()
    assert codebook.table.grad.isfinite().all()
    assert not codebook.table.grad[2].any()


def test_placing_all_of_a_normalised_codebook_sets_its_gain() -> None:
    codebook, targets = trained(normalize=True), normal(K, D, seed=5)
    lengths = targets.norm(dim=1, keepdim=True)
    codebook.place(torch.arange(K), targets)
    torch.testing.assert_close(codebook.codewords(), lengths.mean() * targets / lengths)


def test_placing_some_of_a_normalised_codebook_sets_their_directions_only() -> None:
    codebook, targets = trained(normalize=True), normal(2, D, seed=5)
    gain = codebook.log_gain.exp().item()
    codebook.place(torch.tensor([3, 0]), targets)
    expected = gain * targets / targets.norm(dim=1, keepdim=True)
    torch.testing.assert_close(codebook.codewords()[[3, 0]], expected)


def test_unit_codewords_cannot_lower_small_residuals_but_codewords_with_a_gain_can() -> None:
    residuals = normal(K, D)
    residuals *= torch.linspace(0.05, 0.49, K)[:, None] / residuals.norm(dim=1, keepdim=True)
    codebook = Codebook(K, D, normalize=True).double()
    for rows in ([0, 1, 2], [3, 4, 5]):  # directions are perfect, the gain is one
        codebook.place(torch.tensor(rows), residuals[rows])
    assert (torch.cdist(residuals, codebook.codewords()).amin(dim=1) > residuals.norm(dim=1)).all()
    codebook.place(torch.arange(K), residuals)
    left = (residuals - codebook.codewords()).square().sum()
    assert left < 0.5 * residuals.square().sum()


def test_after_a_step_the_spectral_clip_holds() -> None:
    codebook = Codebook(K, D, "linear", spectral_clip=2.0)
    with torch.no_grad():
        codebook.transform.w.copy_(torch.diag(torch.tensor([5.0, 1.0, 1.5, 0.01])))
    codebook.after_step()
    torch.testing.assert_close(codebook.transform.w.detach(), torch.diag(torch.tensor([2.0, 1.0, 1.5, 0.5])))


def test_without_a_spectral_clip_a_step_is_left_alone() -> None:
    codebook = Codebook(K, D, "linear")
    with torch.no_grad():
        codebook.transform.w.mul_(9.0)
    codebook.after_step()
    assert torch.equal(codebook.transform.w, 9.0 * torch.eye(D))


def test_health_of_a_codebook_by_hand() -> None:
    codebook = Codebook(2, 2, {"name": "low-rank", "rank": 1})
    with torch.no_grad():
        codebook.table.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        codebook.transform.w.mul_(2.0)
    assert codebook.health() == pytest.approx(
        {"row_norm_min": 2.0, "row_norm_max": 10.0, "spectral_norm": 2.0}
    )
    codebook.table.grad = torch.tensor([[0.0, 3.0], [4.0, 0.0]])
    codebook.transform.a.grad = torch.tensor([[2.0], [1.0]])
    codebook.transform.w.grad = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    health = codebook.health()
    assert health["table_gradient_norm"] == pytest.approx(5.0)
    assert health["transform_gradient_norm"] == pytest.approx(3.0)


def test_health_shows_the_gain_and_its_gradient() -> None:
    codebook = Codebook(K, D, normalize=True)
    codebook.place(torch.arange(K), 3.0 * torch.ones(K, D))
    codebook.codewords().sum().backward()
    health = codebook.health()
    assert health["row_norm_min"] == pytest.approx(6.0)
    assert health["row_norm_max"] == pytest.approx(6.0)
    assert health["spectral_norm"] == 1.0
    assert health["transform_gradient_norm"] == pytest.approx(K * D * 3.0)


@pytest.mark.parametrize("transform", ["plain", LOW_RANK, "grouped", "attention", "top-s-attention"])
def test_autocast_leaves_codewords_in_float32(transform: Choice) -> None:
    codebook = trained({"name": "grouped", "groups": 2} if transform == "grouped" else transform).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codewords = codebook.codewords()
    assert codewords.dtype == torch.float32
    assert torch.equal(codewords, codebook.codewords())


@pytest.mark.parametrize("transform", ["plain", LOW_RANK])
def test_codewords_compile_to_one_graph(transform: Choice) -> None:
    codebook, plain = trained(transform), trained(transform)
    torch._dynamo.reset()
    compiled = torch.compile(codebook.codewords, backend="eager", fullgraph=True)
    compiled().square().sum().backward()
    plain.codewords().square().sum().backward()
    assert torch.equal(codebook.table.grad, plain.table.grad)


def test_codewords_compile_to_one_graph_at_inference_and_are_not_stale() -> None:
    codebook = trained("attention").eval()
    torch._dynamo.reset()
    compiled = torch.compile(codebook.codewords, backend="eager", fullgraph=True)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(compiled(), codebook())
            codebook.transform.gate.add_(1.0)


@pytest.mark.parametrize("clip", [0.5, -1.0, math.nan])
def test_a_spectral_clip_below_one_is_refused(clip: float) -> None:
    with pytest.raises(ValueError, match="spectral_clip must be"):
        Codebook(K, D, spectral_clip=clip)


def test_a_refresh_that_never_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="refresh_every must be a whole number from 1"):
        Codebook(K, D, refresh_every=0)
