import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.run.store import Step, Store

Work = Callable[[Mapping[str, Any], Mapping[str, Path], Path], None]


def write_config(config: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
    (out / "result.json").write_text(json.dumps(config))


def step(
    config: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Step] | None = None,
    *,
    stage: str = "bake",
    label: str = "bread",
    version: int = 1,
    work: Work = write_config,
) -> Step:
    return Step(stage, label, version, config or {}, inputs or {}, work)


def never(config: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
    pytest.fail("was made again")


def debris(store: Store) -> list[Path]:
    return list(store.root.rglob("*.partial-*"))


def dead_process() -> int:
    """The id of a process that has ended."""
    return int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))


def test_a_step_is_made_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    flour = step({"grain": "rye"}, stage="grind", label="rye flour")
    bread = step({"minutes": 50}, {"flour": flour})
    assert not store.done(bread)
    assert store.make(flour)
    assert store.make(bread)
    assert store.done(bread)
    assert json.loads((store.folder(bread) / "result.json").read_text()) == {"minutes": 50}
    assert store.folder(flour).parent == tmp_path / "grind"
    assert store.folder(flour).name.startswith("rye_flour-")

    # A later run, which only has the same plan.
    assert not Store(tmp_path).make(step({"minutes": 50}, {"flour": flour}, work=never))


def test_the_manifest_says_what_was_made_of_what(tmp_path: Path) -> None:
    store = Store(tmp_path)
    flour = step({"grain": "rye"}, stage="grind")
    bread = step({"minutes": 50}, {"flour": flour}, version=3)
    store.make(flour)
    store.make(bread)
    manifest = json.loads((store.folder(bread) / "manifest.json").read_text())
    assert manifest.pop("seconds") >= 0
    assert manifest == {
        "stage": "bake",
        "label": "bread",
        "digest": bread.digest,
        "version": 3,
        "config": {"minutes": 50},
        "inputs": {"flour": flour.digest},
    }


def test_work_finds_its_inputs_by_their_names(tmp_path: Path) -> None:
    def bake(config: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
        (out / "bread").write_text(inputs["flour"].joinpath("result.json").read_text())

    store = Store(tmp_path)
    flour = step({"grain": "rye"}, stage="grind")
    bread = step(inputs={"flour": flour}, work=bake)
    store.make(flour)
    store.make(bread)
    assert (store.folder(bread) / "bread").read_text() == '{"grain": "rye"}'


def test_an_input_that_was_not_made_is_named(tmp_path: Path) -> None:
    bread = step(inputs={"flour": step(stage="grind", label="rye flour")})
    with pytest.raises(FileNotFoundError, match="bake bread needs flour, but grind rye flour has not been"):
        Store(tmp_path).make(bread)


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def burn(config: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
        (out / "half").write_text("half a result")
        raise ValueError("burnt")

    store = Store(tmp_path)
    with pytest.raises(ValueError, match="burnt"):
        store.make(step(work=burn))
    assert not store.done(step())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert debris(store) == []
    assert store.make(step())


BASE = step({"minutes": 50}, {"flour": step({"grain": "rye"})})


@pytest.mark.parametrize(
    "other",
    [
        step({"minutes": 51}, BASE.inputs),
        step({"minutes": 50, "steam": None}, BASE.inputs),
        step(BASE.config, BASE.inputs, version=2),
        step(BASE.config, BASE.inputs, stage="toast"),
        step(BASE.config, {"flour": step({"grain": "oat"})}),
        step(BASE.config, {"meal": step({"grain": "rye"})}),
        step(BASE.config, {"flour": step({"grain": "rye"}, version=2)}),
        step(BASE.config),
    ],
)
def test_the_digest_hangs_on_all_that_the_content_follows_from(other: Step) -> None:
    assert other.digest != BASE.digest


def test_the_digest_hangs_on_neither_label_nor_work() -> None:
    named = step({"minutes": 50}, {"flour": step({"grain": "rye"}, label="other")}, label="roll", work=never)
    assert named.digest == BASE.digest


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_the_digest_does_not_hang_on_the_order_of_keys(config: dict[str, Any]) -> None:
    assert step(dict(reversed(config.items()))).digest == step(config).digest


def test_what_dead_processes_left_is_removed_and_what_living_ones_fill_is_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.folder(step())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        dead = folder.with_name(f"{folder.name}.partial-{dead_process()}-abc")
        filled = folder.with_name(f"{folder.name}.partial-{living.pid}-abc")
        for left in (dead, filled):
            left.mkdir(parents=True)
            (left / "half").write_text("")
        store.make(step())
        assert debris(store) == [filled]
        assert (filled / "half").exists()
        living.communicate(b"\n")


def test_two_that_make_the_same_step_at_once_both_succeed(tmp_path: Path) -> None:
    both_inside = threading.Barrier(2, timeout=30)

    def bake(config: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
        both_inside.wait()
        write_config(config, inputs, out)

    store, failures = Store(tmp_path), []

    def make() -> None:
        try:
            store.make(step({"minutes": 50}, work=bake))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert json.loads((store.folder(step({"minutes": 50})) / "result.json").read_text()) == {"minutes": 50}
    assert debris(store) == []
