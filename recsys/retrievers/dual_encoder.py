"""The dual encoder of the GRIT-VQ paper (appendix G.4): queries and items as vectors of one space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.examples import Examples, Ranking
from recsys.models.causal_transformer import CausalTransformer, check_transformer
from recsys.retrievers.trained import VectorRetriever
from recsys.retrievers.vector_index import IndexName, check_index
from recsys.training.batches import CausalPairs, TextVectors
from recsys.training.loop import Batch, BatchesOf, Training
from semantic_ids.randomness import default_device
from semantic_ids.ranges import check_numbers
from semantic_ids.types import Floats, Ints


class Towers(nn.Module):
    """The query tower and the item tower, over one table of code embeddings.

    Args:
        codebook_sizes: Number of codes of each level, ``(K_1, …, K_L)``. Each level has its own rows in the
            table.
        width: Width of all embeddings and vectors.
        temperature: Temperature of the softmax.
        text_width: Width D of the vector of a query's text; 0 if queries have no texts.
        **query_tower: The other sizes, see :class:`~recsys.models.causal_transformer.CausalTransformer`.
    """

    def __init__(
        self,
        codebook_sizes: tuple[int, ...],
        width: int,
        temperature: float,
        text_width: int = 0,
        **query_tower: Any,
    ) -> None:
        super().__init__()
        sizes = torch.tensor(codebook_sizes)
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
        self.temperature = temperature
        self.embed = nn.Embedding(int(sizes.sum()), width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.join = nn.Linear(len(codebook_sizes) * width, width)
        self.reader = CausalTransformer(width, **query_tower)
        self.to_item = nn.Linear(width, width)
        if text_width:
            # The norm scales vectors of length 1 to numbers of size 1, like the outputs of the reader.
            self.text = nn.Sequential(nn.RMSNorm(text_width), *_perceptron(text_width, width))
            self.head = nn.Sequential(nn.LayerNorm(width), *_perceptron(width, width))

    def states(self, codes: Tensor) -> Tensor:
        """Read histories of codes ``(B, T, L)``, and return the states ``(B, T + 1, width)``.

        The state at position t depends on the first t items only.
        """
        items = self.join(self.embed(codes + self.offsets).flatten(2))  # (B, T, width)
        states: Tensor = self.reader(items)
        return states

    def queries(self, codes: Tensor, at: Tensor, texts: Tensor | None) -> Tensor:
        """Return the vectors of A queries, ``(A, width)``, of length 1.

        Args:
            codes: ``(B, T, L)``, codes of the items in histories.
            at: ``(2, A)``, for each query its row in ``codes`` and the number of items in its history.
            texts: ``(A, D)``, the vectors of the queries' texts; None if they have none.
        """
        states = self.states(codes)
        if texts is None:
            return F.normalize(states, dim=-1)[at[0], at[1]]
        return F.normalize(self.head(states[at[0], at[1]] + self.text(texts)), dim=-1)

    def items(self, codes: Tensor) -> Tensor:
        """Return the vectors ``(M, width)``, of length 1, of leaves with the codes ``(M, L)``."""
        return F.normalize(self.to_item(self.embed(codes + self.offsets).mean(dim=1)), dim=-1)

    def forward(
        self,
        parts: list[tuple[Tensor, Tensor, Tensor | None]],
        leaves: Tensor,
        own: Tensor,
        offsets: Tensor,
    ) -> Tensor:
        """Return the cross-entropy of P pairs of query and leaf over the M leaves of a batch.

        Args:
            parts: Arguments of :meth:`queries` for parts of the batch; together they give the queries of all
                P pairs in order.
            leaves: ``(M, L)``, codes of the leaves.
            own: ``(P,)``, the row in ``leaves`` of each pair's leaf.
            offsets: ``(P, M)`` or ``(1, M)``, added to the logits.

        Returns:
            The mean over pairs, a scalar.
        """
        vectors = torch.cat([self.queries(*part) for part in parts])
        return F.cross_entropy(vectors @ self.items(leaves).T / self.temperature + offsets, own)


class DualEncoder(VectorRetriever):
    """Dual encoder: a transformer over the codes of the history, and averaged code embeddings of the item.

    The text of a query joins its history after the transformer. A perceptron with one hidden layer maps the
    text's frozen embedding, the result is added to the transformer's output, and a second perceptron turns
    the sum into the vector of the query.

    The loss is an in-batch softmax over the distinct targets of a batch. Scores are inner products of vectors
    of length 1, divided by a temperature; with the paper's plain inner products it learns far more slowly.
    The query tower is causal, so all prefixes of a history are trained in one pass. Therefore
    ``training.batch_size`` counts histories, each with all its prefixes; a query with an empty history
    counts as one.

    Args:
        width: Width of code embeddings and vectors.
        layers: Number of transformer blocks in the query tower.
        heads: Number of attention heads; must divide the width.
        feed_forward: Width inside the feed-forward sub-layers.
        dropout: Dropout probability.
        max_history: Number of latest items of a history that are read.
        temperature: Temperature of the softmax.
        log_q: Strength of the correction for popular items, which are negatives more often. ``log_q`` times
            the logarithm of a leaf's share of the training targets is subtracted from its logit. 1 is the
            correction of Yi et al., *Sampling-Bias-Corrected Neural Modeling* (2019, §3). There a negative
            that is drawn twice counts twice; here it counts once, so less may be enough.
        mask_hits: Whether to leave the other targets of a history (in search: of a query) out of the
            negatives.
        index: Kind of index, see :func:`~recsys.retrievers.vector_index.build_index`.
        training: Settings of the training.

    Raises:
        ValueError: If an argument is outside its range.
    """

    uses_query_texts = True

    def __init__(
        self,
        *,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        feed_forward: int = 512,
        dropout: float = 0.1,
        max_history: int = 20,
        temperature: float = 0.07,
        log_q: float = 0.0,
        mask_hits: bool = False,
        index: IndexName = "Flat",
        training: Training | Mapping[str, Any] | None = None,
    ) -> None:
        check_transformer(
            width=width,
            max_history=max_history,
            layers=layers,
            heads=heads,
            feed_forward=feed_forward,
            dropout=dropout,
        )
        check_numbers(0, above=True, temperature=temperature)
        check_numbers(log_q=log_q)
        check_index(index)
        self.width, self.layers, self.heads = width, layers, heads
        self.feed_forward, self.dropout, self.max_history = feed_forward, dropout, max_history
        self.temperature, self.log_q, self.mask_hits, self.index = temperature, log_q, mask_hits, index
        self.training = training if isinstance(training, Training) else Training(**(training or {}))

    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """Return batches of histories, each with all its pairs of prefix and target; a step is one batch."""
        device = self._codes.device
        pairs = CausalPairs.from_examples(train, self.max_history, device)
        texts = TextVectors.from_examples(train, device)
        # Pairs with the same owner, a history or in search a query, may be masked for each other.
        owner_of_pair = pairs.queries if texts else pairs.groups
        leaf_of_item = torch.from_numpy(self.ids.leaf_of_item).to(device)
        shares = leaf_of_item[pairs.targets].bincount(minlength=len(self._leaves)) / len(pairs.targets)
        correction = -self.log_q * shares.clamp(min=1e-12).log()

        def batches_of(rows: Tensor) -> Iterator[tuple[int, Batch]]:
            """Yield the whole step as one batch, because its targets are each other's negatives."""
            parts = [pairs.batch(part) for part in pairs.histories.by_length(rows)]
            numbers = torch.cat([part_numbers for _, _, part_numbers in parts])
            distinct, own = leaf_of_item[pairs.targets[numbers]].unique(return_inverse=True)
            offsets = correction[distinct][None]
            if self.mask_hits:
                owners, row = owner_of_pair[numbers].unique(return_inverse=True)
                offsets = offsets + other_targets(row, own, len(owners), len(distinct))
            queries = [
                (self._codes[items], at, texts[pairs.queries[part_numbers]] if texts else None)
                for items, at, part_numbers in parts
            ]
            yield len(own), (queries, self._leaves[distinct], own, offsets)

        return batches_of, len(pairs)

    def vectors(self) -> Tensor:
        """Return the vectors of all leaves, ``(M, width)``."""
        return self.model.items(self._leaves)

    def read(self, items: Tensor, at: Tensor, texts: Tensor | None) -> Tensor:
        """Return the vectors of queries, ``(A, width)``, from the query tower."""
        return self.model.queries(self._codes[items], at, texts)

    def found(self, rows: Ints, products: Floats, width: int) -> Ranking:
        """Return the ranking of the leaves' items; items of a leaf are adjacent, and scores are logits."""
        return Ranking(*self.ids.expand(rows, products / self.temperature, width))

    def build(self, facts: Mapping[str, Any]) -> None:
        """Create the towers with new random weights, and copy the catalogue to their device."""
        device = default_device()
        self.model = Towers(
            self.ids.codebook_sizes,
            self.width,
            self.temperature,
            facts.get("text_width", 0),
            max_history=self.max_history,
            layers=self.layers,
            heads=self.heads,
            feed_forward=self.feed_forward,
            dropout=self.dropout,
        ).to(device)
        self._codes = torch.from_numpy(self.ids.codes).to(device)
        self._leaves = torch.from_numpy(self.ids.leaves).to(device)


def other_targets(row: Tensor, own: Tensor, rows: int, leaves: int) -> Tensor:
    """Return offsets of logits that mask the other targets of a pair's row.

    Args:
        row: ``(P,)``, the row of each pair, 0 … ``rows`` - 1.
        own: ``(P,)``, the target of each pair, 0 … ``leaves`` - 1.
        rows: Number of rows.
        leaves: Number of leaves.

    Returns:
        ``(P, leaves)``, -inf at the targets of other pairs of the same row, 0 elsewhere and at the pair's own
        target.
    """
    is_target = torch.zeros(rows, leaves, dtype=torch.bool, device=own.device)
    is_target[row, own] = True
    others = is_target[row].scatter(1, own[:, None], False)
    return torch.zeros(others.shape, device=own.device).masked_fill(others, -torch.inf)


def _perceptron(width: int, out: int) -> tuple[nn.Module, ...]:
    """Return the layers of a perceptron with one hidden layer, from ``width`` to ``out``."""
    return nn.Linear(width, out), nn.GELU(), nn.Linear(out, out)
