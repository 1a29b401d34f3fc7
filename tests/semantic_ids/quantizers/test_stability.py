"""The stability report by hand, and docs/radius.md, whose tables are the code's own."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semantic_ids.quantizers.radii import RADII, AdaptiveMahalanobis, Mahalanobis
from semantic_ids.quantizers.radius import Radial, Radius
from semantic_ids.quantizers.stability import Factors, Interval, stability

DOCS = Path(__file__).parents[3] / "docs/radius.md"
D = 8


def gaps(shortest: float = 1e-3, longest: float = 1e3) -> Tensor:
    """``(601, D)``: lengths evenly spaced in their logarithm, in as many directions, some along an axis."""
    directions = torch.outer(torch.arange(1, 602, dtype=torch.float64), torch.arange(1.0, D + 1)).tan()
    lengths = torch.logspace(*torch.tensor([shortest, longest]).log10().tolist(), 601, dtype=torch.float64)
    return lengths[:, None] * torch.nn.functional.normalize(directions, dim=1)


class Steep(Radial):
    """``ρ = δ³``: κ = 3 at every gap, while the slope 3δ² is 1 at .577 and 2 at .816."""

    def rho(self, length: Tensor) -> Tensor:
        return length**3

    def kappa(self, length: Tensor) -> Tensor:
        return 3 * torch.ones_like(length)


def test_a_factor_of_three_enlarges_and_turns_gradients() -> None:
    report = stability(Steep(D), gaps(0.1, 10.0))
    everywhere = pytest.approx((0.1, 10.0))
    assert report.implemented == Factors(pytest.approx((3.0, 3.0)), everywhere, everywhere)
    assert report.claimed.range == pytest.approx((0.03, 300))
    assert report.claimed.expansive == pytest.approx((3**-0.5, 10), rel=0.01)
    assert report.claimed.flipping == pytest.approx((1.5**-0.5, 10), rel=0.01)
    assert report.norm == pytest.approx(2)  # |1 − 3|


def test_the_claim_for_the_power_radius_fails_at_small_gaps_and_what_is_implemented_does_not() -> None:
    report = stability(RADII["power"](D, alpha=0.5), gaps())
    assert report.claimed.range == pytest.approx((0.5 * 1e3**-0.5, 0.5 * 1e-3**-0.5))
    assert report.claimed.expansive == pytest.approx((1e-3, 0.25), rel=0.03)
    assert report.claimed.flipping == pytest.approx((1e-3, 0.0625), rel=0.03)
    assert report.implemented == Factors(pytest.approx((0.5, 0.5)), None, None)
    assert report.norm == pytest.approx(1)


def test_a_radius_that_prefers_directions_projects_and_yet_enlarges() -> None:
    axes = torch.eye(D, dtype=torch.float64)
    between = axes[:1] + axes[-1:] / 4
    report = stability(stretched(), torch.cat([axes, between]))
    assert report.implemented == Factors(pytest.approx((1, 1)), None, None)
    assert report.claimed.range == pytest.approx((1, 4))  # r/δ along the axes of P = diag(1 … 16)
    assert report.claimed.expansive == pytest.approx((1, 17**0.5 / 4))
    assert report.claimed.flipping == pytest.approx((1, 1))
    assert report.norm == pytest.approx(17 / 8)  # (c + 1)/(2√c), c = 16


def test_the_radius_itself_is_left_as_it_was() -> None:
    radius = stretched()
    stability(radius, gaps())
    assert radius.free.dtype == torch.float32
    assert radius.free.grad is None


def stretched() -> Mahalanobis:
    """P = diag of 1 to 16."""
    radius = Mahalanobis(D)
    with torch.no_grad():
        radius.free.copy_(torch.linspace(1, 16, D).expm1().log())
    return radius


def observed() -> AdaptiveMahalanobis:
    """After gaps with deviations of 1 to 4."""
    radius = AdaptiveMahalanobis(D)
    radius.observe(torch.diag(torch.linspace(1, 4, D)))
    return radius


SHOWN: dict[str, Radius] = {name: family(D) for name, family in RADII.items()} | {
    "mahalanobis": stretched(),
    "adaptive-mahalanobis": observed(),
}


def interval(values: Interval | None) -> str:
    if values is None:
        return "nowhere"
    shown = [f"{float(f'{value:.2g}'):g}" for value in values]
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)


def row(name: str, radius: Radius) -> str:
    report = stability(radius, gaps())
    assert report.implemented.expansive is report.implemented.flipping is None, name
    claimed = [report.claimed.range, report.claimed.expansive, report.claimed.flipping]
    cells = [f"`{name}`", *map(interval, [*claimed, report.implemented.range]), f"{report.norm:.2f}"]
    return f"| {' | '.join(cells)} |\n"


def test_the_stability_table_is_the_function_s() -> None:
    expected = "".join(row(name, radius) for name, radius in SHOWN.items())
    shown = DOCS.read_text().split("<!-- stability -->\n")[1].split("<!-- /stability -->")[0]
    _head, _line, rows = shown.split("\n", 2)
    assert rows == expected, f"put this under the table's head in docs/radius.md:\n{expected}"


def test_the_table_of_families_names_their_readings_and_arguments() -> None:
    row_of_a_family = r"^\| `([\w-]+)` \|.*\| (literal|hybrid|both) \|.*\| (.*) \|$"
    rows = re.findall(row_of_a_family, DOCS.read_text(), re.MULTILINE)
    assert [name for name, *_ in rows] == list(RADII)
    for name, reading, arguments in rows:
        assert (reading == "hybrid") == RADII[name].hybrid
        _dim, *own = inspect.signature(RADII[name]).parameters.values()
        assert arguments == (", ".join(f"`{one.name}` {one.default}" for one in own) or "–")
