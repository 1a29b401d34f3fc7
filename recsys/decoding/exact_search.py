"""The k likeliest leaves of a catalogue, provably: what a beam search may have lost is looked for."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.decoding.beam_search import Prefixes, beam_of
from recsys.decoding.trie import Trie
from recsys.models.t5 import T5

_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-10}
"""By how much a log-probability may differ when products of other shapes compute it, with room to spare."""

_ROWS = 512
"""Prefixes that the decoder is given at once, within a factor of two and but for those of a single query."""


@torch.no_grad()
def exact_search(
    model: T5, trie: Trie, sources: Tensor, k: int, *, beam: int = 20, limit: int = 1000
) -> tuple[Tensor, Tensor, Tensor]:
    """The k leaves that a model finds likeliest, and whether that is certain.

    Branch and bound. The k-th best leaf of a beam search scores no more than the k-th best leaf of
    all. As log-probabilities never rise along a path, a prefix that scores less leads to none of the k
    best. So a query for which the beam lost nothing better is done. For the others the trie is walked
    once more, and of each level every prefix above the bound is kept, however many they are. Scores,
    and what becomes of equal ones, are those of :func:`~recsys.decoding.beam_search.beam_search`.

    Args:
        model: in eval mode, float32 or float64.
        trie: the catalogue.
        sources: ``(Q, S)`` int64 tokens for :meth:`T5.encode <recsys.models.t5.T5.encode>`.
        k: leaves asked for.
        beam: width of the beam search that gives the bound, if it is more than k.
        limit: prefixes of a level that a query may keep. One that needs more, because its model is
            too flat, is given up: it gets what the beam search found.

    Returns:
        Leaves ``(Q, k)`` int64, best first; their scores, in the model's type; ``-1`` and ``-inf``
        behind the last where the catalogue has fewer than k leaves. And ``(Q,)`` bool, true where no
        leaf can be missing, up to differences of 1e-4 (float32) or 1e-10 (float64) in scores.

    Raises:
        ValueError: the model is of a type too coarse for a bound to mean anything.
    """
    dtype = model.embedding.weight.dtype
    if dtype not in _ROUNDING:
        raise ValueError(f"an exact search needs a model in float32 or float64, not {dtype}: call .float()")
    memory = model.encode(sources)
    found, lost = beam_of(model, trie, memory, max(beam, k))
    leaves, scores = found.ranked(k)
    bound = scores[:, -1] - _ROUNDING[dtype]
    certified = lost <= bound

    doubtful = (~certified).nonzero()[:, 0]
    waiting = [(doubtful, Prefixes.roots(memory.select(doubtful)))] if len(doubtful) else []
    while waiting:
        queries, prefixes = waiting.pop()
        longer = prefixes.longer(model, trie, memory.select(queries))
        if longer.length == len(model.blocks):
            everyone = torch.arange(len(queries), device=queries.device)
            best, _ = longer.best(everyone, min(k, len(trie.last_codes[-1])))
            leaves[queries], scores[queries] = best.ranked(k)
            certified[queries] = True
            continue
        counts = (longer.scores > bound[queries, None, None]).sum(dim=(1, 2))
        for part in _parts(counts, limit):
            # The queries of a part keep equally many: some keep a few that lie below their bound.
            kept, _ = longer.best(part, int(counts[part].max()))
            waiting.append((queries[part], kept))
    return leaves, scores, certified


def _parts(counts: Tensor, limit: int) -> list[Tensor]:
    """Queries in groups that need about equally many prefixes, none that needs more than the limit.

    Args:
        counts: ``(q,)`` int64, what each query needs.
        limit: see :func:`exact_search`.

    Returns:
        Indices, ``int64``. In a group the largest count is below twice the smallest, and counts add up
        to no more than :data:`_ROWS` plus the largest.
    """
    order = counts.argsort(stable=True)
    order = order[(counts[order] > 0) & (counts[order] <= limit)]
    counts = counts[order]
    groups = torch.stack([counts.log2().long(), counts.cumsum(dim=0) // _ROWS])
    _, sizes = groups.unique_consecutive(dim=1, return_counts=True)
    return list(order.split(sizes.tolist()))
