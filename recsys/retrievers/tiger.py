"""TIGER: a T5 that reads a query, in words and in semantic IDs of its history, and writes an item's."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.decoding.beam_search import beam_search
from recsys.decoding.exact_search import exact_search
from recsys.decoding.trie import Trie
from recsys.examples import Examples, Ranking
from recsys.models.t5 import PAD, T5, T5Config
from recsys.retrievers.base import evenly_spaced
from recsys.retrievers.trained import TrainedRetriever
from recsys.training.batches import Histories, TextVectors
from recsys.training.loop import Batch, BatchesOf, Training
from semantic_ids.randomness import default_device
from semantic_ids.types import Floats, Ints

# Of all queries: what caches hold on a CPU, what keeps a GPU busy and fits its memory.
_BEAMS_AT_ONCE = {"cpu": 1600}


@dataclass(frozen=True)
class Search:
    """How TIGER searches for the likeliest semantic IDs.

    Attributes:
        beam: Width of the beam search; a ranking that is longer widens it.
        exact: Whether to bring back what the beam lost, see
            :func:`~recsys.decoding.exact_search.exact_search`.
    """

    beam: int = 50
    exact: bool = False

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"search.beam must be at least 1, not {self.beam}")


class Tiger(TrainedRetriever):
    """Generative retrieval (Rajput et al. 2023).

    The source is the codes of the latest items, oldest first, L tokens an item. The model writes the
    L codes of a leaf, by constrained beam search; items that share a leaf share its score, and stand
    in the order of their collision digits. An empty history is read as padding. What a query says in
    words stands before the codes, as tokens that a learned linear map makes of its frozen embedding.

    Args:
        width, layers, heads, head_width, feed_forward, dropout: see :class:`~recsys.models.t5.T5Config`.
        max_history: how many of the latest items are read.
        user_tokens: where above 0, a source begins with one of so many tokens, which the user's id
            hashes to; the paper has 2,000. Not for search, whose queries have ids of their own.
        text_tokens: how many tokens are made of what a query says in words, at least 1; where queries
            say nothing there are none.
        over_catalogue: whether the codes of a level compete only with those that lead to an item, too. In
            the paper they compete with all. Then scores are log-probabilities over the catalogue, and no
            learning is spent on which IDs there are.
        search: how the likeliest IDs are found, see :class:`Search`.
        training: the budget.

    Raises:
        ValueError: there is not one text token.
    """

    uses_query_texts = True

    def __init__(
        self,
        *,
        width: int = 128,
        layers: int = 4,
        heads: int = 6,
        head_width: int = 64,
        feed_forward: int = 1024,
        dropout: float = 0.1,
        max_history: int = 20,
        user_tokens: int = 0,
        text_tokens: int = 4,
        over_catalogue: bool = False,
        search: Search | Mapping[str, Any] | None = None,
        training: Training | Mapping[str, Any] | None = None,
    ) -> None:
        if text_tokens < 1:
            raise ValueError(f"text_tokens must be at least 1, not {text_tokens}")
        self.width, self.layers, self.heads, self.head_width = width, layers, heads, head_width
        self.feed_forward, self.dropout = feed_forward, dropout
        self.max_history, self.user_tokens, self.text_tokens = max_history, user_tokens, text_tokens
        self.over_catalogue = over_catalogue
        self.search = search if isinstance(search, Search) else Search(**(search or {}))
        self.training = training if isinstance(training, Training) else Training(**(training or {}))

    @classmethod
    def upgraded(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return saved arguments with ``beam`` and ``exact``, once arguments of their own, in ``search``."""
        search = {name: params[name] for name in ("beam", "exact") if name in params}
        kept = {name: value for name, value in params.items() if name not in search}
        return {**kept, "search": search} if search else params

    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """Pairs of query and target, in parts of like length.

        Raises:
            ValueError: there are user tokens, but examples are queries and not users.
        """
        if self.user_tokens and train.texts is not None:
            raise ValueError("tiger cannot have user_tokens in search: queries have ids of their own")
        pairs = train.pairs()
        histories, sources = self._sources(pairs)
        targets = torch.from_numpy(pairs.targets.flat()).to(self._device)
        leaf_of_item = torch.from_numpy(self.ids.leaf_of_item).to(self._device)

        def batches_of(rows: Tensor) -> Iterator[tuple[int, Batch]]:
            for part in histories.by_length(rows):
                items = targets[part]
                allowed = (
                    self._trie.allowed(leaf_of_item[items], self.ids.codebook_sizes)
                    if self.over_catalogue
                    else ()
                )
                yield len(part), (sources(part), self._tokens[items], allowed)

        return batches_of, len(pairs)

    def candidates(self, queries: Examples, width: int) -> Ranking:
        """Constrained search for leaves; scores are log-probabilities of leaves."""
        leaves, scores, _ = self._leaves(queries, width, exact=self.search.exact)
        return Ranking(*self.ids.expand(leaves, scores, width))

    def diagnostics(self, queries: Examples, width: int) -> dict[str, float | str]:
        """What its search loses, on up to 1,000 evenly spaced queries.

        Returns:
            ``certified``, the share of queries whose 10 likeliest leaves are certain; and unless the search
            is exact, ``search_error_at_10``, the share of these that is not among the first 10 of the beam
            that a ranking of ``width`` is made by, over the queries where they are certain.
        """
        some = evenly_spaced(queries, 1000)
        likeliest, _, certified = self._leaves(some, min(10, len(self.ids.leaves)), exact=True)
        told: dict[str, float | str] = {"certified": float(certified.mean())}
        if not self.search.exact and certified.any():
            found, _, _ = self._leaves(some, max(width, 10), exact=False)
            missed = (likeliest[:, :, None] != found[:, None, :10]).all(axis=2).mean(axis=1)
            told["search_error_at_10"] = float(missed[certified].mean())
        return told

    @torch.no_grad()
    def _leaves(
        self, queries: Examples, width: int, *, exact: bool
    ) -> tuple[Ints, Floats, npt.NDArray[np.bool_]]:
        """Leaves ``(Q, width)``, best first; their scores; and ``(Q,)`` whether they are certain."""
        self._check_text_width(queries)
        _, sources_of = self._sources(queries)
        leaves = np.empty((len(queries), width), dtype=np.int64)
        scores = np.empty((len(queries), width), dtype=np.float32)
        certified = np.zeros(len(queries), dtype=bool)
        beam = max(self.search.beam, width)
        at_once = max(1, _BEAMS_AT_ONCE.get(self._device.type, 25_600) // beam)
        for rows in queries.history.by_length(len(queries) // at_once):
            sources = sources_of(torch.from_numpy(rows))
            if exact:
                best, best_scores, sure = exact_search(self.model, self._trie, sources, width, beam=beam)
                certified[rows] = sure.cpu().numpy()
            else:
                best, best_scores = beam_search(self.model, self._trie, sources, beam)
            leaves[rows] = best[:, :width].cpu().numpy()
            scores[rows] = best_scores[:, :width].cpu().numpy()
        return leaves, scores, certified

    def build(self, facts: Mapping[str, Any]) -> None:
        """The model with fresh weights, and the trie of the catalogue."""
        config = T5Config(
            self.width, self.layers, self.heads, self.head_width, self.feed_forward, self.dropout
        )
        device = default_device()
        self.model = T5(
            self.ids.codebook_sizes,
            config,
            self.user_tokens,
            over_catalogue=self.over_catalogue,
            text_width=facts.get("text_width", 0),
            text_tokens=self.text_tokens,
        ).to(device)
        self._trie = Trie.build(self.ids.leaves, self.ids.codebook_sizes, device)
        blocks = np.array([block.start for block in self.model.blocks])
        padding = np.full((1, self.ids.num_levels), PAD)
        self._tokens = torch.from_numpy(np.concatenate([self.ids.codes + blocks, padding])).to(device)

    @property
    def _device(self) -> torch.device:
        return self._tokens.device

    def _sources(self, examples: Examples) -> tuple[Histories, Callable[[Tensor], Tensor]]:
        """The histories as far as they are read; and from some rows to their sources, ``(B, S)`` int64."""
        device = self._device
        histories = Histories.from_ragged(examples.history.last(self.max_history), device)
        texts = TextVectors.from_examples(examples, device)
        first = torch.cat([self._user_tokens_of(examples), self._text_tokens_of(texts, len(examples))], dim=1)

        def sources(rows: Tensor) -> Tensor:
            if texts:  # each time, for validation has texts of its own, and comes between two steps
                self.model.texts = texts.vectors
            return torch.cat([first[rows.to(device)], self._tokens[histories.padded(rows)].flatten(1)], dim=1)

        return histories, sources

    def _user_tokens_of(self, examples: Examples) -> Tensor:
        """``(Q, 1)`` int64; ``(Q, 0)`` where users have none."""
        if not self.user_tokens:
            return torch.empty(len(examples), 0, dtype=torch.int64, device=self._device)
        # Not hash(), which is another one in every process.
        hashed = np.array(
            [zlib.crc32(user.encode()) % self.user_tokens for user in examples.query_ids.tolist()]
        )
        of_each = hashed if examples.query_rows is None else hashed[examples.query_rows]
        return torch.from_numpy(self.model.blocks[-1].stop + of_each)[:, None].to(self._device)

    def _text_tokens_of(self, texts: TextVectors | None, queries: int) -> Tensor:
        """``(Q, text_tokens)`` int64; ``(Q, 0)`` without texts."""
        if not texts:
            return torch.empty(queries, 0, dtype=torch.int64, device=self._device)
        within = torch.arange(self.text_tokens, device=self._device)
        return self.model.first_text + texts.rows[:, None] * self.text_tokens + within
