"""The vector quantizer against hand-written residual encoding and autograd of definitions, in float64."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.functional import jacobian

from helpers import normal
from semantic_ids.choices import Choice
from semantic_ids.quantizers.residual import residual_decode, residual_encode
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.randomness import seeded

SIZES, D, N = (8, 5, 7), 4, 30
EYE = torch.eye(D, dtype=torch.float64)
LOW_RANK: Choice = {"name": "low-rank", "rank": 2}
NONE = "end-to-end"


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def power(alpha: float) -> Choice:
    return {"name": "grit", "radius": {"name": "power", "alpha": alpha}}


def quantizer(surrogate: Choice = "grit", sizes: tuple[int, ...] = SIZES, **choices: Any) -> VectorQuantizer:
    """A quantizer whose parameters are all away from their start."""
    with seeded(0):
        made = VectorQuantizer(sizes, choices.pop("dim", D), surrogate=surrogate, **choices).double()
    with torch.no_grad():
        for number, parameter in enumerate(p for p in made.parameters() if p.requires_grad):
            parameter.add_(0.5 * normal(*parameter.shape, seed=100 + number))
    return made


def tables(made: VectorQuantizer) -> list[Tensor]:
    return [codebook.codewords().detach().clone() for codebook in made.codebooks]


def greedy(made: VectorQuantizer, z: Tensor) -> tuple[np.ndarray, list[Tensor], list[Tensor]]:
    """By brute force: codes ``(n, L)``, and every level's residuals and codewords ``(n, D)``."""
    codes, residuals, chosen, left = [], [], [], z.detach()
    for codewords in tables(made):
        residuals.append(left)
        squares = (left[:, None, :] - codewords[None, :, :]).square().sum(dim=2)
        codes.append(squares.numpy().argmin(axis=1))
        chosen.append(codewords[codes[-1]])
        left = left - chosen[-1]
    return np.stack(codes, axis=1), residuals, chosen


def jacobian_of_latents(made: VectorQuantizer, z: Tensor) -> Tensor:
    rows = torch.arange(len(z))
    with seeded(5):
        return jacobian(lambda latents: made(latents).latents, z)[rows, :, rows, :]


def outer(v: Tensor) -> Tensor:
    return torch.einsum("ni,nj->nij", v, v)


def along(z: Tensor, q: Tensor) -> Tensor:
    """``s sᵀ`` ``(n, D, D)``."""
    return outer(torch.nn.functional.normalize(q - z, dim=1))


def at_rows(codes: np.ndarray, gradients: Tensor, size: int) -> Tensor:
    """Each row's gradient added to that of its code, ``(K, D)``."""
    expected = torch.zeros(size, gradients.shape[1], dtype=torch.float64)
    for row, code in enumerate(codes):
        expected[code] += gradients[row]
    return expected


class TestResidualEncoding:
    @given(st.integers(1, 4), st.integers(0, 1000))
    @settings(deadline=None, max_examples=30)
    def test_decoding_mirrors_encoding(self, levels: int, seed: int) -> None:
        books = [0.5**level * normal(3 + level, D, seed=seed + level) for level in range(levels)]
        z = normal(10, D, seed=seed + 100)
        codes, found = residual_encode(books, z)
        left = z
        for level, book in enumerate(books):
            assert codes[:, level].tolist() == torch.cdist(left, book).argmin(dim=1).tolist()
            left = left - book[codes[:, level]]
        torch.testing.assert_close(residual_decode(books, codes), z - left)
        torch.testing.assert_close(found, left)

    def test_blocks_and_choices(self) -> None:
        books = [torch.tensor([[0.0], [10.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])]
        z, blocks = torch.tensor([[9.0, 0.1, 0.2], [1.0, 3.0, 3.0]]), [slice(0, 1), slice(1, 3)]
        assert residual_encode(books, z, blocks)[0].tolist() == [[1, 0], [0, 1]]

        def last(points: Tensor, codewords: Tensor) -> Tensor:
            return torch.full((len(points),), len(codewords) - 1)

        assert residual_encode(books, z, blocks, [last, last])[0].tolist() == [[1, 1], [1, 1]]
        assert residual_decode(books, torch.tensor([[1, 0], [0, 1]]), blocks, 3).tolist() == [
            [10, 0, 0],
            [0, 1, 1],
        ]

    def test_latents_are_left_alone(self) -> None:
        z = normal(3, D)
        residual_encode([normal(2, D, seed=1)], z)
        assert torch.equal(z, normal(3, D))


@pytest.mark.parametrize("transform", ["plain", LOW_RANK])
@pytest.mark.parametrize(
    "surrogate", ["straight-through", "rotation", "grit", {"name": "diveq", "variance": 0.0}]
)
def test_codes_are_those_of_greedy_residual_encoding(surrogate: Choice, transform: Choice) -> None:
    made, z = quantizer(surrogate, transform=transform), normal(N, D)
    codes, _, chosen = greedy(made, z)
    quantized = made(z)
    assert quantized.codes.tolist() == codes.tolist()
    assert quantized.codes.dtype == torch.int64
    torch.testing.assert_close(quantized.latents, sum(chosen))
    assert made.encode(z).tolist() == codes.tolist()
    torch.testing.assert_close(made.decode(torch.from_numpy(codes)), sum(chosen))


def test_forward_and_encode_agree_on_many_points() -> None:
    with seeded(0):
        made = VectorQuantizer((64,) * 6, 8)
    z = normal(4096, 8).float()
    made.seed(z[:500], generator())
    assert torch.equal(made(z).codes, made.encode(z))


class TestGradientOnTheTotal:
    @pytest.mark.parametrize("sizes", [(8,), (8, 5), (8, 5, 7, 6, 5)])
    @pytest.mark.parametrize("kappa", [0.5, 1.0])
    @pytest.mark.parametrize("transform", ["plain", LOW_RANK])
    def test_the_encoder_has_one_surrogates_gradient_however_many_levels(
        self, sizes: tuple[int, ...], kappa: float, transform: Choice
    ) -> None:
        made, z = quantizer(power(kappa), sizes, transform=transform), normal(N, D)
        _, _, chosen = greedy(made, z)
        torch.testing.assert_close(jacobian_of_latents(made, z), EYE - kappa * along(z, sum(chosen)))

    @pytest.mark.parametrize("kappa", [0.5, 1.0])
    def test_every_levels_codeword_gets_the_gradient_along_the_total_gap(self, kappa: float) -> None:
        made, z, g = quantizer(power(kappa)), normal(N, D), normal(N, D, seed=1)
        codes, _, chosen = greedy(made, z)
        share = kappa * torch.einsum("nij,nj->ni", along(z, sum(chosen)), g)
        made(z).latents.backward(g)
        for level, codebook in enumerate(made.codebooks):
            torch.testing.assert_close(
                codebook.table.grad, at_rows(codes[:, level], share, codebook.size), rtol=1e-6, atol=1e-12
            )

    def test_straight_through_has_gain_one_and_gives_codewords_nothing(self) -> None:
        made, z, g = quantizer("straight-through"), normal(N, D).requires_grad_(), normal(N, D, seed=1)
        made(z).latents.backward(g)
        torch.testing.assert_close(z.grad, g)
        for codebook in made.codebooks:
            assert codebook.table.grad is None or not codebook.table.grad.any()

    def test_rotation_acts_once_on_the_total(self) -> None:
        made, z = quantizer("rotation"), normal(N, D)
        total = sum(greedy(made, z)[2])
        found = jacobian_of_latents(made, z)
        torch.testing.assert_close(torch.einsum("nij,nj->ni", found, z), total)
        gains = total.norm(dim=1) / z.norm(dim=1)
        torch.testing.assert_close(found.mT @ found, gains[:, None, None] ** 2 * EYE)

    def test_direct_passes_what_soft_assignments_have_of_every_level(self) -> None:
        made = quantizer(
            "direct", (6, 5), assignment={"name": "soft", "logits": "inner-product"}, learning=NONE
        )
        z, g = normal(N, D), normal(N, D, seed=1)
        books = [table.requires_grad_() for table in tables(made)]
        point = z.clone().requires_grad_()
        left, total = point, torch.zeros_like(z)
        for book in books:
            logits = left @ book.T
            soft = logits.softmax(dim=1)
            hard = torch.nn.functional.one_hot(logits.argmax(dim=1), len(book))
            level = (hard + soft - soft.detach()) @ book
            left, total = left - level.detach(), total + level
        total.backward(g)
        mine = z.clone().requires_grad_()
        latents = made(mine).latents
        latents.backward(g)
        torch.testing.assert_close(latents, total)
        torch.testing.assert_close(mine.grad, point.grad)
        for codebook, book in zip(made.codebooks, books, strict=True):
            torch.testing.assert_close(codebook.table.grad, book.grad)


class TestGradientPerLevel:
    @pytest.mark.parametrize("kappa", [0.5, 1.0])
    def test_gains_telescope(self, kappa: float) -> None:
        made, z = quantizer(power(kappa), per_level=True), normal(N, D)
        codes, residuals, chosen = greedy(made, z)
        shares = [kappa * along(r, q) for r, q in zip(residuals, chosen, strict=True)]
        left = EYE.expand(N, D, D)
        for share in shares:
            left = share @ left  # what a level leaves is z-dependent through P_l alone
        torch.testing.assert_close(jacobian_of_latents(made, z), EYE - left)

        g = normal(N, D, seed=1)
        made(z).latents.backward(g)
        # ∂/∂q_l = P_L … P_{l+1} P_l
        for level in reversed(range(len(SIZES))):
            g = torch.einsum("nji,nj->ni", shares[level], g)
            expected = at_rows(codes[:, level], g, SIZES[level])
            torch.testing.assert_close(made.codebooks[level].table.grad, expected, rtol=1e-6, atol=1e-12)

    def test_the_value_is_the_sum_of_codewords(self) -> None:
        made, z = quantizer(per_level=True), normal(N, D)
        torch.testing.assert_close(made(z).latents, sum(greedy(made, z)[2]))

    def test_straight_through_telescopes_to_the_identity(self) -> None:
        made = quantizer("straight-through", per_level=True)
        torch.testing.assert_close(jacobian_of_latents(made, normal(N, D)), EYE.expand(N, D, D))

    def test_in_a_product_every_block_has_its_own_gap(self) -> None:
        made = quantizer(power(0.5), (6, 5), composition="product", per_level=True)
        z = normal(N, D)
        found, q = jacobian_of_latents(made, z), made.decode(made.encode(z))
        expected = torch.zeros(N, D, D, dtype=torch.float64)
        for block in (slice(0, 2), slice(2, 4)):
            expected[:, block, block] = torch.eye(2) - 0.5 * along(z[:, block], q[:, block])
        torch.testing.assert_close(found, expected)

    def test_space_filling_is_equation_12_of_diveq(self) -> None:
        choices = {"assignment": "space-filling", "per_level": True, "learning": NONE}
        made = quantizer({"name": "diveq", "variance": 0.0}, (6,), **choices)
        (book,) = (table.requires_grad_() for table in tables(made))
        z, g = normal(N, D), normal(N, D, seed=1)
        with seeded(5):
            share = torch.rand(5, 1, dtype=torch.float64)
        dithered = (1 - share) * book[:-1] + share * book[1:]
        i = torch.cdist(z, dithered).argmin(dim=1)
        mine, theirs = (z.clone().requires_grad_() for _ in range(2))
        value = theirs
        for end, weight in ((book[i], 1 - share[i]), (book[i + 1], share[i])):
            d = end - theirs
            value = value + d.norm(dim=1, keepdim=True) * (weight * d / d.norm(dim=1, keepdim=True)).detach()
        value.backward(g)
        with seeded(5):
            quantized = made(mine)
        quantized.latents.backward(g)
        torch.testing.assert_close(quantized.latents, value)
        torch.testing.assert_close(mine.grad, theirs.grad)
        torch.testing.assert_close(made.codebooks[0].table.grad, book.grad)
        assert quantized.loss == 0


class TestLosses:
    @pytest.mark.parametrize(("codebook_weight", "commitment_weight"), [(1.0, 0.25), (0.3, 0.0), (0.0, 2.0)])
    @pytest.mark.parametrize("per_level", [False, True])
    def test_earlier_levels_are_held_fixed(
        self, codebook_weight: float, commitment_weight: float, per_level: bool
    ) -> None:
        learning = {
            "name": "gradient",
            "codebook_weight": codebook_weight,
            "commitment_weight": commitment_weight,
        }
        made, z = quantizer(learning=learning, per_level=per_level), normal(N, D).requires_grad_()
        codes, residuals, chosen = greedy(made, z)
        loss = made(z).loss
        learned = [codebook.table for codebook in made.codebooks]
        to_z, *to_tables = torch.autograd.grad(loss, [z, *learned], materialize_grads=True)
        gaps = [r - q for r, q in zip(residuals, chosen, strict=True)]
        weights = codebook_weight + commitment_weight
        torch.testing.assert_close(loss, sum(weights * gap.square().mean() for gap in gaps))
        torch.testing.assert_close(to_z, sum(commitment_weight * 2 * gap / gap.numel() for gap in gaps))
        for level, found in enumerate(to_tables):
            pull = -codebook_weight * 2 * gaps[level] / gaps[level].numel()
            torch.testing.assert_close(found, at_rows(codes[:, level], pull, SIZES[level]))

    def test_regularizers_are_added_level_by_level(self) -> None:
        made = quantizer(learning=NONE, regularizers=["repulsion", {"name": "orthogonality", "weight": 0.3}])
        expected = 0.0
        for book in tables(made):
            squares = torch.cdist(book, book).square()[~torch.eye(len(book), dtype=torch.bool)]
            expected += 0.05 * float((-squares / (0.1 * squares.mean())).exp().mean())
            cosines = torch.corrcoef(torch.cat([book, -book], dim=1))  # centred rows: correlation is cosine
            expected += 0.3 * float(cosines[~torch.eye(len(book), dtype=torch.bool)].square().mean())
        assert made(normal(N, D)).loss.item() == pytest.approx(expected)

    def test_schedules_are_moved(self) -> None:
        weight = {"start": 0.0, "end": 1.0}
        made = quantizer(learning=NONE, regularizers=[{"name": "repulsion", "weight": weight}])
        losses = []
        for progress in (0.0, 0.25, 1.0):
            made.set_progress(progress)
            losses.append(made(normal(N, D)).loss.item())
        assert losses[0] == 0
        assert losses[1] == pytest.approx(0.25 * losses[2])
        assert losses[2] > 0

    def test_a_radius_follows_its_schedule(self) -> None:
        alpha = {"start": 1.0, "end": 0.2}
        made, z = quantizer(power(alpha)), normal(N, D)
        made.set_progress(1.0)
        expected = EYE - 0.2 * along(z, made.decode(made.encode(z)))
        torch.testing.assert_close(jacobian_of_latents(made, z), expected)


class TestShapes:
    @pytest.mark.parametrize("shape", [(), (N,), (2, 3, 5), (1, 30), (0,)])
    @pytest.mark.parametrize("training", [True, False])
    def test_any_leading_shape_equals_the_flat_call(self, shape: tuple[int, ...], training: bool) -> None:
        made, z = quantizer().train(training), normal(*shape, D).requires_grad_()
        flat = z.detach().reshape(-1, D).requires_grad_()
        quantized, expected = made(z), made(flat)
        assert quantized.codes.shape == (*shape, 3)
        assert quantized.latents.shape == z.shape
        assert torch.equal(quantized.codes.reshape(-1, 3), expected.codes)
        assert torch.equal(quantized.latents.reshape(-1, D), expected.latents)
        assert torch.equal(made.encode(z), quantized.codes)
        assert torch.equal(made.decode(quantized.codes).reshape(-1, D), made.decode(expected.codes))
        if z.numel():
            torch.testing.assert_close(quantized.loss, expected.loss)
            for latents, parts in ((z, quantized), (flat, expected)):
                (parts.latents.square().sum() + parts.loss).backward()
                assert latents.grad is not None
            torch.testing.assert_close(z.grad.reshape(-1, D), flat.grad)

    @pytest.mark.parametrize("call", ["forward", "encode", "last_level_distances"])
    def test_latents_of_another_width_are_refused(self, call: str) -> None:
        with pytest.raises(ValueError, match="need 4 features in their last dimension, not 8"):
            getattr(quantizer(), call)(normal(3, 2 * D))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_latents_keep_their_precision(self, dtype: torch.dtype) -> None:
        made, z = quantizer().float(), normal(N, D).to(dtype)
        quantized = made(z)
        assert quantized.latents.dtype == dtype
        assert quantized.loss.dtype == torch.float32
        assert torch.equal(quantized.codes, made.encode(z.float()))

    @pytest.mark.parametrize(
        "assignment",
        ["nearest", *({"name": "soft", "logits": kind} for kind in ("inner-product", "hyperbolic"))],
    )
    def test_autocast_changes_no_code(self, assignment: Choice) -> None:
        surrogate = "straight-through" if assignment == "nearest" else "direct"
        made = quantizer(surrogate, (64, 64), assignment=assignment, transform=LOW_RANK).float()
        z = normal(500, D).float()
        plain = made.encode(z)
        expected = made(z)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(made.encode(z), plain)
            quantized = made(z)
        assert torch.equal(quantized.codes, plain)
        assert torch.equal(quantized.latents, expected.latents)
        assert torch.equal(quantized.loss, expected.loss)


@pytest.mark.parametrize(
    "choices",
    [
        {"surrogate": "nsvq"},
        {"surrogate": "diveq", "per_level": True},
        {"surrogate": "direct", "assignment": {"name": "soft", "noise": True}},
        {"surrogate": "diveq", "assignment": "space-filling", "per_level": True},
        {"learning": "ema"},
        {"composition": "product", "sizes": (6, 5)},
        {"composition": "multi-head", "sizes": (6, 6)},
    ],
    ids=str,
)
def test_evaluation_is_decoding_of_encoding(choices: dict[str, Any]) -> None:
    made, z = quantizer(**choices).eval(), normal(N, D)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    random = torch.random.get_rng_state()
    quantized = made(z)
    assert torch.equal(quantized.codes, made.encode(z))
    assert torch.equal(quantized.latents, made.decode(quantized.codes))
    assert quantized.loss == 0
    assert torch.equal(torch.random.get_rng_state(), random)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(made.usage(book).any() for book in range(len(made.codebooks)))


class TestProduct:
    def test_it_equals_separate_quantizers_of_the_blocks(self) -> None:
        made = quantizer("straight-through", (6, 5), composition="product", transform=LOW_RANK)
        z, g = normal(N, D).requires_grad_(), normal(N, D, seed=1)
        quantized = made(z)
        (quantized.latents * g).sum().backward(retain_graph=True)
        quantized.loss.backward()
        losses = []
        for level, block in enumerate((slice(0, 2), slice(2, 4))):
            alone = quantizer("straight-through", (made.codebook_sizes[level],), dim=2, transform=LOW_RANK)
            alone.codebooks[0].load_state_dict(made.codebooks[level].state_dict())
            part = z.detach()[:, block].requires_grad_()
            expected = alone(part)
            assert torch.equal(quantized.codes[:, level], expected.codes[:, 0])
            torch.testing.assert_close(quantized.latents[:, block], expected.latents)
            losses.append(expected.loss)
            ((expected.latents * g[:, block]).sum() + expected.loss / 2).backward()
            torch.testing.assert_close(z.grad[:, block], part.grad)
            for mine, theirs in zip(made.codebooks[level].parameters(), alone.parameters(), strict=True):
                torch.testing.assert_close(mine.grad, theirs.grad)
        # Blocks are equally wide, so the mean over all features is the mean of theirs.
        torch.testing.assert_close(quantized.loss, sum(losses) / 2)

    def test_the_loss_is_a_mean_over_all_features(self) -> None:
        made, z = quantizer(sizes=(6, 5), composition="product"), normal(N, D)
        lost = (z - made.decode(made.encode(z))).square().mean()
        torch.testing.assert_close(made(z).loss, 1.25 * lost)

    def test_the_surrogate_acts_on_the_whole(self) -> None:
        made, z = quantizer(power(0.5), (6, 5), composition="product"), normal(N, D)
        expected = EYE - 0.5 * along(z, made.decode(made.encode(z)))
        torch.testing.assert_close(jacobian_of_latents(made, z), expected)

    @pytest.mark.parametrize("composition", ["product", "multi-head"])
    def test_there_is_a_coordinate_for_each_block(self, composition: str) -> None:
        with pytest.raises(ValueError, match="5 levels cannot share 4 coordinates"):
            VectorQuantizer((5,) * 5, 4, composition=composition)


class TestMultiHead:
    def test_one_codebook_serves_all_heads(self) -> None:
        made = quantizer("straight-through", (6, 6), composition="multi-head")
        assert len(made.codebooks) == 1
        assert made.codebooks[0].table.shape == (6, 2)
        twin = quantizer("straight-through", (6, 6), composition="product")
        for codebook in twin.codebooks:
            codebook.load_state_dict(made.codebooks[0].state_dict())
        z = normal(N, D)
        quantized, expected = made(z), twin(z)
        assert torch.equal(quantized.codes, expected.codes)
        torch.testing.assert_close(quantized.latents, expected.latents)
        torch.testing.assert_close(quantized.loss, expected.loss)
        quantized.loss.backward()
        expected.loss.backward()
        gradients = [codebook.table.grad for codebook in twin.codebooks]
        torch.testing.assert_close(made.codebooks[0].table.grad, sum(gradients))
        assert torch.equal(made.usage(0), twin.usage(0) + twin.usage(1))

    def test_seeding_takes_the_blocks_of_all_heads(self) -> None:
        made = quantizer(sizes=(6, 6), composition="multi-head")
        z = normal(3, D)
        made.seed(z, generator())
        torch.testing.assert_close(made.decode(made.encode(z)), z)  # six blocks, six codewords

    def test_heads_of_different_sizes_are_refused(self) -> None:
        with pytest.raises(ValueError, match=re.escape("sizes must agree, not be (6, 5)")):
            VectorQuantizer((6, 5), 4, composition="multi-head")


class TestUsage:
    def test_it_is_counted_in_training_only(self) -> None:
        made, z = quantizer(), normal(N, D)
        made.eval()
        made(z)
        assert [int(made.usage(level).sum()) for level in range(3)] == [0, 0, 0]
        made.train()
        codes = torch.cat([made(z).codes, made(2 * z).codes])
        for level, size in enumerate(SIZES):
            assert made.usage(level).tolist() == np.bincount(codes[:, level], minlength=size).tolist()
        made.clear_usage()
        assert [int(made.usage(level).sum()) for level in range(3)] == [0, 0, 0]

    def test_it_is_no_part_of_what_is_saved(self) -> None:
        made = quantizer(upkeep={"reservoir": 5})
        made(normal(N, D))
        assert not any("usage" in name or "recent" in name for name in made.state_dict())

    def test_health_names_levels_from_one(self) -> None:
        made = VectorQuantizer((4, 2), 2)
        assert "utilization_1" not in made.health()
        made.codebooks[0].place(
            torch.arange(4), torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [99.0, 0.0]])
        )
        made.codebooks[1].place(torch.arange(2), torch.tensor([[0.0, 0.0], [50.0, 50.0]]))
        made(torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, 9.0]]))
        health = made.health()
        assert health["utilization_1"] == 0.75
        assert health["dead_codes_1"] == 1
        assert health["entropy_1"] == pytest.approx(1.5)  # bits, of ¼, ¼ and ½
        assert health["perplexity_1"] == pytest.approx(2**1.5)
        assert health["row_norm_max_1"] == 99
        assert (health["utilization_2"], health["dead_codes_2"], health["entropy_2"]) == (0.5, 1, 0)


class TestSeed:
    @pytest.mark.parametrize("transform", ["plain", LOW_RANK])
    @pytest.mark.parametrize("learning", ["gradient", "ema"])
    def test_as_many_points_as_codes_lose_nothing(self, transform: Choice, learning: Choice) -> None:
        made, z = quantizer(transform=transform, learning=learning), normal(SIZES[0], D)
        made.seed(z, generator())
        codes = made.encode(z)
        assert sorted(codes[:, 0].tolist()) == list(range(SIZES[0]))
        torch.testing.assert_close(made.decode(codes), z)

    @pytest.mark.parametrize("transform", ["plain", LOW_RANK])
    def test_levels_leave_less_and_less(self, transform: Choice) -> None:
        made, z = quantizer(transform=transform), normal(200, D)
        made.seed(z, generator())
        _, residuals, chosen = greedy(made, z)
        left = [float(r.square().mean()) for r in [*residuals, residuals[-1] - chosen[-1]]]
        assert all(after < 0.8 * before for before, after in pairwise(left))
        for codebook, residual, code in zip(made.codebooks, residuals, made.encode(z).T, strict=True):
            means = torch.stack([residual[code == k].mean(dim=0) for k in range(codebook.size)])
            torch.testing.assert_close(codebook.codewords().detach(), means, rtol=0, atol=0.2)

    def test_each_level_starts_from_what_soft_choices_leave(self) -> None:
        assignment = {"name": "soft", "logits": "inner-product"}
        made, z = quantizer("direct", sizes=(3, N), assignment=assignment), normal(N, D)
        made.seed(z, generator())
        first = tables(made)[0]
        left = z - first[(z @ first.T).argmax(dim=1)]
        gaps = torch.cdist(tables(made)[1], left).amin(dim=1)
        torch.testing.assert_close(gaps, torch.zeros_like(gaps), rtol=0, atol=1e-6)

    def test_soft_choices_are_fitted_to_the_scale_of_each_level(self) -> None:
        made, z = quantizer("direct", sizes=(3, 3), assignment="soft"), 100 * normal(N, D)
        made.seed(z, generator())
        left = z
        for assignment, book in zip(made.assignments, tables(made), strict=True):
            gap = torch.cdist(left, book).square().amin(dim=1).mean()
            torch.testing.assert_close(assignment.log_scale.detach(), (10 / gap).log())
            left = left - book[torch.cdist(left, book).argmin(dim=1)]

    @pytest.mark.parametrize("composition", ["residual", "product"])
    def test_the_generator_alone_decides(self, composition: str) -> None:
        books = []
        for number in range(2):
            torch.manual_seed(number)
            state = torch.random.get_rng_state()
            made = quantizer(sizes=(6, 5), composition=composition)
            made.seed(normal(N, D), generator())
            assert torch.equal(torch.random.get_rng_state(), state)
            books.append(tables(made))
        for first, second in zip(*books, strict=True):
            assert torch.equal(first, second)


class TestDistances:
    @pytest.mark.parametrize(
        "choices", [{}, {"composition": "product", "sizes": (6, 5)}, {"sizes": (8,)}], ids=str
    )
    def test_those_of_the_last_level_by_brute_force(self, choices: dict[str, Any]) -> None:
        made, z = quantizer(**choices), normal(N, D)
        distances = made.last_level_distances(z)
        codes, last = made.encode(z), tables(made)[-1]
        for code in range(len(last)):
            codes[:, -1] = code
            gap = z - made.decode(codes)
            gap = gap[:, 2:] if "composition" in choices else gap
            torch.testing.assert_close(distances[:, code], gap.square().sum(dim=1))
        assert distances.shape == (N, len(last))


def test_a_latent_that_is_its_codeword_brings_no_nan() -> None:
    made = VectorQuantizer((2, 2), 2, surrogate="grit")
    for codebook, target in zip(made.codebooks, ([1.0, 2.0], [0.0, 0.0]), strict=True):
        codebook.place(torch.arange(2), torch.tensor([target, [50.0, 50.0]]))
    z = torch.tensor([[1.0, 2.0]], requires_grad=True)
    quantized = made(z)
    (quantized.latents.sum() + quantized.loss).backward()
    assert quantized.latents.tolist() == [[1.0, 2.0]]
    assert z.grad.tolist() == [[1.0, 1.0]]
    assert all(torch.isfinite(parameter.grad).all() for parameter in made.parameters())


def test_gradients_are_the_same_every_time() -> None:
    z = normal(4096, 32).float()
    made = VectorQuantizer((16, 16), 32, surrogate="grit")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        grads = []
        for _ in range(6):
            made.zero_grad()
            quantized = made(z)
            (quantized.latents.square().mean() + quantized.loss).backward()
            grads.append([codebook.table.grad.clone() for codebook in made.codebooks])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for again in grads[1:] for a, b in zip(grads[0], again, strict=True))


def test_frozen_tables_leave_the_transforms_to_the_optimizer() -> None:
    made = quantizer(transform=LOW_RANK, codebook={"frozen": True})
    quantized = made(normal(N, D))
    (quantized.latents.square().sum() + quantized.loss).backward()
    learned = {name for name, parameter in made.named_parameters() if parameter.grad is not None}
    assert learned == {f"codebooks.{level}.transform.{part}" for level in range(3) for part in "abw"}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"surrogate": "girt"}, "no surrogate is called 'girt'. Did you mean 'grit'?"),
        ({"transform": "lowrank"}, "no transform is called 'lowrank'. Did you mean 'low-rank'?"),
        ({"assignment": "closest"}, "no assignment is called 'closest'."),
        ({"learning": "emma"}, "no learning is called 'emma'. Did you mean 'ema'?"),
        ({"regularizers": ["usages"]}, "no regularizer is called 'usages'. Did you mean 'usage'?"),
        ({"composition": "multihead"}, "no composition is called 'multihead'. Did you mean 'multi-head'?"),
        (
            {"upkeep": {"initialization": "kmeans"}},
            "no initialization is called 'kmeans'. Did you mean 'k-means'?",
        ),
        ({"upkeep": {"replacement": "latent"}}, "no replacement is called 'latent'. Did you mean 'latents'?"),
        ({"upkeep": {"resevoir": 5}}, "upkeep has no parameter 'resevoir'. Did you mean 'reservoir'?"),
        (
            {"codebook": {"normalise": True}},
            "codebook has no parameter 'normalise'. Did you mean 'normalize'?",
        ),
        ({"codebook": {"transform": "linear"}}, "codebook has no parameter 'transform'. Known: frozen, norm"),
        ({"codebook": {"spectral_clip": 0.5}}, "spectral_clip must be 0, for none, or at least 1, not 0.5"),
        ({"codebook": "frozen"}, "codebook takes a mapping from names to values, not 'frozen'"),
        ({"upkeep": ["reservoir"]}, "upkeep takes a mapping from names to values, not ['reservoir']"),
        (
            {"learning": {"name": "gradient", "comitment_weight": 1}},
            "learning 'gradient' has no parameter 'comitment_weight'. Did you mean 'commitment_weight'?",
        ),
        (
            {"surrogate": {"name": "grit", "radius": "powr"}},
            "no radius is called 'powr'. Did you mean 'power'?",
        ),
        ({"surrogate": "direct"}, "they go with the surrogate 'direct', and it with no other"),
        ({"assignment": "soft"}, "they go with the surrogate 'direct', and it with no other"),
        ({"learning": "end-to-end"}, "end-to-end learning needs a surrogate that gives codewords a gradient"),
        ({"codebook": {"frozen": True}, "learning": "ema"}, "a frozen table cannot be moved by averages"),
        ({"upkeep": {"dead_below": 5.0}}, "dead_below must be a number at least 0 and below 1, not 5.0"),
        ({"upkeep": {"reservoir": -1}}, "reservoir must be a whole number from 0 to 2147483647, not -1"),
        ({"dim": 0}, "dim must be a whole number from 1 to 65536, not 0"),
    ],
)
def test_unknown_choices_are_named(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        VectorQuantizer((4,), **{"dim": 2, **choices})


def test_sizes_that_make_no_sense_are_refused() -> None:
    for sizes in ((), (4, 0)):
        with pytest.raises(ValueError, match=re.escape(f"no quantizer has codebooks of {sizes} codes")):
            VectorQuantizer(sizes, 2)
    with pytest.raises(ValueError, match="3 levels cannot share 2 coordinates"):
        VectorQuantizer((4, 4, 4), 2, composition="product")
    with pytest.raises(ValueError, match=re.escape("a multiple of 3, {dim: 33}")):
        VectorQuantizer((4, 4, 4), 32, composition="multi-head")


def test_blocks_of_a_product_may_differ_by_a_coordinate() -> None:
    made = VectorQuantizer((4, 4, 4), 32, composition="product").double()
    assert [book.dim for book in made.codebooks] == [10, 11, 11]
    z = normal(N, 32)
    quantized = made(z)
    start = 0
    for level, book in enumerate(made.codebooks):
        words = book.codewords().detach()
        block = z[:, start : start + book.dim]
        nearest = (block[:, None] - words).square().sum(dim=2).argmin(dim=1)
        assert torch.equal(quantized.codes[:, level], nearest)
        torch.testing.assert_close(quantized.latents[:, start : start + book.dim], words[nearest])
        start += book.dim


def test_averages_hold_under_a_spectral_clip() -> None:
    learning = {"name": "ema", "decay": 0.0}
    made = quantizer(learning=learning, transform=LOW_RANK, codebook={"spectral_clip": 1.0})
    z = normal(N, D)
    codes = made(z).codes[:, 0]
    with torch.no_grad():
        made.codebooks[0].transform.w.mul_(1.5)  # as an optimizer might
    made.eval()
    words = made.codebooks[0].codewords().detach()
    for code in codes.unique():
        torch.testing.assert_close(words[code], z[codes == code].mean(dim=0))
