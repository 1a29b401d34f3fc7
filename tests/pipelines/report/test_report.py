from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from pipelines.names import NO_TOKENIZER
from pipelines.report.charts import category_maps, score_chart, usage_curves
from pipelines.report.console import console_report
from pipelines.report.formatting import (
    decimal,
    diagnostic_label,
    diagnostic_value,
    mean_and_spread,
    percent,
)
from pipelines.report.html import html_report
from pipelines.report.overview import Overview
from pipelines.report.tables import reference_table, score_table, tokenizer_table
from pipelines.report.verdicts import verdicts
from pipelines.results.categories import CodeCategories
from pipelines.results.cell import CellName, Dataset, Failure
from pipelines.results.rows import Results, Row, TokenizerRow
from pipelines.screen import Screen
from recsys.evaluation.hypothesis_tests import TestResult
from recsys.evaluation.significance import Comparison, Outlook

LABELS = {"recall_at_10": "Recall@10", "ndcg_at_10": "NDCG@10"}


def compared(mean: float, against: float, p: float | None, outlook: Outlook | None = None) -> Comparison:
    """All tests agree; without a p there is one seed."""
    gap = mean - against
    over_users = TestResult(p and p / 2, gap, p_adjusted=p)
    return Comparison(
        mean_a=against,
        mean_b=mean,
        difference=gap,
        low=gap - 0.0017,
        high=gap + 0.0017,
        effect_size=0.1,
        n=100,
        tests={
            "t_test": over_users,
            "users": over_users,
            "wilcoxon": over_users,
            "permutation": over_users,
            "mcnemar": TestResult(None, gap),
        },
        outlook=outlook or Outlook(0.0025, has_one_seed=p is None),
    )


def altered(comparison: Comparison, **tests: dict[str, float]) -> Comparison:
    """Return a comparison in which some tests found something else."""
    found = {name: replace(comparison.tests[name], **changes) for name, changes in tests.items()}
    return replace(comparison, tests={**comparison.tests, **found})


def row(
    tokenizer: str,
    mean: float,
    *,
    against: float | None = None,
    p: float | None = 1.0,
    outlook: Outlook | None = None,
    to_next: bool = False,
    retriever: str = "dual-encoder",
    quality: dict[str, float] | None = None,
    diagnostics: dict[str, float] | None = None,
    baseline: Comparison | None = None,
) -> Row:
    """A row with score ``mean``, compared with a reference of score ``against`` at an adjusted ``p``."""
    test = None if against is None else compared(mean, against, p, outlook)
    means = {"recall_at_10": 2 * mean, "ndcg_at_10": mean}
    return Row(
        tokenizer,
        retriever,
        3,
        means,
        (mean - 0.001, mean + 0.002),
        0.0004,
        quality or {},
        diagnostics or {},
        1.0,
        test,
        test if to_next else None,
        baseline,
    )


def results(*rows: Row, tokenizers: Sequence[TokenizerRow] = ()) -> Results:
    data = Dataset("made-up-shop", "da7a", "data/raw", {"users": 22363, "items": 12101})
    protocol = "items already seen left out"
    return Results("shops", data, protocol, "ndcg_at_10", LABELS, "rq-vae", rows, tokenizers)


GRIT = TokenizerRow(
    "grit-vq",
    3,
    {"collision_rate": 0.0123, "gini": 0.4, "dead_codes": 2.0, "purity_1": 0.75, "purity_2": 0.8},
    {"collision_rate": 0.001, "gini": 0.05, "dead_codes": 1.5, "purity_1": 0.01, "purity_2": 0.01},
    {
        "tokenize_loss": [(50, 0.5)],
        "tokenize_utilization_1": [(50, 0.25), (100, 1.0)],
        "tokenize_dead_codes_1": [(50, 3.0), (100, 0.0)],
        "tokenize_utilization_2": [(50, 0.5), (100, 0.5)],
        "tokenize_dead_codes_2": [(50, 2.0), (100, 2.0)],
    },
    CodeCategories(["Tea", "Cake"], [5, 0, 2, 7], [[1, 3], [4, 0], [3, 1], [0, 2]]),
    "shared",
)
LSH = TokenizerRow(
    "lsh", 1, {"collision_rate": 0.5}, {}, {}, CodeCategories(["Tea", "Cake"], [1], [[1, 1]]), "shared"
)
ATOMIC = TokenizerRow(
    "dense-id", 1, {"collision_rate": 0.0}, {}, {}, CodeCategories(["Tea", "Cake"], [], []), "shared"
)
TOKENIZERS_ALONE = results(tokenizers=[GRIT, LSH, ATOMIC])


MIXED = results(
    row(
        "grit-vq",
        0.0312,
        against=0.0291,
        p=0.016,
        to_next=True,
        quality={"collision_rate": 0.0123},
    ),
    row("rq-vae", 0.0291, quality={"collision_rate": 0.5}),
    row("a-tokenizer-with-a-rather-long-name", 0.0201, against=0.0291, p=0.0001),
    row(NO_TOKENIZER, 0.0055, retriever="popularity"),
    tokenizers=[GRIT, LSH],
)


@pytest.mark.parametrize(
    ("value", "places", "sign", "text"),
    [
        (0.0312, 4, False, ".0312"),
        (0.0021, 4, True, "+.0021"),
        (-0.0021, 4, True, "−.0021"),
        (1.0, 4, False, "1.0000"),
        (10.04, 1, False, "10.0"),
        (-10.5, 1, True, "−10.5"),
    ],
)
def test_numbers_are_printed_as_papers_do(value: float, places: int, sign: bool, text: str) -> None:
    assert decimal(value, places, sign=sign) == text


def test_means_stand_with_their_spread_if_there_is_one() -> None:
    assert mean_and_spread(0.448, 0.0031, decimal) == ".4480 ±.0031"
    assert mean_and_spread(0.0123, 0.001, percent) == "1.2% ±0.1%"
    assert mean_and_spread(0.5, None, percent) == "50.0%"


def test_a_real_difference_is_called_real() -> None:
    assert verdicts(MIXED) == [
        "grit-vq has the best NDCG@10 with dual-encoder (.0312); its lead over rq-vae, the next best "
        "(+.0021, 95 % CI +.0004 … +.0038) is real (p = .016 after Holm)."
    ]


def test_one_seed_wins_nothing_and_says_what_a_second_would_buy() -> None:
    best = row("grit-vq", 0.0332, against=0.0291, p=None, to_next=True)
    assert verdicts(results(best, row("rq-vae", 0.0291))) == [
        "No significant winner with dual-encoder: grit-vq has the best NDCG@10 (.0332), but its lead over "
        "rq-vae, the next best (+.0041, 95 % CI +.0024 … +.0058) could be chance. With one seed nothing is "
        "known of luck in training, so no method is called better or worse; the interval is over users "
        "alone. A second seed can decide it: over users alone, differences from ±.0025 on are found in 80 % "
        "of cases."
    ]
    small = row("grit-vq", 0.0312, against=0.0291, p=None, to_next=True)
    assert "A second seed would hardly decide it" in verdicts(results(small, row("rq-vae", 0.0291)))[0]
    (line,) = reference_table(results(best, row("rq-vae", 0.0291)))
    assert (line["p"], line["verdict"]) == ("–", "undecided")


def test_a_difference_that_may_be_chance_is_called_so() -> None:
    best = row("grit-vq", 0.0312, against=0.0302, p=0.41, to_next=True)
    assert verdicts(results(best, row("rq-vae", 0.0302))) == [
        "No significant winner with dual-encoder: grit-vq has the best NDCG@10 (.0312), but its lead over "
        "rq-vae, the next best (+.0010, 95 % CI −.0007 … +.0027) could be chance (p = .410 after Holm). "
        "Differences from ±.0025 on are found in 80 % of cases; if this one stays as it is, no number of "
        "seeds or users would decide it."
    ]
    for seeds, users, words in (
        (4, 1200, "4 more seeds or 1,200 more users would decide it."),
        (1, None, "1 more seed would decide it."),
        (None, 50_000, "50,000 more users would decide it."),
    ):
        best = row(
            "grit-vq", 0.0312, against=0.0302, p=0.41, to_next=True, outlook=Outlook(0.1, seeds, users)
        )
        assert verdicts(results(best, row("rq-vae", 0.0302)))[0].endswith(
            f"if this one stays as it is, {words}"
        )


def test_methods_that_differ_by_nothing_that_matters_are_equivalent() -> None:
    close = replace(compared(0.0312, 0.0311, 0.0001), low=-0.0001, high=0.0003)
    best = replace(row("grit-vq", 0.0312), comparison=close, to_next=close, to_baseline=close)
    found = results(best, row("rq-vae", 0.0311), row(NO_TOKENIZER, 0.0311, retriever="item-knn"))
    assert verdicts(found) == [
        "No winner with dual-encoder: grit-vq has the best NDCG@10 (.0312), but is equivalent to rq-vae, the "
        "next best (+.0001, 95 % CI −.0001 … +.0003; within ±1.0% of its score, ±.0003).",
        "grit-vq with dual-encoder is equivalent to the best baseline, item-knn: NDCG@10 .0312 against .0311 "
        "(+.0001, 95 % CI −.0001 … +.0003, p < .001 after Holm).",
    ]
    assert "equivalent" in {bar.name for bar in score_chart(found).data}


def test_results_that_are_looked_at_several_times_say_so() -> None:
    often = replace(compared(0.0312, 0.0291, 0.001), level=0.05 / 7)
    best = replace(row("grit-vq", 0.0312), comparison=often, to_next=often)
    found = results(best, row("rq-vae", 0.0291))
    assert "99.3 % CI +.0004" in verdicts(found)[0]
    assert verdicts(found)[1] == (
        "The level is .05 / 7 = 0.0071 for each family of comparisons, because these results may be looked "
        "at 7 times, with more seeds each time."
    )
    assert reference_table(found)[0]["99.3 % interval"] == "+.0004 … +.0038"
    assert "99.3 % interval" in shown(found, 100)


def test_a_reference_that_wins_is_told_from_the_next_best() -> None:
    rows = [
        replace(row("rq-vae", 0.03), to_next=row("rq-vae", 0.03, against=0.02, p=1e-9).comparison),
        row("fsq", 0.02, against=0.03, p=1e-9),
        row("lsh", 0.01, against=0.03, p=1e-12),
    ]
    assert verdicts(results(*rows)) == [
        "rq-vae has the best NDCG@10 with dual-encoder (.0300); its lead over fsq, the next best (+.0100, "
        "95 % CI +.0083 … +.0117) is real (p < .001 after Holm)."
    ]


def test_the_best_of_every_retriever_is_held_against_the_best_baseline() -> None:
    found = verdicts(
        results(
            row("rq-vae", 0.03, baseline=compared(0.03, 0.025, 0.0001)),
            row("lsh", 0.01, baseline=compared(0.01, 0.025, 0.0001), against=0.03, p=0.0001),
            row("rq-vae", 0.024, retriever="tiger", baseline=compared(0.024, 0.025, 0.3, None)),
            row("rq-vae", 0.02, retriever="dense", baseline=compared(0.02, 0.025, 0.002)),
            row(NO_TOKENIZER, 0.025, retriever="item-knn"),
            row(NO_TOKENIZER, 0.01, retriever="popularity"),
        )
    )
    assert found[-3:] == [
        "rq-vae with dual-encoder beats the best baseline, item-knn: NDCG@10 .0300 against .0250 (+.0050, "
        "95 % CI +.0033 … +.0067, p < .001 after Holm).",
        "rq-vae with tiger does not beat the best baseline, item-knn, beyond chance: NDCG@10 .0240 against "
        ".0250 (−.0010, 95 % CI −.0027 … +.0007, p = .300 after Holm).",
        "rq-vae with dense does not beat the best baseline, item-knn, but is worse: NDCG@10 .0200 against "
        ".0250 (−.0050, 95 % CI −.0067 … −.0033, p = .002 after Holm).",
    ]
    assert len(found) == 6  # with each retriever, also a sentence on the tokenizers


def test_one_seed_beats_no_baseline() -> None:
    one = row("rq-vae", 0.03, baseline=compared(0.03, 0.02, None))
    (sentence,) = verdicts(results(one, row(NO_TOKENIZER, 0.02, retriever="item-knn")))
    assert sentence.startswith(
        "rq-vae with dual-encoder does not beat the best baseline, item-knn, beyond chance"
    )
    assert sentence.endswith("95 % CI +.0083 … +.0117). With one seed nothing is claimed.")


def test_baselines_alone_are_a_result() -> None:
    baselines = [
        row(NO_TOKENIZER, 0.02, retriever="item-knn"),
        row(NO_TOKENIZER, 0.01, retriever="popularity"),
    ]
    alone = results(*baselines, tokenizers=[LSH])
    sentence = "No retriever that uses semantic IDs was run; the best baseline is item-knn (NDCG@10 .0200)."
    assert verdicts(alone) == [sentence]
    assert [line["retriever"] for line in score_table(alone)] == ["item-knn", "popularity"]
    assert "No retriever that uses semantic IDs was run" in Page(html_report(alone)).text
    assert "popularity" in shown(alone, 80)


def test_tests_that_disagree_with_the_verdict_are_named_in_one_sentence() -> None:
    sure = compared(0.0312, 0.0291, 0.016)
    ranks = altered(sure, wilcoxon={"p_adjusted": 0.21})
    other_way = altered(sure, wilcoxon={"p_adjusted": 0.0001, "effect": -0.1})
    doubtful = altered(compared(0.0201, 0.0291, 0.06), permutation={"p_adjusted": 0.049})
    best = replace(row("grit-vq", 0.0312), comparison=ranks, to_next=ranks, to_baseline=other_way)
    lines = [best, row("rq-vae", 0.0291), replace(row("lsh", 0.0201), comparison=doubtful)]
    lines.append(row(NO_TOKENIZER, 0.0291, retriever="popularity"))
    assert verdicts(results(*lines))[2:] == [
        "Not all tests agree with the t-test, by which verdicts go: "
        "grit-vq against rq-vae with dual-encoder (Wilcoxon p = .210); "
        "lsh against rq-vae with dual-encoder (permutation p = .049); "
        "grit-vq with dual-encoder against the best baseline (Wilcoxon p < .001, the other way round)."
    ]
    best = replace(row("grit-vq", 0.0312, against=0.02, p=1e-6), to_next=ranks)
    lsh = row("lsh", 0.0291, against=0.02, p=1e-6)
    last = verdicts(results(best, lsh, row("rq-vae", 0.02)))[-1]
    assert last.endswith("grit-vq against lsh with dual-encoder (Wilcoxon p = .210).")


def test_diagnostics_stand_in_the_page_where_there_are_any() -> None:
    told = results(
        row("rq-vae", 0.03, diagnostics={"search_error_at_10": 0.012, "certified": 1.0}),
        row("lsh", 0.02, against=0.03, p=0.5),
        row(NO_TOKENIZER, 0.01, retriever="item-knn", diagnostics={"neighbours": 50.0}),
    )
    headers = ["search error of the beam, top 10", "certified", "neighbours"]
    assert [[line[name] for name in headers] for line in score_table(told)] == [
        ["1.2%", "100.0%", "–"],
        ["–", "–", "–"],
        ["–", "–", "50"],
    ]
    page = Page(html_report(told))
    assert page.rows[0][-3:] == headers
    assert page.rows[3][-3:] == ["–", "–", "50"]
    assert "share of the exact top that the beam search missed" in " ".join(page.text.split())
    assert "the beam search missed" not in " ".join(Page(html_report(MIXED)).text.split())
    assert "search" in shown(told, 80)
    assert "neighbours" not in shown(told, 80)  # that is for the page


def test_figures_are_written_by_what_they_are() -> None:
    assert [diagnostic_label(name) for name in ("search_error_at_5", "search_error", "half_life")] == [
        "search error of the beam, top 5",
        "search error",
        "half life",
    ]
    assert [diagnostic_value("half_life", value) for value in (0.5, 12.3456, 1234567.0)] == [
        "0.5",
        "12.35",
        "1.235e+06",
    ]


def test_the_table_prints_losses_as_they_are_and_gaps_as_dashes() -> None:
    first, _, loss, baseline = score_table(MIXED)
    assert (first["collisions"], loss["collisions"], baseline["collisions"]) == ("1.2%", "–", "–")
    assert (baseline["tokenizer"], baseline["NDCG@10"]) == ("–", ".0055")
    win, loss = reference_table(MIXED)
    assert (win["p"], win["p (Wilcoxon)"], win["p (permutation)"]) == (".016", ".016", ".016")
    assert win["detectable"] == "±.0025"
    assert "p (McNemar)" not in win  # scores are no hits
    assert (loss["difference"], loss["p"], loss["verdict"]) == ("−.0090", "<.001", "worse")
    assert loss["95 % interval"] == "−.0107 … −.0073"


def test_the_chart_shows_every_score_and_difference_with_its_interval() -> None:
    figure = score_chart(MIXED)
    scores, *bars, differences = figure.data
    shown = {(r, t): x for bar in bars for r, t, x in zip(*bar.y, bar.x, strict=True)}
    assert shown == {(row.retriever, row.tokenizer): row.means["ndcg_at_10"] for row in MIXED.rows}
    assert {bar.name for bar in bars} == {"better", "reference", "worse", "baseline"}
    assert np.array(scores.error_x.array) == pytest.approx([0.002] * 4)
    assert np.array(scores.error_x.arrayminus) == pytest.approx([0.001] * 4)
    assert list(differences.y[1]) == ["grit-vq", "a-tokenizer-with-a-rather-long-name"]
    assert np.array(differences.x) == pytest.approx([0.0021, -0.0090])
    assert np.array(differences.error_x.array) == pytest.approx([0.0017] * 2)


def test_a_chart_without_comparisons_can_be_drawn() -> None:
    assert len(score_chart(results(row("rq-vae", 0.03))).data) == 3


def test_the_table_of_tokenizers_has_the_figures_that_there_are() -> None:
    assert tokenizer_table([GRIT, LSH]) == [
        {
            "tokenizer": "grit-vq",
            "seeds": "3",
            "dead codes": "2.0 ±1.5",
            "Gini": ".400 ±.050",
            "collisions": "1.2% ±0.1%",
            "purity": ".750 ±.010",
        },
        {
            "tokenizer": "lsh",
            "seeds": "1",
            "dead codes": "–",
            "Gini": "–",
            "collisions": "50.0%",
            "purity": "–",
        },
    ]


def test_what_became_of_collisions_is_told_where_it_is_not_the_same_leaf() -> None:
    dealt = replace(MIXED, tokenizers=[GRIT, replace(LSH, tokenizer="rq-vae", collisions="sinkhorn")])
    assert [line["collisions by"] for line in tokenizer_table(dealt.tokenizers)] == ["shared", "sinkhorn"]
    assert [line["collisions by"] for line in score_table(dealt)] == ["shared", "sinkhorn", "–", "–"]
    assert "collisions by" not in {*score_table(MIXED)[0], *tokenizer_table(MIXED.tokenizers)[0]}
    assert (
        "By digit: one more level tells them apart, and all figures are about the codes before it"
        in " ".join(Page(html_report(dealt)).text.split())
    )
    assert [cell for cell in shown(dealt, 80).split() if cell in ("shared", "sinkhorn")] == [
        "shared",
        "sinkhorn",
    ]


def test_a_table_of_codes_is_judged_as_the_one_table_it_is() -> None:
    given = replace(MIXED, tokenizers=[replace(GRIT, seeds=1, spreads={})])
    one_table = (
        "The codes of grit-vq are one table, so seeds vary the retriever alone: a difference to grit-vq "
        "holds for this table of codes only (verdicts with *)."
    )
    sentence, *others = verdicts(given)
    assert "holds for the given codes of grit-vq (p = .016 after Holm" in sentence
    assert "is real" not in sentence
    assert others == [one_table]
    assert [line["verdict"] for line in reference_table(given)] == ["better*", "worse"]
    assert tokenizer_table(given.tokenizers)[0]["seeds"] == "1"
    assert not any("±" in text for text in tokenizer_table(given.tokenizers)[0].values())
    as_reference = replace(given, tokenizers=[replace(GRIT, tokenizer="rq-vae", seeds=1)])
    assert [line["verdict"] for line in reference_table(as_reference)] == ["better*", "worse*"]
    assert '<tr class="better">' in html_report(given)  # coloured like any other
    two_seeds = replace(given, rows=[replace(found, seeds=2) for found in given.rows])
    assert one_table in verdicts(two_seeds)


def test_category_maps_sort_codes_by_their_commonest_category_and_purity() -> None:
    grit, lsh = category_maps([GRIT, LSH, ATOMIC]).data
    assert (list(grit.x), list(grit.y)) == (["0", "2", "7", "5"], ["Tea", "Cake"])
    assert np.array(grit.z).tolist() == [[100, 75, 0, 25], [0, 25, 100, 75]]  # per cent of a code's items
    assert np.array(lsh.z).tolist() == [[50], [50]]


def test_usage_curves_have_a_panel_for_each_level() -> None:
    curves = usage_curves([LSH, GRIT]).data
    found = {(c.xaxis, c.yaxis): (list(c.x), list(c.y)) for c in curves}
    assert found == {
        ("x", "y"): ([50, 100], [0.25, 1.0]),
        ("x2", "y2"): ([50, 100], [0.5, 0.5]),
        ("x3", "y3"): ([50, 100], [3.0, 0.0]),
        ("x4", "y4"): ([50, 100], [2.0, 2.0]),
    }
    assert [c.name for c in curves if c.showlegend] == ["grit-vq"]


def test_there_are_no_pictures_of_what_is_not_known() -> None:
    assert usage_curves([LSH]) is None
    assert category_maps([ATOMIC, replace(LSH, code_categories=None)]) is None


def shown(what: Results, width: int) -> str:
    """What the console prints."""
    console = Console(file=StringIO(), width=width)
    console.print(console_report(what).drawn())
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


class Page(HTMLParser):
    """Collects a page's text outside scripts, its cells, and all addresses it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._within = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("td", "th"):
            self.rows[-1][-1] += data
        if self._within not in ("script", "style"):
            self.text += data


def test_the_page_holds_everything_and_loads_nothing() -> None:
    html = html_report(MIXED)
    page = Page(html)
    assert page.addresses == []
    assert html.count("* plotly.js v") == 1
    assert "22,363 users · 12,101 items" in page.text
    assert "items already seen left out" in page.text
    assert all(sentence in page.text for sentence in verdicts(MIXED))
    expected, differences = score_table(MIXED), reference_table(MIXED)
    scores = ["retriever", "tokenizer", "seeds", "Recall@10", "NDCG@10", "seed SD", "collisions"]
    tests = ["difference", "95 % interval", "detectable", "p"]
    tests += ["p (Wilcoxon)", "p (permutation)", "verdict"]
    assert page.rows[:5] == [scores, *([line[name] for name in scores] for line in expected)]
    compared = ["retriever", "tokenizer", *tests]
    assert page.rows[5:8] == [compared, *([line[name] for name in compared] for line in differences)]
    quality = tokenizer_table([GRIT, LSH])
    assert page.rows[8:] == [list(quality[0]), *(list(line.values()) for line in quality)]


def test_the_page_of_tokenizers_alone_holds_their_table_and_pictures() -> None:
    html = html_report(TOKENIZERS_ALONE)
    page = Page(html)
    quality = tokenizer_table(TOKENIZERS_ALONE.tokenizers)
    assert page.rows == [list(quality[0]), *(list(line.values()) for line in quality)]
    assert page.addresses == []
    assert html.count("* plotly.js v") == 1
    assert html.count('class="plotly-graph-div"') == 2
    assert "what are the semantic IDs like?" in page.text
    assert "Semantic IDs alone were compared, with no retriever" in page.text
    assert "recommends best?" not in page.text
    assert "items already seen" not in page.text


def test_names_cannot_break_the_page() -> None:
    page = Page(html_report(results(row("<script>alert(1)</script>", 0.03))))
    assert "<script>alert(1)</script>" in [cell for line in page.rows for cell in line]


def test_charts_show_names_as_they_are() -> None:
    # Plotly would make <b>id</b> bold, and shows &lt;b&gt;id&lt;/b&gt; as what it stands for.
    strange = replace(GRIT, tokenizer="<b>id</b> & co", code_categories=CodeCategories(["<i>"], [0], [[3]]))
    (scores, *_) = score_chart(results(row("<b>id</b> & co", 0.03), tokenizers=[strange])).data
    assert list(scores.y[1]) == ["&lt;b&gt;id&lt;/b&gt; &amp; co"]
    curves, maps = usage_curves([strange]), category_maps([strange])
    assert curves is not None
    assert maps is not None
    assert curves.data[0].name == "&lt;b&gt;id&lt;/b&gt; &amp; co"
    assert maps.layout.annotations[0].text == "&lt;b&gt;id&lt;/b&gt; &amp; co"
    assert list(maps.data[0].y) == ["&lt;i&gt;"]


def test_names_in_brackets_are_not_taken_for_markup() -> None:
    name = "rq-kmeans [k=64]"
    what = results(row(name, 0.03), row(NO_TOKENIZER, 0.02, retriever="knn [bold]"))
    screen = Screen()
    with screen.capture() as captured:
        screen.print(console_report(replace(what, reference=name)).drawn())
    assert name in captured.get()
    assert "knn [bold]" in captured.get()


def test_cells_that_failed_are_rows_with_their_reasons() -> None:
    reason = "fit tiger grit-vq seed 1: the loss is NaN; lower learning_rate"
    failures = [
        Failure(CellName("grit-vq", "tiger", 1), reason, "da7a"),
        Failure(CellName("grit-vq", "tiger", 2), "no <memory>", "da7b"),
    ]
    what = replace(results(row("rq-vae", 0.03)), failures=failures)
    text = shown(what, 80)
    lines = text[text.index("Failed") :].splitlines()
    assert lines[1].split() == ["retriever", "tokenizer", "seed", "reason"]
    assert lines[3].split()[:3] == ["tiger", "grit-vq", "1"]
    assert reason.split() == [*lines[3].split()[3:], *lines[4].split()]
    assert ["tiger", "grit-vq", "2", "no", "<memory>"] in [line.split() for line in lines]
    assert ["tiger", "grit-vq", "2", "no <memory>"] in Page(html_report(what)).rows
    assert "There is no result of 2 cells that failed (grit-vq with tiger)." in verdicts(what)
    assert "failed" not in " ".join(verdicts(replace(what, failures=[])))


def test_that_the_reference_failed_is_said() -> None:
    lonely = [row(name, 0.03) for name in ("lsh", "grit-vq")]
    what = results(*lonely, row(NO_TOKENIZER, 0.02, retriever="popularity"))
    sentence = "The reference, rq-vae, failed with dual-encoder: there, nothing is compared with it."
    assert sentence in verdicts(what)
    assert "reference failed" in {trace.name for trace in score_chart(what).data}
    assert "failed" not in " ".join(verdicts(results(row("rq-vae", 0.03))))


def test_answers_that_no_ranking_can_hold_are_counted_in_a_warning() -> None:
    what = replace(results(row("rq-vae", 0.03)), unreachable=1083, answers=2000)
    (warning,) = [sentence for sentence in verdicts(what) if sentence.startswith("Mind: ")]
    assert "exclude_seen keeps 1,083 of 2,000 right answers out of all rankings" in warning
    assert warning in Page(html_report(what)).text
    assert warning.split()[-3:] == shown(what, 80).split()[-3:]
    assert "exclude_seen" not in " ".join(verdicts(replace(what, unreachable=0)))


def test_an_overview_survives_json() -> None:
    overview = console_report(MIXED)
    again = Overview.from_json(json.loads(json.dumps(overview.as_json())))
    consoles = [Console(file=StringIO(), width=90) for _ in range(2)]
    for console, what in zip(consoles, (overview, again), strict=True):
        console.print(what.drawn())
    first, second = (console.file.getvalue() for console in consoles)  # type: ignore[attr-defined]
    assert "better" in first
    assert first == second


def test_the_console_shows_tokenizers_alone_and_loses_nothing_on_a_narrow_terminal() -> None:
    text = shown(TOKENIZERS_ALONE, 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    for name in ("grit-vq", "lsh", "dense-id", "purity", "collisions", "1.2%", "±0.1%"):
        assert name in text
    assert "Gini" not in text  # that is for the page


@pytest.mark.parametrize("width", [80, 100])
def test_the_console_breaks_no_word_of_all_the_figures_there_can_be(width: int) -> None:
    figures = ("reconstruction_error", "utilization", "perplexity", "collision_rate", "purity_1")
    shares = dict.fromkeys(
        (*figures, "chance_purity_1", "unique_id_rate", "gini", "distortion_per_bit"), 0.999
    )
    means = {
        **shares,
        "perplexity": 255.9,
        "dead_codes": 1023.0,
        "fit_seconds": 3599.99,
        "encode_seconds": 9.5,
    }
    full = replace(GRIT, means=means, spreads=means, collisions="sinkhorn")
    text = shown(results(tokenizers=[full, LSH]), width)
    assert max(len(line) for line in text.splitlines()) <= width
    words = text.split("•")[0].split()
    headers = "tokenizer error used perpl. collisions by purity by chance fit sec."
    cells = "grit-vq sinkhorn .999 255.9 99.9% ±99.9% 3599.99 ±3599.99"
    assert {*words} >= {*headers.split(), *cells.split()}


def test_the_console_loses_nothing_on_a_narrow_terminal() -> None:
    text = shown(MIXED, 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text.replace(" … ", "")
    for line in score_table(MIXED):
        assert all(line[name] in text for name in ("Recall@10", "NDCG@10", "collisions"))
    for line in reference_table(MIXED):
        assert all(line[name] in text for name in ("difference", "95 % interval", "p", "verdict"))
    assert "better" in text
    assert "worse" in text
    assert "is real (p = .016 after Holm)." in " ".join(text.split())
