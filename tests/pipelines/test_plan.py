"""What counts as a change of a plug-in, so that its semantic IDs are made anew."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.config import load_config
from pipelines.plan import plan

CLASS = "from semantic_ids.fitted import DenseIds\n\n\nclass Plug(DenseIds):\n    pass\n"


@pytest.fixture(autouse=True)
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("plug_")]:
        monkeypatch.delitem(sys.modules, name)


def digest(tiny: Path, name: str) -> str:
    config = load_config(tiny, [f"tokenizers.1={{recipe: '{name}', name: mine}}"])
    (step,) = (step for step in plan(config).steps() if step.title == "tokenize mine seed 0")
    return step.digest


def test_a_loose_module_counts_with_the_modules_beside_it_that_it_imports(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "plug_loose.py").write_text(f"import plug_first\n{CLASS}")
    (tmp_path / "plug_first.py").write_text("from plug_second import x\n")
    (tmp_path / "plug_second.py").write_text("x = 1\n")
    (tmp_path / "plug_other.py").write_text("y = 1\n")
    seen = [digest(tiny, "plug_loose:Plug")]
    (tmp_path / "plug_other.py").write_text("y = 2\n")
    assert digest(tiny, "plug_loose:Plug") == seen[0]
    for module in ("plug_second.py", "plug_first.py", "plug_loose.py"):
        (tmp_path / module).write_text((tmp_path / module).read_text() + "z = 3\n")
        assert digest(tiny, "plug_loose:Plug") not in seen
        seen.append(digest(tiny, "plug_loose:Plug"))


def test_a_package_counts_as_a_whole(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "plug_package" / "inner").mkdir(parents=True)
    (tmp_path / "plug_package" / "__init__.py").touch()
    (tmp_path / "plug_package" / "main.py").write_text(CLASS)
    before = digest(tiny, "plug_package.main:Plug")
    (tmp_path / "plug_package" / "inner" / "part.py").write_text("x = 1\n")
    assert digest(tiny, "plug_package.main:Plug") != before


def test_an_installed_plug_in_counts_with_its_version(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "plug_installed.py").write_text(CLASS)
    about = tmp_path / "plug-1.0.dist-info"
    about.mkdir()
    (about / "entry_points.txt").write_text("[semantic_ids.tokenizers]\nplugged-in = plug_installed:Plug\n")
    digests = set()
    for version in ("1.0", "1.1"):
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plug\nVersion: {version}\n")
        digests.add(digest(tiny, "plugged-in"))
    assert len(digests) == 2
