"""Quantizers without codebooks, which round every feature of the latent separately.

Each level has its own block of the latent's features and rounds each feature to one of n steps. The
numbers of the steps are the digits of the level's code. The first feature gives the lowest digit:
``code = d_1 + n_1·(d_2 + n_2·(d_3 + …))``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor

from semantic_ids.quantizers.quantizer import Quantized, Quantizer
from semantic_ids.ranges import check_numbers, check_widths

_MIN_STEPS, _MAX_STEPS = 3, 16


class ScalarQuantizer(Quantizer):
    """The base of all scalar quantizers.

    It converts between digits and codes and passes gradients straight through. It computes in float32
    or better, even under autocast.

    Args:
        steps: For each level the number of steps of each of its features. D is the number of all features.
    """

    steps: Tensor
    weights: Tensor
    level: Tensor

    def __init__(self, steps: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.codebook_sizes = tuple(math.prod(ns) for ns in steps)
        self.widths = [len(ns) for ns in steps]
        self.dim = sum(self.widths)
        weights = [math.prod(ns[:i]) for ns in steps for i in range(len(ns))]
        level = [level for level, width in enumerate(self.widths) for _ in range(width)]
        self.register_buffer("steps", torch.tensor([n for ns in steps for n in ns]), persistent=False)
        self.register_buffer("weights", torch.tensor(weights), persistent=False)
        self.register_buffer("level", torch.tensor(level), persistent=False)

    @abstractmethod
    def place(self, z: Tensor) -> Tensor:
        """Return the position of each feature among its steps, ``(..., D) → (..., D)``, with gradient."""

    @abstractmethod
    def digits(self, place: Tensor) -> Tensor:
        """Return the number of the nearest step for each position: ``(..., D)`` int64 in ``0 … n − 1``."""

    @abstractmethod
    def values(self, digits: Tensor) -> Tensor:
        """Return the positions of steps, ``(..., D)`` int64 → ``(..., D)`` float32."""

    def loss(self, place: Tensor, quantized: Tensor) -> Tensor:
        """Return a scalar loss from positions and their nearest steps, both ``(..., D)``; 0 by default."""
        return place.new_zeros(())

    def forward(self, z: Tensor) -> Quantized:
        """Quantize latents ``(..., D)``; the gradient passes straight through to the positions."""
        with torch.autocast(z.device.type, enabled=False):
            place = self._checked_place(z)
            digits = self.digits(place)
            quantized = self.values(digits).to(place.dtype)
            # Summed in this order, the value equals ``quantized`` to the last bit.
            latents = quantized + (place - place.detach())
            return Quantized(self._codes(digits), latents.to(z.dtype), self.loss(place, quantized))

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Return the codes of latents, ``(..., D)`` → ``(..., L)`` int64."""
        return self._codes(self.digits(self._checked_place(z)))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the quantized latents of codes, ``(..., L)`` → ``(..., D)`` float32."""
        return self.values(codes[..., self.level] // self.weights % self.steps)

    def _checked_place(self, z: Tensor) -> Tensor:
        """Return the positions of latents, or raise a :class:`ValueError` if their width is not D."""
        if z.shape[-1] != self.dim:
            raise ValueError(f"{type(self).__name__} needs latents of {self.dim} features, not {z.shape[-1]}")
        return self.place(z.to(torch.promote_types(z.dtype, torch.float32)))

    def _codes(self, digits: Tensor) -> Tensor:
        """Combine the digits ``(..., D)`` of each level into its code ``(..., L)``."""
        parts = (digits * self.weights).split(self.widths, dim=-1)
        return torch.stack([part.sum(dim=-1) for part in parts], dim=-1)


class FSQ(ScalarQuantizer):
    """Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505, appendix A.1).

    A feature with n steps is bounded to ``h·tanh(z + s) − o`` with ``h = ½(n − 1)(1 − 10⁻³)``, rounded,
    and divided by ⌊n/2⌋. For odd n, o and s are 0. For even n, ``o = ½`` gives the range n integers, and
    ``s = artanh(o/h)`` maps 0 to 0. The paper's tan(o/h) maps 0 only nearly to 0. Two steps would have no
    finite s, so each feature needs at least 3. There is no loss.

    Args:
        codebook_sizes: Number of codes of every level, ``(K_1, …, K_L)``.
        scalars: Numbers of steps, each at least 3, with a product equal to the K of every level. By
            default each K is factored into numbers from 3 to 16, the smallest first: 256 = 4·4·4·4.

    Raises:
        ValueError: If a K has no such factors (the message names sizes that do), or if ``scalars`` do
            not fit.

    Example:
        >>> quantizer = FSQ((256, 256))
        >>> quantizer.dim  # four features for each of two levels
        8
        >>> codes = quantizer.encode(torch.zeros(1, 8))
        >>> codes.tolist()
        [[170, 170]]
        >>> quantizer.decode(codes).tolist()
        [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """

    half_width: Tensor
    bound: Tensor
    offset: Tensor
    shift: Tensor

    def __init__(self, codebook_sizes: Sequence[int], scalars: Sequence[int] | None = None) -> None:
        super().__init__([_level_steps(size, scalars) for size in codebook_sizes])
        self.register_buffer("half_width", self.steps // 2, persistent=False)
        self.register_buffer("bound", (self.steps - 1) * (1 - 1e-3) / 2, persistent=False)
        self.register_buffer("offset", (1 - self.steps % 2) / 2, persistent=False)
        self.register_buffer("shift", torch.atanh(self.offset / self.bound), persistent=False)

    def place(self, z: Tensor) -> Tensor:
        """Return ``(h·tanh(z + s) − o) / ⌊n/2⌋``."""
        return (self.bound * torch.tanh(z + self.shift) - self.offset) / self.half_width

    def digits(self, place: Tensor) -> Tensor:
        """Return the nearest integers, counted from the lowest step."""
        return (place * self.half_width).round().long() + self.half_width

    def values(self, digits: Tensor) -> Tensor:
        """Return ``digit / ⌊n/2⌋ − 1``; for even n there is a step at −1 and none at 1."""
        return (digits - self.half_width) / self.half_width


class BinaryQuantizer(ScalarQuantizer):
    """The base of LFQ and BSQ: log2 K bits a level, each the sign of a feature, with an entropy loss.

    At position u the code with value c has the probability ``p ∝ exp(−‖u − c‖²/T)``. It is a product
    over features: bit i is a 1 with probability ``σ(4·u_i·|c_i|/T)``. The loss ``E[H(p)] − γ·H(E[p])`` is
    small if the code of every latent is certain and all codes are used equally. It is in nats a code, as
    in the papers: a mean over the batch and over the levels, weighted by their numbers of features log2 K.

    Args:
        codebook_sizes: Number of codes of every level, ``(K_1, …, K_L)``, powers of two;
            ``D = Σ log2 K_l``.
        entropy_weight: Weight of the whole entropy loss.
        diversity: γ.
        temperature: T.

    Raises:
        ValueError: If a K is not a power of two, or if a number is out of range.
    """

    scale = 1.0

    def __init__(
        self, codebook_sizes: Sequence[int], entropy_weight: float, diversity: float, temperature: float
    ) -> None:
        for size in codebook_sizes:
            if size < 2 or size & (size - 1):
                raise ValueError(f"{type(self).__name__} needs powers of two as codebook sizes, not {size}")
        check_numbers(entropy_weight=entropy_weight, diversity=diversity)
        check_numbers(0, above=True, temperature=temperature)
        super().__init__([(2,) * (size.bit_length() - 1) for size in codebook_sizes])
        self.entropy_weight, self.diversity, self.temperature = entropy_weight, diversity, temperature

    def digits(self, place: Tensor) -> Tensor:
        """Return 1 for positive positions, else 0."""
        return (place > 0).long()

    def values(self, digits: Tensor) -> Tensor:
        """Return ``scale`` for a 1 and ``-scale`` for a 0."""
        return (2.0 * digits - 1.0) * self.scale

    @abstractmethod
    def entropy_of_mean(self, logits: Tensor) -> Tensor:
        """Return ``H(E[p])`` of one level in nats, a scalar.

        Args:
            logits: Logits of a 1 for each feature of the level, ``(n, log2 K)``.
        """

    def loss(self, place: Tensor, quantized: Tensor) -> Tensor:
        """Return ``entropy_weight · Σ (log2 K / D) · (E[H(p)] − γ·H(E[p]))``, a sum over levels."""
        logits = (4 * self.scale / self.temperature) * place.reshape(-1, self.dim)
        levels = zip(self.widths, logits.split(self.widths, dim=1), strict=True)
        losses = [width / self.dim * self._level_loss(level) for width, level in levels]
        return self.entropy_weight * torch.stack(losses).sum()

    def _level_loss(self, logits: Tensor) -> Tensor:
        """Return ``E[H(p)] − γ·H(E[p])`` of one level, from logits ``(n, log2 K)``."""
        # A bit has the same entropy at −|logit|, and there the terms do not cancel.
        below = -logits.abs()
        entropies = F.softplus(below) - below * torch.sigmoid(below)
        return entropies.sum(dim=1).mean() - self.diversity * self.entropy_of_mean(logits)


class LFQ(BinaryQuantizer):
    """Lookup-free quantization: signs (Yu et al. 2023, MAGVIT-v2, arXiv 2310.05737, §3.1).

    ``H(E[p])`` is the exact entropy over the K codes of a level. A commitment loss ``(z − sg[sign z])²``,
    a mean over features, is added.

    Args:
        codebook_sizes: Number of codes of every level, powers of two.
        entropy_weight: Weight of the entropy loss, see :class:`BinaryQuantizer`.
        diversity: γ of the entropy loss.
        temperature: T of the entropy loss.
        commitment_weight: Weight of the commitment loss.
    """

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 0.01,
        commitment_weight: float = 0.25,
    ) -> None:
        super().__init__(codebook_sizes, entropy_weight, diversity, temperature)
        check_numbers(commitment_weight=commitment_weight)
        self.commitment_weight = commitment_weight

    def place(self, z: Tensor) -> Tensor:
        """Return the latents unchanged."""
        return z

    def entropy_of_mean(self, logits: Tensor) -> Tensor:
        """Return the entropy of the mean distribution over the level's codes, in nats."""
        return _entropy(_mean_code(logits))

    def loss(self, place: Tensor, quantized: Tensor) -> Tensor:
        """Return the sum of the entropy loss and the commitment loss."""
        return super().loss(place, quantized) + self.commitment_weight * F.mse_loss(place, quantized)


class BSQ(BinaryQuantizer):
    """Binary spherical quantization (Zhao et al. 2024, arXiv 2406.07548, §4).

    As in the paper, the whole latent with all levels is projected to the unit sphere: ``u = z/‖z‖``. It
    is quantized to ``sign(u)/√D``, which is also on the sphere, so no commitment loss is needed. For
    ``H(E[p])`` the loss uses an upper bound: the sum of the entropies of the level's single features.

    Args:
        codebook_sizes: Number of codes of every level, powers of two.
        entropy_weight: Weight of the entropy loss, see :class:`BinaryQuantizer`.
        diversity: γ of the entropy loss.
        temperature: T of the entropy loss; the paper's τ is 2/T.
    """

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(codebook_sizes, entropy_weight, diversity, temperature)
        self.scale = self.dim**-0.5

    def place(self, z: Tensor) -> Tensor:
        """Return ``z/‖z‖``."""
        return F.normalize(z, dim=-1)

    def entropy_of_mean(self, logits: Tensor) -> Tensor:
        """Return the sum over features of the entropy of a bit with the mean probability of a 1."""
        return _entropy(torch.sigmoid(logits).mean(dim=0)) + _entropy(torch.sigmoid(-logits).mean(dim=0))


SCALAR_QUANTIZERS: dict[str, Callable[..., ScalarQuantizer]] = {"fsq": FSQ, "lfq": LFQ, "bsq": BSQ}
"""Scalar quantizers by the names that configurations use."""


def _level_steps(size: int, scalars: Sequence[int] | None) -> tuple[int, ...]:
    """Return the number of steps of each feature of a level with ``size`` codes, after checking them."""
    if scalars is not None:
        check_widths("scalars", scalars)
    steps = tuple(scalars or _factors(size))
    if not steps:
        below = next(filter(_factors, range(size - 1, _MIN_STEPS, -1)), _MIN_STEPS)
        above = next(filter(_factors, count(max(size, _MIN_STEPS) + 1)))
        raise ValueError(
            f"FSQ cannot make {size} codes of scalars with {_MIN_STEPS} to {_MAX_STEPS} steps; "
            f"codebook sizes that work are {below} and {above}"
        )
    if min(steps) < _MIN_STEPS or math.prod(steps) != size:
        raise ValueError(f"scalars need at least {_MIN_STEPS} steps each and {size} as product, not {steps}")
    return steps


def _factors(size: int) -> tuple[int, ...]:
    """Factor ``size`` into numbers from 3 to 16, the smallest first; empty if that is impossible."""
    for step in range(_MIN_STEPS, _MAX_STEPS + 1):
        if size == step:
            return (step,)
        rest = _factors(size // step) if size > step and size % step == 0 else ()
        if rest:
            return (step, *rest)
    return ()


def _mean_code(logits: Tensor) -> Tensor:
    """Return the mean distribution over the codes of b independent bits.

    The distribution over K codes is the outer product of the distributions over two halves of the bits.
    So the mean over n is one matrix product of two tensors ``(n, √K)``, and no tensor ``(n, K)`` is needed.

    Args:
        logits: Logits of a 1 for each bit, ``(n, b)``.

    Returns:
        ``(2^b,)``; the order of the codes is not specified.
    """
    first, second = (_distribution(half) for half in logits.tensor_split(2, dim=1))
    return (first.T @ second).flatten() / len(logits)


def _distribution(logits: Tensor) -> Tensor:
    """Return the probabilities ``(n, 2^b)`` of the codes of b independent bits with logits ``(n, b)``."""
    bits = torch.arange(logits.shape[1], device=logits.device)
    ones = (torch.arange(1 << len(bits), device=logits.device) >> bits[:, None] & 1).to(logits.dtype)
    return (F.logsigmoid(logits) @ ones + F.logsigmoid(-logits) @ (1 - ones)).exp()


def _entropy(p: Tensor) -> Tensor:
    """Return ``−Σ p·log p`` in nats; its gradient is finite even if a probability underflows to 0."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum()
