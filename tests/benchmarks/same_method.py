"""How often verdicts tell trainings of one and the same method apart, on real scores.

``python -m tests.benchmarks.same_method FILE [KEY=VALUE]…`` runs the benchmark file with one tokenizer, one
retriever and eight seeds. Then the seeds are dealt to made-up methods at random, 200 times, and the methods
are compared. Steps that are done are not repeated. For Beauty: ``pipelines/experiments/beauty.yaml
data.raw=FOLDER workspace=FOLDER``.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from pipelines.config.loading import load_config
from pipelines.run.execution import execute
from pipelines.run.plan import plan
from pipelines.run.store import Store
from recsys.evaluation.hypothesis_tests import ALPHA, TESTS, Family
from recsys.evaluation.metrics import Scores
from recsys.evaluation.scores import QueryScores
from recsys.evaluation.significance import holm
from recsys.evaluation.uncertainty import Trainings

SEEDS, SPLITS = 8, 200
TOKENIZER, RETRIEVER = "rq-kmeans", "dual-encoder"


def scores_of_seeds(file: str, settings: list[str]) -> Scores:
    """Return the scores of eight trainings of one method, ``(S, Q)``."""
    config = load_config(
        Path(file),
        [
            *settings,
            f"seeds={[*range(SEEDS)]}",
            f"tokenizers=[{TOKENIZER}]",
            f"evaluation.reference={TOKENIZER}",
        ],
    )
    retriever = config.retriever(RETRIEVER)
    config = config.model_copy(update={"retrievers": (retriever,), "name": f"{config.name}-same-method"})
    planned, store = plan(config), Store(config.workspace / "stages")
    execute(planned)
    runs = [QueryScores.read(store.folder(cell.steps[-1]) / "scores.parquet") for cell in planned.cells]
    return np.stack([run.values(config.evaluation.metric) for run in runs])


def claims(scores: Scores, methods: int, test: str, rng: np.random.Generator) -> bool:
    """Deal seeds to methods at random; return whether a test claims any difference between them."""
    dealt = rng.permutation(len(scores)).reshape(methods, -1)
    family = Family(
        np.stack([scores[seeds].mean(axis=0) for seeds in dealt]),
        [*combinations(range(methods), 2)],
        [Trainings.of(scores[seeds]) for seeds in dealt],
    )
    return bool(holm([result.p or 0.0 for result in TESTS[test].function(family)]).min() < ALPHA)


def main() -> None:
    """Print the share of splits with a claim, by the test that decides and by users alone."""
    scores = scores_of_seeds(sys.argv[1], sys.argv[2:])
    one = Trainings.of(scores)
    means = scores.mean(axis=1)
    pairs = [(scores[a] - scores[b]) for a, b in combinations(range(SEEDS), 2)]
    over_users = float(np.mean([pair.var(ddof=1) for pair in pairs])) / scores.shape[1]
    print(f"means of seeds: {', '.join(f'{mean:.4f}' for mean in means)}")
    print(f"error over trainings ÷ error over users, one seed: {np.sqrt(2 * one.variance / over_users):.2f}")
    print(f"residual: {one.residual * 2 / over_users:.2f} of the variance over users")
    apart = [test.p for test in TESTS["users"].function(Family(scores, [*combinations(range(SEEDS), 2)]))]
    print(f"pairs of seeds, by users alone: {np.mean(np.array(apart) < ALPHA):.0%} of {len(apart)} below .05")
    for methods in (2, 4):
        for test in ("t_test", "users"):
            rng = np.random.default_rng(0)
            share = np.mean([claims(scores, methods, test, rng) for _ in range(SPLITS)])
            label = TESTS[test].label
            print(f"{methods} methods × {SEEDS // methods} seeds, {label}: {share:.1%} of {SPLITS} splits")


if __name__ == "__main__":
    main()
