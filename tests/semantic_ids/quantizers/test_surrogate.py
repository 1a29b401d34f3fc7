"""Values and Jacobians of the surrogates against closed forms and independent graphs, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import jacobian

from helpers import normal
from semantic_ids.choices import Choice, build
from semantic_ids.quantizers.surrogate import SURROGATES, DiVeQ, GritRadius, Rotation, Surrogate
from semantic_ids.randomness import seeded

D = 5
EYE = torch.eye(D, dtype=torch.float64)
POWERS = [0.05, 0.25, 0.5, 0.8, 1.0]
HARD: list[Choice] = [
    "straight-through",
    "rotation",
    {"name": "diveq", "variance": 0.0},
    "grit",
    {"name": "grit", "radius": "huber"},
    {"name": "grit", "radius": {"name": "mahalanobis", "rank": 2}},
    "direct",
]
NOISY: list[Choice] = ["nsvq", "diveq", {"name": "diveq", "variance": 0.5}]


def made(choice: Choice) -> Surrogate:
    with seeded(0):
        return build("surrogate", SURROGATES, choice, dim=D).double()


def power(alpha: float, **choices: bool) -> Surrogate:
    return made({"name": "grit", "radius": {"name": "power", "alpha": alpha, **choices}})


def pair(n: int = 3) -> tuple[Tensor, Tensor]:
    z = normal(n, D, seed=7)
    return z, z + normal(n, D, seed=8)


def jacobians(function: Callable[..., Tensor], z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """∂z_q/∂z and ∂z_q/∂q of each point ``(n, D, D)``; points must not influence one another."""
    rows = torch.arange(len(z))
    own = []
    with seeded(5):
        full = jacobian(function, (z, q))
    for matrix in full:
        own.append(matrix[rows, :, rows, :])
        others = matrix.clone()
        others[rows, :, rows, :] = 0
        assert not others.any()
    return own[0], own[1]


def unit(x: Tensor) -> Tensor:
    return x / x.square().sum(dim=1, keepdim=True).sqrt()


def outer(left: Tensor, right: Tensor) -> Tensor:
    return torch.einsum("ni,nj->nij", left, right)


@pytest.mark.parametrize("choice", HARD, ids=str)
def test_the_value_is_the_codeword(choice: Choice) -> None:
    z, q = pair()
    torch.testing.assert_close(made(choice)(z, q), q, rtol=0, atol=1e-14)


@pytest.mark.parametrize("choice", NOISY, ids=str)
def test_noise_keeps_the_distance_to_the_latent(choice: Choice) -> None:
    z, q = pair()
    with seeded(1):
        value = made(choice)(z, q)
    torch.testing.assert_close((value - z).norm(dim=1), (q - z).norm(dim=1))
    assert ((value - q).norm(dim=1) > 1e-3).all()


@pytest.mark.parametrize("choice", [*HARD, *NOISY], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_gap_there_is_no_nan(choice: Choice, dtype: torch.dtype) -> None:
    surrogate = made(choice).to(dtype)
    z = torch.tensor([[0.0] * D, [0.5, 0.0, 0.0, 1.0, 2.0]], dtype=dtype, requires_grad=True)
    q = z.detach().clone().requires_grad_()
    value = surrogate(z, q)
    value.backward(torch.ones_like(value))
    assert value.dtype == dtype
    assert torch.equal(value, q)
    shares = [part.grad for part in (z, q) if part.grad is not None]
    torch.testing.assert_close(sum(shares), torch.ones_like(z))


class TestStraightThrough:
    def test_the_latent_gets_everything(self) -> None:
        to_latent, to_code = jacobians(made("straight-through"), *pair())
        assert torch.equal(to_latent, EYE.expand(3, D, D))
        assert not to_code.any()


class TestDirect:
    def test_the_codeword_gets_everything(self) -> None:
        to_latent, to_code = jacobians(made("direct"), *pair())
        assert torch.equal(to_code, EYE.expand(3, D, D))
        assert not to_latent.any()


def turn(z: Tensor, q: Tensor) -> Tensor:
    """The rotation ``(n, D, D)`` by the angle between z and q within their plane, leaving the rest alone."""
    u = unit(z)
    v = unit(q - u * (u * q).sum(dim=1, keepdim=True))
    cosine = (u * unit(q)).sum(dim=1)[:, None, None]
    sine = (v * unit(q)).sum(dim=1)[:, None, None]
    return EYE + (cosine - 1) * (outer(u, u) + outer(v, v)) + sine * (outer(v, u) - outer(u, v))


class TestRotation:
    def test_the_gradient_is_turned_in_the_plane_of_both(self) -> None:
        z, q = pair()
        to_latent, to_code = jacobians(made("rotation"), z, q)
        gain = (q.norm(dim=1) / z.norm(dim=1))[:, None, None]
        torch.testing.assert_close(to_latent, gain * turn(z, q))
        assert not to_code.any()

    def test_parallel_vectors_are_only_scaled(self) -> None:
        z = normal(3, D)
        to_latent, _ = jacobians(made("rotation"), z, 3 * z)
        torch.testing.assert_close(to_latent, 3 * EYE.expand(3, D, D))

    @pytest.mark.parametrize("noise", [0.0, 1e-14, 1e-9, 1e-4])
    def test_opposite_vectors(self, noise: float) -> None:
        z = normal(3, D)
        q = -2 * z + noise * normal(3, D, seed=1)
        torch.testing.assert_close(made("rotation")(z, q), q, rtol=0, atol=1e-14)
        to_latent, _ = jacobians(made("rotation"), z, q)
        assert torch.isfinite(to_latent).all()
        assert torch.linalg.matrix_norm(to_latent, 2).max() < 2 * 3.01  # ‖I − 2wwᵀ + 2q̄z̄ᵀ‖ ≤ 3 for any w
        if noise in (0.0, 1e-4):  # between them lies what rounding leaves of z̄ + q̄
            torch.testing.assert_close(torch.einsum("nij,nj->ni", to_latent, z), q, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("length", [0.0, 1e-14])
    def test_a_latent_of_no_length_gets_the_gradient_as_it_is(self, length: float) -> None:
        z, q = length * unit(normal(3, D)), normal(3, D, seed=1)
        assert torch.equal(made("rotation")(z, q), q)
        to_latent, to_code = jacobians(made("rotation"), z, q)
        assert torch.equal(to_latent, EYE.expand(3, D, D))
        assert not to_code.any()

    def test_a_codeword_of_no_length_gives_nothing_back(self) -> None:
        z = normal(3, D)
        to_latent, _ = jacobians(made("rotation"), z, torch.zeros_like(z))
        assert not to_latent.any()

    @pytest.mark.parametrize("length", [1e-10, 1e-3])
    def test_the_gain_is_the_ratio_of_lengths(self, length: float) -> None:
        z, q = length * unit(normal(3, D)), unit(normal(3, D, seed=1))
        to_latent, _ = jacobians(made("rotation"), z, q)
        sizes = torch.linalg.svdvals(to_latent)
        torch.testing.assert_close(sizes, torch.full((3, D), 1 / length, dtype=torch.float64))

    def test_float32_stays_finite_near_zero(self) -> None:
        z = torch.tensor([[1e-13, 0.0, 0.0, 0.0, 0.0], [1e-11, 0.0, 0.0, 0.0, 0.0]], requires_grad=True)
        value = Rotation(D)(z, torch.full((2, D), 100.0))
        value.sum().backward()
        assert torch.isfinite(z.grad).all()
        torch.testing.assert_close(value, torch.full((2, D), 100.0))


class TestNoise:
    """NSVQ and DiVeQ: ``z + δ·sg[u]`` for a unit vector u, drawn as they say."""

    @staticmethod
    def direction(deviation: float | None, z: Tensor, q: Tensor) -> Tensor:
        with seeded(5):
            noise = torch.randn(z.shape, dtype=torch.float64)
        return unit(noise) if deviation is None else unit(q - z + deviation * noise)

    @pytest.mark.parametrize(
        ("choice", "deviation"), [("nsvq", None), ("diveq", 1e-3**0.5), (NOISY[2], 0.5**0.5), (HARD[2], 0.0)]
    )
    def test_value_and_jacobians(self, choice: Choice, deviation: float | None) -> None:
        z, q = pair()
        u, s = self.direction(deviation, z, q), unit(q - z)
        with seeded(5):
            value = made(choice)(z, q)
        torch.testing.assert_close(value, z + (q - z).norm(dim=1, keepdim=True) * u)
        to_latent, to_code = jacobians(made(choice), z, q)
        torch.testing.assert_close(to_code, outer(u, s))
        torch.testing.assert_close(to_latent, EYE - outer(u, s))

    def test_nsvq_points_everywhere_alike(self) -> None:
        z = torch.zeros(20_000, D, dtype=torch.float64)
        with seeded(2):
            value = made("nsvq")(z, z + EYE[0])
        assert value.mean(dim=0).abs().max() < 0.02  # standard error .003
        torch.testing.assert_close(value.T @ value / len(z), EYE / D, rtol=0, atol=0.02)

    def test_without_noise_diveq_is_the_euclidean_radius(self) -> None:
        z, q = pair()
        euclidean = made({"name": "grit", "radius": "euclidean"})
        torch.testing.assert_close(made(HARD[2])(z, q), euclidean(z, q))
        torch.testing.assert_close(jacobians(made(HARD[2]), z, q), jacobians(euclidean, z, q))
        state = torch.random.get_rng_state()
        made(HARD[2])(z, q)
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_a_negative_variance_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"variance must be a number at least 0, not -0\.1"):
            DiVeQ(D, variance=-0.1)


class TestGrit:
    @pytest.mark.parametrize("alpha", POWERS)
    def test_the_power_radius_shares_the_gradient_along_the_gap(self, alpha: float) -> None:
        z, q = pair()
        to_latent, to_code = jacobians(power(alpha), z, q)
        s = unit(q - z)
        torch.testing.assert_close(to_code, alpha * outer(s, s))
        torch.testing.assert_close(to_latent, EYE - alpha * outer(s, s))

    @pytest.mark.parametrize("alpha", POWERS)
    def test_the_gradient_is_that_of_equation_2_as_written(self, alpha: float) -> None:
        def equation_2(z: Tensor, q: Tensor) -> Tensor:
            r = (q - z).norm(dim=1, keepdim=True) ** alpha
            return z + r * ((q - z) / r).detach()

        z, q = pair()
        torch.testing.assert_close(jacobians(power(alpha), z, q), jacobians(equation_2, z, q))

    def test_a_radius_that_prefers_directions_follows_equation_2_too(self) -> None:
        surrogate = made({"name": "grit", "radius": "mahalanobis"})
        weights = torch.tensor([1.0, 4.0, 9.0, 0.25, 2.0], dtype=torch.float64)
        with torch.no_grad():
            surrogate.radius.free.copy_(torch.log(torch.expm1(weights)))

        def equation_2(z: Tensor, q: Tensor) -> Tensor:
            r = (weights * (q - z) ** 2).sum(dim=1, keepdim=True).sqrt()
            return z + r * ((q - z) / r).detach()

        found = jacobians(surrogate, *pair())
        torch.testing.assert_close(found, jacobians(equation_2, *pair()))
        assert (found[1] - found[1].mT).abs().max() > 0.1  # so a transposed v wᵀ would show

    def test_a_hybrid_radius_has_the_codeword_for_value_and_its_slope_for_gradient(self) -> None:
        tau = 2.0

        def hybrid(z: Tensor, q: Tensor) -> Tensor:
            d = q - z
            length = d.norm(dim=1, keepdim=True)
            rho = torch.where(length < tau, length**2 / (2 * tau), length - tau / 2)
            return z + d.detach() + (rho - rho.detach()) * (d / length).detach()

        z, q = pair()
        assert ((q - z).norm(dim=1) < tau).tolist() == [True, True, False]  # both branches
        surrogate = made({"name": "grit", "radius": {"name": "huber", "tau": tau}})
        torch.testing.assert_close(jacobians(surrogate, z, q), jacobians(hybrid, z, q))

    @given(st.floats(-6, 3), st.floats(0.01, 1), st.integers(0, 1000))
    @settings(deadline=None, max_examples=50)
    def test_what_the_latent_loses_the_codeword_gets_at_any_scale(
        self, scale: float, alpha: float, seed: int
    ) -> None:
        z = torch.zeros(2, D, dtype=torch.float64)  # a tiny gap beside a long z would be lost in rounding
        q = 10**scale * unit(normal(2, D, seed=seed))
        to_latent, to_code = jacobians(power(alpha), z, q)
        torch.testing.assert_close(to_latent + to_code, EYE.expand(2, D, D))
        kappa = to_code.diagonal(dim1=1, dim2=2).sum(dim=1)  # the trace of κ s sᵀ
        torch.testing.assert_close(kappa, torch.full((2,), alpha, dtype=torch.float64))

    def test_a_learned_radius_gets_the_phantom_gradient(self) -> None:
        # ∂z_q/∂α = d·log δ, and α is the sigmoid of what is learned.
        z, q = pair()
        g, surrogate = normal(3, D, seed=2), power(0.3, learnable=True)
        value = surrogate(z, q)
        torch.testing.assert_close(value, q, rtol=0, atol=1e-14)
        value.backward(g)
        gap = q - z
        to_alpha = (g * gap * gap.norm(dim=1, keepdim=True).log()).sum()
        (learned,) = surrogate.parameters()
        torch.testing.assert_close(learned.grad, to_alpha * 0.3 * 0.7, rtol=1e-6, atol=0)

    def test_the_phantom_gradient_leaves_the_others_alone(self) -> None:
        torch.testing.assert_close(
            jacobians(power(0.3, learnable=True), *pair()),
            jacobians(power(0.3), *pair()),
            rtol=1e-6,
            atol=1e-7,
        )

    def test_a_fixed_radius_has_nothing_to_learn(self) -> None:
        assert not list(GritRadius(D).parameters())

    def test_running_statistics_move_in_training_only(self) -> None:
        surrogate = made({"name": "grit", "radius": {"name": "adaptive-mahalanobis", "decay": 0.0}})
        surrogate.eval()(*pair())
        assert not surrogate.radius.total.any()
        z, q = pair()
        surrogate.train()(z, q)
        torch.testing.assert_close(surrogate.radius.total, (q - z).T @ (q - z) / 3)


def test_sigmas_square_is_what_diveq_takes() -> None:
    # Tangents of the angles to the gap are about σ·√(D − 1)/δ for a small σ.
    z = torch.zeros(20_000, D, dtype=torch.float64)
    with seeded(3):
        value = DiVeQ(D, variance=1e-4)(z, z + EYE[0])
    sideways = value[:, 1:].square().sum(dim=1).mean().sqrt()
    assert float(sideways) == pytest.approx(math.sqrt(1e-4 * (D - 1)), rel=0.02)
