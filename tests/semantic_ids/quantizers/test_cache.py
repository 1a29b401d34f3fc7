"""Kept codewords: value and gradient are those at the last refresh, and nothing stays too long."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from helpers import normal
from semantic_ids.choices import Choice
from semantic_ids.quantizers.codebook import Codebook

K, D, EVERY = 6, 4, 3
CHOICES: list[Choice] = ["plain", {"name": "low-rank", "rank": 3}, "top-s-attention", "low-rank-attention"]


def cached(transform: Choice = "low-rank", **choices: bool | float) -> Codebook:
    torch.manual_seed(0)
    codebook = Codebook(K, D, transform, refresh_every=EVERY, **choices).double()
    with torch.no_grad():
        for number, parameter in enumerate(codebook.parameters()):
            parameter.add_(0.3 * normal(*parameter.shape, seed=number))
    return codebook


def step(codebook: Codebook, seed: int = 0) -> Tensor:
    """One step of gradient descent; returns the codewords it saw."""
    optimizer = torch.optim.SGD(codebook.parameters(), lr=0.05)
    optimizer.zero_grad()
    codewords = codebook.codewords()
    codewords.backward(normal(K, D, seed=seed))
    optimizer.step()
    return codewords.detach()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("transform", CHOICES, ids=str)
def test_value_and_gradient_are_those_at_the_last_refresh(transform: Choice, normalize: bool) -> None:
    codebook = cached(transform, normalize=normalize)
    for number in range(2 * EVERY + 1):
        if number % EVERY == 0:
            then = deepcopy(codebook)
        then.zero_grad()
        then().backward(normal(K, D, seed=number))
        seen = step(codebook, seed=number)
        assert torch.equal(seen, then())
        for ours, uncached in zip(codebook.parameters(), then.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, uncached.grad)
    assert (codebook().detach() - seen).abs().max() > 1e-3


def test_the_transform_runs_at_refreshes_only() -> None:
    codebook, runs = cached(), []
    codebook.transform.register_forward_hook(lambda *_: runs.append(1))
    for _ in range(2 * EVERY + 1):
        step(codebook)
    assert len(runs) == 3


def test_an_output_from_before_a_refresh_keeps_its_gradient() -> None:
    codebook, g = cached(), normal(K, D)
    then = deepcopy(codebook)
    early = codebook.codewords()
    for _ in range(EVERY):
        step(codebook)
    codebook.zero_grad()
    early.backward(g)
    then().backward(g)
    torch.testing.assert_close(codebook.transform.w.grad, then.transform.w.grad)


def test_gradients_of_two_calls_in_one_step_add_up() -> None:
    codebook, uncached = cached(), deepcopy(cached())
    (codebook.codewords().square().sum() + codebook.codewords().sum()).backward()
    (uncached().square().sum() + uncached().sum()).backward()
    torch.testing.assert_close(codebook.transform.b.grad, uncached.transform.b.grad)


@pytest.mark.parametrize("transform", ["plain", "low-rank"])
def test_a_table_frozen_or_released_between_refreshes_learns_or_stays(transform: Choice) -> None:
    codebook = cached(transform, frozen=True)
    codebook.codewords()
    for learns in (True, False, True):
        codebook.table.grad = None
        codebook.table.requires_grad_(learns)
        codewords = codebook.codewords()
        if learns or transform != "plain":  # else nothing learns
            codewords.sum().backward()
        assert (codebook.table.grad is not None) == learns
        torch.testing.assert_close(codewords, codebook())


def place(codebook: Codebook) -> None:
    codebook.place(torch.tensor([1]), normal(1, D))


def clip(codebook: Codebook) -> None:
    with torch.no_grad():
        codebook.transform.w.mul_(100.0)
    codebook.after_step()


def load(codebook: Codebook) -> None:
    codebook.load_state_dict({name: 2.0 * value for name, value in codebook.state_dict().items()})


def load_parent(codebook: Codebook) -> None:
    parent = nn.ModuleList([codebook])
    parent.load_state_dict({name: 2.0 * value for name, value in parent.state_dict().items()})


def evaluate(codebook: Codebook) -> None:
    codebook.eval()
    codebook.train()


DROPS = [Codebook.refresh, place, clip, load, load_parent, evaluate, Codebook.float]


@pytest.mark.parametrize("drop", DROPS, ids=lambda drop: drop.__name__)
def test_what_changes_codewords_outside_a_step_is_seen_at_once(drop: Callable[[Codebook], object]) -> None:
    codebook = cached(spectral_clip=2.0)
    seen = step(codebook)
    drop(codebook)
    now = codebook.codewords()
    assert torch.equal(now, codebook())
    assert (now.detach() - seen).abs().max() > 1e-3
    assert torch.equal(step(codebook), now)  # and is kept from then on


def test_a_step_within_the_spectral_clip_keeps_codewords() -> None:
    codebook = cached(spectral_clip=100.0)
    seen = step(codebook)
    codebook.after_step()
    assert torch.equal(codebook.codewords(), seen)


def test_without_gradient_or_training_codewords_are_always_new() -> None:
    codebook = cached()
    seen = step(codebook)
    with torch.no_grad():
        for _ in range(EVERY):
            assert torch.equal(codebook.codewords(), codebook())
    assert torch.equal(codebook.codewords(), seen)  # those calls did not count
    codebook.eval()
    before = step(codebook)
    assert (codebook.codewords().detach() - before).abs().max() > 1e-3


def sgd(codebook: Codebook) -> None:
    step(codebook)


def adam(codebook: Codebook) -> None:
    codebook.codewords().square().sum().backward()
    torch.optim.Adam(codebook.parameters(), lr=0.05, foreach=True).step()


def other_table(codebook: Codebook) -> None:
    codebook.table = nn.Parameter(2.0 * codebook.table.detach())


def behind_its_back(codebook: Codebook) -> None:
    codebook.table.data.mul_(2.0)
    codebook.train()
    codebook.eval()


CHANGES = [sgd, adam, place, clip, load, load_parent, other_table, behind_its_back]


@pytest.mark.parametrize("transform", ["attention", "low-rank"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_at_inference_every_change_is_seen_at_once(
    change: Callable[[Codebook], object], transform: Choice
) -> None:
    codebook = cached(transform, spectral_clip=2.0).eval()
    with torch.no_grad():
        seen = codebook.codewords()
    before = seen.clone()
    change(codebook)
    with torch.no_grad():
        now = codebook.codewords()
    assert torch.equal(now, codebook())
    assert (now - before).abs().max() > 1e-3
    assert torch.equal(seen, before)


def test_at_inference_the_transform_runs_once() -> None:
    codebook, runs = cached("attention").eval(), []
    codebook.transform.register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        for _ in range(3):
            codebook.codewords()
        assert len(runs) == 1
        assert codebook.float().codewords().dtype == torch.float32
    assert len(runs) == 2
    codebook.codewords().sum().backward()
    assert codebook.table.grad.any()  # with gradient nothing is kept


def test_codewords_kept_in_inference_mode_serve_outside_it() -> None:
    codebook, points = cached("attention").eval(), normal(3, D).requires_grad_()
    with torch.inference_mode():
        kept = codebook.codewords()
    with torch.no_grad():
        assert codebook.codewords() is kept
    (points @ kept.T).sum().backward()
    torch.testing.assert_close(points.grad, codebook().detach().sum(dim=0).expand(3, -1))


def test_a_codebook_made_in_inference_mode_can_be_read() -> None:
    with torch.inference_mode():
        codebook = Codebook(K, D, "attention").eval()
        codebook.table.mul_(2.0)
        assert torch.equal(codebook.codewords(), codebook())


def test_a_copy_starts_without_kept_codewords_and_leaves_the_original_its_own() -> None:
    codebook = cached()
    seen = step(codebook)
    copy = deepcopy(codebook)
    first = step(copy)
    assert torch.equal(first, codebook())
    assert (first - seen).abs().max() > 1e-3
    assert torch.equal(copy.codewords(), first)  # it keeps its own from then on
    assert torch.equal(codebook.codewords(), seen)


def test_kept_codewords_are_no_part_of_the_state() -> None:
    codebook = cached()
    step(codebook)
    state = codebook.state_dict()
    assert state.keys() == {"table", "transform.a", "transform.b", "transform.w"}
    other = cached()
    step(other, seed=1)
    other.load_state_dict(state)
    assert torch.equal(other.codewords(), codebook())


def test_a_frozen_table_stays_without_gradient() -> None:
    codebook = cached(frozen=True)
    before = codebook.table.clone()
    for _ in range(EVERY):
        step(codebook)
    assert codebook.table.grad is None
    assert codebook.transform.w.grad.any()
    assert torch.equal(codebook.table, before)


def test_a_frozen_plain_codebook_can_be_read() -> None:
    codebook = cached("plain", frozen=True)
    assert torch.equal(codebook.codewords(), codebook.table)
