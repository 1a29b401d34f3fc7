"""The README is executed: its code runs, its plug-in is benchmarked, its tables are the code's own."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pipelines.config.loading import load_config
from pipelines.names import NO_TOKENIZER
from pipelines.run.plan import plan
from semantic_ids.recipes import RECIPES
from semantic_ids.registry import create

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def between(marker: str) -> str:
    return README.split(f"<!-- {marker} -->\n")[1].split(f"<!-- /{marker} -->")[0]


def test_the_plug_in_of_ten_lines_is_a_tokenizer_that_survives_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(block for block in BLOCKS if "class RandomProjection" in block)
    assert sum(bool(line.strip()) for line in code.split("class ")[1].splitlines()) <= 10
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    tokenizer = create("mine:RandomProjection").fit(x, seed=3)
    codes = tokenizer.encode(x)
    tokenizer.save(tmp_path / "saved")
    assert torch.equal(type(tokenizer).load(tmp_path / "saved").encode(x), codes)
    assert len(codes.unique(dim=0)) > 40
    sys.modules.pop("mine")


def test_the_library_example_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = next(block for block in BLOCKS if "grit-vq" in block)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 — our own README
    assert capsys.readouterr().out.strip() == re.search(r"# (torch.Size.*)", code).group(1)


def recipe_table() -> str:
    rows = [f"| `{name}` | {recipe.summary} | {recipe.source} |" for name, recipe in RECIPES.items()]
    return "\n".join(["| name | what it is | source |", "|---|---|---|", *rows]) + "\n"


def test_the_recipe_table_is_the_code_s() -> None:
    assert between("recipes") == recipe_table(), "make readme writes it anew"


def shown_rows(title: str) -> list[tuple[str, str]]:
    """Retriever and tokenizer of each row of one of the demo's tables; columns are two spaces apart."""
    table = between("demo").split(f"{title}\n", 1)[1].split("\n\n")[0]
    lines = table.split("──\n", 1)[1].splitlines()
    return [(cells[0], cells[1]) for cells in (re.split(r" {2,}", line) for line in lines)]


def test_the_demo_s_tables_have_exactly_the_rows_of_the_demo() -> None:
    demo = load_config(ROOT / "pipelines/experiments/demo.yaml")
    planned = [cell.name for cell in plan(demo).cells]
    compared = {(name.retriever, name.tokenizer) for name in planned if name.tokenizer != NO_TOKENIZER}
    baselines = {(name.retriever, name.tokenizer) for name in planned} - compared
    assert len(compared) == 12
    assert sorted(shown_rows("Scores")) == sorted(compared | baselines)
    others = sorted(row for row in compared if row[1] != demo.evaluation.reference)
    assert sorted(shown_rows(f"Difference to {demo.evaluation.reference}")) == others
    best = shown_rows("Scores")[len(compared)][0]
    assert sorted(shown_rows(f"Difference to the best baseline, {best}")) == sorted(compared)


def test_the_comparison_of_tokenizers_has_every_recipe() -> None:
    compared = yaml.safe_load((ROOT / "pipelines/experiments/beauty-tokenizers.yaml").read_text())
    assert compared["tokenizers"] == list(RECIPES)


def test_every_file_and_folder_that_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


if __name__ == "__main__":
    (ROOT / "README.md").write_text(README.replace(between("recipes"), recipe_table()))
