"""The command ``gritrec audit``: one screen, or JSON, on the section data of a benchmark file."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from pipelines.cli import app


def audit(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments])


@pytest.fixture
def benchmark(tmp_path: Path) -> str:
    """A benchmark file on users whose last two events are on one day, in the order of their ids."""
    rows = [
        (f"u{user}", f"i{(user * step + offset) % 37:02d}", day)
        for user in range(1, 200)
        for step, offset, day in (
            (1, 0, user),
            (2, 5, user + 3),
            (3, 1, user + 4),
            (4, 2, user + 9),
            (5, 8, user + 9),
        )
    ]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.sort("user_id", "timestamp", "item_id").write_csv(tmp_path / "log.csv")
    file = tmp_path / "days.yaml"
    file.write_text(f"data: {{reader: table, raw: {tmp_path}, interactions: log.csv, k_core: 1}}\n")
    return str(file)


def test_the_screen_begins_with_warnings_and_counts_them(benchmark: str) -> None:
    shown = audit(benchmark)
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[0].startswith("under the split leave-one-out (each user's last event")
    labels = [line.split()[0] for line in lines[2:-2] if not line.startswith(" ")]
    assert labels == sorted(labels, key=["warning", "note", "ok"].index)
    assert any(line.startswith("warning tied last pairs that ascend by item id: 100.0%") for line in lines)
    assert "What to do: compare with data.ties" in shown.output
    assert lines[-1] == f"{labels.count('warning')} warnings in {len(labels)} findings"


def test_json_has_every_finding_and_settings_count(benchmark: str) -> None:
    values = json.loads(audit(benchmark, "--json", "--set", "data.ties=last_together").stdout)
    assert values["corpus"]["users"] == 199
    assert "events at one time are asked for together" in values["split"]
    ties = next(one for one in values["findings"] if one["name"] == "ties at the end of histories")
    assert ties["figure"] == 0
    assert ties["severity"] == "ok"
    assert all(
        set(one) == {"name", "figure", "shown", "severity", "meaning", "advice"} for one in values["findings"]
    )


def test_what_cannot_be_audited_is_refused(tmp_path: Path) -> None:
    search = tmp_path / "search.yaml"
    search.write_text("data: {reader: esci, shop: {}}\n")
    assert "esci data have queries in words" in str(audit(str(search)).exception)
    assert "no benchmark file" in str(audit(str(tmp_path / "nothing.yaml")).exception)
