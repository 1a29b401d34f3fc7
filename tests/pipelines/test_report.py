from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from pipelines.categories import CodeCategories
from pipelines.pictures import category_maps, score_chart, usage_curves
from pipelines.report import console_report, html_report, table, tokenizer_table, verdicts
from pipelines.results import NO_TOKENIZER, Dataset, Results, Row, TokenizerRow
from pipelines.wording import decimal, mean_and_spread, metric_label
from recsys.evaluation.significance import Comparison


def row(
    tokenizer: str,
    mean: float,
    *,
    against: float | None = None,
    p: float = 1.0,
    seeds_p: float | None = 0.01,
    to_next: bool = False,
    retriever: str = "dual-encoder",
    quality: dict[str, float] | None = None,
) -> Row:
    """A row with score ``mean``, compared with a reference of score ``against`` at an adjusted ``p``."""
    test = None
    if against is not None:
        gap = mean - against
        test = Comparison(against, mean, gap, gap - 0.0017, gap + 0.0017, p / 2, seeds_p, p, 0.1, 100)
    means = {"recall_at_10": 2 * mean, "ndcg_at_10": mean}
    return Row(
        tokenizer,
        retriever,
        3,
        means,
        mean - 0.001,
        mean + 0.002,
        0.0004,
        quality or {},
        1.0,
        test,
        test if to_next else None,
    )


def results(*rows: Row, tokenizers: Sequence[TokenizerRow] = ()) -> Results:
    data = Dataset("made-up-shop", "da7a", "data/raw", {"users": 22363, "items": 12101})
    return Results("shops", data, "items already seen left out", "ndcg_at_10", "rq-vae", rows, tokenizers)


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
)
LSH = TokenizerRow("lsh", 1, {"collision_rate": 0.5}, {}, {}, CodeCategories(["Tea", "Cake"], [1], [[1, 1]]))
ATOMIC = TokenizerRow("dense-id", 1, {"collision_rate": 0.0}, {}, {}, CodeCategories(["Tea", "Cake"], [], []))
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
    assert mean_and_spread(0.448, 0.0031, 3) == ".448 ±.003"
    assert mean_and_spread(12.96, None, 1) == "13.0"


def test_metrics_are_named_as_papers_do() -> None:
    assert [metric_label(name) for name in ("ndcg_at_10", "recall_at_5")] == ["NDCG@10", "Recall@5"]


def test_a_real_difference_is_called_real() -> None:
    assert verdicts(MIXED) == [
        "grit-vq has the best NDCG@10 with dual-encoder (.0312); its lead over rq-vae, the next best "
        "(+.0021, 95 % CI +.0004 … +.0038) is real (p = .016 after Holm, p = .010 over seeds)."
    ]


def test_a_verdict_on_one_seed_says_what_it_does_not_know() -> None:
    one = [replace(found, seeds=1) for found in MIXED.rows]
    (sentence,) = verdicts(results(*one))
    assert "holds for these trained models" in sentence
    assert "is real" not in sentence
    assert sentence.endswith(" With fewer than three seeds, luck in training is not ruled out.")


def test_a_difference_that_may_be_chance_is_called_so() -> None:
    best = row("grit-vq", 0.0312, against=0.0302, p=0.41, seeds_p=None, to_next=True)
    assert verdicts(results(best, row("rq-vae", 0.0302))) == [
        "No significant winner with dual-encoder: grit-vq has the best NDCG@10 (.0312), but its lead over "
        "rq-vae, the next best (+.0010, 95 % CI −.0007 … +.0027) could be chance (p = .410 after Holm)."
    ]


def test_a_reference_that_wins_is_told_from_the_next_best() -> None:
    rows = [
        replace(row("rq-vae", 0.03), to_next=row("rq-vae", 0.03, against=0.02, p=1e-9).comparison),
        row("fsq", 0.02, against=0.03, p=1e-9),
        row("lsh", 0.01, against=0.03, p=1e-12),
    ]
    assert verdicts(results(*rows)) == [
        "rq-vae has the best NDCG@10 with dual-encoder (.0300); its lead over fsq, the next best (+.0100, "
        "95 % CI +.0083 … +.0117) is real (p < .001 after Holm, p = .010 over seeds)."
    ]


def test_every_retriever_and_every_unbeaten_floor_gets_a_sentence() -> None:
    found = verdicts(
        results(
            row("rq-vae", 0.03),
            row("rq-vae", 0.02, retriever="tiger"),
            row(NO_TOKENIZER, 0.025, retriever="item-knn"),
            row(NO_TOKENIZER, 0.01, retriever="popularity"),
        )
    )
    assert found == [
        "rq-vae has NDCG@10 .0300 with dual-encoder; there is no tokenizer to compare it with.",
        "rq-vae has NDCG@10 .0200 with tiger; there is no tokenizer to compare it with.",
        "item-knn, which uses no tokenizer, is above every tokenizer with tiger (NDCG@10 .0250).",
    ]


def test_the_table_prints_losses_as_they_are_and_gaps_as_dashes() -> None:
    first, reference, loss, floor = table(MIXED)
    assert first["collisions"] == "1.2%"
    assert (loss["difference"], loss["p (Holm)"], loss["verdict"]) == ("−.0090", "<.001", "worse")
    assert loss["95 % interval"] == "−.0107 … −.0073"
    assert (loss["collisions"], floor["collisions"]) == ("–", "–")
    assert (reference["difference"], reference["verdict"]) == ("–", "reference")
    assert (floor["tokenizer"], floor["p (users)"], floor["NDCG@10"]) == ("–", "–", ".0055")


def test_the_chart_shows_every_score_and_difference_with_its_interval() -> None:
    figure = score_chart(MIXED)
    scores, *bars, differences = figure.data
    shown = {(r, t): x for bar in bars for r, t, x in zip(*bar.y, bar.x, strict=True)}
    assert shown == {(row.retriever, row.tokenizer): row.means["ndcg_at_10"] for row in MIXED.rows}
    assert {bar.name for bar in bars} == {"better", "reference", "worse", "floor"}
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
            "collisions": ".012 ±.001",
            "purity": ".750 ±.010",
        },
        {
            "tokenizer": "lsh",
            "seeds": "1",
            "dead codes": "–",
            "Gini": "–",
            "collisions": ".500",
            "purity": "–",
        },
    ]


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
    expected = table(MIXED)
    scores = ["retriever", "tokenizer", "seeds", "Recall@10", "NDCG@10", "seed SD", "collisions"]
    tests = ["difference", "95 % interval", "p (users)", "p (seeds)", "p (Holm)", "verdict"]
    assert page.rows[:5] == [scores, *([line[name] for name in scores] for line in expected)]
    compared = ["retriever", "tokenizer", *tests]
    assert page.rows[5:8] == [compared, *([expected[i][name] for name in compared] for i in (0, 2))]
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


def test_the_console_shows_tokenizers_alone_and_loses_nothing_on_a_narrow_terminal() -> None:
    console = Console(file=StringIO(), width=80)
    console.print(console_report(TOKENIZERS_ALONE))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    for name in ("grit-vq", "lsh", "dense-id", "purity", "collisions", "2.0 ±1.5", ".012 ±.001"):
        assert name in text
    assert "Gini" not in text  # that is for the page


def test_the_console_loses_nothing_on_a_narrow_terminal() -> None:
    console = Console(file=StringIO(), width=80)
    console.print(console_report(MIXED))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text.replace(" … ", "")
    for line in table(MIXED):
        assert all(line[name] in text for name in ("Recall@10", "NDCG@10", "collisions", "difference"))
    assert "better" in text
    assert "worse" in text
    assert "is real (p = .016 after Holm, p = .010 over seeds)." in " ".join(text.split())
