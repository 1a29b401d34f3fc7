"""Integrated transforms: codewords ``C = f(E)`` that share parameters, so that unused ones move too.

GRIT-VQ (arXiv 2602.01140, §4.3) makes codewords ``C = M E W`` of a table ``E`` ``(K, D)``: ``W``
``(D, D)`` maps features, the same for all codes, and ``M`` ``(K, K)`` mixes codes. All but the
paper's pure ``M = A Bᵀ`` start as ``C = E`` exactly, so that k-means seeds stay where they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS_AT_ONCE = 1024
_CLIP_TOLERANCE = 1e-5


class Transform(nn.Module, ABC):
    """Makes codewords of a table; constructed with ``size`` K, ``dim`` D and arguments of its own."""

    @abstractmethod
    def forward(self, table: Tensor) -> Tensor:
        """``(K, D) → (K, D)``; depends on nothing but the table and the transform's parameters."""

    @abstractmethod
    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """Change table and parameters in place so that codewords ``rows`` become ``targets`` ``(r, D)``.

        Called without gradient. Where the table is frozen (``requires_grad`` is False) no other row of
        it changes. Other codewords may move a little, through what they share.
        """

    def spectral_norm(self) -> float:
        """The largest singular value of the feature map; 1 where there is none."""
        return 1.0

    def clip(self, limit: float) -> bool:
        """Force the feature map's singular values into [1/limit, limit]; returns whether any was outside.

        The paper bounds the largest only, but a map that loses a direction loses it for all codes.
        What was clipped is within, so that clipping again changes no bit.
        """
        return False


class Plain(Transform):
    """``C = E``: every codeword for itself.

    Args:
        size: number of codewords K.
        dim: their width D.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()

    def forward(self, table: Tensor) -> Tensor:
        """``(K, D) → (K, D)``."""
        return table

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """The table's rows become ``targets``."""
        table[rows] = targets


class Linear(Transform):
    """``C = E W``: with a frozen table SimVQ (arXiv 2411.02038). ``W`` starts as the identity.

    The base of the transforms that mix codes too: they write :meth:`mix`, and add to :meth:`place`
    what makes the mixing leave the placed rows alone.

    Args:
        size: number of codewords K.
        dim: their width D.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.eye(dim))

    def forward(self, table: Tensor) -> Tensor:
        """``(K, D) → (K, D)``."""
        return self.mix(self.features(table))

    def features(self, table: Tensor) -> Tensor:
        """``E W``, ``(…, K, D) → (…, K, D)``."""
        return table @ self.w

    def solve(self, targets: Tensor) -> Tensor:
        """The rows that :meth:`features` maps to ``targets``: ``targets W⁻¹``, ``(…, r, D)``, in float64."""
        return torch.linalg.solve(self.w.mT.double(), targets.mT.double()).mT

    def mix(self, features: Tensor) -> Tensor:
        """``M`` times the features, ``(K, D) → (K, D)``; the features themselves where codes do not mix."""
        return features

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """The table's rows become ``targets W⁻¹``."""
        table[rows] = self.solve(targets).to(table.dtype)

    @torch.no_grad()
    def spectral_norm(self) -> float:
        """The largest singular value of ``W``."""
        return torch.linalg.matrix_norm(self.w, 2).max().item()

    @torch.no_grad()
    def clip(self, limit: float) -> bool:
        """Force the singular values of ``W`` into [1/limit, limit]; returns whether any was outside."""
        u, singular, vh = torch.linalg.svd(self.w)
        clipped = singular.clamp(1 / limit, limit)
        # Rounding moves every singular value by as much as it moves the largest.
        if torch.allclose(singular, clipped, rtol=0, atol=_CLIP_TOLERANCE * limit):
            return False
        self.w.copy_(u * clipped.unsqueeze(-2) @ vh)
        return True


class LowRank(Linear):
    """GRIT-VQ's default ``C = M E W`` with ``M = I + A Bᵀ``, at the cost of K × rank.

    The paper's ``M = A Bᵀ`` alone confines the codebook to ``rank`` dimensions. The identity term
    with ``A = 0`` and ``W = I`` at the start keeps k-means seeds exactly, and lifts that limit.

    Args:
        size: number of codewords K.
        dim: their width D.
        rank: columns of A and B.
        identity: False for the paper's ``M = A Bᵀ``, with A random at the start.
    """

    def __init__(self, size: int, dim: int, rank: int = 16, identity: bool = True) -> None:
        super().__init__(size, dim)
        self.identity = identity
        self.a = nn.Parameter(torch.zeros(size, rank) if identity else torch.randn(size, rank) / rank**0.5)
        self.b = nn.Parameter(torch.randn(size, rank) / size**0.5)

    def mix(self, features: Tensor) -> Tensor:
        """``features + A (Bᵀ features)``, or the second term alone."""
        mixed = self.a @ (self.b.T @ features)
        return features + mixed if self.identity else mixed

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """The table becomes ``M⁻¹ C W⁻¹`` for the wanted codewords ``C``, so that no others move.

        A frozen table's rows become ``targets W⁻¹`` and those of ``A`` zero, which moves the codewords
        whose rows of ``A`` are not. So do any table's, where ``M`` is so close to a singular one that the
        rest of the table would have to change by more than its own length.

        Without the identity term the rows of ``A`` are those that come closest to ``targets`` in
        least squares: there, if Bᵀ E W spans the D dimensions, else at their projection on its span.
        """
        if self.identity and table.requires_grad and self._place_alone(table, rows, targets):
            return
        super().place(table, rows, targets)
        if self.identity:
            self.a[rows] = 0
        else:
            self.a[rows] = targets @ torch.linalg.pinv(self.b.T @ self.features(table))

    def _place_alone(self, table: Tensor, rows: Tensor, targets: Tensor) -> bool:
        """Place by the table alone; False, with nothing changed, where it would change out of proportion."""
        a, b = self.a.double(), self.b.double()
        placed = table.to(torch.float64, copy=True)
        mixed = placed + a @ (b.T @ placed)
        placed[rows] = mixed[rows] = self.solve(targets)
        # M⁻¹ = I − A (I + Bᵀ A)⁻¹ Bᵀ, by Woodbury's identity.
        inner = torch.eye(b.shape[1], dtype=b.dtype, device=b.device) + b.T @ a
        new = mixed - a @ torch.linalg.solve_ex(inner, b.T @ mixed).result
        # Where M is nearly singular, tables grow a hundredfold at a placement, and training diverges.
        if (new - placed).norm() <= placed.norm():
            table.copy_(new)
            return True
        return False


class Grouped(Linear):
    """``C = M E W`` with ``M = I +`` a block for each group of codes, and a block of ``W`` for each of dims.

    Groups are of neighbouring codes and of neighbouring dims. The blocks of ``M`` start at zero.

    Args:
        size: number of codewords K.
        dim: their width D.
        groups: number of groups; K and D must be multiples of it.

    Raises:
        ValueError: they are not.
    """

    def __init__(self, size: int, dim: int, groups: int = 4) -> None:
        if groups < 1 or size % groups or dim % groups:
            raise ValueError(f"{size} codes of width {dim} cannot be split into {groups} groups of one size")
        super().__init__(size, dim)
        self.groups = groups
        self.w = nn.Parameter(torch.eye(dim // groups).repeat(groups, 1, 1))
        self.m = nn.Parameter(torch.zeros(groups, size // groups, size // groups))

    def features(self, table: Tensor) -> Tensor:
        """``E W``, ``(K, D) → (K, D)``."""
        return self._join(super().features(self._split(table)))

    def solve(self, targets: Tensor) -> Tensor:
        """``targets W⁻¹``, ``(r, D) → (r, D)``."""
        return self._join(super().solve(self._split(targets)))

    def mix(self, features: Tensor) -> Tensor:
        """The features, and those of the same group of codes by its block."""
        return features + (self.m @ features.unflatten(0, (self.groups, -1))).flatten(0, 1)

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """The table's rows become ``targets W⁻¹`` and those of the blocks zero."""
        super().place(table, rows, targets)
        self.m.view(len(table), -1)[rows] = 0

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(1, (self.groups, -1)).transpose(0, 1)  # (groups, r, D / groups)

    def _join(self, groups: Tensor) -> Tensor:
        return groups.transpose(0, 1).flatten(1)


class Attention(Linear):
    """``C = R + γ ⊙ (P R − R)`` with ``R = E W`` and ``P = softmax(Q Kᵀ / τ)`` (GRIT-VQ, §4.3).

    ``P`` is attention of codes to codes, by learned queries and keys that depend on no data. Means
    lie closer together than what they are of, so the paper's ``C = P R`` contracts the codebook.
    Here a gate ``γ`` for each code, zero at the start, says how far it goes to its mean.

    This one costs K² time and memory; its subclasses average more cheaply.

    Args:
        size: number of codewords K.
        dim: their width D.
        width: of queries and keys.
        temperature: τ > 0.

    Raises:
        ValueError: the temperature is not positive.
    """

    def __init__(self, size: int, dim: int, width: int = 16, temperature: float = 1.0) -> None:
        if temperature <= 0:
            raise ValueError(f"attention needs a temperature above 0, not {temperature}")
        super().__init__(size, dim)
        self.temperature = temperature
        self.gate = nn.Parameter(torch.zeros(size, 1))
        # Scores Q Kᵀ have unit variance at the start.
        self.queries = nn.Parameter(torch.randn(size, width) / width**0.25)
        self.keys = nn.Parameter(torch.randn(size, width) / width**0.25)

    def mix(self, features: Tensor) -> Tensor:
        """Each code's features moved towards the mean of those that it attends to."""
        return features + self.gate * (self.average(features) - features)

    def average(self, features: Tensor) -> Tensor:
        """``P`` times the features, ``(K, D) → (K, D)``."""
        return torch.softmax(self.queries @ self.keys.T / self.temperature, dim=1) @ features

    def place(self, table: Tensor, rows: Tensor, targets: Tensor) -> None:
        """The table's rows become ``targets W⁻¹`` and their gates zero."""
        super().place(table, rows, targets)
        self.gate[rows] = 0


class TopSAttention(Attention):
    """Attention to each code's s best scores alone: K·s memory, though finding them takes K² time.

    Args:
        size: number of codewords K.
        dim: their width D.
        s: codes that a code attends to; all, where there are fewer.
        width: of queries and keys.
        temperature: τ > 0.

    Raises:
        ValueError: ``s`` or the temperature is not positive.
    """

    def __init__(self, size: int, dim: int, s: int = 16, width: int = 16, temperature: float = 1.0) -> None:
        if s < 1:
            raise ValueError(f"top-s attention needs s of at least 1, not {s}")
        super().__init__(size, dim, width, temperature)
        self.s = min(s, size)

    def average(self, features: Tensor) -> Tensor:
        """``P`` times the features, ``(K, D) → (K, D)``; no gradient through which scores are best."""
        best = self._best()
        scores = (self.queries.unsqueeze(1) * F.embedding(best, self.keys)).sum(dim=2)
        weights = torch.softmax(scores / self.temperature, dim=1)
        return F.embedding_bag(best, features, per_sample_weights=weights, mode="sum")

    @torch.no_grad()
    def _best(self) -> Tensor:
        blocks = self.queries.split(_ROWS_AT_ONCE)
        return torch.cat([(block @ self.keys.T).topk(self.s).indices for block in blocks])


class LowRankAttention(Attention):
    """Attention with ``P ∝ φ(Q) φ(K)ᵀ``, which is never formed: K × width × D time, no K² memory.

    ``φ(x) = elu(x / τ) + 1``, the feature map of linear transformers (arXiv 2006.16236, eq. 7).
    """

    def average(self, features: Tensor) -> Tensor:
        """``φ(Q) [φ(K)ᵀ R] / φ(Q) [φ(K)ᵀ 1]``, ``(K, D) → (K, D)``."""
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
"""Name → transform, called with ``size``, ``dim`` and the choice's own arguments."""
