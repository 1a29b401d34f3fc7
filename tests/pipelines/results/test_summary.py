from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pipelines.names import NO_RETRIEVER, NO_TOKENIZER
from pipelines.results.categories import CodeCategories
from pipelines.results.cell import Cell, CellIds, CellName, Dataset
from pipelines.results.rows import Results
from pipelines.results.summary import summarise
from recsys.evaluation.scores import QueryScores
from recsys.evaluation.significance import holm

DATASET = Dataset("made-up", "da7a", "data/raw", {"users": 60})
SHIFTS = {"rq-vae": 0.0, "grit-vq": 0.08, "lsh": -0.08}


def cell(tokenizer: str, retriever: str, seed: int, values: np.ndarray, quality: Mapping[str, float]) -> Cell:
    """With semantic IDs of its own for each seed."""
    ids = np.array([f"u{i:03}" for i in range(len(values))])
    scores = QueryScores(ids, {"recall_at_10": np.round(values), "ndcg_at_10": values}, "d")
    codes = f"{tokenizer} {seed}"
    semantic_ids = None if tokenizer == NO_TOKENIZER else CellIds(codes, quality, "shared")
    return Cell(CellName(tokenizer, retriever, seed), semantic_ids, scores, 10.0 + seed, "digest")


def changed(one: Cell, **changes: object) -> Cell:
    """Return a cell with other semantic IDs: ``digest`` or ``quality``."""
    return replace(one, ids=replace(one.ids, **changes))


def benchmark() -> list[Cell]:
    """Two retrievers × three tokenizers × two seeds, and a baseline; planted differences under the first."""
    rng = np.random.default_rng(0)
    users = rng.uniform(0.2, 0.8, 60)
    cells = []
    for retriever, strength in (("dual-encoder", 1.0), ("tiger", 0.0)):
        for tokenizer, shift in SHIFTS.items():
            for seed in (0, 1):
                values = users + strength * shift + rng.normal(0, 0.05, 60)
                cells.append(cell(tokenizer, retriever, seed, values, {"collision_rate": seed}))
    return [cell(NO_TOKENIZER, "popularity", 0, users / 2, {}), *cells]


def summary(cells: list[Cell]) -> Results:
    return summarise("made-up", DATASET, "leave-one-out", cells, reference="rq-vae")


def test_a_row_averages_over_seeds_and_users() -> None:
    cells = benchmark()
    (row,) = [r for r in summary(cells).rows if (r.tokenizer, r.retriever) == ("grit-vq", "tiger")]
    runs = [c.scores for c in cells if (c.name.tokenizer, c.name.retriever) == ("grit-vq", "tiger")]
    first, second = (run.columns["ndcg_at_10"] for run in runs)
    assert row.seeds == 2
    assert row.means["ndcg_at_10"] == pytest.approx((first.mean() + second.mean()) / 2)
    assert row.means["recall_at_10"] == pytest.approx(np.mean([r.columns["recall_at_10"] for r in runs]))
    assert row.seed_spread == pytest.approx(abs(first.mean() - second.mean()) / np.sqrt(2))
    interval = stats.ttest_1samp((first + second) / 2, 0).confidence_interval()
    assert row.interval == pytest.approx(tuple(interval))
    assert (row.quality, row.seconds) == ({"collision_rate": 0.5}, 10.5)


def test_tokenizers_are_tested_against_the_reference_in_one_family() -> None:
    cells = benchmark()
    results = summary(cells)

    def of_users(tokenizer: str, retriever: str) -> np.ndarray:
        found = [c.scores for c in cells if (c.name.tokenizer, c.name.retriever) == (tokenizer, retriever)]
        return np.mean([scores.columns["ndcg_at_10"] for scores in found], axis=0)

    tests = {(r.retriever, r.tokenizer): r.comparison for r in results.rows if r.comparison}
    pairs = [(retriever, t) for retriever in ("dual-encoder", "tiger") for t in ("grit-vq", "lsh")]
    expected = {pair: stats.ttest_rel(of_users(*pair[::-1]), of_users("rq-vae", pair[0])) for pair in pairs}
    assert tests.keys() == expected.keys()
    for pair, test in tests.items():
        assert test.tests["users"].p == pytest.approx(expected[pair].pvalue, rel=1e-9)
        within = expected[pair].confidence_interval()
        assert test.low < within.low < within.high < test.high  # trainings make it wider
    # Three pairs under each of two retrievers; one that is not shown has the smallest p.
    smallest = min(tests.values(), key=lambda test: test.p)
    assert smallest.p == pytest.approx(5 * smallest.tests["t_test"].p)


def test_verdicts_find_what_was_planted_and_nothing_else() -> None:
    results = summary(benchmark())
    found = {(r.retriever, r.tokenizer): results.verdict(r) for r in results.rows}
    assert found == {
        ("dual-encoder", "grit-vq"): "better",
        ("dual-encoder", "rq-vae"): "reference",
        ("dual-encoder", "lsh"): "worse",
        ("tiger", "grit-vq"): "undecided",
        ("tiger", "rq-vae"): "reference",
        ("tiger", "lsh"): "undecided",
        ("popularity", NO_TOKENIZER): "baseline",
    }


def with_baselines() -> list[Cell]:
    """The benchmark, with a better baseline that is trained, and has a seed more."""
    trained = [
        cell(NO_TOKENIZER, "sasrec", c.name.seed, c.scores.columns["ndcg_at_10"] + 0.04, {})
        for c in benchmark()
        if (c.name.tokenizer, c.name.retriever) == ("rq-vae", "dual-encoder")
    ]
    return [*benchmark(), *trained, replace(trained[0], name=trained[0].name._replace(seed=2))]


def test_rows_stand_best_first_and_baselines_last() -> None:
    results = summary(with_baselines())
    retrievers = ["dual-encoder"] * 3 + ["tiger"] * 3 + ["sasrec", "popularity"]
    assert [r.retriever for r in results.rows] == retrievers
    for rows in results.by_retriever().values():
        means = [r.means["ndcg_at_10"] for r in rows]
        assert means == sorted(means, reverse=True)
    assert [(r.retriever, r.seeds, results.verdict(r)) for r in results.baselines()] == [
        ("sasrec", 3, "baseline"),
        ("popularity", 1, "baseline"),
    ]


def test_every_tokenizer_is_held_against_the_best_baseline_in_a_family_of_its_own() -> None:
    cells = with_baselines()
    results = summary(cells)
    sasrec = results.baselines()[0]

    def of_users(tokenizer: str, retriever: str) -> np.ndarray:
        found = [c.scores for c in cells if (c.name.tokenizer, c.name.retriever) == (tokenizer, retriever)]
        return np.mean([scores.columns["ndcg_at_10"] for scores in found], axis=0)

    tests = {(r.tokenizer, r.retriever): r.to_baseline for r in results.rows if r.tokenizer != NO_TOKENIZER}
    baseline = of_users(NO_TOKENIZER, "sasrec")
    expected = {pair: stats.ttest_rel(of_users(*pair), baseline).pvalue for pair in tests}
    assert {pair: test.tests["users"].p for pair, test in tests.items()} == pytest.approx(expected)
    adjusted = holm([test.tests["t_test"].p for test in tests.values()])
    assert [test.p for test in tests.values()] == pytest.approx(adjusted)
    assert [test.mean_a for test in tests.values()] == pytest.approx([sasrec.means["ndcg_at_10"]] * 6)
    assert tests["lsh", "dual-encoder"].verdict == "worse"
    assert {row.to_baseline for row in results.baselines()} == {None}
    without = summary([c for c in cells if c.name.tokenizer != NO_TOKENIZER])
    assert {row.to_baseline for row in without.rows} == {None}
    # Baselines change nothing of how tokenizers compare with each other.
    assert [r.comparison for r in results.rows[:6]] == [r.comparison for r in without.rows]


def test_diagnostics_of_a_retriever_are_averaged_over_seeds() -> None:
    told = {
        ("grit-vq", 0): {"search_error_at_10": 0.02, "chosen": "k 50", "lost": 1},
        ("grit-vq", 1): {"search_error_at_10": 0.04, "chosen": "k 20"},
        (NO_TOKENIZER, 0): {"neighbours": 50},
    }
    cells = [
        replace(
            c,
            diagnostics=told.get((c.name.tokenizer, c.name.seed), {}) if c.name.retriever != "tiger" else {},
        )
        for c in benchmark()
    ]
    results = summary(cells)
    found = {(r.retriever, r.tokenizer): r.diagnostics for r in results.rows if r.diagnostics}
    assert found == {
        ("dual-encoder", "grit-vq"): {"search_error_at_10": pytest.approx(0.03)},
        ("popularity", NO_TOKENIZER): {"neighbours": 50},
    }
    assert results.diagnostic_names() == ["search_error_at_10", "neighbours"]
    records = results.score_records()
    assert [r["search_error_at_10"] for r in records] == [pytest.approx(0.03), *[None] * 6]
    assert records[-1]["neighbours"] == 50


def test_one_seed_has_no_spread() -> None:
    results = summary([c for c in benchmark() if c.name.seed == 0])
    assert {r.seed_spread for r in results.rows} == {None}
    assert all(r.spreads == {} for r in results.tokenizers)


def test_semantic_ids_are_summarised_once_however_many_retrievers_use_them() -> None:
    cells = benchmark()
    three = [
        replace(
            changed(c, quality={"collision_rate": 5}, digest=f"{c.name.tokenizer} 2"),
            name=c.name._replace(seed=2),
        )
        for c in cells
        if c.name.seed == 1
    ]
    results = summary([*cells, *three])
    assert [(r.tokenizer, r.seeds) for r in results.tokenizers] == [(name, 3) for name in SHIFTS]
    for row in results.tokenizers:  # 0, 1 and 5: mean 2, squares 4 + 1 + 9 over 3 − 1
        assert row.means == {"collision_rate": 2}
        assert row.spreads == {"collision_rate": pytest.approx(7**0.5)}


def test_seeds_that_share_a_table_of_codes_are_one_seed_of_the_tokenizer() -> None:
    given = [changed(c, digest="one table") if c.name.tokenizer == "grit-vq" else c for c in benchmark()]
    results = summary(given)
    assert results.single_tables() == ["grit-vq"]
    assert [(r.tokenizer, r.seeds, bool(r.spreads)) for r in results.tokenizers] == [
        ("rq-vae", 2, True),
        ("grit-vq", 1, False),
        ("lsh", 2, True),
    ]
    assert {r.seeds for r in results.rows if r.tokenizer == "grit-vq"} == {
        2
    }  # so often a retriever was trained
    marks = {(r["tokenizer"], r["single_table"]) for r in results.significance_records()}
    assert marks == {("grit-vq", True), ("lsh", False), ("rq-vae", False)}
    as_reference = summarise("made-up", DATASET, "", given, reference="grit-vq").significance_records()
    assert {r["single_table"] for r in as_reference if r["reference"] == "grit-vq"} == {True}
    assert summary(benchmark()).single_tables() == []
    assert summary([c for c in given if c.name.seed == 0]).single_tables() == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_figure_that_a_seed_lacks_is_left_out(order: int) -> None:
    cells = [c for c in benchmark() if (c.name.tokenizer, c.name.retriever) == ("rq-vae", "tiger")]
    whole = changed(cells[0], quality={"collision_rate": 0.2, "distortion_per_bit": 0.1})
    results = summary([whole, changed(cells[1], quality={"collision_rate": 1.0})][::order])
    assert results.rows[0].quality == {"collision_rate": pytest.approx(0.6)}
    assert results.tokenizers[0].means == {"collision_rate": pytest.approx(0.6)}


def alone(tokenizer: str, seed: int, **quality: float) -> Cell:
    """A cell of tokenizers alone, with curves and categories that tell its seed."""
    curves = {"tokenize_loss": [(1, float(seed))]}
    categories = CodeCategories(["Tea"], [seed], [[2]])
    ids = CellIds(f"{tokenizer} {seed}", quality, "digit", categories)
    return Cell(CellName(tokenizer, NO_RETRIEVER, seed), ids, None, 1.0, "digest", curves)


def test_tokenizers_can_be_compared_without_retrievers() -> None:
    cells = [alone("lsh", 3, gini=0.2, error=1.0), alone("lsh", 4, gini=0.4), alone("rq-vae", 3, error=0.5)]
    results = summarise("made-up", DATASET, "", cells, reference="none of them")
    assert (results.rows, results.score_records(), results.significance_records()) == ([], [], [])
    lsh, rq_vae = results.tokenizers
    assert (lsh.means, lsh.spreads) == (
        {"gini": pytest.approx(0.3)},
        {"gini": pytest.approx(0.1 * 2**0.5)},
    )
    assert (lsh.collisions, lsh.curves) == ("digit", {"tokenize_loss": [(1, 3.0)]})
    assert lsh.code_categories == CodeCategories(["Tea"], [3], [[2]])
    assert (rq_vae.seeds, rq_vae.means, rq_vae.spreads) == (1, {"error": 0.5}, {})
    first, second = results.tokenizer_records()
    assert list(first) == list(second)
    assert (first["tokenizer"], first["seeds"], first["error"]) == ("lsh", 2, None)
    assert (second["error"], second["error_seed_spread"]) == (0.5, None)


def test_records_are_tidy() -> None:
    results = summary(benchmark())
    scores, tests = results.score_records(), results.significance_records()
    assert len(scores) == 7
    assert len({tuple(record) for record in scores}) == 1  # the same columns in every record
    assert scores[-1]["collision_rate"] is None
    assert {r["tokenizer"] for r in tests if r["reference_kind"] == "tokenizer"} == {"grit-vq", "lsh"}
    assert [(r["reference"], r["reference_kind"]) for r in tests] == [
        *[("rq-vae", "tokenizer")] * 4,
        *[("popularity", "baseline")] * 6,
    ]
    first = results.rows[0]
    assert first.comparison.dissent == []
    wilcoxon = first.comparison.tests["wilcoxon"]
    assert (tests[0]["wilcoxon_p_holm"], tests[0]["dissent"]) == (wilcoxon.p_adjusted, "")
    assert (tests[4]["permutation_p_holm"], tests[4]["users_p"]) == (
        first.to_baseline.tests["permutation"].p_adjusted,
        first.to_baseline.tests["users"].p,
    )
    for record in tests:
        assert record["difference"] == pytest.approx(record["mean"] - record["reference_mean"])


def test_records_tell_what_a_comparison_could_find() -> None:
    tests = summary(benchmark()).significance_records()
    unsure = next(r for r in tests if r["verdict"] == "undecided")
    assert unsure["detectable"] > abs(unsure["difference"])
    assert unsure["equivalent_within"] == pytest.approx(0.01 * unsure["reference_mean"])
    assert unsure["level"] == 0.05
    assert "more_seeds" in unsure
    assert "more_users" in unsure


def test_only_known_methods_are_deterministic_where_the_plan_tells() -> None:
    one = [c for c in benchmark() if c.name.seed == 0 or c.name.retriever == "dual-encoder"]
    told = summarise("x", DATASET, "", one, reference="rq-vae", fixed=[("popularity", NO_TOKENIZER)])
    verdicts = {(r.retriever, r.tokenizer): r.to_baseline.verdict for r in told.rows if r.to_baseline}
    assert verdicts["dual-encoder", "grit-vq"] == "better"
    assert verdicts["tiger", "grit-vq"] == "undecided"  # one seed, whose luck nobody knows
    guessed = summary(one).rows
    assert {r.to_baseline.verdict for r in guessed if r.retriever == "tiger"} == {"better"}


def test_settings_of_the_tests_reach_them() -> None:
    strict = summarise("x", DATASET, "", benchmark(), reference="rq-vae", equivalence=0.9, looks=5)
    first = strict.rows[0].comparison
    assert (first.verdict, first.level) == ("equivalent", 0.05 / 5)
    assert strict.rows[0].to_baseline.level == 0.05 / 5


def test_the_main_metric_can_be_another() -> None:
    results = summarise("x", DATASET, "", benchmark(), reference="lsh", metric="recall_at_10")
    assert {r["metric"] for r in results.significance_records()} == {"recall_at_10"}
    assert {r["reference"] for r in results.significance_records()} == {"lsh", "popularity"}


def test_what_cannot_be_summarised_is_refused() -> None:
    cells = benchmark()
    with pytest.raises(ValueError, match="without results"):
        summary([])
    with pytest.raises(ValueError, match="two results for rq-vae with tiger and seed 0"):
        summary(
            [*cells, next(c for c in cells if (c.name.tokenizer, c.name.retriever) == ("rq-vae", "tiger"))]
        )
    with pytest.raises(ValueError, match="two results for lsh with – and seed 3"):
        summary([alone("lsh", 3), alone("lsh", 3)])
    with pytest.raises(ValueError, match="no result for the reference tokenizer 'rq-vae' with tiger"):
        summary([c for c in cells if (c.name.tokenizer, c.name.retriever) != ("rq-vae", "tiger")])
    with pytest.raises(ValueError, match="different evaluation sets"):
        summary([*cells[:-1], replace(cells[-1], scores=replace(cells[-1].scores, evaluation_set="e"))])
    with pytest.raises(ValueError, match="no metric 'ndcg_at_50'"):
        summarise("x", DATASET, "", cells, reference="rq-vae", metric="ndcg_at_50")


def test_the_best_of_each_retriever_is_compared_with_the_next_best() -> None:
    results = summary(benchmark())
    for rows in results.by_retriever().values():
        best, following = rows[:2]
        assert best.to_next.mean_b == pytest.approx(best.means["ndcg_at_10"])
        assert best.to_next.mean_a == pytest.approx(following.means["ndcg_at_10"])
        assert best.to_next.difference >= 0
        assert {row.to_next for row in rows[1:]} == {None}
