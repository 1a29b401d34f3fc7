"""Radius families against autograd of the surrogate they stand for, and against their closed forms."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import jacobian

from helpers import normal
from semantic_ids.choices import build
from semantic_ids.quantizers.radii import RADII, AdaptiveMahalanobis, Mahalanobis
from semantic_ids.quantizers.radius import Radius

N, D = 6, 5
HYBRID = {"huber", "pseudo-huber"}
CHOICES: list[dict[str, Any]] = [
    {"name": "euclidean"},
    {"name": "clipped", "tau": 2.0},
    {"name": "power"},
    {"name": "power", "alpha": 0.2},
    {"name": "huber", "tau": 2.0},
    {"name": "mahalanobis"},
    {"name": "mahalanobis", "rank": 2},
    {"name": "soft-clip", "tau": 2.0},
    {"name": "pseudo-huber", "tau": 2.0},
    {"name": "lp", "p": 1.0},
    {"name": "lp", "p": 1.5},
    {"name": "lp", "p": 9.0},
    {"name": "lp", "p": math.inf},
    {"name": "lp", "p": 1.0, "smoothing": 0.1},
    {"name": "temperature", "tau": 0.3},
    {"name": "adaptive-mahalanobis"},
]
LEARNABLE: list[dict[str, Any]] = [
    {"name": "power", "alpha": 0.3, "learnable": True},
    {"name": "clipped", "learnable": True},
    {"name": "huber", "learnable": True},
    {"name": "soft-clip", "learnable": True},
    {"name": "pseudo-huber", "learnable": True},
    {"name": "temperature", "learnable": True},
    {"name": "mahalanobis"},
    {"name": "mahalanobis", "rank": 2},
]


def label(choice: dict[str, Any]) -> str:
    return " ".join(str(value) for value in choice.values())


every_family = pytest.mark.parametrize("choice", CHOICES, ids=label)
every_learnable = pytest.mark.parametrize("choice", LEARNABLE, ids=label)


def make(choice: dict[str, Any], dim: int = D) -> Radius:
    """A radius in float64 whose matrix, if it has one, is not the identity it starts from."""
    radius = build("radius", RADII, choice, dim=dim).double()
    radius.observe(normal(50, dim, seed=1) * torch.linspace(1, 3, dim))
    if choice["name"] == "mahalanobis":
        with torch.no_grad():
            for number, parameter in enumerate(radius.parameters()):
                parameter.add_(normal(*parameter.shape, seed=2 + number))
    return radius


def gaps_of(length: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """``(N, D)`` of a given length, in N directions."""
    return (length * torch.nn.functional.normalize(normal(N, D), dim=1)).to(dtype)


def surrogate(radius: Radius, name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """GRIT-VQ's equation 2 or its hybrid reading, in so many words."""

    def literal(z: Tensor, q: Tensor) -> Tensor:
        r = radius(q - z)
        return z + r * ((q - z) / r).detach()

    def hybrid(z: Tensor, q: Tensor) -> Tensor:
        d, rho = q - z, radius(q - z)
        return z + d.detach() + (rho - rho.detach()) * (d / d.norm(dim=1, keepdim=True)).detach()

    return hybrid if name in HYBRID else literal


def jacobians(radius: Radius, name: str, gap: Tensor) -> list[Tensor]:
    """∂z_q/∂z and ∂z_q/∂q of each point, ``(n, D, D)``, by autograd."""
    rows = torch.arange(len(gap))
    both = jacobian(surrogate(radius, name), (torch.zeros_like(gap), gap))
    return [full[rows, :, rows, :] for full in both]


def test_every_family_of_the_appendix_is_tested() -> None:
    assert {choice["name"] for choice in CHOICES} == set(RADII)
    assert len(RADII) == 10
    assert {name for name, family in RADII.items() if family.hybrid} == HYBRID


@every_family
@pytest.mark.parametrize("length", [1e-8, 0.03, 1.9, 30.0, 1e4])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_pull_is_the_jacobian_of_the_surrogate(
    choice: dict[str, Any], length: float, dtype: torch.dtype, error: float
) -> None:
    radius, gap = make(choice), gaps_of(length)
    to_latent, to_code = jacobians(radius, choice["name"], gap)
    v, w = radius.to(dtype).pull(gap.to(dtype))
    assert v.dtype == w.dtype == dtype
    assert not v.requires_grad
    assert not w.requires_grad
    shared = torch.einsum("ni,nj->nij", v, w).double()
    eye = torch.eye(D, dtype=torch.float64)
    torch.testing.assert_close(to_latent + to_code, eye.expand(N, D, D), rtol=0, atol=1e-12)
    torch.testing.assert_close(shared, to_code, rtol=0, atol=error)
    torch.testing.assert_close(eye - shared, to_latent, rtol=0, atol=error)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"name": "euclidean"}, 5),
        ({"name": "clipped", "tau": 2}, 2),
        ({"name": "clipped", "tau": 6}, 5),
        ({"name": "power", "alpha": 0.5}, 5**0.5),
        ({"name": "huber", "tau": 2}, 4),
        ({"name": "huber", "tau": 10}, 1.25),
        ({"name": "soft-clip", "tau": 2}, 2 * math.tanh(2.5)),
        ({"name": "pseudo-huber", "tau": 2}, 2 * (math.sqrt(7.25) - 1)),
        ({"name": "temperature", "tau": 2}, 2 * math.log(3.5)),
        ({"name": "lp", "p": 1}, 7),
        ({"name": "lp", "p": 3}, 91 ** (1 / 3)),
        ({"name": "lp", "p": math.inf}, 4),
        ({"name": "lp", "p": 1, "smoothing": 2}, 13**0.5 + 20**0.5),
        ({"name": "mahalanobis"}, 5),
        ({"name": "adaptive-mahalanobis", "epsilon": 0.25}, 5 / 1.25**0.5),
    ],
    ids=lambda value: label(value) if isinstance(value, dict) else "",
)
def test_radii_by_hand(choice: dict[str, Any], expected: float) -> None:
    radius = build("radius", RADII, choice, dim=2)
    torch.testing.assert_close(radius(torch.tensor([[3.0, 4.0]])), torch.tensor([[float(expected)]]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("huber", 2.5e-9), ("pseudo-huber", 2.5e-9), ("soft-clip", 1e-4), ("temperature", 1e-4 - 2.5e-9)],
)
def test_a_short_gap_has_all_its_digits(name: str, expected: float) -> None:
    assert RADII[name](1, tau=2.0)(torch.tensor([[1e-4]])).item() == pytest.approx(expected, rel=1e-6, abs=0)


CLOSED_FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "euclidean": lambda x: x**0,
    "clipped": lambda x: 1.0 * (x < 1),
    "power": lambda x: 0.5 * x**0,
    "huber": lambda x: np.minimum(x, 1),
    "soft-clip": lambda x: 2 * x / np.sinh(np.minimum(2 * x, 700)),
    "pseudo-huber": lambda x: x / np.sqrt(1 + x**2),
    "temperature": lambda x: x / ((1 + x) * np.log1p(x)),
}


@pytest.mark.parametrize("tau", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_radial_families_share_by_their_closed_form(name: str, tau: float) -> None:
    lengths = torch.tensor([1e-8, 1e-4, 0.01, 0.3, 1.7, 40.0, 1e4])
    choice = {"name": name} if name in ("euclidean", "power") else {"name": name, "tau": tau}
    gap = lengths[:, None] * torch.tensor([0.6, -0.8])
    v, w = build("radius", RADII, choice, dim=2).pull(gap)
    expected = CLOSED_FORMS[name](lengths.double().numpy() / tau)
    np.testing.assert_allclose((v * w).sum(dim=1), expected, rtol=1e-5, atol=1e-30)
    torch.testing.assert_close(w, torch.tensor([0.6, -0.8]).expand(7, 2))


@pytest.mark.parametrize("choice", CHOICES[9:13] + CHOICES[5:7] + CHOICES[15:], ids=label)
def test_families_that_prefer_directions_project(choice: dict[str, Any]) -> None:
    v, w = make(choice).pull(gaps_of(1.3))
    torch.testing.assert_close((v * w).sum(dim=1), torch.ones(N, dtype=torch.float64))


@given(
    st.sampled_from(sorted(CLOSED_FORMS.keys() - {"euclidean", "power"})),
    st.floats(1e-6, 1e6),
    st.floats(1e-10, 1e10),
)
def test_no_radial_family_enlarges_a_gradient_or_turns_it(name: str, tau: float, length: float) -> None:
    v, w = RADII[name](1, tau=tau).pull(torch.tensor([[length]]))
    assert 0 <= (v * w).item() <= 1 + 1e-6


@pytest.mark.parametrize("name", sorted(HYBRID))
def test_read_literally_the_hubers_would_reflect(name: str) -> None:
    gap = torch.tensor([[1e-4]], dtype=torch.float64, requires_grad=True)
    rho = RADII[name](1)(gap)
    rho.backward()
    assert (gap * gap.grad / rho).item() == pytest.approx(2, rel=1e-6)


@every_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_gap_everything_is_zero(choice: dict[str, Any], dtype: torch.dtype) -> None:
    radius = make(choice).to(dtype)
    gap = gaps_of(1.0, dtype)
    gap[0], gap[1] = 0, gap[1] * 1e-15
    v, w = radius.pull(gap)
    assert not v[:2].any()
    assert not w[:2].any()
    alone = radius.pull(gap[2:])
    assert torch.equal(v[2:], alone[0])
    assert torch.equal(w[2:], alone[1])
    gap.requires_grad_()
    r = radius(gap)
    r.sum().backward()
    assert not r[:2].any()
    assert not gap.grad[:2].any()
    assert (r[2:] > 0).all()
    assert gap.grad.isfinite().all()
    if radius.learnable:
        radius.zero_grad()
        radius.phantom(gap[:2]).sum().backward()
        assert not any(parameter.grad.any() for parameter in radius.parameters())


@every_family
def test_low_precision_does_not_reach_a_radius(choice: dict[str, Any]) -> None:
    radius, gap = make(choice).float(), gaps_of(1.0, torch.bfloat16)
    expected = [*radius.pull(gap.float()), radius(gap.float())]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [*radius.pull(gap), radius(gap)]
    for mine, exact in zip(found, expected, strict=True):
        assert torch.equal(mine, exact)


def test_equal_components_share_the_pull_of_the_maximum_norm() -> None:
    choice = {"name": "lp", "p": math.inf}
    gap = torch.tensor([[2.0, -2.0, 0.0, 1.0, 2.0]], dtype=torch.float64)
    v, w = make(choice).pull(gap)
    torch.testing.assert_close(w, torch.tensor([[1.0, -1.0, 0.0, 0.0, 1.0]], dtype=torch.float64) / 3)
    torch.testing.assert_close(torch.einsum("ni,nj->nij", v, w), jacobians(make(choice), "lp", gap)[1])


def test_smoothing_leaves_small_gaps_to_the_latent() -> None:
    radius = make({"name": "lp", "p": 1.0, "smoothing": 1e-3})
    v, w = radius.pull(torch.cat([gaps_of(1e-6), gaps_of(1e3)]))
    shares = (v * w).sum(dim=1)
    assert (shares[:N] < 1e-5).all()
    assert (shares[N:] > 1 - 1e-4).all()


@pytest.mark.parametrize("condition", [1.0, 9.0, 400.0])
def test_the_norm_of_an_oblique_projector_meets_its_bound(condition: float) -> None:
    radius = Mahalanobis(2).double()
    with torch.no_grad():
        radius.free.copy_(torch.tensor([condition, 1.0], dtype=torch.float64).expm1().log())
    worst = torch.tensor([[condition**-0.5, 1.0]], dtype=torch.float64)
    v, w = radius.pull(torch.cat([worst, normal(200, 2)]))
    norms = torch.linalg.matrix_norm(torch.eye(2) - v[:, :, None] * w[:, None, :], ord=2)
    bound = (condition + 1) / (2 * condition**0.5)
    assert norms[0].item() == pytest.approx(bound, rel=1e-6)
    assert (norms <= bound * (1 + 1e-6)).all()


@pytest.mark.parametrize("choice", CHOICES[5:7] + CHOICES[15:], ids=label)
def test_no_matrix_goes_beyond_the_bound_of_its_condition(choice: dict[str, Any]) -> None:
    radius = make(choice)
    matrix = radius.weigh(torch.eye(D, dtype=torch.float64)).detach()
    torch.testing.assert_close(matrix, matrix.T)
    c = torch.linalg.cond(matrix).item()
    assert c > 2
    v, w = radius.pull(normal(500, D, seed=8))
    norms = torch.linalg.matrix_norm(torch.eye(D) - v[:, :, None] * w[:, None, :], ord=2)
    assert 1.01 < norms.max() <= (c + 1) / (2 * c**0.5)


def test_one_large_component_brings_l1_to_its_bound() -> None:
    v, w = RADII["lp"](4, p=1.0).pull(torch.tensor([[1.0, 1e-6, -1e-6, 1e-6]], dtype=torch.float64))
    norm = torch.linalg.matrix_norm(torch.eye(4) - v[0, :, None] * w[0], ord=2)
    assert norm.item() == pytest.approx(2.0, rel=1e-4)


@every_learnable
def test_what_is_learned_gets_the_gradient_of_the_surrogate(choice: dict[str, Any]) -> None:
    radius, gap, g = make(choice), gaps_of(1.7), normal(N, D, seed=5)
    assert radius.learnable
    names = [name for name, _ in radius.named_parameters()]
    z_q = surrogate(radius, choice["name"])(torch.zeros_like(gap), gap)
    expected = torch.autograd.grad((g * z_q).sum(), list(radius.parameters()))
    phantom = radius.phantom(gap.requires_grad_())
    assert not phantom.any()
    found = torch.autograd.grad(
        (g * phantom).sum(), [*radius.parameters(), gap], allow_unused=True, retain_graph=True
    )
    assert found[-1] is None
    for name, mine, autograd in zip(names, found, expected, strict=False):
        assert autograd.abs().max() > 1e-3, name
        torch.testing.assert_close(mine, autograd)


def test_the_gradient_of_alpha_by_hand() -> None:
    radius = make({"name": "power", "alpha": 0.25, "learnable": True}, dim=2)
    gap, g = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
    (g * radius.phantom(gap)).sum().backward()
    # (g·d) log δ, times the sigmoid's slope α(1 − α)
    assert radius.alpha.free.grad.item() == pytest.approx(11 * math.log(5) * 0.25 * 0.75)


@every_learnable
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_no_step_makes_what_is_learned_useless(choice: dict[str, Any], sign: float) -> None:
    radius = build("radius", RADII, choice, dim=D)
    optimizer = torch.optim.SGD(radius.parameters(), lr=1e3)
    gap = gaps_of(1.7, torch.float32)
    for _ in range(3):
        optimizer.zero_grad()
        (sign * gap * radius.phantom(gap)).sum().backward()
        optimizer.step()
    assert (radius(gap) > 0).all()
    v, w = radius.pull(gap)
    assert v.isfinite().all()
    assert w.isfinite().all()
    if not isinstance(radius, Mahalanobis):
        assert -1e-6 <= (v * w).sum(dim=1).min() <= (v * w).sum(dim=1).max() <= 1 + 1e-6


def test_only_learnable_families_have_parameters_and_state_is_kept() -> None:
    for name, family in RADII.items():
        assert family(D).learnable == (name == "mahalanobis")
    trained = make({"name": "mahalanobis", "rank": 2})
    fresh = Mahalanobis(D, rank=2).double()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(gaps_of(1.0)), trained(gaps_of(1.0)))


def test_a_low_rank_matrix_starts_next_to_the_identity() -> None:
    torch.manual_seed(0)
    radius, gap = Mahalanobis(32, rank=4), normal(N, 32).float()
    assert (radius.weigh(torch.eye(32)) - torch.eye(32)).norm() < 0.2
    (gap * radius.phantom(gap)).sum().backward()
    assert (radius.u.grad.abs().sum(dim=0) > 0.1).all()  # and can leave it in all of its columns
    torch.testing.assert_close(Mahalanobis(32).weigh(torch.eye(32)), torch.eye(32))


@pytest.mark.parametrize("name", ["clipped", "huber", "soft-clip", "pseudo-huber", "temperature"])
def test_thresholds_follow_their_schedule(name: str) -> None:
    scheduled = RADII[name](D, tau={"start": 4.0, "end": 1.0, "shape": "exponential"})
    for progress, tau in [(0.0, 4.0), (0.5, 2.0), (1.0, 1.0)]:
        scheduled.tau.set_progress(progress)
        torch.testing.assert_close(scheduled.pull(gaps_of(1.5)), RADII[name](D, tau=tau).pull(gaps_of(1.5)))


def test_alpha_follows_its_schedule() -> None:
    radius = RADII["power"](D, alpha={"start": 1.0, "end": 0.5})
    radius.alpha.set_progress(0.5)
    assert (radius.kappa(torch.ones(1)) == 0.75).all()


def test_the_adaptive_radius_tracks_the_covariance_of_gaps() -> None:
    mix = torch.eye(D) + 0.5 * normal(D, D, seed=3).float()
    radius = AdaptiveMahalanobis(D, decay=0.99, epsilon=1e-3)
    for step in range(400):
        radius.observe(0.01 * normal(256, D, seed=1000 + step).float() @ mix.T)
    expected = 1e-4 * mix @ mix.T
    expected = expected + 1e-3 * expected.trace() / D * torch.eye(D)
    assert (radius.covariance() - expected).norm() < 0.05 * expected.norm()
    gap = 0.01 * normal(N, D, seed=4).float()
    mahalanobis = (gap @ torch.linalg.inv(expected) * gap).sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(radius(gap), mahalanobis, rtol=0.05, atol=0)


def test_the_running_average_by_hand() -> None:
    radius = AdaptiveMahalanobis(2, decay=0.75, epsilon=0.5)
    torch.testing.assert_close(radius.covariance(), 1.5 * torch.eye(2))
    radius.observe(torch.tensor([[2e-4, 0.0], [0.0, 0.0]]))  # the average is diag(4, 0)e-8 at once
    torch.testing.assert_close(radius.covariance(), torch.diag(torch.tensor([5e-8, 1e-8])), rtol=1e-5, atol=0)
    radius.observe(torch.tensor([[0.0, 2e-4], [0.0, 4e-4]]))  # (.75 diag(4, 0) + diag(0, 10))e-8 / 1.75
    average = torch.tensor([3.0, 10.0]) / 1.75
    expected = 1e-8 * torch.diag(average + 0.25 * average.sum())
    torch.testing.assert_close(radius.covariance(), expected, rtol=1e-5, atol=0)


def test_a_step_without_gaps_teaches_nothing() -> None:
    radius = make({"name": "adaptive-mahalanobis"})
    before = radius.covariance()
    radius.observe(torch.zeros(7, D))
    radius.observe(torch.zeros(0, D))
    assert torch.equal(radius.covariance(), before)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e4])
def test_a_single_direction_does_not_break_the_adaptive_radius(scale: float) -> None:
    radius = AdaptiveMahalanobis(D, epsilon=0.1)
    radius.observe(torch.tensor([[scale, 0, 0, 0, 0]]))
    assert torch.linalg.cond(radius.covariance().double() / scale**2).item() == pytest.approx(1 + D / 0.1)
    v, w = radius.pull(scale * gaps_of(1.0, torch.float32))
    torch.testing.assert_close((v * w).sum(dim=1), torch.ones(N), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"name": "power", "alpha": 0.0}, "alpha must be in (0, 1], not 0.0"),
        ({"name": "power", "alpha": 1.001}, "alpha must be in (0, 1], not 1.001"),
        ({"name": "huber", "tau": -1}, "tau must be above 0, not -1"),
        ({"name": "lp", "p": 0.5}, "p must be a number at least 1, not 0.5"),
        ({"name": "lp", "p": math.nan}, "p must be a number at least 1, not nan"),
        ({"name": "lp", "smoothing": -1}, "smoothing must be a number at least 0, not -1"),
        ({"name": "mahalanobis", "rank": 6}, "rank must be a whole number from 0 to 5, not 6"),
        (
            {"name": "adaptive-mahalanobis", "decay": 1},
            "decay must be a number at least 0 and below 1, not 1",
        ),
        ({"name": "adaptive-mahalanobis", "epsilon": 0}, "epsilon must be a number above 0, not 0"),
        ({"name": "power", "tau": 1}, "radius 'power' has no parameter 'tau'"),
    ],
    ids=lambda value: label(value) if isinstance(value, dict) else "",
)
def test_hyper_parameters_out_of_range_are_refused(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build("radius", RADII, choice, dim=D)
