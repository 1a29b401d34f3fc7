"""TIGER: a T5 that reads the semantic IDs of a history, and a query's text, and writes an item's ID."""

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
from recsys.models.t5 import PAD, T5
from recsys.models.t5_layers import T5Config
from recsys.retrievers.base import evenly_spaced
from recsys.retrievers.trained import TrainedRetriever
from recsys.training.batches import Histories, TextVectors
from recsys.training.loop import Batch, BatchesOf, Training
from semantic_ids.randomness import default_device
from semantic_ids.ranges import MAX_CODES, MAX_SIZE, check_whole
from semantic_ids.types import Floats, Ints

_BEAMS_AT_ONCE = {"cpu": 1600}
"""Number of beams, over all queries, that are decoded at once: as many as fit into the caches of a CPU."""

_BEAMS_AT_ONCE_ELSEWHERE = 25_600
"""The same for other devices: enough to keep a GPU busy, and few enough for its memory."""


@dataclass(frozen=True)
class Search:
    """How TIGER searches for the most likely semantic IDs.

    Attributes:
        beam: Width of the beam search, at least 1. It is widened for longer rankings.
        exact: Whether to search for leaves that the beam lost, see
            :func:`~recsys.decoding.exact_search.exact_search`.

    Raises:
        ValueError: If the beam is out of range.
    """

    beam: int = 50
    exact: bool = False

    def __post_init__(self) -> None:
        check_whole(1, MAX_SIZE, **{"search.beam": self.beam})


class Tiger(TrainedRetriever):
    """TIGER: generative retrieval (Rajput et al. 2023).

    The source consists of the codes of the latest items, oldest first, L tokens per item. An empty history is
    read as padding. If queries have texts, tokens of the text come before the codes; a learned linear map
    makes them out of the text's frozen embedding.

    The model writes the L codes of a leaf, and constrained beam search finds the most likely leaves. Items of
    a leaf share its score and are in the order of their collision digits.

    Args:
        width: Width of the residual stream.
        layers: Number of encoder layers, and also of decoder layers.
        heads: Number of attention heads.
        head_width: Width of queries, keys and values in a head.
        feed_forward: Width inside the feed-forward sub-layers.
        dropout: Dropout probability, see :class:`~recsys.models.t5_layers.T5Config`.
        max_history: Number of latest items of a history that are read.
        user_tokens: If above 0, each source begins with one of this many tokens, chosen by a hash of the
            user's id. The paper has 2,000. Not possible in search, where every query has an id of its own.
        text_tokens: Number of tokens that represent a query's text, at least 1. Queries without texts have
            none.
        over_catalogue: Whether the softmax of a level runs only over codes that lead to an item. Scores are
            then log-probabilities over the catalogue, and the model need not learn which IDs exist. In the
            paper the softmax runs over all codes of the level.
        search: How the most likely IDs are found, see :class:`Search`.
        training: Settings of the training.

    Raises:
        ValueError: If an argument is outside its range.
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
        check_whole(1, MAX_SIZE, max_history=max_history, text_tokens=text_tokens)
        check_whole(0, MAX_CODES, user_tokens=user_tokens)
        T5Config(width, layers, heads, head_width, feed_forward, dropout)  # refuses what is out of range
        self.width, self.layers, self.heads, self.head_width = width, layers, heads, head_width
        self.feed_forward, self.dropout = feed_forward, dropout
        self.max_history, self.user_tokens, self.text_tokens = max_history, user_tokens, text_tokens
        self.over_catalogue = over_catalogue
        self.search = search if isinstance(search, Search) else Search(**(search or {}))
        self.training = training if isinstance(training, Training) else Training(**(training or {}))

    @classmethod
    def upgraded(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Move ``beam`` and ``exact``, which version 0.1.0 had as arguments, into ``search``."""
        search = {name: params[name] for name in ("beam", "exact") if name in params}
        kept = {name: value for name, value in params.items() if name not in search}
        return {**kept, "search": search} if search else params

    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """Return batches of pairs of query and target; sources of a batch have similar lengths.

        Raises:
            ValueError: If there are user tokens, but the examples are search queries.
        """
        if self.user_tokens and train.texts is not None:
            raise ValueError("tiger cannot have user_tokens in search: queries have ids of their own")
        pairs = train.pairs()
        histories, sources = self._sources(pairs)
        targets = torch.from_numpy(pairs.targets.flat()).to(self._device)
        leaf_of_item = torch.from_numpy(self.ids.leaf_of_item).to(self._device)

        def batches_of(rows: Tensor) -> Iterator[tuple[int, Batch]]:
            """Yield the pairs in parts of similar length."""
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
        """Return the items of the most likely leaves; scores are the leaves' log-probabilities."""
        leaves, scores, _ = self._leaves(queries, width, exact=self.search.exact)
        return Ranking(*self.ids.expand(leaves, scores, width))

    def diagnostics(self, queries: Examples, width: int) -> dict[str, float | str]:
        """Measure what the search loses, on up to 1,000 evenly spaced queries.

        Args:
            queries: The evaluation set.
            width: Length of the rankings that are scored.

        Returns:
            ``certified``: share of the queries whose 10 most likely leaves are known for certain, by an exact
            search. ``search_error_at_10``, unless the search is exact anyway: share of these 10 leaves that
            are missing among the first 10 of the beam search, over the certified queries.
        """
        sample = evenly_spaced(queries, 1000)
        best, _, certified = self._leaves(sample, min(10, len(self.ids.leaves)), exact=True)
        diagnostics: dict[str, float | str] = {"certified": float(certified.mean())}
        if not self.search.exact and certified.any():
            by_beam, _, _ = self._leaves(sample, max(width, 10), exact=False)
            missed = (best[:, :, None] != by_beam[:, None, :10]).all(axis=2).mean(axis=1)
            diagnostics["search_error_at_10"] = float(missed[certified].mean())
        return diagnostics

    @torch.no_grad()
    def _leaves(
        self, queries: Examples, width: int, *, exact: bool
    ) -> tuple[Ints, Floats, npt.NDArray[np.bool_]]:
        """Return the most likely leaves of each query.

        Args:
            queries: Q queries.
            width: Number of leaves per query.
            exact: Whether to search for leaves that the beam lost.

        Returns:
            Leaves ``(Q, width)`` int64, best first; their scores ``(Q, width)`` float32; and ``(Q,)`` bool,
            whether the leaves are certain, always False unless the search is exact.
        """
        self._check_text_width(queries)
        _, sources_of = self._sources(queries)
        leaves = np.empty((len(queries), width), dtype=np.int64)
        scores = np.empty((len(queries), width), dtype=np.float32)
        certified = np.zeros(len(queries), dtype=bool)
        beam = max(self.search.beam, width)
        beams_at_once = _BEAMS_AT_ONCE.get(self._device.type, _BEAMS_AT_ONCE_ELSEWHERE)
        queries_at_once = max(1, beams_at_once // beam)
        for rows in queries.history.by_length(len(queries) // queries_at_once):
            sources = sources_of(torch.from_numpy(rows))
            if exact:
                best, best_scores, certain = exact_search(self.model, self._trie, sources, width, beam=beam)
                certified[rows] = certain.cpu().numpy()
            else:
                best, best_scores = beam_search(self.model, self._trie, sources, beam)
            leaves[rows] = best[:, :width].cpu().numpy()
            scores[rows] = best_scores[:, :width].cpu().numpy()
        return leaves, scores, certified

    def build(self, facts: Mapping[str, Any]) -> None:
        """Create the model with new random weights, and build the trie of the catalogue."""
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
        """Device of the model."""
        return self._tokens.device

    def _sources(self, examples: Examples) -> tuple[Histories, Callable[[Tensor], Tensor]]:
        """Return what is needed to encode queries.

        Returns:
            The histories, shortened to the items that are read; and a function from row numbers ``(B,)`` to
            sources ``(B, S)`` int64.
        """
        device = self._device
        histories = Histories.from_ragged(examples.history.last(self.max_history), device)
        texts = TextVectors.from_examples(examples, device)
        tokens_before = (self._tokens_of_users(examples), self._tokens_of_texts(texts, len(examples)))
        prefix = torch.cat(tokens_before, dim=1)

        def sources(rows: Tensor) -> Tensor:
            """Return the sources of some examples, and set the vectors of the texts that they refer to."""
            if texts:  # set each time, because validation between two steps sets texts of its own
                self.model.texts = texts.vectors
            codes = self._tokens[histories.padded(rows)].flatten(1)
            return torch.cat([prefix[rows.to(device)], codes], dim=1)

        return histories, sources

    def _tokens_of_users(self, examples: Examples) -> Tensor:
        """Return the token of each example's user, ``(Q, 1)`` int64; ``(Q, 0)`` without user tokens."""
        if not self.user_tokens:
            return torch.empty(len(examples), 0, dtype=torch.int64, device=self._device)
        # Not Python's hash(), which differs between processes.
        hashed = np.array(
            [zlib.crc32(user.encode()) % self.user_tokens for user in examples.query_ids.tolist()]
        )
        per_example = hashed if examples.query_rows is None else hashed[examples.query_rows]
        return torch.from_numpy(self.model.blocks[-1].stop + per_example)[:, None].to(self._device)

    def _tokens_of_texts(self, texts: TextVectors | None, queries: int) -> Tensor:
        """Return the tokens of each query's text, ``(Q, text_tokens)`` int64; ``(Q, 0)`` without texts."""
        if not texts:
            return torch.empty(queries, 0, dtype=torch.int64, device=self._device)
        within = torch.arange(self.text_tokens, device=self._device)
        return self.model.first_text + texts.rows[:, None] * self.text_tokens + within
