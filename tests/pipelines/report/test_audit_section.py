"""What the report says of the data."""

from __future__ import annotations

from pipelines.report.html import html_report
from pipelines.results.cell import Dataset
from pipelines.results.rows import Results
from recsys.audit.findings import Finding

EMPTY = Results(
    "toys", Dataset("toys", "c0ffee", "table", {}), "leave-one-out", "ndcg_at_10", {}, "lsh", [], []
)


def test_warnings_come_first_and_what_is_in_order_is_counted() -> None:
    findings = [
        Finding("ties", 0.02, "2.0% of <users>", "note", "Some tie.", "shuffle them"),
        Finding("copies", 0.0, "none", "ok", "No copies."),
        Finding("order", 0.7, "70.0%", "warning", "It is sorted.", "read apart"),
    ]
    page = html_report(EMPTY, findings)
    first, second = page.index("warning: order, 70.0%."), page.index("note: ties, 2.0% of &lt;users&gt;.")
    assert first < second
    assert "What to do: read apart." in page
    assert "1 of 3 findings are in order" in page
    assert "copies" not in page


def test_without_an_audit_the_report_does_not_mention_one() -> None:
    assert "artefact" not in html_report(EMPTY)
