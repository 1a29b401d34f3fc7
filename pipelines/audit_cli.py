"""The command ``gritrec audit``: what of a score on a corpus could be an artefact of the data."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.screen import ERR, OUT, words

if TYPE_CHECKING:
    from recsys.audit.findings import Finding

_STYLES = {"warning": "bold red", "note": "yellow", "ok": "green"}
"""Severities, the most serious first, and the style of each."""


def audit(
    config: Annotated[
        Path, typer.Argument(help="A benchmark file (YAML), or a folder of raw files with --set reader=NAME.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key: data.raw=FOLDER of a file; reviews=FILE for a folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.")] = False,
) -> None:
    """Say what of a score could be an artefact of the data, before methods are compared on them.

    Of a benchmark file only the section data is looked at. The corpus is read and split as a run does it, and
    cheap baselines are fitted. Warnings do not change the exit code.
    """
    from pipelines.config.loading import load_data  # noqa: PLC0415
    from pipelines.run.stages import read_raw  # noqa: PLC0415
    from recsys.audit.whole import audit as findings_of  # noqa: PLC0415

    if not config.exists():
        raise FileNotFoundError(f"{config} is no benchmark file and no folder of raw files")
    if config.suffix not in (".yaml", ".yml") and not config.is_dir():
        raise ValueError(f"{config} is no benchmark file (YAML); of raw files give the folder")
    chosen = load_data(config, settings or [])
    if chosen.is_search:
        raise ValueError(
            f"an audit looks at how the next item is predicted, but {chosen.reader} data have queries in "
            "words; gritrec data check shows their counts"
        )
    rule = chosen.split.rule(together=chosen.ties == "last_together")
    with TemporaryDirectory() as scratch, ERR.status("reading and probing ...", spinner=ERR.spinner):
        corpus = read_raw(chosen.model_dump(mode="json"), chosen.raw, Path(scratch))
        findings = findings_of(corpus, rule, shuffled=chosen.ties == "shuffle")
    if as_json:
        counts = corpus.statistics()
        values = {"corpus": counts, "split": rule.describe(), "findings": [asdict(one) for one in findings]}
        typer.echo(json.dumps(values, indent=1))
    else:
        _show(findings, rule.describe())


def _show(findings: list[Finding], split: str) -> None:
    """Print findings, the most serious first; what is in order takes one line."""
    OUT.print(f"under the split {split}\n", soft_wrap=True)
    for severity, style in _STYLES.items():
        for finding in (one for one in findings if one.severity == severity):
            label = (f"{severity:8}", style)
            OUT.print(words(label, (finding.name, "bold"), f": {finding.shown}"), soft_wrap=True)
            if severity != "ok":
                advice = f" What to do: {finding.advice}." if finding.advice else ""
                OUT.print(words("        ", finding.meaning + advice), soft_wrap=True)
    warnings = sum(finding.severity == "warning" for finding in findings)
    OUT.print(f"\n{warnings} warnings in {len(findings)} findings", style="bold" if warnings else "")
