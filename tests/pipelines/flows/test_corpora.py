"""The benchmark of every corpus, made up and small: from its owner's format to the table of significance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.config.benchmark import BenchmarkConfig
from pipelines.config.loading import load_config
from pipelines.report.html import html_report
from pipelines.results.reading import read_results
from pipelines.results.rows import Results
from pipelines.run.plan import plan
from pipelines.run.store import Store
from recsys.datasets.readers import READERS
from recsys.evaluation.significance import Comparison

EXPERIMENTS = Path(__file__).parents[3] / "pipelines" / "experiments"

SMALL = (
    "seeds=[0]",
    "text={encoder: lsa, dimensions: 16}",
    "semantic_ids={levels: 2, codebook_size: 8}",
    "tokenizers=[rq-kmeans, random-id]",
    "evaluation.reference=rq-kmeans",
)
TRAINING = {"steps": 6, "batch_size": 32, "evaluate_every": 3}
SIZES = {
    "dual-encoder": {"width": 16, "heads": 2, "feed_forward": 16, "training": TRAINING},
    "tiger": {
        "width": 16,
        "layers": 1,
        "heads": 2,
        "head_width": 8,
        "feed_forward": 16,
        "search": {"beam": 4},
        "training": TRAINING,
    },
}


def run(config: BenchmarkConfig) -> tuple[Results, Path]:
    """All stages, one after the other, without Prefect; and the folder of the corpus."""
    steps, store = plan(config), Store(config.workspace / "stages")
    for step in (*steps.steps(), steps.report):
        store.make(step)
    return read_results(store.folder(steps.report)), store.folder(steps.corpus)


def made_up(file: str, data: str, workspace: Path) -> BenchmarkConfig:
    settings = [*SMALL, f"data={data}", f"workspace={workspace}"]
    for number, retriever in enumerate(load_config(EXPERIMENTS / file).retrievers):
        if retriever.kind in SIZES:
            settings.append(f"retrievers.{number}.params={json.dumps(SIZES[retriever.kind])}")
    return load_config(EXPERIMENTS / file, settings)


CORPORA = [
    ("beauty.yaml", "{reader: amazon, shop: {users: 150, items: 120}}"),
    ("amazon2018.yaml", "{reader: amazon, release: 2018, shop: {users: 150, items: 120}}"),
    ("amazon2023.yaml", "{reader: amazon, release: 2023, shop: {users: 150, items: 120}}"),
    ("movielens.yaml", "{reader: movielens, shop: {users: 150, items: 120}}"),
    ("sequences.yaml", "{reader: sequences, shop: {users: 150, items: 120}}"),
    ("your-data.yaml", "{reader: table, shop: {users: 150, items: 120}}"),
    ("esci.yaml", "{reader: esci, shop: {users: 400, items: 120}}"),
    ("jdsearch.yaml", "{reader: jdsearch, shop: {users: 150, items: 120}}"),
]


def test_every_reader_has_a_benchmark() -> None:
    assert {load_config(EXPERIMENTS / file).data.reader for file, _ in CORPORA} == set(READERS.builtin)


@pytest.mark.parametrize(("file", "data"), CORPORA)
def test_a_corpus_goes_all_the_way(file: str, data: str, tmp_path: Path) -> None:
    results, corpus = run(made_up(file, data, tmp_path))
    about = json.loads((corpus / "corpus.json").read_text())
    learned = {one.kind for one in load_config(EXPERIMENTS / file).retrievers if one.kind in SIZES}
    rows = {(row.tokenizer, row.retriever): row for row in results.rows}
    assert set(rows) >= {(name, kind) for name in ("rq-kmeans", "random-id") for kind in learned}
    tests = [row.comparison for row in rows.values() if row.comparison]
    assert len(tests) == len(learned)  # random-id against rq-kmeans under each retriever
    assert all(test.low <= test.difference <= test.high for test in tests)
    assert results.dataset.counts["items"] == about["items"]
    assert {row.retriever for row in results.baselines()} >= {"popularity"}
    assert "random-id" in html_report(results)


LEARNS = """
name: planted
text: {dimensions: 32}
semantic_ids: {levels: 3, codebook_size: 16}
tokenizers: [random-id, rq-kmeans]
retrievers:
  - kind: dual-encoder
    params:
      {width: 32, heads: 2, feed_forward: 32, training: {steps: 150, batch_size: 64, learning_rate: 0.01}}
evaluation: {cutoffs: [10], reference: random-id}
"""


@pytest.fixture
def learns(tmp_path: Path) -> Path:
    """A benchmark, but for its data."""
    path = tmp_path / "learns.yaml"
    path.write_text(LEARNS)
    return path


def comparison(learns: Path, data: str) -> Comparison:
    """k-means against random codes."""
    results, _ = run(load_config(learns, [f"data={data}", f"workspace={learns.parent}"]))
    (found,) = (row.comparison for row in results.rows if row.comparison)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["amazon", "esci"])
def test_where_content_tells_content_beats_codes_at_random(reader: str, learns: Path) -> None:
    found = comparison(learns, f"{{reader: {reader}, shop: {{users: 800, items: 300}}}}")
    assert found.tests["users"].verdict == "better"
    assert found.verdict == "undecided"  # one seed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_tells_there_is_no_strong_evidence(seed: int, learns: Path) -> None:
    """With a single seed p is below .05 in one shop of twenty, depending on rounding, but not below .001."""
    found = comparison(
        learns, f"{{reader: amazon, shop: {{users: 800, items: 300, signal: 0, seed: {seed}}}}}"
    )
    assert found.tests["users"].p > 0.001
    assert abs(found.difference) < 0.02


def test_a_gain_that_no_answer_has_is_named(tmp_path: Path) -> None:
    config = made_up("esci.yaml", "{reader: esci, shop: {users: 100, items: 120}}", tmp_path)
    evaluation = config.evaluation.model_copy(update={"relevant_gain": 9.0})
    with pytest.raises(ValueError, match="no target has a gain of 9; the highest is 1: lower evaluation"):
        run(config.model_copy(update={"evaluation": evaluation}))


def test_items_that_all_have_one_text_are_no_task_for_tokenizers(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u{n % 9},i{n % 7},{n}\n" for n in range(63))
    )
    data = f"data={{reader: table, raw: {tmp_path}, interactions: log.csv}}"
    config = load_config(EXPERIMENTS / "your-data.yaml", [*SMALL, data, f"workspace={tmp_path / 'w'}"])
    with pytest.raises(ValueError, match="all 7 items have the same text, 'Unknown item'"):
        run(config)
