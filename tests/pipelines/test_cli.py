import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from pipelines.cli import main
from semantic_ids.recipes import RECIPES

Gritrec = Callable[..., "subprocess.CompletedProcess[str]"]
HEAVY = (
    "torch",
    "mlflow",
    "prefect",
    "polars",
    "sklearn",
    "scipy",
    "plotly",
    "sentence_transformers",
    "faiss",
)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["compare", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = f"""
import json, sys
from pipelines.cli import main
sys.argv = ["gritrec", *{arguments}]
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, [name for name in {HEAVY} if name in sys.modules]]))
"""
    shown = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert "Usage: gritrec" in shown
    assert json.loads(shown.splitlines()[-1]) == [0, []]


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="gritrec")
    assert command.load() is main


def test_tokenizers_lists_every_recipe_and_plug_in(gritrec_process: Gritrec, tmp_path: Path) -> None:
    (tmp_path / "plug.py").write_text(
        "from semantic_ids.fitted import DenseIds\n\n\n"
        'class Plug(DenseIds):\n    """Comes from another package."""\n'
    )
    about = tmp_path / "plug-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[semantic_ids.tokenizers]\nplugged-in = plug:Plug\n")
    listed = gritrec_process("tokenizers", PYTHONPATH=str(tmp_path)).stdout.splitlines()
    for name in RECIPES:
        assert any(line.split()[1:2] == [name] for line in listed), name
    assert any("plugged-in" in line and "Comes from another package." in line for line in listed)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none.yaml"], "none.yaml: No such file or directory; give the path of a benchmark file"),
        (["[bold]none.yaml"], "[bold]none.yaml: No such file or directory"),
        (["tiny.yaml", "--set", "data.shop.usrs=3"], "data.shop: unknown key 'usrs'. Did you mean 'users'?"),
        (
            [
                "tiny.yaml",
                "--set",
                "data={reader: amazon, raw: nowhere, reviews: r.json, meta: m.json}",
            ],
            "cannot read nowhere/r.json: No such file or directory; put the file there, "
            "or say where it is with --set data.raw=FOLDER",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_message(
    arguments: list[str],
    expected: str,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tiny.parent)
    monkeypatch.setattr(sys, "argv", ["gritrec", "run", *arguments])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert end.value.code == 1
    assert printed.err.startswith("Error: ")
    assert expected in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert list(tiny.parent.iterdir()) == [tiny]
