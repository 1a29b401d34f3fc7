"""Codes that others made, and the handling of collisions, from the benchmark file to the semantic IDs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines.config.loading import load_config
from pipelines.config.settings import ConfigError
from pipelines.run.plan import Plan, plan
from semantic_ids.ids import SemanticIds

Gritrec = Callable[..., "subprocess.CompletedProcess[str]"]


def steps_of(config: Path, *settings: str) -> Plan:
    return plan(load_config(config, settings))


def tokenized(workspace: Path, label: str) -> Path:
    (folder,) = (workspace / "stages" / "tokenize").glob(f"{label}-*")
    return folder


def quality(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "quality.json").read_text())
    return found


def test_the_ways_with_collisions_and_published_codes_in_one_benchmark(
    finished: Path, tiny: Path, gritrec: Gritrec, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(finished, workspace)
    (table,) = (workspace / "stages" / "ingest").glob("*/items.parquet")
    items = pl.read_parquet(table)["item_id"].to_list()
    codes = np.random.default_rng(0).integers(0, 8, size=(len(items), 3))
    published = tmp_path / "published.json"
    published.write_text(json.dumps({i: c.tolist() for i, c in zip(items, codes, strict=True)}))
    tokenizers = (
        "[rq-kmeans, {recipe: rq-kmeans, name: digit, collisions: digit}, "
        "{recipe: rq-kmeans, name: sinkhorn, collisions: sinkhorn}, "
        f"{{codes: {{file: {published}, levels: 2}}, collisions: digit}}]"
    )
    settings = [
        f"workspace={workspace}",
        "seeds=[0, 1]",
        "semantic_ids={levels: 2, codebook_size: 8}",
        f"tokenizers={tokenizers}",
        "retrievers.0.params.training.steps=5",
        "evaluation.reference=rq-kmeans",
    ]
    gritrec("run", tiny, *(part for setting in settings for part in ("--set", setting)))

    shared = SemanticIds.load(tokenized(workspace, "rq-kmeans_seed_1"))
    assert shared.codebook_sizes == (8, 8)
    digit = SemanticIds.load(tokenized(workspace, "digit_seed_1"))
    assert digit.codes.tolist() == shared.full_codes.tolist()
    before, after = (quality(tokenized(workspace, f"{name}_seed_1")) for name in ("rq-kmeans", "digit"))
    assert after["collision_rate"] == before["collision_rate"] > 0.5  # of the codes before the digit
    dealt = SemanticIds.load(tokenized(workspace, "sinkhorn_seed_1"))
    assert dealt.codes[:, 0].tolist() == shared.codes[:, 0].tolist()
    assert len(dealt.leaves) > len(shared.leaves)
    moved = quality(tokenized(workspace, "sinkhorn_seed_1"))
    assert moved["unique_id_rate"] == len(dealt.leaves) / len(items)
    assert moved["reconstruction_error"] > before["reconstruction_error"]

    imported = SemanticIds.load(tokenized(workspace, "published"))  # one folder for both seeds
    assert imported.codes[:, :2].tolist() == codes[:, :2].tolist()
    assert (imported.leaf_sizes == 1).all()
    figures = quality(tokenized(workspace, "published"))
    assert 1 < figures["perplexity"] <= 8
    # How many codes there could have been is not known.
    assert not any(
        name.startswith(("utilization", "dead_codes", "gini", "reconstruction")) for name in figures
    )
    fitted = {path.name.rpartition("-")[0] for path in (workspace / "stages" / "fit").iterdir()}
    assert fitted >= {
        f"dual-encoder_{name}_seed_{seed}" for name in ("digit", "published") for seed in (0, 1)
    }


def test_published_codes_count_by_their_content(tiny: Path, tmp_path: Path) -> None:
    def digests(file: Path, *settings: str) -> set[str]:
        tokenizers = f"tokenizers=[rq-vae, {{name: theirs, codes: {{file: {file}}}}}]"
        return {
            step.digest
            for step in steps_of(tiny, tokenizers, *settings).steps()
            if step.stage == "tokenize" and step.label == "theirs"
        }

    file, moved = tmp_path / "codes.json", tmp_path / "elsewhere.json"
    file.write_text('{"a": [1]}')
    moved.write_text('{"a": [1]}')
    (first,) = digests(file)
    assert digests(file, "seeds=[3, 4]", "text.dimensions=8") == digests(moved) == {first}
    assert digests(file, "tokenizers.1.codes.levels=1") != {first}
    assert digests(file, "tokenizers.1.collisions=digit") != {first}
    file.write_text('{"a": [2]}')
    assert digests(file) != {first}


def test_published_codes_are_read_before_anything_is_fitted(
    finished: Path, tiny: Path, gritrec: Gritrec, tmp_path: Path
) -> None:
    wrong, workspace = tmp_path / "wrong.json", tmp_path / "workspace"
    wrong.write_text('{"nobody": [1]}')
    shutil.copytree(finished / "stages" / "ingest", workspace / "stages" / "ingest")
    settings = [f"workspace={workspace}", f"tokenizers=[rq-vae, {{codes: {wrong}}}]"]
    failed = gritrec("run", tiny, *(p for s in settings for p in ("--set", s)), exit_code=1)
    (message,) = (line for line in failed.stderr.splitlines() if line.startswith("Error: "))
    assert message.startswith(f"Error: {wrong}: ")
    assert "items of the catalogue do not stand there, but 'nobody', for one, does; first" in message
    assert {path.parent.parent.name for path in workspace.rglob("manifest.json")} == {"ingest"}


def test_embeddings_are_made_only_for_tokenizers_that_learn(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.json").write_text("{}")
    codes = f"{{codes: {tmp_path / 'theirs.json'}}}"
    for retrievers in ("[dual-encoder]", "[popularity]"):
        settings = [f"retrievers={retrievers}", "evaluation.reference=theirs", "semantic_ids={}"]
        alone = [step.stage for step in steps_of(tiny, f"tokenizers=[{codes}]", *settings).steps()]
        assert alone[:2] == ["ingest", "tokenize"]
        assert "embed" not in alone
        both = steps_of(tiny, f"tokenizers=[lsh, {codes}]", *settings).steps()
        assert [step.title for step in both][:3] == ["ingest tiny", "tokenize theirs", "embed tiny lsa"]


def test_a_file_of_codes_that_is_missing_is_said_before_any_work(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        steps_of(tiny, f"tokenizers.1={{codes: {{file: {tmp_path / 'none.json'}}}}}")
    assert str(caught.value).startswith(f"cannot read {tmp_path / 'none.json'}: No such file")
    assert str(caught.value).endswith("--set tokenizers.1.codes.file=FILE")


def test_a_tokenizer_may_handle_collisions_other_than_the_benchmark(tiny: Path) -> None:
    config = load_config(tiny, ["collisions=sinkhorn", "tokenizers.1={recipe: lsh, collisions: digit}"])
    assert [config.collisions_of(one) for one in config.tokenizers] == ["sinkhorn", "digit"]
    assert load_config(tiny).collisions_of(config.tokenizers[0]) == "shared"


def test_the_path_of_a_table_of_codes_will_do(tiny: Path) -> None:
    theirs = load_config(tiny, ["tokenizers.1={codes: some/theirs.PARQUET}"]).tokenizers[1]
    assert theirs.name == "theirs"
    assert theirs.codes.model_dump() == {
        "file": Path("some/theirs.PARQUET"),
        "key": "item_id",
        "column": "codes",
        "levels": None,
        "codebook_size": None,
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["collisions=none"], "collisions: Input should be 'shared', 'digit' or 'sinkhorn'"),
        (
            ["collisions=sinkhorn", "tokenizers.1=lsh"],
            "which tokenizer 'lsh' does not know; give it collisions:",
        ),
        (
            ["tokenizers.1={codes: {file: x.json}, collisions: sinkhorn}"],
            "sinkhorn needs distances to the last level's codewords, which tokenizer 'x' does not know",
        ),
        (["collisions=sinkhorn", "tokenizers.1=fsq"], "which tokenizer 'fsq' does not know"),
        (["tokenizers.1={codes: x.txt}"], "file: x.txt is no table of codes: it must end in .parquet, .csv,"),
        (["tokenizers.1={name: x}"], "tokenizers.1: a tokenizer is either a recipe or a file of codes"),
        (["tokenizers.1={recipe: lsh, codes: {file: x.json}}"], "give one of the two"),
        (["tokenizers.1={codes: {file: x.json}, params: {levels: 2}}"], "params are those of a recipe"),
        (["tokenizers.1={codes: {file: x.json, colum: a}}"], "unknown key 'colum'. Did you mean 'column'?"),
        (
            ["tokenizers.1={codes: {file: x.json, levels: 0}}"],
            "levels: Input should be greater than or equal to 1",
        ),
    ],
)
def test_what_cannot_be_is_refused(tiny: Path, settings: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tiny, settings)
    assert expected in str(caught.value)
