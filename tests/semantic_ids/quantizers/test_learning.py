"""How codewords learn: losses by their definitions, moving averages against a hand-written loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import normal
from semantic_ids.choices import Choice
from semantic_ids.quantizers.codebook import Codebook
from semantic_ids.quantizers.learning import GradientLearning, Learning, MovingAverage
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.randomness import seeded

K, D = 5, 3
LOW_RANK: Choice = {"name": "low-rank", "rank": 2}


def mean_square(gap: Tensor) -> Tensor:
    return gap.square().sum() / gap.numel()


class TestGradientLearning:
    def test_the_loss_is_a_mean_over_batch_and_features(self) -> None:
        points, chosen = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 3.0]])
        # squares 1, 4, 0, 9: their mean 3.5, counted once and a quarter
        assert float(GradientLearning(8, 2).loss(points, chosen, chosen)) == pytest.approx(3.5 * 1.25)

    @pytest.mark.parametrize("weights", [(1.0, 0.25, 0.0), (0.3, 2.0, 0.7), (0.0, 0.0, 1.0)])
    def test_which_side_each_loss_moves(self, weights: tuple[float, float, float]) -> None:
        codebook, commitment, joint = weights
        points, codewords, chosen = (normal(4, D, seed=seed).requires_grad_() for seed in range(3))
        loss = GradientLearning(K, D, *weights).loss(points, codewords, chosen)
        found = torch.autograd.grad(loss, [points, codewords, chosen], materialize_grads=True)
        with torch.no_grad():
            hard, soft = 2 * (codewords - points) / 12, 2 * (chosen - points) / 12
            expected = (-commitment * hard - joint * soft, codebook * hard, joint * soft)
        torch.testing.assert_close(found, expected)

    def test_weights_of_zero_leave_no_loss(self) -> None:
        assert GradientLearning(K, D, 0.0, 0.0).loss(*(normal(4, D, seed=seed) for seed in range(3))) == 0


def test_end_to_end_has_no_loss() -> None:
    assert Learning(K, D).loss(*(normal(4, D, seed=seed) for seed in range(3))) == 0


def test_the_loss_of_index_backpropagation() -> None:
    # ‖z_q − z‖² + ‖sg q − z‖² + β‖q − sg z‖²: z_q carries the softmax's gradient, q does not.
    learning = {"name": "gradient", "codebook_weight": 0.25, "commitment_weight": 1.0, "joint_weight": 1.0}
    with seeded(0):
        made = VectorQuantizer(
            (K,),
            D,
            assignment={"name": "soft", "logits": "inner-product"},
            surrogate="direct",
            learning=learning,
        ).double()
    mine, theirs = (normal(20, D).requires_grad_() for _ in range(2))
    made(mine).loss.backward()
    table = made.codebooks[0].table.detach().clone().requires_grad_()
    soft = (theirs @ table.T).softmax(dim=1)
    hard = torch.nn.functional.one_hot(soft.argmax(dim=1), K).double()
    z_q, q = (hard + soft - soft.detach()) @ table, hard @ table
    loss = (
        mean_square(z_q - theirs) + mean_square(q.detach() - theirs) + 0.25 * mean_square(q - theirs.detach())
    )
    loss.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    torch.testing.assert_close(made.codebooks[0].table.grad, table.grad)


@pytest.mark.parametrize("choice", ["gradient", "ema"])
def test_under_soft_choices_the_codebook_loss_moves_no_latent(choice: str) -> None:
    learning: dict[str, Any] = {"name": choice, "commitment_weight": 0.0}
    soft: dict[str, Any] = {"assignment": {"name": "soft", "noise": True}, "surrogate": "direct"}
    made = VectorQuantizer((K,), D, learning=learning, **soft).double()
    z = normal(20, D).requires_grad_()
    (to_latent,) = torch.autograd.grad(made(z).loss, z, allow_unused=True)
    assert to_latent is None or not to_latent.any()


def averaged(decay: float = 0.9, transform: Choice = "plain", **choices: Any) -> VectorQuantizer:
    """One that learns by moving averages, seeded; its transform is away from its start."""
    learning = {"name": "ema", "decay": decay}
    with seeded(0):
        made = VectorQuantizer(
            choices.pop("sizes", (K,)),
            choices.pop("dim", D),
            learning=learning,
            transform=transform,
            **choices,
        ).double()
    move(made)
    made.seed(normal(50, made.dim), torch.Generator().manual_seed(0))
    return made


def move(made: VectorQuantizer) -> None:
    """What an optimizer step may do."""
    with torch.no_grad():
        for number, parameter in enumerate(p for p in made.parameters() if p.requires_grad):
            parameter.add_(0.1 * normal(*parameter.shape, seed=50 + number))


def words(made: VectorQuantizer, level: int = 0) -> Tensor:
    return made.codebooks[level].codewords().detach().clone()


class TestMovingAverage:
    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
    @pytest.mark.parametrize("transform", ["plain", LOW_RANK])
    def test_a_hand_written_loop(self, decay: float, transform: Choice) -> None:
        made = averaged(decay, transform, sizes=(K, 4))
        counts = [[1.0] * size for size in (K, 4)]
        sums = [[row.clone() for row in words(made, level)] for level in range(2)]
        for step in range(4):
            z = normal(6, D, seed=10 + step)  # few, so that some codes go unused
            before = [words(made, level) for level in range(2)]
            codes = made(z).codes
            left = z
            for level in range(2):
                assert codes[:, level].tolist() == torch.cdist(left, before[level]).argmin(dim=1).tolist()
                for code in range(made.codebook_sizes[level]):
                    mine = left[codes[:, level] == code]
                    counts[level][code] = decay * counts[level][code] + (1 - decay) * len(mine)
                    sums[level][code] = decay * sums[level][code] + (1 - decay) * mine.sum(dim=0)
                left = left - before[level][codes[:, level]]
            # Still there, because the graph of this step may need them.
            assert torch.equal(words(made, 0), before[0])
            move(made)
            drifted = [words(made, level) for level in range(2)]
            made.settle()
            for level in range(2):
                after = words(made, level)
                used = codes[:, level].unique().tolist()
                assert step or len(used) < made.codebook_sizes[level]
                for code in used:
                    torch.testing.assert_close(after[code], sums[level][code] / counts[level][code])
                if transform == "plain":
                    unused = [code for code in range(len(after)) if code not in used]
                    assert torch.equal(after[unused], drifted[level][unused])

    @pytest.mark.parametrize("how", ["forward", "eval", "replace"])
    def test_what_is_pending_is_applied(self, how: str) -> None:
        made, settled = averaged(), averaged()
        z = normal(30, D, seed=3)
        for one in (made, settled):
            one(z)
        settled.settle()
        assert not torch.equal(words(made), words(settled))
        if how == "forward":
            assert torch.equal(made(z).codes, settled.encode(z))
        elif how == "eval":
            made.eval()
        else:
            made.replace_dead_codes(z, torch.Generator())
        assert torch.equal(words(made), words(settled))

    def test_it_is_applied_once(self) -> None:
        made = averaged()
        made(normal(30, D))
        made.settle()
        made.codebooks[0].place(torch.tensor([0]), torch.full((1, D), 7.0, dtype=torch.float64))
        made.settle()
        assert words(made)[0].tolist() == [7.0] * D

    def test_the_backward_of_a_step_sees_that_steps_codewords(self) -> None:
        made = averaged(transform=LOW_RANK, surrogate="grit")
        z = normal(30, D).requires_grad_()
        quantized = made(z)
        (quantized.latents.square().sum() + quantized.loss).backward()  # raises, were a row changed in place
        assert made.codebooks[0].table.grad is None

    def test_codewords_come_to_the_means_of_their_points(self) -> None:
        made, z = averaged(decay=0.5), normal(200, D, seed=3)
        for _ in range(80):
            made(z)
        made.eval()
        codes = made.encode(z)[:, 0]
        for code in codes.unique():
            torch.testing.assert_close(words(made)[code], z[codes == code].mean(dim=0), rtol=0, atol=1e-6)

    @given(st.integers(0, 1000), st.sampled_from([0.0, 0.9, 0.99]))
    @settings(deadline=None, max_examples=20)
    def test_a_codeword_never_leaves_the_hull_of_what_it_saw(self, seed: int, decay: float) -> None:
        made = averaged(decay)
        low, high = words(made).amin(dim=0), words(made).amax(dim=0)
        for step in range(3):
            z = normal(10, D, seed=seed + step)
            low, high = torch.minimum(low, z.amin(dim=0)), torch.maximum(high, z.amax(dim=0))
            made(z)
        made.eval()
        assert (words(made) >= low - 1e-9).all()
        assert (words(made) <= high + 1e-9).all()

    @pytest.mark.parametrize("transform", ["plain", LOW_RANK])
    def test_a_replaced_code_keeps_its_place(self, transform: Choice) -> None:
        made, far = averaged(transform=transform), torch.full((1, D), 1e3, dtype=torch.float64)
        with torch.no_grad():
            made.codebooks[0].place(torch.tensor([2]), far)
        z = normal(30, D, seed=3)
        made(z)
        assert made.replace_dead_codes(z, torch.Generator().manual_seed(0)) >= 1
        placed = words(made)[2]
        assert (placed - z).norm(dim=1).min() < 1e-9
        made.clear_usage()
        codes = made(z).codes[:, 0]
        made.eval()
        # It begins with the weight of one point at its new place: what it was before is forgotten.
        mine = z[codes == 2]
        assert len(mine) >= 1
        expected = (0.9 * placed + 0.1 * mine.sum(dim=0)) / (0.9 + 0.1 * len(mine))
        torch.testing.assert_close(words(made)[2], expected)

    def test_heads_that_share_a_codebook_count_as_one_batch(self) -> None:
        made = averaged(decay=0.5, sizes=(4, 4), dim=4, composition="multi-head")
        before, z = words(made), normal(20, 4, seed=3)
        codes = made(z).codes.flatten()
        made.eval()
        blocks = z.reshape(-1, 2)
        for code in codes.unique():
            mine = blocks[codes == code]
            expected = (before[code] + mine.sum(dim=0)) / (1 + len(mine))
            torch.testing.assert_close(words(made)[code], expected)

    def test_averages_are_kept_on_disk(self) -> None:
        made, z = averaged(), normal(30, D, seed=3)
        made(z)
        again = VectorQuantizer((K,), D, learning={"name": "ema", "decay": 0.9}).double()
        again.load_state_dict(made.state_dict())
        for one in (made, again):
            one(2 * z)
            one.eval()
        assert torch.equal(words(made), words(again))

    def test_only_the_commitment_is_a_loss(self) -> None:
        learning = MovingAverage(K, D, commitment_weight=0.3)
        points, chosen = normal(4, D).requires_grad_(), normal(4, D, seed=1).requires_grad_()
        loss = learning.loss(points, chosen, chosen)
        loss.backward()
        torch.testing.assert_close(loss, 0.3 * mean_square(points - chosen))
        torch.testing.assert_close(points.grad, 0.3 * 2 * (points - chosen).detach() / 12)
        assert chosen.grad is None

    def test_the_optimizer_leaves_the_table_alone(self) -> None:
        made = averaged(transform=LOW_RANK)
        assert not made.codebooks[0].table.requires_grad
        assert all(parameter.requires_grad for parameter in made.codebooks[0].transform.parameters())

    def test_a_long_unused_code_comes_back_without_nan(self) -> None:
        codebook = Codebook(2, 1)
        learning = MovingAverage(2, 1, decay=0.0)
        learning.forget(codebook, torch.arange(2))
        learning.observe(torch.tensor([[4.0]]), torch.tensor([0]), torch.tensor([1, 0]))
        learning.settle(codebook)
        assert codebook.codewords()[0].tolist() == [4.0]
        learning.observe(torch.tensor([[6.0], [8.0]]), torch.tensor([1, 1]), torch.tensor([0, 2]))
        learning.settle(codebook)
        assert codebook.codewords().flatten().tolist() == [4.0, 7.0]

    @pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
    def test_a_decay_out_of_range_is_refused(self, decay: float) -> None:
        with pytest.raises(ValueError, match=r"decay must be a number at least 0 and below 1, not"):
            MovingAverage(K, D, decay=decay)
