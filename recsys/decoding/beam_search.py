"""Beam search over the catalogue's semantic IDs, for all queries and beams at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.decoding.trie import Trie
from recsys.models.t5 import PAD, T5, Memory, Steps


@torch.no_grad()
def beam_search(model: T5, trie: Trie, sources: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The leaves that a model finds likeliest, by beam search of the given width.

    A leaf scores ``Σ_l log p(code_l | source, codes before)``, the model's own log-probability, which never
    rises along a path. Each level's softmax runs over all K_l codes: those that lead nowhere are left out
    but *not* renormalised over. With a model :attr:`over_catalogue <recsys.models.t5.T5>` it runs over those
    that lead somewhere.

    The search is deterministic; equal scores go to the smaller node index. It is exact where the width is
    the number of leaves, otherwise a path whose prefix falls out of the beam is lost
    (:func:`recsys.decoding.exact_search.exact_search` brings it back). Every query gets exactly ``min(width, leaves)``
    leaves, none twice.

    Args:
        model: in eval mode, of any floating type.
        trie: the catalogue.
        sources: ``(Q, S)`` int64 tokens for :meth:`T5.encode <recsys.models.t5.T5.encode>`.
        width: prefixes kept at each level.

    Returns:
        Leaves ``(Q, width)`` int64, best first, and their scores, float32 or the model's type if that
        is wider; ``-1`` and ``-inf`` behind the last where the catalogue has fewer leaves than the width.
    """
    return beam_of(model, trie, model.encode(sources), width)[0].ranked(width)


def beam_of(model: T5, trie: Trie, memory: Memory, width: int) -> tuple[Prefixes, Tensor]:
    """The search itself, on sources that are already read.

    Returns:
        The ``min(width, leaves)`` leaves of each query, and ``(Q,)`` the best score among the prefixes
        that were left out above the last level, -∞ where none was: no leaf that is missing, but for
        those that had to give way to better *leaves*, scores more.
    """
    prefixes = Prefixes.roots(memory)
    everyone = torch.arange(len(memory.bias), device=memory.bias.device)
    lost = prefixes.scores[:, 0] - math.inf
    for level, codes in enumerate(trie.last_codes):
        # Every prefix leads somewhere, so there are at least so many longer ones.
        prefixes, dropped = prefixes.longer(model, trie, memory).best(everyone, min(width, len(codes)))
        if level < len(model.blocks) - 1:
            lost = lost.maximum(dropped)
    return prefixes, lost


@dataclass(frozen=True)
class Prefixes:
    """Equally long prefixes of IDs, equally many for each of Q queries.

    Attributes:
        length: in codes.
        nodes: ``(Q, B)`` int64, those ≥ 0 rising along a row; -1 where there is no prefix.
        scores: ``(Q, B)`` log-probabilities; -∞ where there is no prefix.
        past: for each layer keys and values of what comes before the last code.
        origins: ``(Q, B)`` int64, of each prefix its row in ``past``.
    """

    length: int
    nodes: Tensor
    scores: Tensor
    past: list[Steps]
    origins: Tensor

    @classmethod
    def roots(cls, memory: Memory) -> Self:
        """The empty prefix of each query."""
        nodes = torch.zeros(len(memory.bias), 1, dtype=torch.int64, device=memory.bias.device)
        # In bfloat16 a sum of log-probabilities would lose the differences that rank leaves.
        scores = torch.zeros_like(nodes, dtype=torch.promote_types(memory.bias.dtype, torch.float32))
        return cls(0, nodes, scores, [], nodes)

    def longer(self, model: T5, trie: Trie, memory: Memory) -> Extensions:
        """All prefixes of the catalogue that go on from these by one code."""
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
        """Nodes and scores ``(Q, width)``, best first; -1 and -∞ behind the last."""
        order = self.scores.argsort(dim=1, descending=True, stable=True)[:, :width]
        missing = (0, width - order.shape[1])
        return (
            F.pad(self.nodes.gather(1, order), missing, value=-1),
            F.pad(self.scores.gather(1, order), missing, value=-math.inf),
        )


@dataclass(frozen=True)
class Extensions:
    """Each of B prefixes a query, longer by each of up to C codes.

    Attributes:
        length: in codes.
        nodes: ``(Q, B, C)`` int64; -1 where there is no prefix.
        scores: ``(Q, B, C)`` log-probabilities; -∞ where there is no prefix.
        past: for each layer keys and values of what comes before the last code, a row each of Q · B.
    """

    length: int
    nodes: Tensor
    scores: Tensor
    past: list[Steps]

    def best(self, queries: Tensor, count: int) -> tuple[Prefixes, Tensor]:
        """The likeliest of some queries, and how likely the best of all others is.

        Equal scores go to the smaller place, which is the smaller node. (``topk`` alone takes any.)

        Args:
            queries: ``(q,)`` int64.
            count: how many of each query, 1 … B · C.

        Returns:
            ``(q, count)`` prefixes, in the order of their places; and ``(q,)`` scores, -∞ if nothing is left.
        """
        scores = self.scores[queries].flatten(1)
        top = scores.topk(min(count + 1, scores.shape[1]), dim=1).values
        threshold = top[:, count - 1 : count]
        above, equal = scores > threshold, scores == threshold
        room = count - above.sum(dim=1, keepdim=True)
        chosen = above | (equal & (equal.cumsum(dim=1) <= room))
        places = chosen.nonzero()[:, 1].view(len(queries), count)
        _, beams, fan_out = self.nodes.shape
        prefixes = Prefixes(
            self.length,
            self.nodes.flatten(1)[queries[:, None], places],
            scores.gather(1, places),
            self.past,
            queries[:, None] * beams + places // fan_out,
        )
        return prefixes, F.pad(top[:, count:], (0, 1), value=-math.inf)[:, 0]
