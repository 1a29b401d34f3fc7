"""Exact search for the k most likely leaves: look for the leaves that a beam search may have lost."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.decoding.beam_search import Prefixes, search_encoded
from recsys.decoding.trie import Trie
from recsys.models.t5 import T5

_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-10}
"""Generous bound on how much a log-probability changes when matrix products of other shapes compute it."""

_ROWS = 512
"""Number of prefixes that the decoder gets at once, up to a factor of two; a single query may have more."""


@torch.no_grad()
def exact_search(
    model: T5, trie: Trie, sources: Tensor, k: int, *, beam: int = 20, limit: int = 1000
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k most likely leaves, and for each query whether they are certain to be the right ones.

    The method is branch and bound:

    1. A beam search finds k leaves. The score of its k-th leaf is a lower bound on the score of the true
       k-th leaf.
    2. Log-probabilities never rise along a path. A prefix that scores below the bound therefore leads to
       none of the k best leaves.
    3. If the beam dropped no prefix above the bound, its leaves are the right ones.
    4. For the other queries the search starts again from the root and keeps, at every level, all prefixes
       above the bound.

    Scores and the order of equal ones are as in :func:`~recsys.decoding.beam_search.beam_search`.

    Args:
        model: The model, in eval mode, float32 or float64.
        trie: The catalogue.
        sources: ``(Q, S)`` int64 tokens for :meth:`T5.encode <recsys.models.t5.T5.encode>`.
        k: Number of leaves to return per query.
        beam: Width of the beam search that gives the bound; k if k is larger.
        limit: Largest number of prefixes that one query may keep at a level. A query that needs more,
            because the model's distribution is too flat, keeps the leaves of the beam search.

    Returns:
        Leaves ``(Q, k)`` int64, best first; their scores ``(Q, k)`` in the model's type, both filled up with
        ``-1`` and ``-inf`` if the catalogue has fewer than k leaves; and ``(Q,)`` bool, True where no leaf
        can be missing, up to differences in score of 1e-4 (float32) or 1e-10 (float64).

    Raises:
        ValueError: If the model's type is too coarse for a bound, such as bfloat16.
    """
    dtype = model.embedding.weight.dtype
    if dtype not in _ROUNDING:
        raise ValueError(f"an exact search needs a model in float32 or float64, not {dtype}: call .float()")
    memory = model.encode(sources)
    beams, best_dropped = search_encoded(model, trie, memory, max(beam, k))
    leaves, scores = beams.ranked(k)
    bound = scores[:, -1] - _ROUNDING[dtype]
    certified = best_dropped <= bound

    uncertain = (~certified).nonzero()[:, 0]
    to_do = [(uncertain, Prefixes.roots(memory.select(uncertain)))] if len(uncertain) else []
    while to_do:
        queries, prefixes = to_do.pop()
        extensions = prefixes.extensions(model, trie, memory.select(queries))
        if extensions.length == len(model.blocks):
            every_query = torch.arange(len(queries), device=queries.device)
            best, _ = extensions.best(every_query, min(k, len(trie.last_codes[-1])))
            leaves[queries], scores[queries] = best.ranked(k)
            certified[queries] = True
            continue
        counts = (extensions.scores > bound[queries, None, None]).sum(dim=(1, 2))
        for part in _parts(counts, limit):
            # All queries of a part keep the same number, so some keep a few prefixes below their bound.
            kept, _ = extensions.best(part, int(counts[part].max()))
            to_do.append((queries[part], kept))
    return leaves, scores, certified


def _parts(counts: Tensor, limit: int) -> list[Tensor]:
    """Group queries that need about the same number of prefixes; leave out those that exceed the limit.

    Args:
        counts: ``(q,)`` int64, number of prefixes that each query needs.
        limit: Largest number of prefixes that a query may need.

    Returns:
        Indices of queries, int64, one tensor per group. In a group the largest count is below twice the
        smallest, and the counts add up to at most :data:`_ROWS` plus the largest count.
    """
    order = counts.argsort(stable=True)
    order = order[(counts[order] > 0) & (counts[order] <= limit)]
    counts = counts[order]
    groups = torch.stack([counts.log2().long(), counts.cumsum(dim=0) // _ROWS])
    _, sizes = groups.unique_consecutive(dim=1, return_counts=True)
    return list(order.split(sizes.tolist()))
