"""Where codewords start and where dead ones go, by hand-made cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import normal
from semantic_ids.choices import Choice
from semantic_ids.quantizers.upkeep import INITIALIZATIONS, REPLACEMENTS
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.randomness import seeded

SIZES, D, N = (8, 5, 7), 4, 30
LOW_RANK: Choice = {"name": "low-rank", "rank": 2}
DRAWING_POINTS = ["latents", "high-error"]
DRAWING_CODEWORDS = ["importance", "used"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def rows_in(rows: Tensor, points: Tensor) -> list[int]:
    """Which of ``points`` each of ``rows`` is."""
    distances = (rows[:, None] - points[None]).abs().amax(dim=2)
    assert (distances.amin(dim=1) == 0).all()
    return distances.argmin(dim=1).tolist()


class TestInitialization:
    @pytest.mark.parametrize("name", INITIALIZATIONS)
    @pytest.mark.parametrize(("n", "k"), [(N, 6), (3, 6), (1, 4), (6, 6), (5, 1)])
    def test_shape_precision_and_randomness(self, name: str, n: int, k: int) -> None:
        state = torch.random.get_rng_state()
        first, again = (INITIALIZATIONS[name](normal(n, D), k, generator()) for _ in range(2))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(first, again)
        assert (first.shape, first.dtype) == ((k, D), torch.float64)
        assert torch.isfinite(first).all()

    def test_kmeans_finds_planted_centres(self) -> None:
        centres = 10 * normal(6, D)
        points = centres.repeat(20, 1) + 0.01 * normal(120, D, seed=1)
        found = INITIALIZATIONS["k-means"](points, 6, generator())
        gaps = torch.cdist(centres, found)
        assert gaps.amin(dim=1).max() < 0.02
        assert sorted(gaps.argmin(dim=1).tolist()) == list(range(6))

    def test_latents_are_different_rows(self) -> None:
        points = normal(N, D)
        rows = rows_in(INITIALIZATIONS["latents"](points, 20, generator()), points)
        assert len(set(rows)) == 20
        assert rows != rows_in(INITIALIZATIONS["latents"](points, 20, generator(1)), points)

    def test_too_few_latents_are_repeated_evenly(self) -> None:
        points = normal(3, D)
        rows = rows_in(INITIALIZATIONS["latents"](points, 7, generator()), points)
        assert sorted(rows.count(row) for row in range(3)) == [2, 2, 3]

    def test_recent_means_are_those_of_consecutive_runs(self) -> None:
        points = column(0, 1, 5, 10, 20, 100, 300)
        found = INITIALIZATIONS["recent-means"](points, 3, generator())
        assert found.flatten().tolist() == [2, 15, 200]  # of 3, 2 and 2

    def test_too_few_for_runs(self) -> None:
        points = normal(3, D)
        assert set(rows_in(INITIALIZATIONS["recent-means"](points, 7, generator()), points)) == {0, 1, 2}

    def test_normal_looks_at_no_latent(self) -> None:
        first = INITIALIZATIONS["normal"](normal(N, D), 5000, generator())
        assert torch.equal(first, INITIALIZATIONS["normal"](100 + normal(3, D, seed=1), 5000, generator()))
        torch.testing.assert_close(first.T @ first / 5000, torch.eye(D).double(), rtol=0, atol=0.1)
        assert first.mean(dim=0).abs().max() < 0.06


class TestReplacement:
    @pytest.mark.parametrize("name", REPLACEMENTS)
    @pytest.mark.parametrize("count", [1, 4, 40])
    def test_shape_and_randomness(self, name: str, count: int) -> None:
        state = torch.random.get_rng_state()
        usage = torch.tensor([3, 0, 0, 1, 2])
        first, again = (
            REPLACEMENTS[name](normal(N, D), normal(5, D, seed=1), usage, count, generator())
            for _ in range(2)
        )
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(first, again)
        assert first.dtype == torch.float64
        assert first.shape == (min(count, N) if name in DRAWING_POINTS else count, D)

    def test_latents_are_different_rows(self) -> None:
        points = normal(N, D)
        found = REPLACEMENTS["latents"](points, normal(5, D), torch.ones(5), 25, generator())
        assert len(set(rows_in(found, points))) == 25

    def test_high_error_takes_the_points_served_worst(self) -> None:
        points, codewords = column(0, 0.5, 3, -2, 9.6, 10), column(0, 10)
        found = REPLACEMENTS["high-error"](points, codewords, torch.ones(2), 3, generator())
        assert found.flatten().tolist() == [3, -2, 0.5]

    @pytest.mark.parametrize(("name", "shares"), [("importance", [0.6, 0, 0.1, 0.3]), ("used", [1, 0, 1, 1])])
    def test_sources_are_drawn_by_their_usage_or_evenly(self, name: str, shares: list[float]) -> None:
        codewords, usage = column(0, 10, 20, 30), torch.tensor([600, 0, 100, 300])
        found = REPLACEMENTS[name](normal(N, 1), codewords, usage, 20_000, generator())
        drawn = torch.bincount((found / 10).round().long().flatten(), minlength=4) / 20_000
        expected = torch.tensor(shares) / sum(shares)
        assert drawn[1] == 0
        torch.testing.assert_close(drawn, expected, rtol=0, atol=0.015)  # standard error .0035

    @pytest.mark.parametrize("name", DRAWING_CODEWORDS)
    def test_copies_are_shaken_by_a_hundredth_of_the_spread(self, name: str) -> None:
        points, codewords = 50 * normal(1000, D), normal(1, D, seed=1)
        found = REPLACEMENTS[name](points, codewords, torch.tensor([7]), 5000, generator())
        assert float((found - codewords).std()) == pytest.approx(0.5, rel=0.05)
        assert len(found.unique(dim=0)) == 5000

    @pytest.mark.parametrize("name", DRAWING_CODEWORDS)
    def test_a_single_point_brings_no_nan(self, name: str) -> None:
        found = REPLACEMENTS[name](column(3), column(0, 10), torch.tensor([1, 0]), 2, generator())
        assert torch.isfinite(found).all()


def quantizer(sizes: tuple[int, ...] = SIZES, dim: int = D, **choices: Any) -> VectorQuantizer:
    """A quantizer whose parameters are all away from their start."""
    with seeded(0):
        made = VectorQuantizer(sizes, dim, **choices).double()
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.add_(0.5 * normal(*parameter.shape, seed=100 + number))
    return made


def words(made: VectorQuantizer) -> list[Tensor]:
    return [codebook.codewords().detach().clone() for codebook in made.codebooks]


def place(made: VectorQuantizer, level: int, rows: list[int], targets: Tensor) -> None:
    made.codebooks[level].place(torch.tensor(rows), targets.double())


def dead(made: VectorQuantizer) -> list[list[int]]:
    return [(made.usage(book) == 0).nonzero().flatten().tolist() for book in range(len(made.codebooks))]


def residuals(made: VectorQuantizer, z: Tensor) -> list[Tensor]:
    found, left = [], z
    for book in words(made):
        found.append(left)
        left = left - book[torch.cdist(left, book).argmin(dim=1)]
    return found


def on_a_line(usage: list[int], **choices: Any) -> VectorQuantizer:
    """Codewords at 0, 10, 20, … used so often."""
    made = VectorQuantizer((len(usage),), 1, **choices).double()
    points = 10.0 * torch.arange(len(usage))
    place(made, 0, list(range(len(usage))), points[:, None])
    made(points.repeat_interleave(torch.tensor(usage))[:, None].double())
    assert made.usage(0).tolist() == usage
    return made


class TestDeadCodes:
    @pytest.mark.parametrize("transform", ["plain", LOW_RANK])
    def test_they_are_moved_onto_what_is_left_at_their_level(self, transform: Choice) -> None:
        made, z = quantizer(transform=transform), normal(N, D)
        place(made, 1, [1, 4], torch.full((2, D), 1e3))
        made(z)
        rows = dead(made)
        assert {1, 4} <= set(rows[1])
        assert made.replace_dead_codes(z, generator()) == sum(map(len, rows))
        for book, left, gone in zip(words(made), residuals(made, z), rows, strict=True):
            gaps = torch.cdist(book[gone], left)
            assert (gaps.amin(dim=1) < 1e-6).all()
            assert len(set(gaps.argmin(dim=1).tolist())) == len(gone)  # each onto another point

    def test_codes_in_use_stay_where_they_are(self) -> None:
        made, z = quantizer(), normal(N, D)
        place(made, 0, [2], torch.full((1, D), 1e3))
        made(z)
        before, rows = words(made), dead(made)
        made.replace_dead_codes(z, generator())
        for book, old, gone in zip(words(made), before, rows, strict=True):
            alive = [row for row in range(len(book)) if row not in gone]
            assert torch.equal(book[alive], old[alive])

    def test_counting_goes_on(self) -> None:
        made, z = quantizer(), normal(N, D)
        made(z)
        before = [made.usage(level).clone() for level in range(3)]
        made.replace_dead_codes(z, generator())
        assert all(torch.equal(made.usage(level), before[level]) for level in range(3))

    def test_nothing_is_known_before_the_first_step(self) -> None:
        made, z = quantizer(), normal(N, D)
        before = words(made)
        assert made.replace_dead_codes(z, generator()) == 0
        made(z)
        made.clear_usage()
        assert made.replace_dead_codes(z, generator()) == 0
        assert all(torch.equal(*pair) for pair in zip(words(made), before, strict=True))

    def test_all_in_use(self) -> None:
        made = on_a_line([1, 5, 2])
        assert made.replace_dead_codes(normal(N, 1), generator()) == 0
        assert words(made)[0].flatten().tolist() == [0, 10, 20]

    def test_more_of_them_than_points(self) -> None:
        made, z = quantizer(), normal(2, D)
        made(z)
        assert made.replace_dead_codes(z, generator()) == sum(min(2, len(rows)) for rows in dead(made))

    @pytest.mark.parametrize(
        ("dead_below", "moved"), [(0.0, [2]), (0.19, [2]), (0.21, [1, 2]), (0.99, [1, 2])]
    )
    def test_dead_below_is_a_share_of_the_even_usage(self, dead_below: float, moved: list[int]) -> None:
        made = on_a_line([11, 1, 0, 8], upkeep={"dead_below": dead_below})  # evenly, each would have 5
        assert made.replace_dead_codes(column(100, 101, 102, 103), generator()) == len(moved)
        assert [row for row, word in enumerate(words(made)[0].flatten()) if word >= 100] == moved

    @pytest.mark.parametrize("name", DRAWING_CODEWORDS)
    def test_what_counts_as_dead_is_no_source(self, name: str) -> None:
        made = on_a_line([100] + [9] * 20, upkeep={"replacement": name, "dead_below": 0.8})
        assert made.replace_dead_codes(column(*range(5)), generator()) == 20
        assert words(made)[0].abs().max() < 1

    @pytest.mark.parametrize("composition", ["product", "multi-head"])
    def test_blocks(self, composition: str) -> None:
        made, z = quantizer((6, 6), composition=composition), normal(N, D)
        place(made, 0, [1, 4], torch.full((2, 2), 1e3))
        made(z)
        rows = dead(made)
        assert {1, 4} <= set(rows[0])
        assert made.replace_dead_codes(z, generator()) == sum(map(len, rows))
        blocks = [z[:, :2], z[:, 2:]] if composition == "product" else [z.reshape(-1, 2)]
        for book, points, gone in zip(words(made), blocks, rows, strict=True):
            rows_in(book[gone], points)

    @pytest.mark.parametrize("name", REPLACEMENTS)
    def test_replaced_codes_are_used_again(self, name: str) -> None:
        made, z = quantizer((8,), upkeep={"replacement": name}), normal(N, D)
        place(made, 0, [1, 4], torch.full((2, D), 1e3))
        made(z)
        gone = dead(made)[0]
        lost = (z - made.decode(made.encode(z))).square().sum()
        made.replace_dead_codes(z, generator())
        assert set(gone) & set(made.encode(z).flatten().tolist())
        assert (z - made.decode(made.encode(z))).square().sum() < lost


class TestReservoir:
    def test_replacements_draw_from_older_batches(self) -> None:
        made = on_a_line([1] + [0] * 20, upkeep={"reservoir": 12})
        for batch in (column(1, 2, 3, 4), column(-1, -2, -3, -4)):
            made(batch)
        # Twelve are asked for of nine that came by; without a reservoir it would be the batch given alone.
        assert made.replace_dead_codes(column(0.5), generator()) == 9
        assert sorted(words(made)[0][:10].flatten().tolist()) == [-4, -3, -2, -1, 0, 0, 1, 2, 3, 4]

    def test_the_oldest_are_forgotten(self) -> None:
        made = on_a_line([1] + [0] * 20, upkeep={"reservoir": 3})
        for batch in (column(1, 2), column(3), column(4)):
            made(batch)
        assert made.replace_dead_codes(column(0.5), generator()) == 3
        assert sorted(words(made)[0][1:4].flatten().tolist()) == [2, 3, 4]

    def test_evaluation_adds_nothing(self) -> None:
        made = on_a_line([1, 0, 0, 0], upkeep={"reservoir": 9})
        made.eval()
        made(column(3))
        assert made.replace_dead_codes(column(3), generator()) == 1
        assert words(made)[0].flatten().tolist() == [0, 0, 20, 30]

    def test_without_one_only_the_batch_given_counts(self) -> None:
        made = on_a_line([1] + [0] * 20)
        assert made.replace_dead_codes(column(1, 2), generator()) == 2
        assert sorted(words(made)[0][1:3].flatten().tolist()) == [1, 2]


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_every_initialization_seeds_every_level_from_what_is_left(name: str) -> None:
    made, z = quantizer((4, 3), upkeep={"initialization": name}), normal(N, D)
    made.seed(z, generator())
    drawn = generator()
    first = INITIALIZATIONS[name](z, 4, drawn)
    torch.testing.assert_close(words(made)[0], first)
    left = z - first[torch.cdist(z, first).argmin(dim=1)]
    torch.testing.assert_close(words(made)[1], INITIALIZATIONS[name](left, 3, drawn))
