"""Assignments: what they choose by brute force, and their gradients by autograd of the definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import normal
from semantic_ids.choices import Choice, build
from semantic_ids.quantizers.assignment import ASSIGNMENTS
from semantic_ids.randomness import seeded

N, K, D = 40, 6, 3
GUMBEL = {"name": "soft", "noise": True}
IBQ = {"name": "soft", "logits": "inner-product"}
HYPERBOLIC = {"name": "soft", "logits": "hyperbolic"}
SOFT: list[Choice] = ["soft", GUMBEL, IBQ, HYPERBOLIC, {**HYPERBOLIC, "noise": True}]


def made(choice: Choice) -> Any:
    return build("assignment", ASSIGNMENTS, choice).double()


def closest(points: Tensor, codewords: Tensor) -> list[int]:
    return np.square(points.numpy()[:, None] - codewords.numpy()[None]).sum(axis=2).argmin(axis=1).tolist()


def squared_distances(points: Tensor, codewords: Tensor) -> Tensor:
    return (points[:, None] - codewords[None]).square().sum(dim=2)


def mobius_add(x: Tensor, y: Tensor) -> Tensor:
    """``x ⊕ y`` in the Poincaré ball of curvature −1."""
    xy, xx, yy = (x * y).sum(-1, True), (x * x).sum(-1, True), (y * y).sum(-1, True)
    return ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)


def exp_0(tangent: Tensor) -> Tensor:
    length = tangent.norm(dim=-1, keepdim=True)
    return torch.tanh(length) * tangent / length


def signed_distances(points: Tensor, codewords: Tensor) -> Tensor:
    """To the hyperplane through ``exp₀(c)`` across c, times 2: ``asinh(2⟨−p⊕x, â⟩ / (1 − ‖−p⊕x‖²))``."""
    x, p = exp_0(points)[:, None], exp_0(codewords)[None]
    gap = mobius_add(-p, x)
    along = (gap * codewords / codewords.norm(dim=1, keepdim=True)).sum(-1)
    return 2 * torch.asinh(2 * along / (1 - gap.square().sum(-1)))


LOGITS = {
    "distance": lambda points, codewords: -squared_distances(points, codewords),
    "inner-product": lambda points, codewords: points @ codewords.T,
    "hyperbolic": signed_distances,
}


class TestNearest:
    def test_the_nearest_codeword_by_brute_force(self) -> None:
        points, codewords = normal(N, D), normal(K, D, seed=1)
        assigned = made("nearest")(points, codewords)
        assert assigned.codes.tolist() == closest(points, codewords)
        assert torch.equal(assigned.point, codewords[assigned.codes])
        assert torch.equal(made("nearest").codes(points, codewords), assigned.codes)
        assert assigned.logits is None

    def test_gradients_reach_the_chosen_codewords_only(self) -> None:
        points, codewords = normal(N, D).requires_grad_(), normal(K, D, seed=1).requires_grad_()
        g = normal(N, D, seed=2)
        assigned = made("nearest")(points, codewords)
        assigned.point.backward(g)
        expected = torch.zeros(K, D, dtype=torch.float64)
        for row, code in enumerate(assigned.codes.tolist()):
            expected[code] += g[row]
        torch.testing.assert_close(codewords.grad, expected)
        assert points.grad is None


class TestSoft:
    @pytest.mark.parametrize("choice", SOFT, ids=str)
    def test_straight_through_a_softmax(self, choice: Any) -> None:
        choice = {"name": choice} if isinstance(choice, str) else choice
        assignment = made({**choice, "temperature": 0.7})
        learned = [parameter for parameter in assignment.parameters() if parameter.requires_grad]
        assert len(learned) == (choice is not IBQ)
        for parameter in learned:
            parameter.data.fill_(0.4)
        n = K - 2  # so that some code is not chosen
        points, codewords = normal(n, D).requires_grad_(), normal(K, D, seed=1).requires_grad_()
        g = normal(n, D, seed=2)
        with seeded(5):
            assigned = assignment(points, codewords)
        assigned.point.backward(g)

        mine = [points.grad, codewords.grad, *(parameter.grad for parameter in learned)]
        points, codewords = (part.detach().clone().requires_grad_() for part in (points, codewords))
        log_scale = torch.full((), 0.4 if learned else 0.0, dtype=torch.float64, requires_grad=True)
        logits = log_scale.exp() * LOGITS[choice.get("logits", "distance")](points, codewords)
        if choice.get("noise"):
            with seeded(5):
                logits = logits - torch.empty(n, K, dtype=torch.float64).exponential_().log()
        soft = (logits / 0.7).softmax(dim=1)
        hard = torch.nn.functional.one_hot(logits.argmax(dim=1), K)
        point = (hard + soft - soft.detach()) @ codewords
        point.backward(g)
        theirs = [points.grad, codewords.grad, log_scale.grad]
        assert torch.equal(assigned.codes, hard.argmax(dim=1))
        torch.testing.assert_close(assigned.point, point)
        for left, right in zip(mine, theirs, strict=False):
            torch.testing.assert_close(left, right)
        assert codewords.grad.all()

    @pytest.mark.parametrize("kind", LOGITS)
    def test_without_noise_training_chooses_as_inference(self, kind: str) -> None:
        points, codewords = normal(N, D), normal(K, D, seed=1)
        assignment = made({"name": "soft", "logits": kind})
        codes = assignment.codes(points, codewords)
        assert torch.equal(assignment(points, codewords).codes, codes)
        assert codes.tolist() == LOGITS[kind](points, codewords).argmax(dim=1).tolist()

    def test_inference_has_no_noise(self) -> None:
        points, codewords = normal(N, D), normal(K, D, seed=1)
        codes = [made(GUMBEL).codes(points, codewords).tolist() for _ in range(3)]
        assert codes == [closest(points, codewords)] * 3

    def test_noise_draws_codes_from_the_softmax_of_the_logits(self) -> None:
        point, codewords = torch.zeros(1, D, dtype=torch.float64), 0.7 * normal(K, D, seed=1)
        with seeded(0):
            codes = made({**GUMBEL, "temperature": 0.1})(point.expand(40_000, D), codewords).codes
        shares = torch.bincount(codes, minlength=K) / len(codes)
        expected = (-codewords.square().sum(dim=1)).softmax(dim=0)
        torch.testing.assert_close(shares.double(), expected, rtol=0, atol=0.01)  # standard error .0025

    def test_the_temperature_follows_its_schedule(self) -> None:
        assignment = made({"name": "soft", "temperature": {"start": 2.0, "end": 0.5, "shape": "exponential"}})
        codewords = normal(K, D, seed=1)
        for progress, temperature in ((0.0, 2.0), (0.5, 1.0), (1.0, 0.5)):
            assignment.temperature.set_progress(progress)
            fixed = made({"name": "soft", "temperature": temperature})
            grads = []
            for one in (assignment, fixed):
                points = normal(N, D).requires_grad_()
                one(points, codewords).point.sum().backward()
                grads.append(points.grad)
            torch.testing.assert_close(*grads)

    def test_seeding_makes_the_mean_squared_gap_count_as_ten(self) -> None:
        points, codewords = 7 * normal(N, D), 5 * normal(K, D, seed=1)
        assignment = made("soft")
        assignment.seed(points, codewords)
        logits = assignment(points, codewords).logits
        gaps = squared_distances(points, codewords)
        # Logits are minus the squared distances in that unit, up to a constant for each point.
        expected = -10 * gaps / gaps.amin(dim=1).mean()
        torch.testing.assert_close(logits - logits[:, :1], expected - expected[:, :1])

    def test_inner_products_have_no_scale(self) -> None:
        points, codewords = 7 * normal(N, D), 5 * normal(K, D, seed=1)
        assignment = made(IBQ)
        assignment.seed(points, codewords)
        torch.testing.assert_close(assignment(points, codewords).logits, points @ codewords.T)

    def test_hyperbolic_logits_are_finite_far_out_and_at_the_centre(self) -> None:
        points = torch.tensor([[0.0, 0.0], [1e4, 0.0], [-1e4, 1.0]], requires_grad=True)
        codewords = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1e4, 1e4]], requires_grad=True)
        assigned = build("assignment", ASSIGNMENTS, HYPERBOLIC)(points, codewords)
        assigned.point.sum().backward()
        for found in (assigned.logits, points.grad, codewords.grad):
            assert torch.isfinite(found).all()

    def test_unknown_logits_are_refused(self) -> None:
        with pytest.raises(ValueError, match="one of distance, inner-product, hyperbolic, not 'cosine'"):
            made({"name": "soft", "logits": "cosine"})


class TestSpaceFilling:
    def test_the_nearest_point_of_the_dithered_segments(self) -> None:
        points, codewords = normal(500, D), normal(50, D, seed=1)
        with seeded(5):
            assigned = made("space-filling")(points, codewords)
        with seeded(5):
            share = torch.rand(49, 1, dtype=torch.float64)
        dithered = (1 - share) * codewords[:-1] + share * codewords[1:]
        segment = torch.tensor(closest(points, dithered))
        torch.testing.assert_close(assigned.point, dithered[segment])
        nearer = [s if share[s] <= 0.5 else s + 1 for s in segment.tolist()]
        assert assigned.codes.tolist() == nearer
        (first, left), (second, right) = assigned.ends
        assert torch.equal(first, codewords[segment])
        assert torch.equal(second, codewords[segment + 1])
        torch.testing.assert_close(left, 1 - share[segment])
        torch.testing.assert_close(right, share[segment])

    def test_both_ends_share_the_gradient(self) -> None:
        points, codewords = normal(1, D), normal(2, D, seed=1).requires_grad_()
        g = normal(1, D, seed=2)
        with seeded(5):
            made("space-filling")(points, codewords).point.backward(g)
        with seeded(5):
            share = torch.rand(1, 1, dtype=torch.float64)
        torch.testing.assert_close(codewords.grad, torch.cat([(1 - share) * g, share * g]))

    def test_segments_are_dithered_anew_each_time(self) -> None:
        points, codewords = normal(N, D), normal(K, D, seed=1)
        assignment = made("space-filling")
        with seeded(0):
            first, second = (assignment(points, codewords).point for _ in range(2))
        assert not torch.equal(first, second)

    def test_inference_takes_codewords(self) -> None:
        points, codewords = normal(N, D), normal(K, D, seed=1)
        assert made("space-filling").codes(points, codewords).tolist() == closest(points, codewords)

    def test_a_single_codeword_has_no_segments(self) -> None:
        codeword = normal(1, D)
        assigned = made("space-filling")(normal(N, D), codeword)
        assert assigned.codes.tolist() == [0] * N
        assert torch.equal(assigned.point, codeword.expand(N, D))


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_a_wrong_argument_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"assignment '{name}' has no parameter 'noize'"):
        build("assignment", ASSIGNMENTS, {"name": name, "noize": True})
