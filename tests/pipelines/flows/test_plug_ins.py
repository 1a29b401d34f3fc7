"""One benchmark with a plug-in of every kind: tokenizer, retriever, metric, reader and text encoder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.config.loading import load_config
from pipelines.results.reading import read_results
from pipelines.run.plan import plan
from recsys.evaluation.scores import QueryScores

MINE = '''
import string
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recsys.datasets.corpus import EVENTS, ITEMS, JUDGEMENTS, QUERIES, Corpus, items_of
from recsys.datasets.interactions import interactions_of
from recsys.datasets.readers import reader
from recsys.evaluation.metrics import Metric
from recsys.retrievers.base import Retriever
from recsys.retrievers.top_k import top_items
from recsys.texts.encoder import TextEncoder
from semantic_ids import Tokenizer


@reader(search=True)
def read_questions(questions: Path, *, per_split: int = 40) -> Corpus:
    """Read a line per question: its text, and the item that answers it."""
    rows = [line.split(",") for line in questions.read_text().splitlines()]
    names = sorted({item for _, item in rows})
    metadata = pl.DataFrame(
        [(name, f"{name} thing", "", [], "") for name in names], schema=ITEMS, orient="row"
    )
    splits = ["train", "valid", "test"]
    asked = [
        (f"q{number:04}", splits[number // per_split], text, "", 0) for number, (text, _) in enumerate(rows)
    ]
    answers = [(f"q{number:04}", item, 1.0) for number, (_, item) in enumerate(rows)]
    nobody = pl.DataFrame(schema=EVENTS)
    return Corpus(
        items_of(pl.Series(names), metadata),
        interactions_of(nobody, item_ids=pl.Series("item_id", names)),
        pl.DataFrame(asked, schema=QUERIES, orient="row"),
        pl.DataFrame(answers, schema=JUDGEMENTS, orient="row"),
    )


class Letters(TextEncoder):
    """Counts the letters of a text."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def encode(self, texts):
        counts = [[text.count(letter) for letter in string.ascii_lowercase] for text in texts]
        return self.weight * np.array(counts, dtype=np.float32)


class Signs(Tokenizer):
    """Signs of six random projections."""

    codebook_sizes = (8, 8)

    def fit(self, embeddings, *, seed=0, on_step=None):
        self.planes = torch.randn(embeddings.shape[1], 6, generator=torch.Generator().manual_seed(seed))
        return self

    def encode(self, embeddings):
        bits = (embeddings @ self.planes > 0).long().view(-1, 2, 3)
        return (bits << torch.arange(3)).sum(dim=2)


class SharedWords(Retriever):
    """Ranks items by the cosine of their texts\' vectors, on average over items with the same first code."""

    needs_query_texts = True
    is_random = False

    def learn(self, data, context):
        texts, targets = data.train.texts, data.train.targets
        self.centres = torch.zeros(data.ids.codebook_sizes[0], texts.vectors.shape[1])
        codes = torch.from_numpy(data.ids.codes[targets.flat(), 0])
        self.centres.index_add_(0, codes, torch.from_numpy(texts.vectors[data.train.text_rows]))

    def candidates(self, queries, width):
        scores = queries.texts.vectors[queries.text_rows] @ self.centres.numpy().T
        return top_items(scores[:, self.ids.codes[:, 0]], width)


def precision(judged, k):
    """Return the share of the first k items that are relevant."""
    return judged.hits[:, :k].mean(axis=1)


PRECISION = Metric("precision", "Precision", precision)
'''

BENCHMARK = """
name: all-mine
data: {reader: "all_mine:read_questions", raw: ., questions: questions.csv}
text: {encoder: "all_mine:Letters", params: {weight: 2.0}}
semantic_ids: {levels: 2, codebook_size: 8}
tokenizers: [rq-kmeans, "all_mine:Signs"]
retrievers: ["all_mine:SharedWords", bm25]
evaluation:
  cutoffs: [5, 10]
  metrics: [recall, ndcg, "all_mine:PRECISION"]
  metric: precision_at_5
  reference: rq-kmeans
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "all_mine.py").write_text(MINE)
    (folder / "benchmark.yaml").write_text(BENCHMARK)
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(30)]
    lines = [f"{names[number % 30]} please,{names[number % 30]}" for number in range(120)]
    (folder / "questions.csv").write_text("\n".join(lines) + "\n")
    return folder


def python(folder: Path, environment: Mapping[str, str], *arguments: str) -> str:
    """Run Python in a folder, and return what it prints."""
    path = os.pathsep.join([str(Path(__file__).parents[3] / part) for part in ("", "tokenizers")])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def printed(folder: Path, environment: Mapping[str, str]) -> str:
    """What `gritrec run` prints, which finds the module in the current folder."""
    return python(folder, environment, "-m", "pipelines.cli", "run", "benchmark.yaml")


def test_all_five_are_in_the_report(folder: Path, printed: str) -> None:
    (report,) = (folder / "workspace" / "stages" / "report").iterdir()
    results = read_results(report)
    assert results.label == "Precision@5"
    rows = {(row.retriever, row.tokenizer): row.means for row in results.rows}
    assert set(rows) == {("SharedWords", "rq-kmeans"), ("SharedWords", "Signs"), ("bm25", "–")}
    # Every query has one answer, so precision is recall over 5, and bm25 knows every word.
    for means in rows.values():
        assert means["precision_at_5"] == pytest.approx(means["recall_at_5"] / 5)
    assert rows["bm25", "–"]["recall_at_5"] == 1.0
    assert rows["SharedWords", "rq-kmeans"]["recall_at_10"] > 10 / 30  # better than chance
    html = (report / "report.html").read_text()
    for name in ("SharedWords", "Signs", "Precision@5", "Precision@10"):
        assert name in html
        assert name in printed or name == "Precision@10"


def test_all_five_are_in_mlflow(folder: Path, printed: str) -> None:
    client = MlflowClient(f"sqlite:///{folder / 'workspace' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("all-mine")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    cell = runs["Signs · SharedWords · seed 0"]
    assert cell.data.params["fit.kind"] == "all_mine:SharedWords"
    assert cell.data.params["tokenize.class"] == "all_mine:Signs"
    assert cell.data.metrics["precision_at_5"] > 0
    benchmark = runs["all-mine"]
    assert benchmark.data.params["data.reader"] == "all_mine:read_questions"
    assert benchmark.data.params["text.encoder"] == "all_mine:Letters"
    assert benchmark.data.tags["gritrec.metric"] == "precision_at_5"


def test_scores_are_those_of_the_metric(folder: Path, printed: str) -> None:
    (scores,) = (folder / "workspace" / "stages" / "score").glob("bm25*")
    read = QueryScores.read(scores / "scores.parquet")
    assert list(read.columns) == [f"{m}_at_{k}" for k in (5, 10) for m in ("recall", "ndcg", "precision")]
    assert {*read.columns["precision_at_5"]} == {0.2}


def test_a_change_of_a_plug_in_repeats_the_step_that_it_works_in(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "questions.csv").write_text((folder / "questions.csv").read_text())
    (tmp_path / "benchmark.yaml").write_text(BENCHMARK)
    settings = []
    for comment in ("", "# changed\n"):
        (tmp_path / "all_mine.py").write_text(comment + MINE)
        monkeypatch.delitem(sys.modules, "all_mine", raising=False)
        settings.append({step.title: step.config for step in plan(load_config("benchmark.yaml")).steps()})
    before, after = settings
    changed = {title for title in before if before[title] != after[title]}
    assert changed == {
        "ingest all-mine",
        "embed all-mine all_mine:Letters",
        "tokenize Signs seed 0",  # but not rq-kmeans, whose own settings stay
        "fit SharedWords rq-kmeans seed 0",
        "fit SharedWords Signs seed 0",  # but not bm25
        "score SharedWords rq-kmeans seed 0",
        "score SharedWords Signs seed 0",
        "score bm25 seed 0",  # the metric is the benchmark's
    }


def test_a_run_reads_plans_and_tests_once(
    folder: Path, printed: str, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]
) -> None:
    """The command plans once and passes the plan on; cells are read once, and so are the statistics made."""
    counted = ("load_config", "plan", "read_cell", "summarise", "html_report")
    script = f"""
import json, sys
from collections import Counter
import pipelines.config.loading, pipelines.run.plan, pipelines.run.flows, pipelines.run.stages
import pipelines.results.reading, pipelines.results.summary, pipelines.cli
counts = Counter()

def counting(name, function):
    def call(*arguments, **options):
        counts[name] += 1
        return function(*arguments, **options)
    return call

modules = [module for name, module in sys.modules.items() if name.startswith("pipelines")]
for name in {counted!r}:
    functions = {{getattr(module, name) for module in modules if callable(getattr(module, name, None))}}
    (function,) = functions
    for module in modules:
        if getattr(module, name, None) is function:
            setattr(module, name, counting(name, function))
sys.argv = ["gritrec", "run", "benchmark.yaml", "--set", "seeds=[0, 1]", "--set", "workspace=counted"]
try:
    pipelines.cli.main()
except SystemExit as end:
    assert not end.code
print(json.dumps(counts))
"""
    shown = python(folder, environment, "-c", script)
    # Five cells: two tokenizers under one retriever with two seeds each, and a baseline that is not random.
    expected = {"load_config": 1, "plan": 1, "read_cell": 5, "summarise": 1, "html_report": 1}
    assert json.loads(shown.splitlines()[-1]) == expected
