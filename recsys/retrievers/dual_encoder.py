"""The GRIT-VQ paper's dual encoder: a query and an item meet as two vectors (appendix G.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.examples import Examples, Ranking
from recsys.models.causal_transformer import CausalTransformer, check_heads
from recsys.retrievers.trained import VectorRetriever
from recsys.retrievers.vector_index import IndexName, check_index
from recsys.training.batches import CausalPairs, TextVectors
from recsys.training.loop import Batch, BatchesOf, Training
from semantic_ids.randomness import default_device
from semantic_ids.types import Floats, Ints


class Towers(nn.Module):
    """Two towers over one table of code embeddings.

    Args:
        codebook_sizes: ``(K_1, …, K_L)``; each level has rows of its own in the table.
        width: of everything.
        temperature: of the softmax.
        text_width: D, numbers in the vector of a query's text; 0 if queries are histories alone.
        query_tower: the other sizes, see :class:`~recsys.models.causal_transformer.CausalTransformer`.
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
            # The norm takes vectors of length 1 to numbers of the size of 1, as the reader's are.
            self.text = nn.Sequential(nn.RMSNorm(text_width), *_perceptron(text_width, width))
            self.head = nn.Sequential(nn.LayerNorm(width), *_perceptron(width, width))

    def states(self, codes: Tensor) -> Tensor:
        """Codes ``(B, T, L)`` → ``(B, T + 1, width)``, at ``t`` what the first t items tell."""
        items = self.join(self.embed(codes + self.offsets).flatten(2))  # (B, T, width)
        states: Tensor = self.reader(items)
        return states

    def queries(self, codes: Tensor, at: Tensor, texts: Tensor | None) -> Tensor:
        """What A queries are as unit vectors, ``(A, width)``.

        Args:
            codes: ``(B, T, L)`` of histories.
            at: ``(2, A)``, of each query its row and how many of the items it has behind it.
            texts: ``(A, D)``; None if queries have none.
        """
        states = self.states(codes)
        if texts is None:
            return F.normalize(states, dim=-1)[at[0], at[1]]
        return F.normalize(self.head(states[at[0], at[1]] + self.text(texts)), dim=-1)

    def items(self, codes: Tensor) -> Tensor:
        """Codes ``(M, L)`` → unit vectors ``(M, width)``."""
        return F.normalize(self.to_item(self.embed(codes + self.offsets).mean(dim=1)), dim=-1)

    def forward(
        self,
        parts: list[tuple[Tensor, Tensor, Tensor | None]],
        leaves: Tensor,
        own: Tensor,
        offsets: Tensor,
    ) -> Tensor:
        """Softmax loss of P pairs of query and leaf over the M leaves of a batch.

        Args:
            parts: the queries of the P pairs, in their order, as :meth:`queries` takes them.
            leaves: ``(M, L)`` codes.
            own: ``(P,)``, each pair's leaf.
            offsets: ``(P, M)`` or ``(1, M)``, added to the logits.

        Returns:
            The mean over pairs, a scalar.
        """
        vectors = torch.cat([self.queries(*part) for part in parts])
        return F.cross_entropy(vectors @ self.items(leaves).T / self.temperature + offsets, own)


class DualEncoder(VectorRetriever):
    """Two-layer transformer over the history's codes against averaged code embeddings of the item.

    What a query says in words joins what its history tells behind the transformer: the frozen embedding
    goes through a perceptron of one hidden layer and is added, and another makes the query's vector of
    the sum.

    Trained by in-batch softmax over the distinct targets of a batch. Scores are inner products of
    unit vectors over a temperature; the paper's bare inner products learn far more slowly. The
    query tower is causal, so that all prefixes of one history are trained in one pass:
    ``training.batch_size`` counts histories, each with every prefix that shares its beginning; a query
    without a history is one of its own.

    Args:
        width, layers, heads, feed_forward, dropout: of the towers.
        max_history: how many of the latest items the query tower sees.
        temperature: of the softmax.
        log_q: the strength of the correction for frequent items being negatives more often: this
            times the logarithm of a leaf's share of the training targets is taken off its logit. 1
            is the correction of Yi et al., *Sampling-Bias-Corrected Neural Modeling* (2019, §3), where
            a negative that is drawn twice counts twice; here it counts once, so less may be enough.
        mask_hits: whether the other targets of a history, or in search of a query, are left out of its
            negatives.
        index: see :func:`~recsys.retrievers.vector_index.build_index`.
        training: the budget.
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
        check_heads(width, heads)
        check_index(index)
        self.width, self.layers, self.heads = width, layers, heads
        self.feed_forward, self.dropout, self.max_history = feed_forward, dropout, max_history
        self.temperature, self.log_q, self.mask_hits, self.index = temperature, log_q, mask_hits, index
        self.training = training if isinstance(training, Training) else Training(**(training or {}))

    def batches(self, train: Examples) -> tuple[BatchesOf, int]:
        """Histories with all their pairs; a step is one batch."""
        device = self._codes.device
        pairs, texts = (
            CausalPairs.from_examples(train, self.max_history, device),
            TextVectors.from_examples(train, device),
        )
        asker = pairs.queries if texts else pairs.groups
        leaf_of_item = torch.from_numpy(self.ids.leaf_of_item).to(device)
        shares = leaf_of_item[pairs.targets].bincount(minlength=len(self._leaves)) / len(pairs.targets)
        correction = -self.log_q * shares.clamp(min=1e-12).log()

        def batches_of(rows: Tensor) -> Iterator[tuple[int, Batch]]:
            """The whole step at once, for its targets are each other's negatives."""
            parts = [pairs.batch(part) for part in pairs.histories.by_length(rows)]
            numbers = torch.cat([of_part for _, _, of_part in parts])
            distinct, own = leaf_of_item[pairs.targets[numbers]].unique(return_inverse=True)
            offsets = correction[distinct][None]
            if self.mask_hits:
                askers, row = asker[numbers].unique(return_inverse=True)
                offsets = offsets + other_targets(row, own, len(askers), len(distinct))
            queries = [
                (self._codes[items], at, texts[pairs.queries[of_part]] if texts else None)
                for items, at, of_part in parts
            ]
            yield len(own), (queries, self._leaves[distinct], own, offsets)

        return batches_of, len(pairs)

    def vectors(self) -> Tensor:
        """Those of the distinct IDs."""
        return self.model.items(self._leaves)

    def read(self, items: Tensor, at: Tensor, texts: Tensor | None) -> Tensor:
        """What the query tower makes of the items' codes and the texts."""
        return self.model.queries(self._codes[items], at, texts)

    def found(self, rows: Ints, products: Floats, width: int) -> Ranking:
        """Items that share an ID stand together; scores are logits."""
        return Ranking(*self.ids.expand(rows, products / self.temperature, width))

    def build(self, facts: Mapping[str, Any]) -> None:
        """The towers with fresh weights, and the catalogue on their device."""
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
    """``(P, leaves)``: -inf at the targets of other pairs of the same row, 0 elsewhere.

    Args:
        row: ``(P,)``, each pair's row.
        own: ``(P,)``, each pair's target among the leaves.
        rows, leaves: how many there are.
    """
    hit = torch.zeros(rows, leaves, dtype=torch.bool, device=own.device)
    hit[row, own] = True
    others = hit[row].scatter(1, own[:, None], False)
    return torch.zeros(others.shape, device=own.device).masked_fill(others, -torch.inf)


def _perceptron(width: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Linear(width, out), nn.GELU(), nn.Linear(out, out)
