"""Parquet files that unpack to far more than they have, and those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.datasets.formats.limits import SETTING, largest_unpacked, parquet_batches

LONG = "x" * 500_000
BOMBS: dict[str, tuple[Any, dict[str, Any]]] = {
    "zeros in pages": (pa.array([LONG] * 100), {"use_dictionary": False, "compression": "zstd"}),
    "one text in a dictionary": (pa.array([LONG] * 100), {}),
    "in lists": (pa.array([[LONG, LONG]] * 50), {}),
    "equal numbers": (pa.array([7] * 6_000_000), {}),
    "nulls": (pa.array([None] * 6_000_000, pa.string()), {}),
    "lists of equal numbers": (pa.array([[7] * 1000] * 6000), {}),
}


def read(path: Path) -> pa.Table:
    return pa.Table.from_batches(parquet_batches(path, ["a"], 1000))


@pytest.mark.parametrize("name", BOMBS)
def test_a_parquet_that_unpacks_to_too_many_bytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    values, options = BOMBS[name]
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"a": values, "b": pa.array([0] * len(values))}), path, **options)
    assert path.stat().st_size < 400_000  # so that the ratio does not permit it
    monkeypatch.setenv(SETTING, "0.040")
    with pytest.raises(ValueError, match=rf"bomb\.parquet has .* kB, but unpacks to more than .*{SETTING}"):
        read(path)
    monkeypatch.setenv(SETTING, "0.150")
    assert len(read(path)) == len(values)


def test_batches_have_the_values_of_the_file(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["é", None, "", "é"],
            "dictionary": pa.array(["x", "y", None, "x"]).dictionary_encode(),
            "large": pa.array(["q", "r", "s", None], pa.large_string()),
            "lists": [["a", None], [], None, ["b"]],
            "numbers": [1, 2, None, 4],
            "bytes": [b"\xff", None, b"", b"a"],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    names = list(reversed(table.column_names))
    rows = [row for batch in parquet_batches(tmp_path / "t.parquet", names, 2) for row in batch.to_pylist()]
    assert rows == table.select(names).to_pylist()


def test_the_bound_grows_with_the_file_and_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    assert largest_unpacked(10) == 10**9
    assert largest_unpacked(10**10) == 10**12
    monkeypatch.setenv(SETTING, "20")
    assert largest_unpacked(10) == 20 * 10**9


@pytest.mark.parametrize("text", ["20GB", "-1", "0", "nan", "inf"])
def test_a_setting_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(SETTING, text)
    with pytest.raises(ValueError, match=f"{SETTING} is '{text}'; give a number of gigabytes"):
        largest_unpacked(10)
