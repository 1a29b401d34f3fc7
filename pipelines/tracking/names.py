"""Turn the names that plug-ins choose into names that MLflow takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_LONGEST = 200  # MLflow takes 250 characters; some are left for a suffix


def accepted_names(names: Iterable[str]) -> dict[str, str]:
    """Return each name to one that MLflow takes as the name of a metric or parameter; no two are alike.

    Letters, digits and ``_ - . / space`` stay. Anything else becomes ``_``.

    Example:
        >>> accepted_names(["loss", "recall@10", "/a//b"])
        {'loss': 'loss', 'recall@10': 'recall_10', '/a//b': 'a/b'}
        >>> accepted_names(["loss (a)", "loss [a]"])
        {'loss (a)': 'loss _a_', 'loss [a]': 'loss _a__2'}
    """
    given = list(names)
    accepted: dict[str, str] = {}
    taken = {name for name in given if _accepted(name) == name}
    for name in given:
        new = _accepted(name)
        if new != name:
            number, base = 1, new
            while new in taken:
                number += 1
                new = f"{base}_{number}"
            taken.add(new)
        accepted[name] = new
    return accepted


def _accepted(name: str) -> str:
    """Return a name with all that MLflow refuses replaced."""
    parts = re.sub(r"[^\w.\- /]+", "_", name).split("/")
    kept = "/".join(part for part in parts if part not in ("", ".", "..")) or "unnamed"
    if len(kept) > _LONGEST:
        kept = f"{kept[:_LONGEST]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return kept
