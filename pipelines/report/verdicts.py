"""A benchmark's results in sentences: what is best, and whether that is real."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.report.formatting import decimal, interval, metric_label, p_value
from pipelines.results.summary import Results, Row
from recsys.evaluation.significance import ALPHA, Comparison

_FEW_SEEDS = "With fewer than three seeds, luck in training is not ruled out."


def verdicts(results: Results) -> list[str]:
    """One sentence for each retriever on which tokenizer is best and whether that is real.

    Further sentences: whether the best under each retriever beats the best floor; which tests disagree with
    the one that verdicts go by; and which tokenizers' codes are one table for all seeds.
    """
    if not results.rows:
        return ["Semantic IDs alone were compared, with no retriever: how well they recommend is not known."]
    groups = results.by_retriever()
    several = {row.tokenizer for rows in groups.values() for row in rows}
    sentences = [_verdict(results, retriever, rows) for retriever, rows in groups.items() if len(several) > 1]
    floors = results.floors()
    if not groups:
        label, score = metric_label(results.metric), decimal(floors[0].means[results.metric])
        sentences.append(
            f"No retriever that uses semantic IDs was run; the best floor is {floors[0].retriever} "
            f"({label} {score})."
        )
    sentences += [
        _against_floor(results.metric, rows[0], floors[0].retriever, rows[0].to_floor)
        for rows in groups.values()
        if rows[0].to_floor
    ]
    if dissent := _dissent(results):
        sentences.append(f"Not all tests agree with the t-test, by which verdicts go: {'; '.join(dissent)}.")
    sentences += [
        f"The codes of {name} are one table, so seeds vary the retriever alone: a difference to {name} "
        "holds for this table of codes only (verdicts with *)."
        for name in results.single_tables()
    ]
    return sentences


def _verdict(results: Results, retriever: str, rows: Sequence[Row]) -> str:
    best, test = rows[0].tokenizer, rows[0].to_next
    label, score = metric_label(results.metric), decimal(rows[0].means[results.metric])
    if test is None:
        return f"{best} has {label} {score} with {retriever}; there is no tokenizer to compare it with."
    lead = (
        f"{rows[1].tokenizer}, the next best ({decimal(test.difference, sign=True)}, "
        f"95 % CI {interval(test.low, test.high)}"
    )
    p = _p_values(test)
    few = f" {_FEW_SEEDS}" if min(rows[0].seeds, rows[1].seeds) < 3 else ""
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


def _against_floor(metric: str, best: Row, floor: str, test: Comparison) -> str:
    trained = ", as trained here," if best.seeds < 3 else ""
    found = {
        "better": f"beats the best floor, {floor}",
        "worse": f"does not beat the best floor, {floor}, but is worse",
        "no evidence": f"does not beat the best floor, {floor}, beyond chance",
    }[test.verdict]
    return (
        f"{best.tokenizer} with {best.retriever}{trained} {found}: {metric_label(metric)} "
        f"{decimal(test.mean_b)} against {decimal(test.mean_a)} ({decimal(test.difference, sign=True)}, "
        f"95 % CI {interval(test.low, test.high)}, {_p_values(test)})."
    )


def _p_values(test: Comparison) -> str:
    p = f"{_p_is(test.p_adjusted)} after Holm"
    return p if test.p_seeds is None else f"{p}, {_p_is(test.p_seeds)} over seeds"


def _p_is(value: float) -> str:
    return f"p = {p_value(value)}".replace("= <", "< ")


def _dissent(results: Results) -> list[str]:
    """Each comparison on which a test disagrees with the t-test, and what that test found."""
    told = [
        (f"{row.tokenizer} against {results.reference} with {row.retriever}", row.comparison)
        for row in results.rows
    ]
    for best, *others in results.by_retriever().values():
        if others and results.reference not in (best.tokenizer, others[0].tokenizer):
            told.append(
                (f"{best.tokenizer} against {others[0].tokenizer} with {best.retriever}", best.to_next)
            )
        told.append((f"{best.tokenizer} with {best.retriever} against the best floor", best.to_floor))
    return [
        f"{what} ({', '.join(_found(name, test) for name in test.dissent)})"
        for what, test in told
        if test and test.dissent
    ]


def _found(name: str, test: Comparison) -> str:
    """What the test of that name found."""
    if name == "bootstrap":
        return f"bootstrap {interval(test.boot_low, test.boot_high)}"
    if name == "permutation":
        return f"permutation {_p_is(test.p_permutation)}"
    opposite = test.p_wilcoxon < ALPHA and test.rank_effect * test.difference < 0
    return f"Wilcoxon {_p_is(test.p_wilcoxon)}{', the other way round' if opposite else ''}"
