from __future__ import annotations

from pathlib import Path

from pipelines.manifest import write_manifest
from pipelines.names import NO_RETRIEVER
from pipelines.results.cell import CellName
from pipelines.results.reading import read_cell


def test_a_cell_knows_whose_codes_it_has_and_what_became_of_collisions(tmp_path: Path) -> None:
    for stage, config in (("tokenize", {"collisions": "digit"}), ("fit", {"kind": "tiger"})):
        (tmp_path / stage).mkdir()
        write_manifest(tmp_path / stage, {"digest": f"digest of {stage}", "seconds": 2.0, "config": config})
        (tmp_path / stage / "curves.jsonl").write_text('{"step": 5, "loss": 0.5}\n')
    (tmp_path / "tokenize" / "quality.json").write_text('{"gini": 0.25}')
    (tmp_path / "tokenize" / "code_categories.json").write_text(
        '{"categories": [], "codes": [], "counts": []}'
    )
    folders = {stage: tmp_path / stage for stage in ("tokenize", "fit")}
    cell = read_cell(CellName("theirs", NO_RETRIEVER, 1), folders)
    assert (cell.ids.digest, cell.digest) == ("digest of tokenize", "digest of fit")
    assert (cell.ids.collisions, cell.quality, cell.seconds) == ("digit", {"gini": 0.25}, 4.0)
    assert cell.curves == {"tokenize_loss": [(5, 0.5)], "fit_loss": [(5, 0.5)]}
    baseline = read_cell(CellName("–", "popularity", 0), {"fit": tmp_path / "fit"})
    assert (baseline.ids, baseline.quality) == (None, {})
