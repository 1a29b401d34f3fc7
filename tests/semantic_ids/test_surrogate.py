"""Values and Jacobians of the surrogates against the closed forms, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from semantic_ids.radius import RADII, Power
from semantic_ids.surrogate import GritRadius, StraightThrough, Surrogate


def pair(n: int = 3, dim: int = 5, gap: float | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    z, d = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
    return z, z + (d if gap is None else gap * d / d.norm(dim=1, keepdim=True))


def jacobians(surrogate: Surrogate, z: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """∂z_q/∂z and ∂z_q/∂q of each point ``(n, D, D)``; points must not influence one another."""
    rows = torch.arange(len(z))
    own = []
    for full in jacobian(surrogate, (z, q)):
        own.append(full[rows, :, rows, :])
        others = full.clone()
        others[rows, :, rows, :] = 0
        assert not others.any()
    return own[0], own[1]


def projector(z: Tensor, q: Tensor) -> Tensor:
    """``s sᵀ`` of each point ``(n, D, D)``."""
    s = torch.nn.functional.normalize(q - z, dim=1)
    return torch.einsum("ni,nj->nij", s, s)


def power(alpha: float) -> GritRadius:
    return GritRadius({"name": "power", "alpha": alpha})


@pytest.mark.parametrize("surrogate", [StraightThrough(), GritRadius(), power(0.05), power(1.0)])
def test_the_value_is_the_codeword(surrogate: Surrogate) -> None:
    z, q = pair()
    torch.testing.assert_close(surrogate(z, q), q, rtol=0, atol=1e-14)


def test_straight_through_gives_the_latent_everything() -> None:
    to_latent, to_code = jacobians(StraightThrough(), *pair())
    assert torch.equal(to_latent, torch.eye(5, dtype=torch.float64).expand(3, 5, 5))
    assert not to_code.any()


@pytest.mark.parametrize("alpha", [0.05, 0.25, 0.5, 0.8, 1.0])
def test_the_power_radius_shares_the_gradient_along_the_gap(alpha: float) -> None:
    z, q = pair()
    to_latent, to_code = jacobians(power(alpha), z, q)
    along = alpha * projector(z, q)
    torch.testing.assert_close(to_code, along)
    torch.testing.assert_close(to_latent, torch.eye(5, dtype=torch.float64) - along)


@pytest.mark.parametrize("surrogate", [StraightThrough(), GritRadius(), power(1.0)])
def test_what_the_latent_loses_the_codeword_gets(surrogate: Surrogate) -> None:
    to_latent, to_code = jacobians(surrogate, *pair())
    torch.testing.assert_close(to_latent + to_code, torch.eye(5, dtype=torch.float64).expand(3, 5, 5))


def test_alpha_one_is_diveq_detach() -> None:
    z, q = pair()
    g = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = [t.clone().requires_grad_() for t in (z, q)]
    value = power(1.0)(*ours)
    value.backward(g)
    theirs = [t.clone().requires_grad_() for t in (z, q)]
    d = theirs[1] - theirs[0]
    diveq = theirs[0] + d.norm(dim=1, keepdim=True) * (d / d.norm(dim=1, keepdim=True)).detach()
    diveq.backward(g)
    torch.testing.assert_close(value, q, rtol=0, atol=1e-14)
    s = (q - z) / (q - z).norm(dim=1, keepdim=True)
    along = s * (s * g).sum(dim=1, keepdim=True)
    for mine, reference, closed_form in zip(ours, theirs, (g - along, along), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)
        torch.testing.assert_close(mine.grad, closed_form)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_the_gradient_is_that_of_equation_2_as_written(alpha: float) -> None:
    def equation_2(z: Tensor, q: Tensor) -> Tensor:
        r = (q - z).norm(dim=1, keepdim=True) ** alpha
        return z + r * ((q - z) / r).detach()

    z, q = pair()
    torch.testing.assert_close(jacobians(power(alpha), z, q), jacobians(equation_2, z, q))


@dataclass(frozen=True)
class Diagonal:
    """The Mahalanobis radius ``√(dᵀPd)`` with a diagonal P: v and w point different ways."""

    def pull(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        scale = torch.tensor([1.0, 4.0, 9.0, 0.25, 2.0], dtype=gap.dtype)
        r = (scale * gap * gap).sum(dim=1, keepdim=True).sqrt()
        return gap / r, scale * gap / r


def test_a_radius_that_is_not_a_norm_follows_equation_2_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def equation_2(z: Tensor, q: Tensor) -> Tensor:
        scale = torch.tensor([1.0, 4.0, 9.0, 0.25, 2.0], dtype=z.dtype)
        r = (scale * (q - z) ** 2).sum(dim=1, keepdim=True).sqrt()
        return z + r * ((q - z) / r).detach()

    monkeypatch.setitem(RADII, "diagonal", Diagonal)
    z, q = pair()
    to_latent, to_code = jacobians(GritRadius("diagonal"), z, q)
    torch.testing.assert_close((to_latent, to_code), jacobians(equation_2, z, q))
    assert (to_code - to_code.transpose(1, 2)).abs().max() > 0.1  # so a transposed v wᵀ would show


@pytest.mark.parametrize("gap", [1e-6, 1.0, 1e3])
def test_the_power_radius_knows_no_scale(gap: float) -> None:
    z, q = pair(gap=gap)
    z, q = torch.zeros_like(z), q - z  # a gap of 1e-6 beside z of 1 would have ten digits only
    _, to_code = jacobians(GritRadius(), z, q)
    kappa = to_code.diagonal(dim1=1, dim2=2).sum(dim=1)  # the trace of κ s sᵀ
    torch.testing.assert_close(kappa, torch.full((3,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [0.0, 1e-14])
def test_without_a_gap_the_latent_keeps_its_gradient(gap: float, dtype: torch.dtype) -> None:
    z = torch.tensor([[0.0, 0.0], [0.5, 0.0]], dtype=dtype)
    q = z + torch.tensor([[gap, 0.0], [2.0, 0.0]], dtype=dtype)
    z.requires_grad_()
    q.requires_grad_()
    g = torch.tensor([[3.0, 4.0], [3.0, 4.0]], dtype=dtype)
    value = GritRadius()(z, q)
    value.backward(g)
    assert torch.equal(value, q)
    assert z.grad.tolist() == [[3.0, 4.0], [1.5, 4.0]]
    assert q.grad.tolist() == [[0.0, 0.0], [1.5, 0.0]]


def test_pull_is_the_pair_of_the_jacobian() -> None:
    v, w = Power(0.25).pull(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    torch.testing.assert_close(v, torch.tensor([[0.15, 0.2], [0.0, 0.0]]))
    torch.testing.assert_close(w, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize("alpha", [0.0, -0.5, 1.001, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha in \(0, 1\], not"):
        Power(alpha)
