"""Transformed codebooks: gradients against matrix calculus, and what a transform is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from semantic_ids.codebook import Codebook
from semantic_ids.residual import ResidualQuantizer
from semantic_ids.transform import LowRank

K, D, RANK = 6, 4, 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(codebook: Codebook, scale: float = 0.3) -> Codebook:
    """The codebook with every parameter somewhere else than at the start."""
    with torch.no_grad():
        for number, parameter in enumerate(codebook.parameters()):
            parameter.add_(scale * normal(*parameter.shape, seed=number).to(parameter.dtype))
    return codebook


def low_rank(**choices: object) -> Codebook:
    torch.manual_seed(0)
    return Codebook(K, D, {"name": "low-rank", "rank": RANK}, **choices).double()


def test_low_rank_starts_as_the_table_itself() -> None:
    codebook = Codebook(256, 32, {"name": "low-rank", "rank": 64})
    assert torch.equal(codebook.codewords(), codebook.table)


def test_low_rank_is_the_formula() -> None:
    codebook = trained(low_rank())
    transform = codebook.transform
    m = torch.eye(K, dtype=torch.float64) + transform.a @ transform.b.T
    torch.testing.assert_close(codebook.codewords(), m @ codebook.table @ transform.w)


def test_gradients_are_those_of_matrix_calculus() -> None:
    codebook = trained(low_rank())
    transform, e = codebook.transform, codebook.table.detach()
    g = normal(K, D, seed=9)
    codebook.codewords().backward(g)
    a, b, w = transform.a.detach(), transform.b.detach(), transform.w.detach()
    m = torch.eye(K, dtype=torch.float64) + a @ b.T
    dm = g @ w.T @ e.T
    torch.testing.assert_close(transform.w.grad, e.T @ m.T @ g)
    torch.testing.assert_close(codebook.table.grad, m.T @ g @ w.T)
    torch.testing.assert_close(transform.a.grad, dm @ b)
    torch.testing.assert_close(transform.b.grad, dm.T @ a)


@pytest.mark.parametrize(("transform", "moves"), [("plain", False), ("low-rank", True)])
def test_unselected_codewords_move_only_through_shared_parameters(transform: str, moves: bool) -> None:
    torch.manual_seed(0)
    codebook = Codebook(K, D, transform)
    before = codebook.codewords().detach().clone()
    optimizer = torch.optim.SGD(codebook.parameters(), lr=0.1)
    (codebook.codewords()[2] - 1.0).square().sum().backward()
    optimizer.step()
    moved = (codebook.codewords().detach() - before).abs().amax(dim=1) > 1e-4
    assert moved.tolist() == [moves or row == 2 for row in range(K)]


def test_the_identity_term_keeps_the_rank_that_ab_alone_would_lose() -> None:
    torch.manual_seed(0)
    codebook = trained(Codebook(K, D, {"name": "low-rank", "rank": 1}).double())
    transform = codebook.transform
    ab = transform.a @ transform.b.T
    assert torch.linalg.matrix_rank(ab @ codebook.table @ transform.w) == 1
    assert torch.linalg.matrix_rank(torch.eye(K, dtype=torch.float64) + ab) == K
    assert torch.linalg.matrix_rank(codebook.codewords()) == D


@pytest.mark.parametrize("transform", ["plain", {"name": "low-rank", "rank": RANK}])
@pytest.mark.parametrize("rows", [[4], [0, 3, 5], list(range(K))])
def test_placed_codewords_are_exactly_where_they_should_be(transform: object, rows: list[int]) -> None:
    torch.manual_seed(0)
    codebook = trained(Codebook(K, D, transform).double())
    targets = normal(len(rows), D, seed=5)
    codebook.place(torch.tensor(rows), targets)
    torch.testing.assert_close(codebook.codewords()[rows], targets, rtol=0, atol=1e-12)


def test_placing_in_a_plain_codebook_moves_nothing_else() -> None:
    codebook = Codebook(K, D)
    before = codebook.codewords().detach().clone()
    codebook.place(torch.tensor([1]), torch.ones(1, D))
    assert torch.equal(codebook.codewords()[[0, 2, 3, 4, 5]], before[[0, 2, 3, 4, 5]])


def test_decoding_goes_through_the_transform() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer((K, K), D, transform={"name": "low-rank", "rank": RANK}).double()
    for codebook in quantizer.codebooks:
        trained(codebook)
    targets = normal(2, D, seed=3)
    for codebook, target in zip(quantizer.codebooks, targets, strict=True):
        codebook.place(torch.tensor([1]), target[None])
    decoded = quantizer.decode(torch.tensor([[1, 1]]))
    torch.testing.assert_close(decoded, targets.sum(dim=0, keepdim=True))
    through_tables = sum(codebook.table[1] for codebook in quantizer.codebooks)
    assert (decoded - through_tables).abs().max() > 0.1


def test_a_frozen_table_learns_through_its_transform_only() -> None:
    codebook = trained(low_rank(frozen=True))
    codebook.codewords().square().sum().backward()
    assert codebook.table.grad is None
    assert all(parameter.grad.any() for parameter in codebook.transform.parameters())


def test_size_and_shape() -> None:
    codebook = Codebook(7, 3, "low-rank")
    assert isinstance(codebook.transform, LowRank)
    assert codebook.size == 7
    assert codebook.codewords().shape == (7, 3)
