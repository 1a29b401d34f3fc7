"""Results in sentences: which method is the best, and whether the difference is real."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.report.formatting import decimal, interval, p_value
from pipelines.results.rows import Results, Row
from recsys.evaluation.hypothesis_tests import MIN_QUERIES, TESTS, TOO_FEW, TestResult
from recsys.evaluation.significance import Comparison

_FEW_SEEDS = "With fewer than three seeds, luck in training is not ruled out."


def verdicts(results: Results) -> list[str]:
    """Return one sentence for each retriever: which tokenizer is the best, and whether that is real.

    Further sentences tell whether the best tokenizer under each retriever beats the best baseline, which
    tests disagree with the one that verdicts go by, which tokenizers have one table of codes for all seeds,
    and what is missing: cells that failed, and answers that no ranking could hold.
    """
    return [*_comparisons(results), *_missing(results)]


def _comparisons(results: Results) -> list[str]:
    """Return the sentences on the methods that have results."""
    if not results.rows:
        return ["Semantic IDs alone were compared, with no retriever: how well they recommend is not known."]
    groups = results.by_retriever()
    several = len({row.tokenizer for rows in groups.values() for row in rows}) > 1
    sentences = [_verdict(results, retriever, rows) for retriever, rows in groups.items() if several]
    baselines = results.baselines()
    if not groups:
        score = decimal(baselines[0].means[results.metric])
        sentences.append(
            f"No retriever that uses semantic IDs was run; the best baseline is {baselines[0].retriever} "
            f"({results.label} {score})."
        )
    sentences += [
        _against_baseline(results.label, rows[0], baselines[0].retriever, rows[0].to_baseline)
        for rows in groups.values()
        if rows[0].to_baseline
    ]
    if dissent := _dissent(results):
        sentences.append(f"Not all tests agree with the t-test, by which verdicts go: {'; '.join(dissent)}.")
    sentences += [
        f"The codes of {name} are one table, so seeds vary the retriever alone: a difference to {name} "
        "holds for this table of codes only (verdicts with *)."
        for name in results.single_tables()
    ]
    return sentences


def _missing(results: Results) -> list[str]:
    """Return the sentences on what the results lack."""
    sentences = []
    if results.unreachable:
        sentences.append(
            f"Mind: exclude_seen keeps {results.unreachable:,} of {results.answers:,} right answers out of "
            "all rankings, because their users had seen them before. They count as misses, which lowers all "
            "scores; do without exclude_seen where users come back to items."
        )
    if results.failures:
        methods = dict.fromkeys(
            f"{tokenizer} with {retriever}" for tokenizer, retriever, _ in (f.name for f in results.failures)
        )
        what = "a cell" if len(results.failures) == 1 else f"{len(results.failures)} cells"
        sentences.append(f"There is no result of {what} that failed ({', '.join(methods)}).")
    return sentences


def _verdict(results: Results, retriever: str, rows: Sequence[Row]) -> str:
    """Return the sentence on the best tokenizer under a retriever."""
    best, test = rows[0].tokenizer, rows[0].to_next
    label, score = results.label, decimal(rows[0].means[results.metric])
    if test is None:
        return f"{best} has {label} {score} with {retriever}; there is no tokenizer to compare it with."
    lead = (
        f"{rows[1].tokenizer}, the next best ({decimal(test.difference, sign=True)}, "
        f"95 % CI {interval(test.low, test.high)}"
    )
    p = _p_values(test)
    few = f" {_FEW_SEEDS}" if min(rows[0].seeds, rows[1].seeds) < 3 else ""
    if test.verdict == TOO_FEW:
        return (
            f"No winner with {retriever}: {best} has the best {label} ({score}), but {test.n} queries are "
            f"too few to tell its lead over {lead}) from chance (at least {MIN_QUERIES})."
        )
    if test.verdict == "no evidence":
        return (
            f"No significant winner with {retriever}: {best} has the best {label} ({score}), "
            f"but its lead over {lead}) could be chance ({p}).{few}"
        )
    certain = "is real"
    if single := [row.tokenizer for row in rows[:2] if row.tokenizer in results.single_tables()]:
        certain = f"holds for the given codes of {' and '.join(single)}"
    if few:
        certain = "holds for these trained models"
    return (
        f"{best} has the best {label} with {retriever} ({score}); its lead over {lead}) {certain} ({p}).{few}"
    )


def _against_baseline(label: str, best: Row, baseline: str, test: Comparison) -> str:
    """Return the sentence on the best tokenizer under a retriever and the best baseline."""
    trained = ", as trained here," if best.seeds < 3 else ""
    outcome = {
        "better": f"beats the best baseline, {baseline}",
        "worse": f"does not beat the best baseline, {baseline}, but is worse",
        "no evidence": f"does not beat the best baseline, {baseline}, beyond chance",
        TOO_FEW: f"cannot be compared with the best baseline, {baseline}, on so few queries",
    }[test.verdict]
    return (
        f"{best.tokenizer} with {best.retriever}{trained} {outcome}: {label} "
        f"{decimal(test.mean_b)} against {decimal(test.mean_a)} ({decimal(test.difference, sign=True)}, "
        f"95 % CI {interval(test.low, test.high)}, {_p_values(test)})."
    )


def _p_values(test: Comparison) -> str:
    """Return the p values that a verdict goes by, in words."""
    parts = []
    for name, result in test.tests.items():
        if TESTS[name].decides and result.p_adjusted is not None:
            parts.append(f"{_p_is(result.p_adjusted)} after Holm")
        elif TESTS[name].decides and result.p is not None:
            parts.append(f"{_p_is(result.p)} over {TESTS[name].label}")
    return ", ".join(parts)


def _p_is(value: float) -> str:
    """Return ``p = .016`` or ``p < .001``."""
    return f"p = {p_value(value)}".replace("= <", "< ")


def _dissent(results: Results) -> list[str]:
    """Return each comparison on which a test disagrees with the t-test, and what that test found."""
    comparisons = [
        (f"{row.tokenizer} against {results.reference} with {row.retriever}", row.comparison)
        for row in results.rows
    ]
    for best, *others in results.by_retriever().values():
        if others and results.reference not in (best.tokenizer, others[0].tokenizer):
            comparisons.append(
                (f"{best.tokenizer} against {others[0].tokenizer} with {best.retriever}", best.to_next)
            )
        comparisons.append(
            (f"{best.tokenizer} with {best.retriever} against the best baseline", best.to_baseline)
        )
    return [
        f"{what} ({', '.join(_finding(name, test.tests[name], test) for name in test.dissent)})"
        for what, test in comparisons
        if test and test.dissent
    ]


def _finding(name: str, result: TestResult, test: Comparison) -> str:
    """Return what one test found, in words."""
    label = TESTS[name].label
    if result.low is not None and result.high is not None:
        return f"{label} {interval(result.low, result.high)}"
    p = result.p if result.p_adjusted is None else result.p_adjusted
    opposite = result.verdict != "no evidence" and result.effect * test.difference < 0
    return f"{label} {_p_is(1.0 if p is None else p)}{', the other way round' if opposite else ''}"
