"""Safeguards: when they intervene, what they say, and what they do."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from semantic_ids.quantizers.safeguard import Safeguards
from semantic_ids.quantizers.scalar import FSQ
from semantic_ids.quantizers.vector import VectorQuantizer
from semantic_ids.randomness import seeded

D = 2
POINTS = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
EVERYTHING = Safeguards(min_utilization=0.9, max_spectral_norm=2.0, max_row_norm=6.0)


def quantizer(**choices: Any) -> VectorQuantizer:
    """Two levels of four codes. The first uses two of them, the second all."""
    with seeded(0):
        made = VectorQuantizer((4, 4), D, transform={"name": "low-rank", "rank": 1}, **choices)
    place(made, 0, torch.tensor([[0.0, 0.0], [10.0, 0.0], [90.0, 0.0], [0.0, 90.0]]))
    place(made, 1, POINTS)
    made(torch.cat([POINTS, POINTS + torch.tensor([10.0, 0.0])]))
    assert [made.health()[f"utilization_{level}"] for level in (1, 2)] == [0.5, 1.0]
    return made


def place(made: VectorQuantizer, level: int, targets: Tensor) -> None:
    made.codebooks[level].place(torch.arange(len(targets)), targets)


def words(made: VectorQuantizer, level: int = 0) -> Tensor:
    return made.codebooks[level].codewords().detach().clone()


def check(safeguards: Safeguards, made: VectorQuantizer, health: dict[str, float] | None = None) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    return safeguards.check(made, made.health() if health is None else health, 0.1 + POINTS, generator)


def state(made: VectorQuantizer) -> list[Tensor]:
    return [value.clone() for value in (*made.state_dict().values(), made.usage(0), made.usage(1))]


def test_without_thresholds_nothing_is_done(caplog: pytest.LogCaptureFixture) -> None:
    made = quantizer()
    before = state(made)
    awful = {
        "utilization_1": 0.0,
        "spectral_norm_1": 1e9,
        "row_norm_max_1": 1e9,
    }
    assert check(Safeguards(), made, awful) == []
    assert all(torch.equal(*pair) for pair in zip(state(made), before, strict=True))
    assert not caplog.records


def test_within_the_thresholds_nothing_is_done(caplog: pytest.LogCaptureFixture) -> None:
    made = quantizer()
    before = state(made)
    health = {
        "utilization_1": 0.9,
        "spectral_norm_1": 2.0,
        "row_norm_max_1": 6.0,
    }
    assert check(EVERYTHING, made, health) == []
    assert all(torch.equal(*pair) for pair in zip(state(made), before, strict=True))
    assert not caplog.records


def test_too_little_utilization_resets_dead_codes(caplog: pytest.LogCaptureFixture) -> None:
    made = quantizer()
    before = words(made)
    with caplog.at_level(logging.WARNING, "semantic_ids.quantizers.safeguard"):
        said = check(Safeguards(min_utilization=0.6), made)
    assert said == ["utilization 50% < 60%: 2 codes reset"]
    assert [record.getMessage() for record in caplog.records] == said
    assert torch.equal(words(made)[:2], before[:2])
    for word in words(made)[2:]:
        assert (word - (0.1 + POINTS)).norm(dim=1).min() < 1e-5
    assert not made.usage(0).any()  # so that the next check does not count what is just placed as dead
    assert not made.usage(1).any()


@pytest.mark.parametrize("figure", ["utilization", "spectral_norm", "row_norm_max"])
def test_the_worst_level_counts(figure: str) -> None:
    healthy, ill = (1.0, 0.1) if figure == "utilization" else (0.1, 100.0)
    levels = {f"{figure}_{level}": healthy for level in range(1, 12)}
    assert check(EVERYTHING, quantizer(), levels) == []
    (line,) = check(EVERYTHING, quantizer(), {**levels, f"{figure}_7": ill})
    assert line.startswith(f"{figure} {'10%' if figure == 'utilization' else '100'} ")


def test_a_large_spectral_norm_is_clipped_at_both_ends(caplog: pytest.LogCaptureFixture) -> None:
    made = quantizer()
    with torch.no_grad():
        made.codebooks[0].transform.w.copy_(torch.diag(torch.tensor([5.0, 0.01])))
        made.codebooks[1].transform.w.copy_(torch.diag(torch.tensor([1.5, 1.0])))
    said = check(Safeguards(max_spectral_norm=2.0), made)
    assert said == ["spectral_norm 5 > 2: singular values clipped"]
    assert [record.getMessage() for record in caplog.records] == said
    torch.testing.assert_close(made.codebooks[0].transform.w.detach(), torch.diag(torch.tensor([2.0, 0.5])))
    torch.testing.assert_close(made.codebooks[1].transform.w.detach(), torch.diag(torch.tensor([1.5, 1.0])))
    assert check(Safeguards(max_spectral_norm=2.001), made) == []


def test_clipping_makes_kept_codewords_anew() -> None:
    made = quantizer(codebook={"refresh_every": 1000})
    kept = words(made)
    with torch.no_grad():
        made.codebooks[0].table.add_(1.0)
    assert torch.equal(words(made), kept)
    check(EVERYTHING, made, {"spectral_norm_1": 100.0})
    torch.testing.assert_close(words(made), kept + 1.0)


def test_codewords_too_long_are_shortened_and_no_others() -> None:
    made = quantizer()
    said = check(Safeguards(max_row_norm=6.0), made)
    assert said == ["row_norm_max 90 > 6: codewords shortened"]
    expected = torch.tensor([[0.0, 0.0], [6.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    torch.testing.assert_close(words(made), expected)
    torch.testing.assert_close(words(made, 1), POINTS)


def test_several_at_once_all_speak() -> None:
    made = quantizer()
    with torch.no_grad():
        made.codebooks[1].transform.w.mul_(3.0)
    said = check(EVERYTHING, made)
    assert [line.split()[0] for line in said] == ["utilization", "spectral_norm", "row_norm_max"]


def test_a_quantizer_without_codebooks_has_nothing_to_guard() -> None:
    made = FSQ([8])
    assert EVERYTHING.check(made, made.health(), torch.zeros(3, 1), torch.Generator()) == []
