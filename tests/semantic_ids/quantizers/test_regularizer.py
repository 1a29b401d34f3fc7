"""Regularizers against brute force, and what they promise after some steps of gradient descent."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import normal
from semantic_ids.choices import Choice, build
from semantic_ids.nearest import nearest
from semantic_ids.quantizers.regularizer import REGULARIZERS

N, K, D = 30, 6, 3


def made(choice: Choice) -> Any:
    return build("regularizer", REGULARIZERS, choice)


def loss(
    name: str, points: Tensor, codewords: Tensor, logits: Tensor | None = None, **choices: Any
) -> Tensor:
    return made({"name": name, "weight": 1.0, **choices})(points, codewords, logits)


def probabilities(points: Tensor, codewords: Tensor, temperature: float = 1.0) -> list[list[float]]:
    """softmax of minus the squared distances in units of their mean smallest one, by the definition."""
    squares = [[float((x - c).square().sum()) for c in codewords] for x in points]
    unit = sum(map(min, squares)) / len(squares)
    rows = [[math.exp(-(square - min(row)) / unit / temperature) for square in row] for row in squares]
    return [[value / sum(row) for value in row] for row in rows]


def softmax(logits: Tensor) -> list[list[float]]:
    return [[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in logits.tolist()]


def divergence(p: list[float]) -> float:
    """KL(p ‖ uniform) in nats."""
    return sum(x * math.log(x * len(p)) for x in p if x)


def entropy(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p if x)


def average(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


class TestBruteForce:
    @pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
    def test_usage(self, temperature: float) -> None:
        points, codewords = normal(N, D), normal(K, D, seed=1)
        expected = divergence(average(probabilities(points, codewords, temperature)))
        found = loss("usage", points, codewords, temperature=temperature)
        assert found.item() == pytest.approx(expected)

    def test_usage_looks_at_distances_whatever_the_assignment_does(self) -> None:
        points, codewords = normal(N, D), normal(K, D, seed=1)
        assert loss("usage", points, codewords, normal(N, K)) == loss("usage", points, codewords)

    @pytest.mark.parametrize("given_logits", [True, False])
    def test_posterior(self, given_logits: bool) -> None:
        points, codewords, logits = normal(N, D), normal(K, D, seed=1), normal(N, K, seed=2)
        rows = softmax(logits) if given_logits else probabilities(points, codewords)
        found = loss("posterior", points, codewords, logits if given_logits else None)
        assert found.item() == pytest.approx(sum(map(divergence, rows)) / N)

    @pytest.mark.parametrize("given_logits", [True, False])
    @pytest.mark.parametrize("diversity", [0.0, 1.0, 2.5])
    def test_entropy(self, given_logits: bool, diversity: float) -> None:
        points, codewords, logits = normal(N, D), normal(K, D, seed=1), normal(N, K, seed=2)
        rows = softmax(logits / 0.7) if given_logits else probabilities(points, codewords, 0.7)
        expected = sum(map(entropy, rows)) / N - diversity * entropy(average(rows))
        choices = {"diversity": diversity, "temperature": 0.7}
        found = loss("entropy", points, codewords, logits if given_logits else None, **choices)
        assert found.item() == pytest.approx(expected)

    def test_orthogonality(self) -> None:
        codewords = normal(K, D, seed=1)
        cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in combinations(codewords, 2)]
        expected = sum(c * c for c in cosines) / len(cosines)
        assert loss("orthogonality", normal(N, D), codewords).item() == pytest.approx(expected)

    def test_repulsion(self) -> None:
        codewords = normal(K, D, seed=1)
        squares = [float((a - b).square().sum()) for a, b in combinations(codewords, 2)]
        mean = sum(squares) / len(squares)
        expected = sum(math.exp(-square / (0.3 * mean)) for square in squares) / len(squares)
        found = loss("repulsion", normal(N, D), codewords, temperature=0.3)
        assert found.item() == pytest.approx(expected)


class TestEnds:
    """Cases where the value is known beforehand."""

    def test_codewords_served_alike_have_no_usage_loss(self) -> None:
        corners = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
        assert loss("usage", 1.1 * corners, corners).item() == pytest.approx(0.0, abs=1e-12)

    def test_a_single_code_in_use_has_the_largest(self) -> None:
        codewords = torch.cat([torch.zeros(1, D), 1e3 * normal(K - 1, D)])
        assert loss("usage", normal(N, D), codewords).item() == pytest.approx(math.log(K))

    @pytest.mark.parametrize("name", ["orthogonality", "repulsion"])
    def test_one_codeword_is_alone(self, name: str) -> None:
        codeword = normal(1, D).requires_grad_()
        value = loss(name, normal(N, D), codeword)
        assert value.item() == pytest.approx(0.0, abs=1e-12)

    def test_right_angles_cost_nothing(self) -> None:
        assert loss("orthogonality", normal(N, D), 5 * torch.eye(D)).item() == pytest.approx(0.0, abs=1e-6)

    def test_equal_codewords_cost_all(self) -> None:
        equal = torch.ones(K, D)
        assert loss("orthogonality", normal(N, D), equal).item() == pytest.approx(1.0)
        assert loss("repulsion", normal(N, D), equal).item() == pytest.approx(1.0)

    @pytest.mark.parametrize("name", REGULARIZERS)
    def test_no_nan_where_all_coincides(self, name: str) -> None:
        points, codewords = torch.zeros(N, D).requires_grad_(), torch.zeros(K, D).requires_grad_()
        value = loss(name, points, codewords)
        if value.requires_grad:
            value.backward()
        for found in (value, points.grad, codewords.grad):
            assert found is None or torch.isfinite(found).all()


@given(st.floats(-3, 3), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_the_unit_of_the_latents_does_not_matter(exponent: float, seed: int) -> None:
    points, codewords, unit = normal(N, D, seed=seed), normal(K, D, seed=seed + 1), 10**exponent
    for name in REGULARIZERS:
        torch.testing.assert_close(loss(name, unit * points, unit * codewords), loss(name, points, codewords))


def test_usage_moves_codewords_and_no_latents() -> None:
    points, codewords = normal(N, D).requires_grad_(), normal(K, D, seed=1).requires_grad_()
    loss("usage", points, codewords).backward()
    assert points.grad is None
    assert codewords.grad.all()


@pytest.mark.parametrize("name", ["posterior", "entropy"])
def test_what_judges_choices_moves_both(name: str) -> None:
    points, codewords = normal(N, D).requires_grad_(), normal(K, D, seed=1).requires_grad_()
    loss(name, points, codewords).backward()
    assert points.grad.all()
    assert codewords.grad.all()


@pytest.mark.parametrize("name", REGULARIZERS)
def test_the_weight_follows_its_schedule(name: str) -> None:
    points, codewords = normal(N, D), normal(K, D, seed=1)
    regularizer = made({"name": name, "weight": {"start": 0.2, "end": 0.0}})
    whole = loss(name, points, codewords)
    torch.testing.assert_close(regularizer(points, codewords, None), 0.2 * whole)
    regularizer.weight.set_progress(0.75)
    torch.testing.assert_close(regularizer(points, codewords, None), 0.05 * whole)


def descend(name: str, points: Tensor, codewords: Tensor, rate: float, **choices: Any) -> Tensor:
    """``codewords`` after 100 steps of gradient descent on the regularizer alone."""
    codewords = codewords.clone().requires_grad_()
    optimizer = torch.optim.SGD([codewords], lr=rate)
    for _ in range(100):
        optimizer.zero_grad()
        loss(name, points, codewords, **choices).backward()
        optimizer.step()
    return codewords.detach()


def test_usage_brings_dead_codes_into_use() -> None:
    points = normal(300, D)
    codewords = torch.cat([0.5 * normal(4, D, seed=1), 3 + 0.5 * normal(4, D, seed=2)])
    used = [len(nearest(points, c).unique()) for c in (codewords, descend("usage", points, codewords, 1.0))]
    assert used[0] <= 5
    assert used[1] == 8


def test_repulsion_parts_neighbours() -> None:
    codewords = torch.cat([normal(4, D, seed=1), normal(4, D, seed=1) + 0.05 * normal(4, D, seed=2)])
    nearest_gap = [
        float((torch.cdist(c, c) + 1e9 * torch.eye(8)).min())
        for c in (codewords, descend("repulsion", normal(N, D), codewords, 1.0))
    ]
    assert nearest_gap[1] > 5 * nearest_gap[0]


def test_orthogonality_spreads_directions() -> None:
    codewords = torch.ones(3, D) + 0.3 * normal(3, D, seed=1)
    turned = torch.nn.functional.normalize(descend("orthogonality", normal(N, D), codewords, 3.0), dim=1)
    torch.testing.assert_close((turned @ turned.T).abs(), torch.eye(3).double(), rtol=0, atol=0.05)


def test_entropy_makes_choices_certain_and_even() -> None:
    points, codewords = normal(300, D), 0.3 * normal(K, D, seed=1)

    def sure_and_even(codewords: Tensor) -> tuple[float, float]:
        rows = probabilities(points, codewords)
        return -sum(map(entropy, rows)) / len(rows), entropy(average(rows))

    before = sure_and_even(codewords)
    after = sure_and_even(descend("entropy", points, codewords, 0.3))
    assert after[0] > before[0]
    assert after[1] > 0.98 * math.log(K)


def test_posterior_makes_choices_less_certain() -> None:
    points, codewords = normal(N, D), normal(K, D, seed=1)
    logits = normal(N, K, seed=2).requires_grad_()
    before = loss("posterior", points, codewords, logits)
    (step,) = torch.autograd.grad(before, logits)
    assert loss("posterior", points, codewords, logits - step) < before
    assert loss("posterior", points, codewords, torch.zeros(N, K)).item() == pytest.approx(0.0, abs=1e-6)
