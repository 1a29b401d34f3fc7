"""Integrated transforms: codewords ``C = f(E)`` share parameters, so unused codewords move too.

GRIT-VQ (arXiv 2602.01140, §4.3) computes codewords ``C = M E W`` from a table ``E`` ``(K, D)``. ``W``
``(D, D)`` maps the features of all codes in the same way, and ``M`` ``(K, K)`` mixes codes. Every transform
except the paper's pure ``M = A Bᵀ`` starts with ``C = E`` exactly, so k-means seeds keep their positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.ranges import MAX_SIZE, check_numbers, check_whole

_ROWS_AT_ONCE = 1024
_CLIP_TOLERANCE = 1e-5


class Transform(nn.Module, ABC):
    """A module that computes codewords from a table.

    A subclass is constructed with ``size`` K, ``dim`` D and arguments of its own.
    """

    @abstractmethod
    def forward(self, table: Tensor) -> Tensor:
        """Compute the codewords ``(K, D)`` of a table ``(K, D)``.

        The result depends only on the table and on the transform's parameters.
        """

    @abstractmethod
    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """Change table and parameters in place so that some codewords become equal to the targets.

        It is called with gradients switched off. If the table is frozen (``requires_grad`` is False), its
        other rows do not change. Other codewords may move a little, because they share parameters.

        Args:
            table: ``(K, D)``.
            rows: Indices of the codewords ``(r,)`` int64.
            targets: Their new positions ``(r, D)``.
        """

    def spectral_norm(self) -> float:
        """Return the largest singular value of the feature map; 1 if there is none."""
        return 1.0

    def clip(self, limit: float) -> bool:
        """Force the feature map's singular values into [1/limit, limit].

        The paper bounds only the largest. The lower bound is here because a map that loses a direction
        loses it for all codes. Clipping a second time does not change any bit.

        Returns:
            True if any singular value was outside.
        """
        return False


class Plain(Transform):
    """``C = E``: codewords share no parameters.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()

    def forward(self, table: Tensor) -> Tensor:
        """Return the table unchanged."""
        return table

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """Set the table's rows to ``targets``."""
        table[rows] = targets


class Linear(Transform):
    """``C = E W``, where ``W`` starts as the identity; with a frozen table it is SimVQ (arXiv 2411.02038).

    It is also the base of the transforms that mix codes. They implement :meth:`mix` and extend
    :meth:`place`, so that mixing does not change the placed rows.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.eye(dim))

    def forward(self, table: Tensor) -> Tensor:
        """Compute the codewords ``(K, D)`` of a table ``(K, D)``."""
        return self.mix(self.features(table))

    def features(self, table: Tensor) -> Tensor:
        """Return ``E W``, ``(…, K, D) → (…, K, D)``."""
        return table @ self.w

    def solve(self, targets: Tensor) -> Tensor:
        """Return ``targets W⁻¹`` ``(…, r, D)`` in float64: rows that :meth:`features` maps to ``targets``."""
        return torch.linalg.solve(self.w.mT.double(), targets.mT.double()).mT

    def mix(self, features: Tensor) -> Tensor:
        """Return ``M`` times the features, ``(K, D) → (K, D)``; here ``M`` is the identity."""
        return features

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """Set the table's rows to ``targets W⁻¹``."""
        table[rows] = self.solve(targets).to(table.dtype)

    @torch.no_grad()
    def spectral_norm(self) -> float:
        """Return the largest singular value of ``W``."""
        return torch.linalg.matrix_norm(self.w, 2).max().item()

    @torch.no_grad()
    def clip(self, limit: float) -> bool:
        """Force the singular values of ``W`` into [1/limit, limit]; return True if any was outside."""
        u, singular, vh = torch.linalg.svd(self.w)
        clipped = singular.clamp(1 / limit, limit)
        # Rounding errors of all singular values are as large as that of the largest one.
        if torch.allclose(singular, clipped, rtol=0, atol=_CLIP_TOLERANCE * limit):
            return False
        self.w.copy_(u * clipped.unsqueeze(-2) @ vh)
        return True


class LowRank(Linear):
    """GRIT-VQ's default ``C = M E W`` with ``M = I + A Bᵀ``, at the cost of K × rank.

    The paper's ``M = A Bᵀ`` confines the codebook to ``rank`` dimensions. The identity term removes that
    limit. With ``A = 0`` and ``W = I`` at the start it also keeps k-means seeds exactly.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.
        rank: Number of columns of A and B.
        identity: False for the paper's ``M = A Bᵀ``, which starts with a random A.

    Raises:
        ValueError: If the rank is out of range.
    """

    def __init__(self, size: int, dim: int, rank: int = 16, identity: bool = True) -> None:
        check_whole(1, MAX_SIZE, rank=rank)
        super().__init__(size, dim)
        self.identity = identity
        self.a = nn.Parameter(torch.zeros(size, rank) if identity else torch.randn(size, rank) / rank**0.5)
        self.b = nn.Parameter(torch.randn(size, rank) / size**0.5)

    def mix(self, features: Tensor) -> Tensor:
        """Return ``features + A (Bᵀ features)``, or only the second term if ``identity`` is False."""
        mixed = self.a @ (self.b.T @ features)
        return features + mixed if self.identity else mixed

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """Place codewords, in one of three ways.

        1. If the table is not frozen, it becomes ``M⁻¹ C W⁻¹`` for the wanted codewords ``C``. So no
           other codeword moves.
        2. If the table is frozen, its rows become ``targets W⁻¹`` and the rows of ``A`` become zero. This
           moves other codewords whose rows of ``A`` are not zero. The same is done if ``M`` is so
           close to singular that the first way would change the table by more than its own norm.
        3. Without the identity term, the table's rows become ``targets W⁻¹``, and the rows of ``A``
           become the least-squares solution for ``targets``. The placed codewords equal the targets if
           Bᵀ E W spans the D dimensions. Otherwise they are the projections of the targets on its span.
        """
        if self.identity and table.requires_grad and self._place_by_table(table, rows, targets):
            return
        super().place(table, rows, targets)
        if self.identity:
            self.a[rows] = 0
        else:
            self.a[rows] = targets @ torch.linalg.pinv(self.b.T @ self.features(table))

    def _place_by_table(self, table: Tensor, rows: Tensor, targets: Tensor) -> bool:
        """Place codewords by changing the table only; if it would change too much, return False instead."""
        a, b = self.a.double(), self.b.double()
        placed = table.to(torch.float64, copy=True)
        mixed = placed + a @ (b.T @ placed)
        placed[rows] = mixed[rows] = self.solve(targets)
        # M⁻¹ = I − A (I + Bᵀ A)⁻¹ Bᵀ, by Woodbury's identity.
        inner = torch.eye(b.shape[1], dtype=b.dtype, device=b.device) + b.T @ a
        solved = mixed - a @ torch.linalg.solve_ex(inner, b.T @ mixed).result
        # If M is nearly singular, a placement can make the table a hundred times larger; training diverges.
        if (solved - placed).norm() <= placed.norm():
            table.copy_(solved)
            return True
        return False


class Grouped(Linear):
    """``C = M E W`` with block-diagonal ``M`` and ``W``.

    Each group of neighbouring codes has a block in ``M``, which is the identity plus this block. Each group
    of neighbouring features has a block in ``W``. The blocks of ``M`` start at zero.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.
        groups: Number of groups; K and D must be multiples of it.

    Raises:
        ValueError: If K or D is not a multiple of ``groups``.
    """

    def __init__(self, size: int, dim: int, groups: int = 4) -> None:
        check_whole(groups=groups)
        if size % groups or dim % groups:
            raise ValueError(f"{size} codes of width {dim} cannot be split into {groups} groups of one size")
        super().__init__(size, dim)
        self.groups = groups
        self.w = nn.Parameter(torch.eye(dim // groups).repeat(groups, 1, 1))
        self.m = nn.Parameter(torch.zeros(groups, size // groups, size // groups))

    def features(self, table: Tensor) -> Tensor:
        """Return ``E W``, ``(K, D) → (K, D)``."""
        return self._join(super().features(self._split(table)))

    def solve(self, targets: Tensor) -> Tensor:
        """Return ``targets W⁻¹``, ``(r, D) → (r, D)``."""
        return self._join(super().solve(self._split(targets)))

    def mix(self, features: Tensor) -> Tensor:
        """Add to the features the product of each group's block with the features of its codes."""
        return features + (self.m @ features.unflatten(0, (self.groups, -1))).flatten(0, 1)

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """Set the table's rows to ``targets W⁻¹`` and the blocks' rows to zero."""
        super().place(table, rows, targets)
        self.m.view(len(table), -1)[rows] = 0

    def _split(self, rows: Tensor) -> Tensor:
        """Split features into groups, ``(r, D) → (groups, r, D / groups)``."""
        return rows.unflatten(1, (self.groups, -1)).transpose(0, 1)

    def _join(self, groups: Tensor) -> Tensor:
        """Join groups of features, ``(groups, r, D / groups) → (r, D)``."""
        return groups.transpose(0, 1).flatten(1)


class Attention(Linear):
    """``C = R + γ ⊙ (P R − R)`` with ``R = E W`` and ``P = softmax(Q Kᵀ / τ)`` (GRIT-VQ, §4.3).

    ``P`` is attention of codes to codes. Its queries and keys are learned and do not depend on data. The
    paper's ``C = P R`` contracts the codebook, because means of rows are closer together than the rows.
    Here each code has a gate ``γ`` that says how far the code moves to its mean; gates start at zero.

    This class needs K² time and memory; its subclasses are cheaper.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.
        width: Width of queries and keys.
        temperature: τ > 0.

    Raises:
        ValueError: If the width or the temperature is out of range.
    """

    def __init__(self, size: int, dim: int, width: int = 16, temperature: float = 1.0) -> None:
        check_whole(1, MAX_SIZE, width=width)
        check_numbers(0, above=True, temperature=temperature)
        super().__init__(size, dim)
        self.temperature = temperature
        self.gate = nn.Parameter(torch.zeros(size, 1))
        # With this scale the scores Q Kᵀ start with unit variance.
        self.queries = nn.Parameter(torch.randn(size, width) / width**0.25)
        self.keys = nn.Parameter(torch.randn(size, width) / width**0.25)

    def mix(self, features: Tensor) -> Tensor:
        """Move each code's features towards the mean of the features that it attends to."""
        return features + self.gate * (self.average(features) - features)

    def average(self, features: Tensor) -> Tensor:
        """Return ``P`` times the features, ``(K, D) → (K, D)``."""
        return torch.softmax(self.queries @ self.keys.T / self.temperature, dim=1) @ features

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """Set the table's rows to ``targets W⁻¹`` and their gates to zero."""
        super().place(table, rows, targets)
        self.gate[rows] = 0


class TopSAttention(Attention):
    """Attention of each code to the s codes with the best scores.

    It needs K·s memory, but finding the best scores takes K² time.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.
        s: Number of codes that a code attends to; all codes if there are fewer.
        width: Width of queries and keys.
        temperature: τ > 0.

    Raises:
        ValueError: If ``s``, the width or the temperature is out of range.
    """

    def __init__(self, size: int, dim: int, s: int = 16, width: int = 16, temperature: float = 1.0) -> None:
        check_whole(s=s)
        super().__init__(size, dim, width, temperature)
        self.s = min(s, size)

    def average(self, features: Tensor) -> Tensor:
        """Return ``P`` times the features, ``(K, D) → (K, D)``; the choice of best scores has no gradient."""
        best = self._best_codes()
        scores = (self.queries.unsqueeze(1) * F.embedding(best, self.keys)).sum(dim=2)
        weights = torch.softmax(scores / self.temperature, dim=1)
        return F.embedding_bag(best, features, per_sample_weights=weights, mode="sum")

    @torch.no_grad()
    def _best_codes(self) -> Tensor:
        """Return the codes with the s best scores for each code, ``(K, s)``, in blocks to save memory."""
        blocks = self.queries.split(_ROWS_AT_ONCE)
        return torch.cat([(block @ self.keys.T).topk(self.s).indices for block in blocks])


class LowRankAttention(Attention):
    """Attention with ``P ∝ φ(Q) φ(K)ᵀ``, in K × width × D time and without K² memory.

    ``P`` itself is never computed. ``φ(x) = elu(x / τ) + 1`` is the feature map of linear transformers
    (arXiv 2006.16236, eq. 7).
    """

    def average(self, features: Tensor) -> Tensor:
        """Return ``φ(Q) [φ(K)ᵀ R] / φ(Q) [φ(K)ᵀ 1]``, ``(K, D) → (K, D)``."""
        queries, keys = (F.elu(x / self.temperature) + 1 for x in (self.queries, self.keys))
        return queries @ (keys.T @ features) / (queries @ keys.sum(dim=0)).unsqueeze(1)


TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "plain": Plain,
    "linear": Linear,
    "low-rank": LowRank,
    "grouped": Grouped,
    "attention": Attention,
    "top-s-attention": TopSAttention,
    "low-rank-attention": LowRankAttention,
}
"""Transforms by the names that configurations use.

Each is called with ``size``, ``dim`` and the choice's own arguments.
"""
