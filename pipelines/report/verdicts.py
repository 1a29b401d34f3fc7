"""Results in sentences: which method is the best, and whether the difference is real."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.report.formatting import confidence, decimal, interval, p_value, percent
from pipelines.results.rows import Results, Row
from recsys.evaluation.hypothesis_tests import ALPHA, MIN_QUERIES, TESTS, TOO_FEW, UNDECIDED, TestResult
from recsys.evaluation.significance import EQUIVALENT, Comparison


def verdicts(results: Results) -> list[str]:
    """Return one sentence for each retriever: which tokenizer is the best, and whether that is real.

    Further sentences tell whether the best tokenizer under each retriever beats the best baseline, which
    tests disagree with the verdicts, how often the results may be looked at, which tokenizers have one table
    of codes for all seeds, and what is missing: cells that failed, and answers that no ranking could hold.
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
    sentences += _looks(results)
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
    if alone := [row.retriever for row in results.rows if results.verdict(row) == "reference failed"]:
        sentences.append(
            f"The reference, {results.reference}, failed with {', '.join(dict.fromkeys(alone))}: there, "
            "nothing is compared with it."
        )
    return sentences


def _looks(results: Results) -> list[str]:
    """Return a sentence on the level, if results are looked at several times."""
    levels = {test.level for row in results.rows for test in (row.comparison, row.to_baseline) if test}
    return [
        f"The level is .05 / {ALPHA / level:.0f} = {level:.4f} for each family of comparisons, because these "
        f"results may be looked at {ALPHA / level:.0f} times, with more seeds each time."
        for level in sorted(levels)
        if level < ALPHA
    ]


def _verdict(results: Results, retriever: str, rows: Sequence[Row]) -> str:
    """Return the sentence on the best tokenizer under a retriever."""
    best, test = rows[0].tokenizer, rows[0].to_next
    label, score = results.label, decimal(rows[0].means[results.metric])
    if test is None:
        return f"{best} has {label} {score} with {retriever}; there is no tokenizer to compare it with."
    best_is = f"{best} has the best {label}"
    lead = f"{rows[1].tokenizer}, the next best ({_difference(test)}"
    if test.verdict == TOO_FEW:
        return (
            f"No winner with {retriever}: {best_is} ({score}), but {test.n} queries are "
            f"too few to tell its lead over {lead}) from chance (at least {MIN_QUERIES})."
        )
    if test.verdict == EQUIVALENT:
        return (
            f"No winner with {retriever}: {best_is} ({score}), but is equivalent to {lead}; "
            f"within ±{percent(test.equivalence)} of its score, {_region(test)})."
        )
    if test.verdict == UNDECIDED:
        return (
            f"No significant winner with {retriever}: {best_is} ({score}), but its lead over "
            f"{lead}) could be chance{_p_of(test)}. {_outlook(test)}"
        )
    single = [row.tokenizer for row in rows[:2] if row.tokenizer in results.single_tables()]
    certain = f"holds for the given codes of {' and '.join(single)}" if single else "is real"
    return f"{best_is} with {retriever} ({score}); its lead over {lead}) {certain}{_p_of(test)}."


def _against_baseline(label: str, best: Row, baseline: str, test: Comparison) -> str:
    """Return the sentence on the best tokenizer under a retriever and the best baseline."""
    outcome = {
        "better": f"beats the best baseline, {baseline}",
        "worse": f"does not beat the best baseline, {baseline}, but is worse",
        EQUIVALENT: f"is equivalent to the best baseline, {baseline}",
        UNDECIDED: f"does not beat the best baseline, {baseline}, beyond chance",
        TOO_FEW: f"cannot be compared with the best baseline, {baseline}, on so few queries",
    }[test.verdict]
    p = "" if test.p is None else f", {_p_is(test.p)} after Holm"
    few_seeds = " With one seed nothing is claimed." if test.outlook.has_one_seed else ""
    return (
        f"{best.tokenizer} with {best.retriever} {outcome}: {label} {decimal(test.mean_b)} against "
        f"{decimal(test.mean_a)} ({_difference(test)}{p}).{few_seeds}"
    )


def _difference(test: Comparison) -> str:
    """Return a difference and its interval."""
    return (
        f"{decimal(test.difference, sign=True)}, {confidence(test.level)} CI {interval(test.low, test.high)}"
    )


def _region(test: Comparison) -> str:
    """Return the region of equivalence, as ``±.0003``."""
    return f"±{decimal(test.region)}"


def _outlook(test: Comparison) -> str:
    """Return what an undecided comparison can find, and what would decide it."""
    detectable = f"±{decimal(test.outlook.detectable)}"
    if test.outlook.has_one_seed:
        can = "can" if abs(test.difference) > test.outlook.detectable else "would hardly"
        return (
            "With one seed nothing is known of luck in training, so no method is called better or worse; the "
            f"interval is over users alone. A second seed {can} decide it: over users alone, differences "
            f"from {detectable} on are found in 80 % of cases."
        )
    more = [
        f"{count:,} more {what if count > 1 else what.removesuffix('s')}"
        for count, what in ((test.outlook.more_seeds, "seeds"), (test.outlook.more_users, "users"))
        if count
    ]
    decide = "would decide it" if more else "no number of seeds or users would decide it"
    return (
        f"Differences from {detectable} on are found in 80 % of cases; if this one stays as it is, "
        f"{' or '.join(more)}{' ' if more else ''}{decide}."
    )


def _p_of(test: Comparison) -> str:
    """Return the p that a verdict goes by, in brackets; nothing where there is none."""
    return "" if test.p is None else f" ({_p_is(test.p)} after Holm)"


def _p_is(value: float) -> str:
    """Return ``p = .016`` or ``p < .001``."""
    return f"p = {p_value(value)}".replace("= <", "< ")


def _dissent(results: Results) -> list[str]:
    """Return each comparison on which a test disagrees with the verdict, and what that test found."""
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
    p = result.p if result.p_adjusted is None else result.p_adjusted
    opposite = result.verdict != UNDECIDED and result.effect * test.difference < 0
    return f"{label} {_p_is(1.0 if p is None else p)}{', the other way round' if opposite else ''}"
