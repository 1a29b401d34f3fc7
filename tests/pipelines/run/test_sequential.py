from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.config.benchmark import BenchmarkConfig
from pipelines.names import NO_TOKENIZER
from pipelines.report.across import across_table
from pipelines.results.cell import Cell, CellName, Dataset
from pipelines.results.reading import write_results
from pipelines.results.rows import Results
from pipelines.results.summary import summarise
from pipelines.run.sequential import is_decided, looks, run_until_decided
from pipelines.tracking.scores import results_at
from recsys.evaluation.scores import QueryScores

Gritrec = Callable[..., "subprocess.CompletedProcess[str]"]
DATASET = Dataset("made-up", "da7a", "data/raw", {"users": 200})
NAMES = np.array([f"u{i:03}" for i in range(200)])


def benchmark(
    seeds: int, lead: float, *, looks: int = 1, only: Sequence[str] = ("a", "b"), data: Dataset = DATASET
) -> Results:
    """Two tokenizers of which b leads, whose trainings differ by about .01, and a baseline far below."""
    rng = np.random.default_rng(0)
    users = rng.uniform(0.3, 0.5, 200)
    cells = [Cell(CellName(NO_TOKENIZER, "popularity", 0), None, scores(users * 0.2), 1.0, "p")]
    for seed in range(seeds):
        for name in ("a", "b"):
            values = users + rng.normal(0, 0.01) + rng.normal(0, 0.05, 200) + (lead if name == "b" else 0)
            if name in only:
                cells.append(Cell(CellName(name, "dual-encoder", seed), None, scores(values), 1.0, name))
    return summarise("x", data, "", cells, reference=only[0], looks=looks)


def scores(values: np.ndarray) -> QueryScores:
    return QueryScores(NAMES, {"ndcg_at_10": values}, "d")


def config(**changes: object) -> BenchmarkConfig:
    values = {
        "name": "x",
        "data": {"reader": "amazon", "shop": {"users": 50}},
        "tokenizers": ["rq-vae", "lsh"],
        "retrievers": ["dual-encoder"],
        "seeds": [3, 7],
    }
    return BenchmarkConfig.model_validate(values | changes)


def test_seeds_follow_the_largest_and_the_level_is_divided_by_the_looks() -> None:
    assert looks(config(), [], 4) == [
        ["seeds=[3, 7]", "evaluation.looks=3"],
        ["seeds=[3, 7, 8]", "evaluation.looks=3"],
        ["seeds=[3, 7, 8, 9]", "evaluation.looks=3"],
    ]
    # One seed claims nothing, so the first look has two.
    assert looks(config(seeds=[0]), [], 3) == [
        ["seeds=[0, 1]", "evaluation.looks=2"],
        ["seeds=[0, 1, 2]", "evaluation.looks=2"],
    ]


def test_seeds_on_the_command_line_begin_and_give_way() -> None:
    given = ["workspace=w", "seeds=[3, 7]", "evaluation.looks=9", "evaluation.cutoffs=[10]"]
    (only,) = looks(config(), given, 2)
    assert only == ["workspace=w", "evaluation.cutoffs=[10]", "seeds=[3, 7]", "evaluation.looks=1"]


def test_what_seeds_cannot_decide_is_refused() -> None:
    with pytest.raises(ValueError, match="--at-most 1 is below the 2 seeds"):
        looks(config(), [], 1)
    with pytest.raises(ValueError, match="no retriever uses semantic IDs"):
        looks(config(retrievers=["popularity"]), [], 8)


def test_the_best_two_decide_and_without_a_second_the_baseline() -> None:
    assert not is_decided(benchmark(2, 0.01))
    assert is_decided(benchmark(5, 0.2))
    assert not is_decided(benchmark(1, 0.2))
    assert is_decided(benchmark(3, 0.0, only=["a"]))


def test_a_benchmark_is_run_until_it_is_decided(tmp_path: Path) -> None:
    def run(settings: Sequence[str], lead: float) -> Path:
        seeds = settings[0].count(",") + 1
        folder = tmp_path / f"{lead} {seeds}"
        folder.mkdir()
        write_results(benchmark(seeds, lead, looks=int(settings[1].partition("=")[2])), folder)
        return folder

    planned = looks(config(), [], 8)
    run_until_decided(lambda settings: run(settings, 0.06), planned)
    stopped = sorted(tmp_path.glob("0.06 *"))
    assert 1 < len(stopped) < 7
    last, before = (benchmark(int(folder.name.split()[1]), 0.06, looks=7) for folder in stopped[-1:-3:-1])
    assert is_decided(last)
    assert not is_decided(before)
    run_until_decided(lambda settings: run(settings, 0.0), planned)
    assert len([*tmp_path.glob("0.0 *")]) == 7


def test_benchmarks_are_put_into_one_table(tmp_path: Path) -> None:
    write_results(benchmark(2, 0.05), tmp_path)
    first = results_at(str(tmp_path), tmp_path)
    assert results_at(str(tmp_path / "results.json"), tmp_path) == first
    others = [benchmark(2, 0.05, data=replace(DATASET, digest=str(number))) for number in range(4)]
    others.append(replace(benchmark(2, -0.05, data=replace(DATASET, digest="b")), title="other"))
    table = across_table([first, *others])
    assert [(row["retriever"], row["tokenizer"], row["mean rank"]) for row in table] == [
        ("dual-encoder", "b", "1.17"),
        ("dual-encoder", "a", "1.83"),
        ("popularity", NO_TOKENIZER, "3.00"),
    ]
    assert table[0]["95 % interval"] == "1.00 … 1.50"
    # What not all have is left out.
    assert len(across_table([first, benchmark(2, 0.0, only=["a"], data=replace(DATASET, digest="c"))])) == 2


def test_what_is_no_set_of_benchmarks_is_refused(tmp_path: Path) -> None:
    one = benchmark(2, 0.05)
    with pytest.raises(ValueError, match="given twice"):
        across_table([one, one])
    with pytest.raises(ValueError, match="different main metrics: ndcg_at_10, recall_at_10"):
        across_table([one, replace(one, metric="recall_at_10")])
    with pytest.raises(ValueError, match=r"holds no results\.json"):
        results_at(str(tmp_path), tmp_path)
    with pytest.raises(ValueError, match=r"say where the benchmark ran with --workspace"):
        results_at("0123abcd", tmp_path)


@pytest.mark.slow
def test_the_commands(tiny: Path, gritrec: Gritrec, tmp_path: Path) -> None:
    command = ["run", tiny, "--set", f"workspace={tmp_path}", "--until-decided", "--at-most", "3"]
    shown = gritrec(*command).stdout
    looked = [line for line in shown.splitlines() if line.startswith(("Look 1", "Look 2"))]
    assert looked[0].startswith("Look 1 of at most 2, seeds=[0, 1]: ")
    assert [line.rpartition(" ")[2] for line in looked] in (
        ["decided."],
        ["undecided.", "decided."],
        ["undecided."] * 2,
    )
    assert "The level is .05 / 2 = 0.0250" in shown
    assert "Nothing to do" in gritrec(*command).stdout
    reports = [str(path.parent) for path in sorted(tmp_path.glob("stages/**/results.json"))]
    assert len(reports) == len(looked)
    again = gritrec("compare", "--across", reports[0], reports[0], exit_code=1)
    assert "given twice" in again.stderr
    other = gritrec("run", tiny, "--set", f"workspace={tmp_path}", "--set", "data.shop.seed=5")
    assert "Look 1" not in other.stdout
    (new,) = {str(path.parent) for path in tmp_path.glob("stages/**/results.json")} - {*reports}
    table = gritrec("compare", "--across", reports[0], new).stdout
    assert "mean rank" in table
    assert "popularity" in table
    assert "fewer than 6 benchmarks" in table
    assert "give two runs" in gritrec("compare", new, exit_code=1).stderr
