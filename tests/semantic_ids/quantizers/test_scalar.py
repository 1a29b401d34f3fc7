"""Codebook-free quantizers against brute force over all codes, and autograd in float64."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import jacobian

from helpers import normal
from semantic_ids.choices import build
from semantic_ids.quantizers.scalar import BSQ, FSQ, LFQ, SCALAR_QUANTIZERS, ScalarQuantizer


def bounded(z: np.ndarray, n: int) -> np.ndarray:
    """FSQ's bound for one feature of n steps, in units of a step."""
    h, o = (n - 1) * 0.999 / 2, 0.5 * (n % 2 == 0)
    return h * np.tanh(z + np.arctanh(o / h)) - o


def corners(bits: int) -> Tensor:
    """All ±1 vectors ``(2^bits, bits)`` float64, the first bit the fastest."""
    return torch.tensor([row[::-1] for row in product([-1.0, 1.0], repeat=bits)], dtype=torch.float64)


def entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(dim=-1)


class TestFSQ:
    def test_the_example_of_the_paper(self) -> None:
        # Steps −1…1, −2…2 and −2…1; tanh .25 ≈ .24 → 0, 2·tanh .6 ≈ 1.07 → 1 of 2, and far below → −2 of 2.
        quantized = FSQ([60], scalars=[3, 5, 4])(torch.tensor([0.25, 0.6, -7.0]))
        assert quantized.latents.tolist() == [0.0, 0.5, -1.0]
        assert quantized.codes.tolist() == [1 + 3 * 3 + 15 * 0]
        assert quantized.loss == 0

    @pytest.mark.parametrize(
        ("size", "steps"), [(256, [4, 4, 4, 4]), (512, [4, 4, 4, 8]), (16, [4, 4]), (22 * 15, [3, 10, 11])]
    )
    def test_sizes_are_factored_into_few_steps(self, size: int, steps: list[int]) -> None:
        chosen, given_ = FSQ([size, size]), FSQ([size, size], scalars=steps)
        assert chosen.dim == given_.dim == 2 * len(steps)
        codes = torch.arange(size)[:, None].expand(-1, 2)
        assert torch.equal(chosen.decode(codes), given_.decode(codes))

    @pytest.mark.parametrize("steps", [[3], [4], [3, 4], [5, 3, 4], [16, 7]])
    def test_encodes_to_the_nearest_point_of_the_lattice(self, steps: list[int]) -> None:
        size = math.prod(steps)
        fsq = FSQ([size], scalars=steps)
        z = 2 * normal(150 * size, len(steps)).float()
        values = [(np.arange(n) - n // 2) / (n // 2) for n in steps]
        # The first feature's step is the lowest digit.
        lattice = np.array([point[::-1] for point in product(*values[::-1])])
        np.testing.assert_allclose(fsq.decode(torch.arange(size)[:, None]), lattice, atol=1e-7)
        place = np.stack([bounded(z[:, i].double().numpy(), n) for i, n in enumerate(steps)], axis=1)
        # A step counts the same in every feature, so distances are taken in steps.
        gaps = (place[:, None] - lattice * [n // 2 for n in steps]) ** 2
        codes = fsq.encode(z)[:, 0]
        assert codes.tolist() == gaps.sum(axis=2).argmin(axis=1).tolist()
        assert len(set(codes.tolist())) == size

    @pytest.mark.parametrize("n", [3, 4, 8, 9])
    def test_the_gradient_is_that_of_the_bound(self, n: int) -> None:
        z = 2 * normal(5)
        found = jacobian(lambda z: FSQ([n**5], scalars=[n] * 5)(z).latents, z)
        by_hand = (bounded(z.numpy() + 1e-6, n) - bounded(z.numpy() - 1e-6, n)) / 2e-6 / (n // 2)
        np.testing.assert_allclose(found, np.diag(by_hand), atol=1e-6)

    @pytest.mark.parametrize("n", range(3, 17))
    def test_zero_stays_zero(self, n: int) -> None:
        fsq = FSQ([n], scalars=[n])
        assert fsq.place(torch.zeros(1)).abs().item() < 1e-6
        assert fsq(torch.zeros(1)).latents.item() == 0

    @pytest.mark.parametrize("size", [0, 1, 2, 17, 22, 257, 4099])
    def test_a_size_that_cannot_be_made_is_refused_with_sizes_that_can(self, size: int) -> None:
        with pytest.raises(ValueError, match=f"cannot make {size} codes.*work are") as error:
            FSQ([256, size])
        below, above = map(int, re.findall(r"\d+", str(error.value))[-2:])
        assert above > max(size, 3)
        assert below < size or below == 3
        assert FSQ([below, above]).codebook_sizes == (below, above)

    @pytest.mark.parametrize("scalars", [[8, 8], [128, 2], [257]])
    def test_wrong_scalars_are_refused(self, scalars: list[int]) -> None:
        with pytest.raises(ValueError, match="at least 3 steps each and 256 as product"):
            FSQ([256], scalars=scalars)


class TestLFQ:
    def test_codes_are_signs_read_as_numbers(self) -> None:
        lfq = LFQ([4, 8])
        assert lfq.dim == 5
        z = torch.tensor([[0.1, -2.0, -3.0, 0.2, 0.3], [-1.0, 1.0, 1.0, -1.0, 0.0]])
        quantized = lfq(z)
        assert quantized.codes.tolist() == [[1, 6], [2, 1]]
        assert quantized.latents.tolist() == [[1, -1, -1, 1, 1], [-1, 1, 1, -1, -1]]

    def test_gradients_pass_as_they_are(self) -> None:
        assert torch.equal(jacobian(lambda z: LFQ([8])(z).latents, normal(3)), torch.eye(3).double())

    @pytest.mark.parametrize(("sizes", "diversity"), [((8,), 1.0), ((4, 8, 2), 0.7), ((32, 4), 2.0)])
    def test_the_loss_is_that_of_the_soft_assignment_to_all_codes(
        self, sizes: tuple[int, ...], diversity: float
    ) -> None:
        lfq = LFQ(sizes, entropy_weight=0.3, diversity=diversity, temperature=1.5, commitment_weight=0.2)
        z = normal(50, lfq.dim).requires_grad_()
        by_force = 0.2 * (z - z.sign()).square().mean()
        for part in z.split([size.bit_length() - 1 for size in sizes], dim=1):
            codes = corners(part.shape[1])
            p = torch.softmax(-(part[:, None] - codes).square().sum(dim=2) / 1.5, dim=1)
            of_level = entropy(p).mean() - diversity * entropy(p.mean(dim=0))
            by_force = by_force + 0.3 * part.shape[1] / lfq.dim * of_level
        loss = lfq(z).loss
        torch.testing.assert_close(loss, by_force)
        torch.testing.assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(by_force, z))

    def test_sure_and_evenly_used_codes_have_the_lowest_entropy_loss(self) -> None:
        z = (5 * corners(4)).float().requires_grad_()
        loss = LFQ([4, 4], entropy_weight=1.0, commitment_weight=0.25)(z).loss
        # Every latent is sure, both levels' entropies are log 4, and each feature is 4 from its sign.
        assert loss.item() == pytest.approx(-math.log(4) + 0.25 * 16)
        loss.backward()
        torch.testing.assert_close(z.grad, 0.25 * 2 * (z - z.sign()).detach() / z.numel())

    def test_latents_all_alike_leave_nothing_between_the_two_entropies(self) -> None:
        z = 0.01 * normal(1, 17).expand(300, -1)
        loss = LFQ([65536, 2], commitment_weight=0.0)(z).loss
        assert loss.item() == pytest.approx(0, abs=1e-9)

    def test_the_gradient_is_finite_where_codes_have_probability_zero(self) -> None:
        z = torch.full((3, 8), 50.0, requires_grad=True)
        loss = LFQ([256])(z).loss
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(z.grad).all()


class TestBSQ:
    def test_latents_lie_on_the_sphere(self) -> None:
        quantized = BSQ([4, 4])(torch.tensor([[3.0, -0.1, -7.0, 0.2]]))
        assert quantized.latents.tolist() == [[0.5, -0.5, -0.5, 0.5]]
        assert quantized.codes.tolist() == [[1, 2]]

    def test_the_length_of_a_latent_does_not_matter(self) -> None:
        bsq, z = BSQ([16, 16]), normal(20, 8)
        near, far = bsq(z), bsq(1000 * z)
        assert torch.equal(near.codes, far.codes)
        torch.testing.assert_close(near.loss, far.loss)

    def test_gradients_pass_through_the_normalisation_of_the_whole_latent(self) -> None:
        z = normal(6)
        u = z / z.norm()
        found = jacobian(lambda z: BSQ([8, 8])(z).latents, z)
        torch.testing.assert_close(found, (torch.eye(6).double() - torch.outer(u, u)) / z.norm())

    def test_the_loss_is_that_of_the_soft_assignment_to_all_codes(self) -> None:
        bsq = BSQ([4, 8], entropy_weight=0.3, diversity=0.7, temperature=0.5)
        z = normal(40, 5).requires_grad_()
        signs = corners(5)
        u = z / z.norm(dim=1, keepdim=True)
        p = torch.softmax(-(u[:, None] - signs / 5**0.5).square().sum(dim=2) / 0.5, dim=1)
        one = p.mean(dim=0) @ (signs > 0).double()
        by_feature = entropy(torch.stack([one, 1 - one], dim=1))
        # The features are independent, so a level's entropy is that of its marginal distribution.
        joint = p.view(-1, 8, 4)  # the first level's bits are the fastest
        first, second = entropy(joint.sum(dim=1)).mean(), entropy(joint.sum(dim=2)).mean()
        of_levels = first - 0.7 * by_feature[:2].sum(), second - 0.7 * by_feature[2:].sum()
        by_force = 0.3 * (2 * of_levels[0] + 3 * of_levels[1]) / 5
        loss = bsq(z).loss
        torch.testing.assert_close(loss, by_force)
        torch.testing.assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(by_force, z))


@pytest.mark.parametrize("binary", [LFQ, BSQ])
class TestBinary:
    @given(sizes=st.lists(st.sampled_from([2, 4, 16, 64]), min_size=1, max_size=3))
    @settings(deadline=None, max_examples=20)
    def test_every_code_encodes_to_itself(self, binary: type[LFQ | BSQ], sizes: list[int]) -> None:
        quantizer = binary(sizes)
        codes = torch.cartesian_prod(*map(torch.arange, sizes)).view(-1, len(sizes))
        assert torch.equal(quantizer.encode(quantizer.decode(codes)), codes)

    @pytest.mark.parametrize("size", [0, 1, 3, 100])
    def test_sizes_are_powers_of_two(self, binary: type[LFQ | BSQ], size: int) -> None:
        with pytest.raises(ValueError, match=f"{binary.__name__} needs powers of two.*not {size}"):
            binary([4, size])

    @pytest.mark.parametrize("size", [4, 256])
    def test_the_weight_is_of_nats_a_code_whatever_the_size_and_the_number_of_levels(
        self, binary: type[LFQ | BSQ], size: int
    ) -> None:
        bits = size.bit_length() - 1
        quantizer = binary([size, size], temperature=1e-3)
        z = quantizer.decode(torch.arange(size)[:, None].expand(-1, 2))
        # Every latent is a code, for sure, and all codes are used alike: 0 − log K a level, weighted by 0.1.
        assert quantizer(z).loss.item() == pytest.approx(-0.1 * bits * math.log(2), rel=1e-5)

    def test_the_temperature_is_positive(self, binary: type[LFQ | BSQ]) -> None:
        with pytest.raises(ValueError, match="temperature must be a number above 0, not 0"):
            binary([4], temperature=0)


@pytest.mark.parametrize("name", SCALAR_QUANTIZERS)
class TestAll:
    def quantizer(self, name: str, sizes: Sequence[int] = (256, 16)) -> ScalarQuantizer:
        return build("quantizer", SCALAR_QUANTIZERS, name, codebook_sizes=sizes)

    def test_latents_are_what_codes_decode_to(self, name: str) -> None:
        quantizer = self.quantizer(name)
        z = 2 * normal(4, 50, quantizer.dim).float().requires_grad_()
        quantized = quantizer(z)
        assert quantized.codes.shape == (4, 50, 2)
        assert quantized.codes.dtype == torch.int64
        assert torch.equal(quantized.codes, quantizer.encode(z))
        assert torch.equal(quantized.latents, quantizer.decode(quantized.codes))
        assert quantized.latents.requires_grad
        assert quantized.loss.shape == ()

    def test_levels_do_not_mix(self, name: str) -> None:
        quantizer = self.quantizer(name)
        z = normal(100, quantizer.dim)
        first = quantizer.dim * 2 // 3  # 256 codes need twice the features that 16 need
        other = torch.cat([z[:, :first], z[:, first:].roll(1, dims=0)], dim=1)
        assert torch.equal(quantizer.encode(other)[:, 0], quantizer.encode(z)[:, 0])
        assert torch.equal(quantizer.encode(other)[:, 1], quantizer.encode(z)[:, 1].roll(1))

    def test_autocast_changes_nothing(self, name: str) -> None:
        quantizer = self.quantizer(name)
        z = normal(64, quantizer.dim).to(torch.bfloat16)
        plain = quantizer(z.float())
        with torch.autocast("cpu", torch.bfloat16):
            mixed, codes = quantizer(z), quantizer.encode(z)
        assert (mixed.latents.dtype, mixed.loss.dtype) == (torch.bfloat16, torch.float32)
        assert torch.equal(mixed.codes, plain.codes)
        assert torch.equal(codes, plain.codes)
        assert torch.equal(mixed.latents, plain.latents.bfloat16())
        assert torch.equal(mixed.loss, plain.loss)

    def test_there_is_nothing_to_learn_or_to_keep(self, name: str) -> None:
        assert not self.quantizer(name).state_dict()

    def test_latents_of_another_width_are_refused(self, name: str) -> None:
        quantizer = self.quantizer(name)
        with pytest.raises(ValueError, match=f"needs latents of {quantizer.dim} features, not 1"):
            quantizer(torch.zeros(5, 1))


def test_scalars_are_chosen_in_a_recipe() -> None:
    fsq = build(
        "quantizer", SCALAR_QUANTIZERS, {"name": "fsq", "scalars": [8, 8, 4]}, codebook_sizes=(256,) * 3
    )
    assert fsq.dim == 9
