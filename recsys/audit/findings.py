"""One finding of an audit: a figure, how serious it is, what it means and what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Severity = Literal["ok", "note", "warning"]
"""How serious a finding is. A warning says that scores may measure something else than methods."""

SURE = 3.0
"""Number of standard errors from which on a difference is not taken for chance.

An audit looks at a dozen figures, and should stay silent on data without a fault.
"""


@dataclass(frozen=True)
class Finding:
    """One finding of an audit.

    Attributes:
        name: What was measured, the same in every audit.
        figure: The value; None if it cannot be measured on this corpus.
        shown: The value with its unit, as text.
        severity: How serious it is.
        meaning: One sentence on what the value means.
        advice: What to do about it; empty if nothing has to be done.
    """

    name: str
    figure: float | None
    shown: str
    severity: Severity
    meaning: str
    advice: str = ""


def graded(figure: float, note: float, warning: float) -> Severity:
    """Return how serious a figure is that should be low.

    Args:
        figure: The figure.
        note: The lowest value that is worth a note.
        warning: The lowest value that is worth a warning.
    """
    return "warning" if figure >= warning else "note" if figure >= note else "ok"


def standard_error(values: npt.NDArray[np.float64]) -> float:
    """Return the standard error of the mean; infinite for fewer than two values."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")


def write_findings(findings: Sequence[Finding], path: Path) -> None:
    """Write findings into a JSON file."""
    path.write_text(json.dumps([asdict(finding) for finding in findings], indent=1) + "\n")


def read_findings(path: Path) -> list[Finding]:
    """Read what :func:`write_findings` wrote; nothing if there is no such file."""
    return [Finding(**values) for values in json.loads(path.read_text())] if path.exists() else []
