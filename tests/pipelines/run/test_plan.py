"""What counts as a change of a plug-in, so that what it gives is made anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipelines.config.loading import load_config
from pipelines.config.settings import ConfigError
from pipelines.run.plan import plan
from pipelines.run.store import Step, Store

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


READER = """
from pathlib import Path

from recsys.datasets.readers import reader

import polars as pl

from recsys.datasets.corpus import EVENTS, ITEMS, Corpus, items_of
from recsys.datasets.interactions import interactions_of, item_ids_of


@reader
def read_log(log: Path, *, k_core: int = 1) -> Corpus:
    rows = [line.split() for line in log.read_text().splitlines()]
    events = pl.DataFrame([(u, i, int(t)) for u, i, t in rows], schema=EVENTS, orient="row")
    found = interactions_of(events, k_core=k_core)
    return Corpus(items_of(item_ids_of(found), pl.DataFrame(schema=ITEMS)), found)
"""


def test_a_reader_of_one_s_own_counts_with_its_source_and_its_files(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "plug_reader.py").write_text(READER)
    log = "".join(f"{user} {item} 1\n" for user in "uv" for item in "abcd")
    (tmp_path / "log.txt").write_text(log)
    setting = f"data={{reader: 'plug_reader:read_log', raw: {tmp_path}, log: log.txt}}"

    def ingest() -> Step:
        return plan(load_config(tiny, [setting])).corpus

    first = ingest()
    store = Store(tmp_path / "stages")
    store.make(first)
    assert json.loads((store.folder(first) / "corpus.json").read_text())["interactions"] == 8
    (tmp_path / "log.txt").write_text(f"{log}u e 3\n")
    second = ingest()
    (tmp_path / "plug_reader.py").write_text(READER + "\n# changed\n")
    assert len({first.digest, second.digest, ingest().digest}) == 3


def test_a_sentence_encoder_in_a_folder_counts_by_its_content(tiny: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    (encoder / "inner").mkdir(parents=True)
    (encoder / "inner" / "weights").write_bytes(b"one")

    def embed() -> str:
        steps = plan(load_config(tiny, [f"text.encoder={encoder}"])).steps()
        return next(step.digest for step in steps if step.stage == "embed")

    before = embed()
    assert embed() == before
    (encoder / "inner" / "weights").write_bytes(b"two")
    assert embed() != before


def test_what_a_reader_of_one_s_own_cannot_be_is_named(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "plug_odd.py").write_text(
        "from pathlib import Path\n\nfrom recsys.datasets.readers import reader\n\n\n"
        "@reader\ndef many(logs: list[Path]): ...\n\n\n"
        "@reader\ndef anything(log: Path, **options): ...\n\n\n"
        "@reader\ndef frame(log: Path):\n    return 3\n\n\n"
    )
    (tmp_path / "log.txt").touch()

    def ingest(name: str) -> None:
        setting = f"data={{reader: 'plug_odd:{name}', raw: {tmp_path}, log: log.txt}}"
        Store(tmp_path / "stages").make(plan(load_config(tiny, [setting])).corpus)

    with pytest.raises(ConfigError, match=r"must take its files as Path or Path \| None.*logs is list"):
        load_config(tiny, [f"data={{reader: 'plug_odd:many', raw: {tmp_path}}}"])
    with pytest.raises(
        ConfigError, match=r"'plug_odd:anything' must name its parameters: it has \*\*options"
    ):
        load_config(tiny, [f"data={{reader: 'plug_odd:anything', raw: {tmp_path}}}"])
    with pytest.raises(ValueError, match="must return a Corpus, not int"):
        ingest("frame")


def test_a_reader_that_wraps_ours_and_what_it_imports_count(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "plug_parts").mkdir()
    (tmp_path / "plug_parts" / "inner.py").write_text("x = 1\n")
    (tmp_path / "plug_wraps.py").write_text(
        "import functools\nfrom plug_parts.inner import x\nfrom recsys.datasets.plain import read_table\n\n\n"
        "@functools.wraps(read_table)\ndef read(*a, **k):\n    return read_table(*a, **k)\n"
    )
    (tmp_path / "log.csv").touch()
    setting = f"data={{reader: 'plug_wraps:read', raw: {tmp_path}, interactions: log.csv}}"
    digests = [plan(load_config(tiny, [setting])).corpus.digest]
    for file in ("plug_wraps.py", "plug_parts/inner.py"):
        (tmp_path / file).write_text((tmp_path / file).read_text() + "# changed\n")
        digests.append(plan(load_config(tiny, [setting])).corpus.digest)
    assert len(set(digests)) == 3


def test_a_file_that_is_not_there_is_named_with_the_nearest_one(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv.gz").touch()
    setting = f"data={{reader: movielens, raw: {tmp_path}, ratings: ratings.csv, movies: movies.csv}}"
    with pytest.raises(ConfigError, match=r"\(ratings.csv.gz is there\).* data.ratings=FILE"):
        plan(load_config(tiny, [setting]))
