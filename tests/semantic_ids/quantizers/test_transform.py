"""Transforms against a mixer M that is written out, and against matrix calculus."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import normal
from semantic_ids.choices import Choice, build
from semantic_ids.quantizers.transform import TRANSFORMS, Transform

K, D = 6, 4
LINEAR = {"name": "linear"}
LOW_RANK = {"name": "low-rank", "rank": 3}
PURE = {"name": "low-rank", "rank": 5, "identity": False}
GROUPED = {"name": "grouped", "groups": 2}
DENSE = {"name": "attention", "width": 3, "temperature": 0.7}
TOP_S = {"name": "top-s-attention", "s": 2, "width": 3, "temperature": 0.7}
LOW_RANK_ATTENTION = {"name": "low-rank-attention", "width": 3, "temperature": 0.7}
SEEDED = [{"name": "plain"}, LINEAR, LOW_RANK, GROUPED, DENSE, TOP_S, LOW_RANK_ATTENTION]
SHARING = [*SEEDED[1:], PURE]


def name(choice: Any) -> str:
    return "pure-low-rank" if choice is PURE else choice["name"] if isinstance(choice, dict) else str(choice)


def fresh(choice: Choice, size: int = K, dim: int = D) -> Transform:
    torch.manual_seed(0)
    return build("transform", TRANSFORMS, choice, size=size, dim=dim).double()


def trained(choice: Choice, size: int = K) -> Transform:
    """A transform with every parameter somewhere else than at the start."""
    transform = fresh(choice, size)
    with torch.no_grad():
        for number, parameter in enumerate(transform.parameters()):
            parameter.add_(0.3 * normal(*parameter.shape, seed=10 + number))
    return transform


def weights(transform: Any, choice: dict[str, Any]) -> Tensor:
    """The attention's ``(K, K)`` rows, which add up to one, by their definition."""
    if choice["name"] == "low-rank-attention":
        q, k = (torch.where(x > 0, x + 1, x.exp()) for x in (transform.queries / 0.7, transform.keys / 0.7))
        scores = q @ k.T
    else:
        logits = transform.queries @ transform.keys.T
        kept = logits >= logits.sort(dim=1).values[:, [-choice.get("s", K)]]
        scores = (logits / 0.7).exp() * kept
    return scores / scores.sum(dim=1, keepdim=True)


def mixer(transform: Any, choice: dict[str, Any]) -> Tensor:
    """M ``(K, K)``."""
    identity = torch.eye(len(transform.gate) if "attention" in choice["name"] else K, dtype=torch.float64)
    if choice["name"] == "linear":
        return identity
    if choice["name"] == "low-rank":
        return choice.get("identity", True) * identity + transform.a @ transform.b.T
    if choice["name"] == "grouped":
        return identity + torch.block_diag(*transform.m)
    return identity + transform.gate * (weights(transform, choice) - identity)


def feature_map(transform: Any) -> Tensor:
    """W ``(D, D)``."""
    return transform.w if transform.w.ndim == 2 else torch.block_diag(*transform.w)


@pytest.mark.parametrize("choice", SHARING, ids=name)
def test_codewords_and_gradients_are_those_of_the_product_written_out(choice: dict[str, Any]) -> None:
    transform, table, g = trained(choice), normal(K, D).requires_grad_(), normal(K, D, seed=9)
    parameters = [table, *transform.parameters()]
    codewords = transform(table)
    product = mixer(transform, choice) @ table @ feature_map(transform)
    torch.testing.assert_close(codewords, product)
    gradients = torch.autograd.grad(codewords, parameters, g)
    torch.testing.assert_close(gradients, torch.autograd.grad(product, parameters, g))
    assert all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("choice", SHARING, ids=name)
def test_gradients_are_those_of_matrix_calculus(choice: dict[str, Any]) -> None:
    transform: Any = trained(choice)
    table, g = normal(K, D).requires_grad_(), normal(K, D, seed=9)
    transform(table).backward(g)
    with torch.no_grad():
        m, w, e = mixer(transform, choice), feature_map(transform), table.detach()
        dm, dw = g @ w.T @ e.T, e.T @ m.T @ g
        torch.testing.assert_close(table.grad, m.T @ g @ w.T)
        if choice["name"] == "grouped":
            torch.testing.assert_close(transform.w.grad, torch.stack([dw[:2, :2], dw[2:, 2:]]))
            torch.testing.assert_close(transform.m.grad, torch.stack([dm[:3, :3], dm[3:, 3:]]))
            return
        torch.testing.assert_close(transform.w.grad, dw)
        if choice["name"] == "low-rank":
            torch.testing.assert_close(transform.a.grad, dm @ transform.b)
            torch.testing.assert_close(transform.b.grad, dm.T @ transform.a)
        elif choice["name"] != "linear":
            p = weights(transform, choice)
            pull = (dm * (p - torch.eye(K))).sum(dim=1, keepdim=True)
            torch.testing.assert_close(transform.gate.grad, pull)
        if choice in (DENSE, TOP_S):
            dp = transform.gate * dm
            dscores = p * (dp - (p * dp).sum(dim=1, keepdim=True)) / 0.7
            torch.testing.assert_close(transform.queries.grad, dscores @ transform.keys)
            torch.testing.assert_close(transform.keys.grad, dscores.T @ transform.queries)


@pytest.mark.parametrize("choice", SEEDED, ids=name)
def test_codewords_start_as_the_table_itself(choice: dict[str, Any]) -> None:
    table = normal(256, 32).float()
    transform = fresh(choice, 256, 32).float()
    assert torch.equal(transform(table), table)


def test_the_pure_product_starts_with_gradients_for_all_parameters() -> None:
    transform = fresh(PURE)
    transform(normal(K, D)).sum().backward()
    assert all(parameter.grad.abs().max() > 1e-3 for parameter in transform.parameters())


@pytest.mark.parametrize("rows", [[4], [0, 3, 5], [5, 4, 3, 2, 1, 0]], ids=str)
@pytest.mark.parametrize("choice", [*SEEDED, PURE], ids=name)
@pytest.mark.parametrize("frozen", [True, False])
def test_placed_codewords_are_exactly_where_they_should_be(
    frozen: bool, choice: dict[str, Any], rows: list[int]
) -> None:
    transform, table, targets = trained(choice), normal(K, D), normal(len(rows), D, seed=5)
    table.requires_grad_(not frozen)
    with torch.no_grad():
        transform.place(table, torch.tensor(rows), targets)
    torch.testing.assert_close(transform(table)[rows], targets, rtol=0, atol=1e-11)


def test_placing_in_a_plain_codebook_moves_nothing_else() -> None:
    table = normal(K, D)
    before = table.clone()
    fresh("plain").place(table, torch.tensor([1]), torch.ones(1, D, dtype=torch.float64))
    assert torch.equal(table[[0, 2, 3, 4, 5]], before[[0, 2, 3, 4, 5]])


def large() -> tuple[Any, Tensor]:
    """A low-rank transform of 256 codes in float32, far from its start, and its table."""
    transform: Any = fresh({"name": "low-rank", "rank": 64}, 256, 32).float()
    with torch.no_grad():
        transform.a.add_(0.05 * normal(256, 64, seed=1))
        transform.b.add_(0.05 * normal(256, 64, seed=2))
        transform.w.add_(0.05 * normal(32, 32, seed=3))
    return transform, torch.nn.Parameter(normal(256, 32, seed=4).float())


def test_low_rank_places_some_codewords_and_moves_no_others() -> None:
    transform, table = large()
    rows, targets = torch.arange(0, 256, 32), normal(8, 32, seed=5).float()
    expected = transform(table).detach()
    assert (expected - table).norm() > 0.5 * table.norm()  # codes are mixed
    expected[rows] = targets
    with torch.no_grad():
        transform.place(table, rows, targets)
    torch.testing.assert_close(transform(table).detach(), expected, rtol=1e-5, atol=1e-5)
    assert transform.a[rows].any(dim=1).all()


def test_low_rank_at_its_start_places_to_the_last_bit() -> None:
    transform: Any = fresh(LOW_RANK).float()
    table, targets = torch.nn.Parameter(normal(K, D).float()), normal(2, D, seed=5).float()
    expected = table.detach().clone()
    expected[[4, 1]] = targets
    with torch.no_grad():
        transform.place(table, torch.tensor([4, 1]), targets)
    assert torch.equal(transform(table), expected)


def test_low_rank_places_in_a_frozen_table_by_its_rows_alone() -> None:
    transform, table = large()
    table.requires_grad_(False)
    rows, targets, before = torch.arange(0, 256, 32), normal(8, 32, seed=5).float(), table.clone()
    transform.requires_grad_(False).place(table, rows, targets)
    torch.testing.assert_close(transform(table)[rows], targets, rtol=1e-5, atol=1e-5)
    assert torch.equal((table != before).any(dim=1).nonzero().flatten(), rows)


@pytest.mark.parametrize("nearly", [0.0, 1e-9, 0.01])
def test_low_rank_places_where_the_mixer_has_no_inverse_and_the_table_stays_small(nearly: float) -> None:
    transform: Any = fresh(LOW_RANK)
    table, targets = torch.nn.Parameter(normal(K, D).float()), normal(2, D, seed=5).float()
    transform.float()
    with torch.no_grad():
        transform.a.copy_(torch.eye(K, 3))
        transform.b.copy_(-(1 - nearly) * torch.eye(K, 3))  # I + A Bᵀ keeps nothing of the first three
        transform.place(table, torch.tensor([1, 4]), targets)
    torch.testing.assert_close(transform(table)[[1, 4]], targets)
    assert table.abs().max() < 4


def test_the_pure_product_of_low_rank_places_at_the_nearest_point_of_its_span() -> None:
    choice = {"name": "low-rank", "rank": 2, "identity": False}
    transform: Any = trained(choice)
    table, targets = normal(K, D), normal(2, D, seed=5)
    with torch.no_grad():
        transform.place(table, torch.tensor([1, 4]), targets)
    span = transform.b.T @ table @ transform.w
    missed = targets - transform(table)[[1, 4]]
    assert missed.norm(dim=1).min() > 0.1
    torch.testing.assert_close(missed @ span.T, torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=1e-11)


@pytest.mark.parametrize("identity", [True, False])
def test_the_identity_term_keeps_the_rank_that_the_product_alone_loses(identity: bool) -> None:
    transform = trained({"name": "low-rank", "rank": 2, "identity": identity})
    assert torch.linalg.matrix_rank(transform(normal(K, D))) == (D if identity else 2)


@pytest.mark.parametrize(
    ("learned", "moved"), [("a", {2}), ("b", set(range(K))), ("w", set(range(K)))], ids=["A", "B", "W"]
)
def test_unselected_codewords_move_through_what_all_share(learned: str, moved: set[int]) -> None:
    transform, table = trained(LOW_RANK), normal(K, D)
    before = transform(table).detach()
    parameter = getattr(transform, learned)
    (transform(table)[2] - 1.0).square().sum().backward()
    torch.optim.SGD([parameter], lr=0.1).step()
    distances = (transform(table) - before).norm(dim=1)
    assert {row for row in range(K) if distances[row] > 1e-6} == moved


@pytest.mark.parametrize("choice", [{"name": "plain"}, *SHARING], ids=name)
def test_one_codewords_gradient_moves_all_but_in_a_plain_codebook(choice: dict[str, Any]) -> None:
    transform, table = trained(choice), torch.nn.Parameter(normal(K, D))
    before = transform(table).detach().clone()
    (transform(table)[2] - 1.0).square().sum().backward()
    torch.optim.SGD([table, *transform.parameters()], lr=0.1).step()
    moved = (transform(table) - before).norm(dim=1) > 1e-4
    assert moved.tolist() == [choice["name"] != "plain" or row == 2 for row in range(K)]


def test_attention_alone_contracts_a_codebook() -> None:
    transform: Any = fresh(DENSE)
    table = normal(K, D)
    with torch.no_grad():
        transform.gate.fill_(1.0)
    assert transform(table).var(dim=0).sum() < 0.6 * table.var(dim=0).sum()


def test_top_s_attention_to_all_codes_is_attention() -> None:
    few, dense = trained({**TOP_S, "s": 100}), trained(DENSE)
    torch.testing.assert_close(few(normal(K, D)), dense(normal(K, D)))


def test_top_s_attention_looks_at_codes_beyond_one_block_of_scores() -> None:
    size = 1030
    transform, table = trained(TOP_S, size), normal(size, D)
    torch.testing.assert_close(transform(table), mixer(transform, TOP_S) @ table @ feature_map(transform))


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return made


@pytest.mark.parametrize(
    ("choice", "formed"), [(LOW_RANK_ATTENTION, False), (LOW_RANK, False), (DENSE, True)]
)
def test_low_rank_never_forms_a_mixer(choice: dict[str, Any], formed: bool) -> None:
    size = 200
    transform, table = trained(choice, size), normal(size, D).requires_grad_()
    with Largest() as largest:
        transform(table).sum().backward()
    assert (largest.numel >= size * size) == formed


def test_top_s_attention_keeps_no_mixer_for_the_backward() -> None:
    size, kept = 200, []
    transform, table = trained(TOP_S, size), normal(size, D).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        transform(table)
    assert 0 < max(kept) < size * size / 10


def with_singular_values(transform: Any, values: list[float]) -> Tensor:
    """Gives ``W``, or its blocks in turn, these singular values; returns U and V of each ``(…, d, d)``."""
    u, _, vh = torch.linalg.svd(normal(*transform.w.shape, seed=3))
    singular = torch.tensor(values, dtype=torch.float64).view(transform.w.shape[:-1])
    with torch.no_grad():
        transform.w.copy_(u * singular.unsqueeze(-2) @ vh)
    return u, vh


@pytest.mark.parametrize("choice", [LINEAR, LOW_RANK, GROUPED, DENSE], ids=name)
def test_clip_bounds_singular_values_on_both_sides_and_leaves_the_rest(choice: dict[str, Any]) -> None:
    transform: Any = fresh(choice)
    u, vh = with_singular_values(transform, [3.0, 0.9, 1.5, 0.1])
    assert transform.spectral_norm() == pytest.approx(3.0)
    assert transform.clip(2.0)
    expected = torch.tensor([2.0, 0.9, 1.5, 0.5], dtype=torch.float64).view(transform.w.shape[:-1])
    torch.testing.assert_close(transform.w.detach(), u * expected.unsqueeze(-2) @ vh)
    assert transform.spectral_norm() == pytest.approx(2.0)


@pytest.mark.parametrize("choice", [LINEAR, GROUPED], ids=name)
def test_clip_leaves_a_map_within_its_bounds_alone(choice: dict[str, Any]) -> None:
    transform: Any = fresh(choice)
    with_singular_values(transform, [1.9, 0.9, 1.5, 0.6])
    before = transform.w.detach().clone()
    assert not transform.clip(2.0)
    assert torch.equal(transform.w, before)


@pytest.mark.parametrize("limit", [1.0, 1.5, 10.0])
@pytest.mark.parametrize("dim", [8, 32, 128])
def test_clipping_again_changes_no_bit(dim: int, limit: float) -> None:
    transform: Any = fresh("linear", K, dim).float()
    with torch.no_grad():
        transform.w.copy_(limit * normal(dim, dim))
    assert transform.clip(limit)
    before = transform.w.detach().clone()
    assert not transform.clip(limit)
    assert torch.equal(transform.w, before)


def test_a_plain_codebook_has_no_feature_map() -> None:
    assert fresh("plain").spectral_norm() == 1.0
    assert not fresh("plain").clip(1.0)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"name": "grouped", "groups": 4}, "6 codes of width 4 cannot be split into 4 groups"),
        ({"name": "grouped", "groups": 3}, "6 codes of width 4 cannot be split into 3 groups"),
        ({"name": "grouped", "groups": 0}, "groups must be a whole number from 1 to 2147483647, not 0"),
        ({"name": "attention", "temperature": 0.0}, "temperature must be a number above 0, not 0.0"),
        ({"name": "top-s-attention", "s": 0}, "s must be a whole number from 1 to 2147483647, not 0"),
    ],
)
def test_bad_arguments_are_named(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fresh(choice)
