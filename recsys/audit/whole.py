"""The whole audit of a corpus: its contents, its order, and what probes with baselines show."""

from __future__ import annotations

from recsys.audit.contents import concentration, new_targets, overlap, same_texts, same_users, seen_before
from recsys.audit.findings import Finding
from recsys.audit.order import id_ranks, order_findings
from recsys.audit.probes import BASELINES, Bench, id_findings, order_finding, spread_findings
from recsys.cuts import LEAVE_ONE_OUT, SplitRule
from recsys.datasets.corpus import Corpus
from recsys.splits import check_enough, cuts_of, sequences_of
from recsys.texts.item_texts import item_texts


def audit(corpus: Corpus, rule: SplitRule = LEAVE_ONE_OUT, *, shuffled: bool = False) -> list[Finding]:
    """Say what of a score on a corpus could be an artefact.

    Args:
        corpus: A corpus without queries, as a benchmark reads it.
        rule: How a benchmark splits it.
        shuffled: Whether equal times were put in a random order.

    Returns:
        Findings, always the same ones in the same order, whatever their severity.

    Raises:
        ValueError: If the corpus has queries, or too little to be tested or trained on.
    """
    if corpus.queries is not None:
        raise ValueError(
            "an audit looks at how the next item is predicted, but this corpus has queries in words; "
            "gritrec data check shows its counts"
        )
    check_enough(corpus, rule)
    sequences = sequences_of(corpus)
    cuts = cuts_of(corpus, sequences, rule)
    bench = Bench(sequences, cuts, len(corpus.items), id_ranks(corpus.items["item_id"]))
    split = bench.split()
    probed = [bench.probe(name, split) for name in BASELINES]
    return [
        *data_findings(corpus, rule, shuffled=shuffled),
        *id_findings(bench, split, probed),
        order_finding(bench, probed),
        *spread_findings(bench, probed),
    ]


def data_findings(corpus: Corpus, rule: SplitRule, *, shuffled: bool) -> list[Finding]:
    """Return the findings of an audit that need no baselines, so that every report can have them.

    Args:
        corpus: A corpus without queries.
        rule: How a benchmark splits it.
        shuffled: Whether equal times were put in a random order.
    """
    sequences = sequences_of(corpus)
    cuts = cuts_of(corpus, sequences, rule)
    return [
        *order_findings(corpus, sequences, cuts, id_ranks(corpus.items["item_id"]), shuffled=shuffled),
        overlap(corpus, sequences, cuts),
        new_targets(sequences, cuts),
        seen_before(sequences, cuts),
        same_texts(item_texts(corpus.items)),
        same_users(sequences),
        concentration(sequences.items, len(corpus.items)),
    ]
