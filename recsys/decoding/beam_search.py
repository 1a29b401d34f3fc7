"""Beam search over the semantic IDs of a catalogue, for all queries and beams at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.decoding.trie import Trie
from recsys.models.t5 import PAD, T5, Memory
from recsys.models.t5_layers import Steps


@torch.no_grad()
def beam_search(model: T5, trie: Trie, sources: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the leaves that a beam search of the given width finds most likely.

    The score of a leaf is ``Σ_l log p(code_l | source, earlier codes)``, the model's own log-probability. It
    never rises along a path. The softmax of a level runs over all K_l codes: codes that lead to no item are
    never chosen, but they keep their share of the probability. If the model is
    :attr:`over_catalogue <recsys.models.t5.T5>`, the softmax runs only over codes that lead to an item.

    The search is deterministic: among equal scores the smaller node wins. It is exact if the width is at
    least the number of leaves. Otherwise it loses leaves whose prefix falls out of the beam;
    :func:`recsys.decoding.exact_search.exact_search` finds them. Every query gets exactly
    ``min(width, leaves)`` distinct leaves.

    Args:
        model: The model, in eval mode, of any floating-point type.
        trie: The catalogue.
        sources: ``(Q, S)`` int64 tokens for :meth:`T5.encode <recsys.models.t5.T5.encode>`.
        width: Number of prefixes kept at each level.

    Returns:
        Leaves ``(Q, width)`` int64, best first, and their scores ``(Q, width)`` in float32, or in the
        model's type if that is wider. Where the catalogue has fewer leaves than the width, both are filled
        up with ``-1`` and ``-inf``.
    """
    return search_encoded(model, trie, model.encode(sources), width)[0].ranked(width)


def search_encoded(model: T5, trie: Trie, memory: Memory, width: int) -> tuple[Prefixes, Tensor]:
    """Run the beam search on sources that are already encoded.

    Args:
        model: The model, in eval mode.
        trie: The catalogue.
        memory: The encoded sources of Q queries.
        width: Number of prefixes kept at each level.

    Returns:
        The ``min(width, leaves)`` leaves of each query; and ``(Q,)`` the best score among all prefixes that
        were dropped above the last level, -∞ if none was. Every leaf below a dropped prefix scores at most
        that. Leaves dropped at the last level itself are not counted, because the kept leaves score at
        least as much as they do.
    """
    prefixes = Prefixes.roots(memory)
    queries = torch.arange(len(memory.bias), device=memory.bias.device)
    best_dropped = prefixes.scores[:, 0] - math.inf
    for level, codes in enumerate(trie.last_codes):
        # Every prefix has an extension, so there are at least min(width, nodes of the level) of them.
        extensions = prefixes.extensions(model, trie, memory)
        prefixes, dropped = extensions.best(queries, min(width, len(codes)))
        if level < len(model.blocks) - 1:
            best_dropped = best_dropped.maximum(dropped)
    return prefixes, best_dropped


@dataclass(frozen=True)
class Prefixes:
    """B prefixes of semantic IDs for each of Q queries, all of the same length.

    Attributes:
        length: Number of codes in each prefix.
        nodes: ``(Q, B)`` int64, nodes of the trie; those ≥ 0 rise along a row, -1 means no prefix.
        scores: ``(Q, B)`` log-probabilities; -∞ where there is no prefix.
        past: For each decoder layer the keys and values of the tokens before the last code.
        origins: ``(Q, B)`` int64, the row of each prefix in ``past``.
    """

    length: int
    nodes: Tensor
    scores: Tensor
    past: list[Steps]
    origins: Tensor

    @classmethod
    def roots(cls, memory: Memory) -> Self:
        """Return the empty prefix for each query."""
        nodes = torch.zeros(len(memory.bias), 1, dtype=torch.int64, device=memory.bias.device)
        # At least float32: sums of log-probabilities in bfloat16 would lose the differences that rank leaves.
        scores = torch.zeros_like(nodes, dtype=torch.promote_types(memory.bias.dtype, torch.float32))
        return cls(0, nodes, scores, [], nodes)

    def extensions(self, model: T5, trie: Trie, memory: Memory) -> Extensions:
        """Return all prefixes of the catalogue that are one code longer than these."""
        queries, beams = self.nodes.shape
        level = self.length
        if level == 0:
            tokens = torch.full_like(self.nodes, PAD)
        else:
            tokens = model.blocks[level - 1].start + trie.codes(level - 1, self.nodes)
        hidden, past = model.step(tokens.flatten(), memory, self.past, self.origins.flatten())  # (Q·B, D)
        logits = model.logits(hidden, model.blocks[level]).view(queries, beams, -1)
        nodes = trie.children(level, self.nodes)  # (Q, B, C)
        codes = trie.codes(level, nodes)
        if model.over_catalogue:
            logits = logits.gather(2, codes).masked_fill(nodes < 0, -math.inf)
            log_p = logits.log_softmax(dim=2, dtype=self.scores.dtype)
        else:
            log_p = logits.log_softmax(dim=2, dtype=self.scores.dtype).gather(2, codes)
        scores = self.scores[:, :, None] + log_p
        return Extensions(level + 1, nodes, scores.masked_fill(nodes < 0, -math.inf), past)

    def ranked(self, width: int) -> tuple[Tensor, Tensor]:
        """Return nodes and scores ``(Q, width)``, best first, filled up with -1 and -∞."""
        order = self.scores.argsort(dim=1, descending=True, stable=True)[:, :width]
        missing = (0, width - order.shape[1])
        return (
            F.pad(self.nodes.gather(1, order), missing, value=-1),
            F.pad(self.scores.gather(1, order), missing, value=-math.inf),
        )


@dataclass(frozen=True)
class Extensions:
    """All extensions by one code, up to C of them, of B prefixes for each of Q queries.

    Attributes:
        length: Number of codes in each extension.
        nodes: ``(Q, B, C)`` int64, nodes of the trie; -1 means no prefix.
        scores: ``(Q, B, C)`` log-probabilities; -∞ where there is no prefix.
        past: For each decoder layer the keys and values of the tokens before the last code, in Q · B rows.
    """

    length: int
    nodes: Tensor
    scores: Tensor
    past: list[Steps]

    def best(self, queries: Tensor, count: int) -> tuple[Prefixes, Tensor]:
        """Keep the most likely extensions of some queries.

        Among equal scores the smaller position wins, which is the smaller node. (``topk`` alone would choose
        any of them.)

        Args:
            queries: ``(q,)`` int64, the queries.
            count: Number of extensions to keep for each query, 1 … B · C.

        Returns:
            The kept extensions as ``(q, count)`` prefixes, in the order of their nodes; and ``(q,)`` the best
            score among those that were dropped, -∞ if none was.
        """
        scores = self.scores[queries].flatten(1)
        top = scores.topk(min(count + 1, scores.shape[1]), dim=1).values
        threshold = top[:, count - 1 : count]
        above, equal = scores > threshold, scores == threshold
        num_ties_kept = count - above.sum(dim=1, keepdim=True)
        chosen = above | (equal & (equal.cumsum(dim=1) <= num_ties_kept))
        positions = chosen.nonzero()[:, 1].view(len(queries), count)
        _, beams, fan_out = self.nodes.shape
        prefixes = Prefixes(
            self.length,
            self.nodes.flatten(1)[queries[:, None], positions],
            scores.gather(1, positions),
            self.past,
            queries[:, None] * beams + positions // fan_out,
        )
        return prefixes, F.pad(top[:, count:], (0, 1), value=-math.inf)[:, 0]
