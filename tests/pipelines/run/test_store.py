import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import flip
from pipelines.manifest import read_manifest
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
    manifest = read_manifest(store.folder(bread))
    assert manifest.pop("seconds") >= 0
    written = store.folder(bread) / "result.json"
    assert manifest.pop("files") == {
        "result.json": {
            "bytes": 15,
            "time_ns": written.stat().st_mtime_ns,
            "sha256": hashlib.sha256(b'{"minutes": 50}').hexdigest(),
        }
    }
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
    with pytest.raises(FileNotFoundError, match="bake bread needs grind rye flour, which has not been made"):
        Store(tmp_path).make(bread)


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def burn(config: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
        (out / "half").write_text("half a result")
        raise ValueError("burnt")

    store = Store(tmp_path)
    with pytest.raises(ValueError, match="burnt"):
        store.make(step(work=burn))
    assert not store.done(step())
    assert [path for path in tmp_path.rglob("*") if path.is_file() and ".lock" not in path.name] == []
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


def test_what_a_killed_process_left_is_removed_also_where_its_number_lives_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = step(label="x.partial-y")
    folder = store.folder(one)
    for name in ("1-abc", "999999999-abc", "not-a-number"):  # process 1 always lives
        (folder.parent / f"{folder.name}.partial-{name}").mkdir(parents=True)
    (folder.parent / f"{folder.name}.checkpoint.1-abc.partial").write_text("half")
    (folder.parent / f"{folder.name}.checkpoint").write_text("whole")
    store.make(one)
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.checkpoint"]
    assert store.done(one)


HOLD = """
import sys, time
from pathlib import Path
from pipelines.manifest import read_manifest
from pipelines.run.store import Store
with Store(Path(sys.argv[1])).locked("baking"):
    print("held", flush=True)
    input()
"""


def test_a_second_process_waits_and_says_for_whom(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "stages")
    command = [sys.executable, "-c", HOLD, str(store.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        maker = threading.Thread(target=store.make, args=[step()])
        maker.start()
        maker.join(timeout=1)
        assert maker.is_alive()
        assert not store.done(step())
        holder.kill()  # which frees the lock as well as an end would
        maker.join(timeout=10)
    assert store.done(step())
    said = "".join(capfd.readouterr().err.split("\n"))
    assert f"waiting for process {holder.pid} on {socket.gethostname()} (baking, since" in said


@settings(deadline=None)
@given(st.integers(0, 8 * 15 - 1))
def test_no_flipped_bit_of_an_input_is_built_on(bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        flour, result = step({"minutes": 50}, stage="grind"), "result.json"
        store.make(flour)
        file = store.folder(flour) / result
        written = file.stat().st_mtime_ns
        flip(file, bit)
        os.utime(file, ns=(written, written))  # as a failing disk does it: neither size nor time tells
        read = {}

        def bake(config: Mapping[str, Any], inputs: Mapping[str, Path], out: Path) -> None:
            read["flour"] = (inputs["flour"] / result).read_bytes()

        Store(Path(folder)).make(step(inputs={"flour": flour}, work=bake))
        assert read["flour"] == b'{"minutes": 50}'


@pytest.mark.parametrize("bit", range(0, 8 * 700, 97))
def test_no_flipped_bit_of_a_manifest_goes_unnoticed(tmp_path: Path, bit: int) -> None:
    store = Store(tmp_path)
    one = step({"minutes": 50}, {"flour": step({"grain": "rye"})})
    store.make(one.inputs["flour"])
    store.make(one)
    manifest = store.folder(one) / "manifest.json"
    before = json.loads(manifest.read_text())
    flip(manifest, bit % (8 * manifest.stat().st_size))
    try:
        same = json.loads(manifest.read_text()) == before  # a blank between two values, for example
    except ValueError:
        same = False
    assert store.done(one) == same


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "empty", "manifest", "folder"])
def test_what_is_damaged_is_set_aside_and_made_again(
    tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.make(step({"minutes": 50}))
    folder = store.folder(step({"minutes": 50}))
    file = folder / "result.json"
    if damage == "flip":
        flip(file, 5)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "delete":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "manifest":
        (folder / "manifest.json").write_text("{}")
    else:
        shutil.rmtree(folder)
    again = Store(tmp_path)
    assert not again.done(step({"minutes": 50}))
    assert again.make(step({"minutes": 50}))
    assert json.loads(file.read_text()) == {"minutes": 50}
    aside = list((tmp_path / "damaged" / "bake").glob("*"))
    assert len(aside) == (damage != "folder")
    assert ("is made again" in capfd.readouterr().err) == (damage != "folder")
    assert list(again.damaged()) == []


def test_a_copy_is_as_good_as_the_original_and_need_not_be_read_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "here")
    store.make(step({"minutes": 50}))
    for path in store.folder(step({"minutes": 50})).rglob("*"):
        os.utime(path, ns=(1, 1))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    copied = Store(tmp_path / "there")
    assert copied.done(step({"minutes": 50}))
    state = (copied.folder(step({"minutes": 50})) / "result.json").stat()
    assert read_manifest(copied.folder(step({"minutes": 50})))["files"]["result.json"]["time_ns"] == (
        state.st_mtime_ns
    )


def test_damaged_names_what_is_wrong_in_every_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for stage in ("grind", "bake"):
        store.make(step({"minutes": 50}, stage=stage))
    file = store.folder(step({"minutes": 50})) / "result.json"
    state = file.stat()
    flip(file, 8)
    os.utime(file, ns=(state.st_mtime_ns, state.st_mtime_ns))
    assert store.done(step({"minutes": 50}))  # sizes and times are as they were
    (store.folder(step({"minutes": 50}, stage="grind")) / "manifest.json").unlink()
    problem, missing = store.damaged()
    assert problem.startswith("bake/bread-")
    assert problem.endswith("result.json is not as it was written")
    assert missing.startswith("grind/bread-")
    assert missing.endswith("manifest.json is missing")
    assert not store.done(step({"minutes": 50}))
    assert list(store.damaged()) == []


def test_a_label_may_be_as_long_and_odd_as_it_likes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = step(label="../rye [k=64] " + "x" * 300)
    store.make(one)
    assert store.done(one)
    assert store.folder(one).parent == tmp_path / "bake"


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
