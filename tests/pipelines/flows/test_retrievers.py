"""Benchmarks of every kind of retriever: what is fitted how often, what is shared, and what is told of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from pipelines.config.loading import load_config
from pipelines.config.settings import ConfigError
from pipelines.run.plan import plan
from pipelines.run.store import Step
from pipelines.tracking.database import embedded_uri
from recsys.retrievers.base import Retriever
from recsys.retrievers.ensemble import Ensemble

EVERY = """
name: every
data: {reader: amazon, shop: {users: 150, items: 120}}
text: {dimensions: 16}
semantic_ids: {levels: 2, codebook_size: 8}
tokenizers: [rq-kmeans]
seeds: [0, 1]
retrievers:
  - popularity
  - item-knn
  - content-knn
  - knn-sum
  - transition-knn
  - kind: sasrec
    params: {width: 16, feed_forward: 16, training: &brief {steps: 4, batch_size: 32, evaluate_every: 2}}
  - kind: tiger
    params:
      {width: 16, layers: 1, heads: 2, head_width: 8, feed_forward: 16, search: {beam: 3}, training: *brief}
  - {kind: ensemble, name: untrained, members: [knn-sum, transition-knn]}
  - {kind: ensemble, name: both, members: [tiger, untrained, sasrec]}
  - {kind: ensemble, name: ensemble, members: [tiger, sasrec, knn-sum], times: 2}
evaluation: {cutoffs: [10], reference: rq-kmeans}
"""
BASELINES = {"popularity", "item-knn", "content-knn", "knn-sum", "transition-knn", "untrained"}


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("every") / "every.yaml"
    path.write_text(EVERY)
    return path


def test_what_is_not_random_runs_once_and_all_else_for_every_seed(every: Path) -> None:
    cells = plan(load_config(every)).cells
    found = {(cell.name.tokenizer, cell.name.retriever, cell.name.seed) for cell in cells}
    expected = {("–", name, 0) for name in BASELINES} | {("–", "sasrec", seed) for seed in (0, 1)}
    expected |= {("rq-kmeans", name, seed) for name in ("tiger", "both", "ensemble") for seed in (0, 1)}
    assert found == expected
    assert len(cells) == len(expected)
    fits = {(cell.name.retriever, cell.name.seed): cell.steps[-2] for cell in cells}
    for seed in (0, 1):
        members = {
            name: step for name, step in fits["both", seed].inputs.items() if name.startswith("member")
        }
        assert list(members) == ["member.tiger", "member.untrained", "member.sasrec"]
        assert [step.digest for step in members.values()] == [
            fits[name, of].digest for name, of in (("tiger", seed), ("untrained", 0), ("sasrec", seed))
        ]
    made = [step.digest for step in plan(load_config(every)).steps()]
    for step in plan(load_config(every)).steps():  # members come before what is made of them
        assert all(made.index(source.digest) < made.index(step.digest) for source in step.inputs.values())


def test_an_ensemble_has_its_members_fitted_with_further_seeds_on_the_same_ids(every: Path) -> None:
    fits = {(cell.name.retriever, cell.name.seed): cell.steps[-2] for cell in plan(load_config(every)).cells}

    def members(name: str, seed: int) -> dict[str, Step]:
        return {
            key.removeprefix("member."): step
            for key, step in fits[name, seed].inputs.items()
            if key.startswith("member")
        }

    for seed in (0, 1):
        found = members("ensemble", seed)
        assert {name: step.config["seed"] for name, step in found.items()} == {
            "tiger": seed,
            "sasrec": seed,
            "knn-sum": 0,  # only once: another seed would give the same
            "tiger/2": seed + 1000,
            "sasrec/2": seed + 1000,
        }
        assert found["tiger"].digest == fits["tiger", seed].digest
        assert found["tiger/2"].inputs["ids"].digest == fits["tiger", seed].inputs["ids"].digest


def test_only_ensembles_are_fitted_anew_for_another_protocol(every: Path) -> None:
    def fits(settings: list[str]) -> dict[tuple[str, int], str]:
        cells = plan(load_config(every, settings)).cells
        return {(cell.name.retriever, cell.name.seed): cell.steps[-2].digest for cell in cells}

    kept, left_out = fits([]), fits(["evaluation.exclude_seen=true"])
    changed = {name for name, seed in kept if kept[name, seed] != left_out[name, seed]}
    assert changed == {"untrained", "both", "ensemble"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("retrievers=[popularity, {kind: ensemble}]", "ensemble needs members: names of retrievers above it"),
        (
            "retrievers=[{kind: ensemble, members: [popularity]}, popularity]",
            "'popularity', which is none of those",
        ),
        ("retrievers=[knn-sum, {kind: ensemble, members: [knn-sun]}]", "Did you mean 'knn-sum'"),
        (
            "retrievers=[knn-sum, {kind: popularity, members: [knn-sum]}]",
            "'popularity' has no members; an ensemble has",
        ),
        (
            "retrievers=[{kind: sasrec, times: 2}]",
            "'sasrec' is fitted once; name it in an ensemble with times",
        ),
        ("retrievers=[popularity, {kind: ensemble, members: [popularity], times: 0}]", "times"),
        ("seeds=[-1]", "greater than or equal to 0"),
        ("seeds=[4294967296]", "less than 4294967296"),
        ("seeds=[true]", "valid integer"),
        ("retrievers=[{kind: sasrec, params: {training: {schedule: cosin}}}]", "schedule"),
        ("retrievers=[{kind: dual-encoder, params: {index: PQ}}]", "index"),
    ],
)
def test_what_cannot_be_made_is_said_before_anything_runs(every: Path, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(every, [setting])


def test_all_retrievers_run_and_tell_of_themselves(
    every: Path, gritrec: Callable[..., object], tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    gritrec("run", every, "--set", f"workspace={workspace}")
    stages = workspace / "stages"
    assert not list(stages.rglob("*.checkpoint*"))
    (folder,) = (stages / "fit").glob("both_rq-kmeans_seed_1-*")
    both = Retriever.load(folder / "retriever")
    assert isinstance(both, Ensemble)
    assert {name: type(member).__name__ for name, member in both.members.items()} == {
        "tiger": "Tiger",
        "untrained": "Ensemble",
        "sasrec": "SasRec",
    }
    assert sum(both.weights) == pytest.approx(1)

    (told,) = (stages / "score").glob("tiger_rq-kmeans_seed_0-*/retriever.json")
    diagnostics = json.loads(told.read_text())
    assert 0 <= diagnostics["search_error_at_10"] <= 1
    assert diagnostics["certified"] == 1.0
    client = MlflowClient(embedded_uri(workspace))
    runs = client.search_runs([client.get_experiment_by_name("every").experiment_id])
    logged = {run.info.run_name: run.data.metrics for run in runs}
    (tiger,) = (metrics for name, metrics in logged.items() if " tiger " in name and "seed 0" in name)
    assert tiger["search_error_at_10"] == pytest.approx(diagnostics["search_error_at_10"])
    for scores in (stages / "score").glob("*/scores.parquet"):
        values = np.array(pq.read_table(scores)["ndcg_at_10"])
        assert len(values) > 100
        assert math.isfinite(values.mean())
    (page,) = (stages / "report").glob("*/report.html")
    for name in (*BASELINES, "sasrec", "both", "search error of the beam"):
        assert name in page.read_text().lower()
