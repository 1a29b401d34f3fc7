"""Beam search over the catalogue's semantic IDs, for all queries and beams at once."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.t5 import PAD, T5, KeysValues
from recsys.trie import Trie


def beam_search(model: T5, trie: Trie, sources: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The leaves that a model finds likeliest, by beam search of the given width.

    A leaf scores ``Σ_l log p(code_l | source, codes before)``, each level's softmax running over all
    K_l codes. Codes that lead nowhere are left out but *not* renormalised over: a score is the model's
    own log-probability, and never rises along a path. The search is deterministic; equal scores go to
    the smaller node index. It is exact where the width is the number of leaves, otherwise a path
    whose prefix falls out of the beam is lost.

    Args:
        model: in eval mode.
        trie: the catalogue.
        sources: ``(Q, S)`` int64 tokens for :meth:`T5.encode <recsys.t5.T5.encode>`.
        width: prefixes kept at each level.

    Returns:
        Leaves ``(Q, width)`` int64, best first, and their scores in the model's precision; ``-1``
        and ``-inf`` behind the last where the catalogue has fewer leaves than the width.
    """
    queries = len(sources)
    memory = model.encode(sources)
    past: list[KeysValues] = []
    scores = torch.zeros(queries, 1, dtype=memory.bias.dtype, device=sources.device)
    nodes = torch.zeros(queries, 1, dtype=torch.int64, device=sources.device)  # (Q, B), rising along a row
    tokens = torch.full_like(nodes, PAD)
    query = torch.arange(queries, device=sources.device)[:, None]
    origins = torch.zeros_like(nodes)  # (Q, B): of each path the row of the decoder that it goes on from
    for level, block in enumerate(model.blocks):
        beams = nodes.shape[1]
        past = [(keys[origins.flatten()], values[origins.flatten()]) for keys, values in past]
        hidden, past = model.decode(tokens.view(-1, 1), memory, past)  # (Q·B, 1, D)
        log_p = model.logits(hidden, block).log_softmax(dim=-1).view(queries, beams, -1)  # (Q, B, K)
        children = trie.children(level, nodes)  # (Q, B, C)
        codes = trie.codes(level, children)
        paths = (scores[:, :, None] + log_p.gather(2, codes)).masked_fill(children < 0, -math.inf)
        # Every prefix leads somewhere, so there are at least so many children that are not -1.
        best = _best_places(paths.flatten(1), min(width, len(trie.keys[level])))
        scores = paths.flatten(1).gather(1, best)
        nodes = children.flatten(1).gather(1, best)
        tokens = block.start + codes.flatten(1).gather(1, best)
        origins = query * beams + best // trie.fan_outs[level]
    order = scores.argsort(dim=1, descending=True, stable=True)
    missing = (0, width - order.shape[1])
    leaves = F.pad(nodes.gather(1, order), missing, value=-1)
    return leaves, F.pad(scores.gather(1, order), missing, value=-math.inf)


def _best_places(scores: Tensor, count: int) -> Tensor:
    """Where the ``count`` largest of each row stand, in rising order; the first of equals.

    (``topk`` alone takes any of equals. In rising order of places, nodes keep rising along the beam.)

    Args:
        scores: ``(Q, C)``.
        count: at most C.

    Returns:
        ``(Q, count)`` int64.
    """
    threshold = scores.topk(count, dim=1).values[:, -1:]
    above, equal = scores > threshold, scores == threshold
    room = count - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= room))
    return chosen.nonzero()[:, 1].view(len(scores), count)
