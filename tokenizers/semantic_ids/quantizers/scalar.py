"""Quantizers without codebooks: every feature of the latent is rounded on its own.

Each is a product over the L levels. A level reads its own block of the latent's features and rounds
each to one of n steps. The steps' numbers are the digits of the level's code, the first feature's
the lowest: ``code = d_1 + n_1·(d_2 + n_2·(d_3 + …))``.
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

_FEWEST, _MOST = 3, 16


class ScalarQuantizer(Quantizer):
    """What all share: digits ↔ codes, one straight-through pass, float32 or better despite autocast.

    Args:
        steps: for each level, the number of steps of each of its features; D is how many there are.
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
        """Latents ``(..., D)`` → where they lie among the steps ``(..., D)``, with gradient."""

    @abstractmethod
    def digits(self, place: Tensor) -> Tensor:
        """Places ``(..., D)`` → the nearest steps ``(..., D)`` int64, each in ``0 … n − 1``."""

    @abstractmethod
    def values(self, digits: Tensor) -> Tensor:
        """Steps ``(..., D)`` int64 → their places ``(..., D)`` float32."""

    def loss(self, place: Tensor, quantized: Tensor) -> Tensor:
        """Scalar, of places and the steps next to them, both ``(..., D)``; none by default."""
        return place.new_zeros(())

    def forward(self, z: Tensor) -> Quantized:
        """``(..., D)`` → codes, quantized latents and loss; the place gets the latents' gradient as it is."""
        with torch.autocast(z.device.type, enabled=False):
            place = self._place(z)
            digits = self.digits(place)
            quantized = self.values(digits).to(place.dtype)
            # Added up in this order, the value is that of ``quantized`` to the last bit.
            latents = quantized + (place - place.detach())
            return Quantized(self._codes(digits), latents.to(z.dtype), self.loss(place, quantized))

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """``(..., D)`` → codes ``(..., L)`` int64."""
        return self._codes(self.digits(self._place(z)))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(..., L)`` → ``(..., D)`` float32."""
        return self.values(codes[..., self.level] // self.weights % self.steps)

    def _place(self, z: Tensor) -> Tensor:
        if z.shape[-1] != self.dim:
            raise ValueError(f"{type(self).__name__} needs latents of {self.dim} features, not {z.shape[-1]}")
        return self.place(z.to(torch.promote_types(z.dtype, torch.float32)))

    def _codes(self, digits: Tensor) -> Tensor:
        parts = (digits * self.weights).split(self.widths, dim=-1)
        return torch.stack([part.sum(dim=-1) for part in parts], dim=-1)


class FSQ(ScalarQuantizer):
    """Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505, appendix A.1).

    A feature of n steps is bounded to ``h·tanh(z + s) − o`` with ``h = ½(n − 1)(1 − 10⁻³)``, rounded, and
    divided by ⌊n/2⌋. For even n, ``o = ½`` makes room for n integers, and ``s = artanh(o/h)`` keeps 0 in
    place, which two steps would not allow; the paper's tan(o/h) does so nearly. There is no loss.

    Args:
        codebook_sizes: ``(K_1, …, K_L)``.
        scalars: numbers of steps, at least 3 each, whose product is the K of every level. By default
            each K is factored into numbers from 3 to 16, the smallest first: 256 = 4·4·4·4.

    Raises:
        ValueError: a K has no such factors (the message names sizes that have), or ``scalars`` are wrong.
    """

    half_width: Tensor
    bound: Tensor
    offset: Tensor
    shift: Tensor

    def __init__(self, codebook_sizes: Sequence[int], scalars: Sequence[int] | None = None) -> None:
        super().__init__([_steps(size, scalars) for size in codebook_sizes])
        self.register_buffer("half_width", self.steps // 2, persistent=False)
        self.register_buffer("bound", (self.steps - 1) * (1 - 1e-3) / 2, persistent=False)
        self.register_buffer("offset", (1 - self.steps % 2) / 2, persistent=False)
        self.register_buffer("shift", torch.atanh(self.offset / self.bound), persistent=False)

    def place(self, z: Tensor) -> Tensor:
        """``(h·tanh(z + s) − o) / ⌊n/2⌋``."""
        return (self.bound * torch.tanh(z + self.shift) - self.offset) / self.half_width

    def digits(self, place: Tensor) -> Tensor:
        """The nearest integer, counted from the lowest."""
        return (place * self.half_width).round().long() + self.half_width

    def values(self, digits: Tensor) -> Tensor:
        """``digit / ⌊n/2⌋ − 1``; even n have a step at −1 and none at 1."""
        return (digits - self.half_width) / self.half_width


class BinaryQuantizer(ScalarQuantizer):
    """What LFQ and BSQ share: log2 K bits a level, each the sign of a feature, and their entropy loss.

    At place u the code that stands for c has the probability ``p ∝ exp(−‖u − c‖²/T)``. That is a product
    over features: the i-th is a 1 with probability ``σ(4·u_i·|c_i|/T)``. The loss ``E[H(p)] − γ·H(E[p])``
    wants every latent sure of its code and all codes used alike. It is in nats a code, as in the papers:
    a mean over the batch and over the levels, each with the weight of its log2 K features.

    Args:
        codebook_sizes: ``(K_1, …, K_L)``, powers of two; ``D = Σ log2 K_l``.
        entropy_weight: of the whole entropy loss.
        diversity: γ.
        temperature: T.

    Raises:
        ValueError: a K is no power of two, or T is not positive.
    """

    scale = 1.0

    def __init__(
        self, codebook_sizes: Sequence[int], entropy_weight: float, diversity: float, temperature: float
    ) -> None:
        for size in codebook_sizes:
            if size < 2 or size & (size - 1):
                raise ValueError(f"{type(self).__name__} needs powers of two as codebook sizes, not {size}")
        if temperature <= 0:
            raise ValueError(f"the temperature must be positive, not {temperature}")
        super().__init__([(2,) * (size.bit_length() - 1) for size in codebook_sizes])
        self.entropy_weight, self.diversity, self.temperature = entropy_weight, diversity, temperature

    def digits(self, place: Tensor) -> Tensor:
        """1 where positive, else 0."""
        return (place > 0).long()

    def values(self, digits: Tensor) -> Tensor:
        """``±scale``."""
        return (2.0 * digits - 1.0) * self.scale

    @abstractmethod
    def entropy_of_mean(self, logits: Tensor) -> Tensor:
        """One level's ``H(E[p])`` in nats, scalar, from its features' logits of a 1 ``(n, log2 K)``."""

    def loss(self, place: Tensor, quantized: Tensor) -> Tensor:
        """``entropy_weight · Σ over levels of (log2 K / D) · (E[H(p)] − γ·H(E[p]))``."""
        logits = (4 * self.scale / self.temperature) * place.reshape(-1, self.dim)
        levels = zip(self.widths, logits.split(self.widths, dim=1), strict=True)
        losses = [width / self.dim * self._level_loss(level) for width, level in levels]
        return self.entropy_weight * torch.stack(losses).sum()

    def _level_loss(self, logits: Tensor) -> Tensor:
        # A bit's entropy is that of −|logit| too, where nothing cancels.
        below = -logits.abs()
        entropies = F.softplus(below) - below * torch.sigmoid(below)
        return entropies.sum(dim=1).mean() - self.diversity * self.entropy_of_mean(logits)


class LFQ(BinaryQuantizer):
    """Lookup-free quantization: signs (Yu et al. 2023, MAGVIT-v2, arXiv 2310.05737, §3.1).

    ``H(E[p])`` is the entropy over the K codes of a level, exactly. A commitment loss
    ``(z − sg[sign z])²``, a mean over features, is added.

    Args:
        codebook_sizes, entropy_weight, diversity, temperature: see :class:`BinaryQuantizer`.
        commitment_weight: of the commitment loss.
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
        self.commitment_weight = commitment_weight

    def place(self, z: Tensor) -> Tensor:
        """The latents as they are."""
        return z

    def entropy_of_mean(self, logits: Tensor) -> Tensor:
        """The entropy of the mean distribution over the level's codes."""
        return _entropy(_mean_code(logits))

    def loss(self, place: Tensor, quantized: Tensor) -> Tensor:
        """The entropy loss and the commitment."""
        return super().loss(place, quantized) + self.commitment_weight * F.mse_loss(place, quantized)


class BSQ(BinaryQuantizer):
    """Binary spherical quantization (Zhao et al. 2024, arXiv 2406.07548, §4).

    As in the paper the whole latent, all levels together, is put on the unit sphere: ``u = z/‖z‖``,
    quantized to ``sign(u)/√D``, which lies there too, so that no commitment is needed. ``H(E[p])`` is
    taken as the sum of a level's features' own entropies, which is never below it.

    Args:
        codebook_sizes, entropy_weight, diversity: see :class:`BinaryQuantizer`.
        temperature: T; the paper's τ is 2/T.
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
        """``z/‖z‖``."""
        return F.normalize(z, dim=-1)

    def entropy_of_mean(self, logits: Tensor) -> Tensor:
        """Σ over features of the entropy of the mean probability of a 1."""
        return _entropy(torch.sigmoid(logits).mean(dim=0)) + _entropy(torch.sigmoid(-logits).mean(dim=0))


SCALAR_QUANTIZERS: dict[str, Callable[..., ScalarQuantizer]] = {"fsq": FSQ, "lfq": LFQ, "bsq": BSQ}


def _steps(size: int, scalars: Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of steps of the scalars that make up one of ``size`` codes."""
    found = tuple(scalars or _factors(size))
    if not found:
        below = next(filter(_factors, range(size - 1, _FEWEST, -1)), _FEWEST)
        above = next(filter(_factors, count(max(size, _FEWEST) + 1)))
        raise ValueError(
            f"FSQ cannot make {size} codes of scalars with {_FEWEST} to {_MOST} steps; "
            f"codebook sizes that work are {below} and {above}"
        )
    if min(found) < _FEWEST or math.prod(found) != size:
        raise ValueError(f"scalars need at least {_FEWEST} steps each and {size} as product, not {found}")
    return found


def _factors(size: int) -> tuple[int, ...]:
    """``size`` as a product of numbers from 3 to 16, the smallest first; empty if it is none."""
    for step in range(_FEWEST, _MOST + 1):
        if size == step:
            return (step,)
        rest = _factors(size // step) if size > step and size % step == 0 else ()
        if rest:
            return (step, *rest)
    return ()


def _mean_code(logits: Tensor) -> Tensor:
    """Logits of b independent bits ``(n, b)`` → the mean distribution over the 2^b codes, in any order.

    A distribution is the outer product of those over half the bits, so the mean over n is one matrix
    product of two tensors ``(n, √K)``, and none of ``(n, K)`` is held.
    """
    first, second = (_distribution(half) for half in logits.tensor_split(2, dim=1))
    return (first.T @ second).flatten() / len(logits)


def _distribution(logits: Tensor) -> Tensor:
    """Over the 2^b codes of b independent bits: logits ``(n, b)`` → probabilities ``(n, 2^b)``."""
    bits = torch.arange(logits.shape[1], device=logits.device)
    ones = (torch.arange(1 << len(bits), device=logits.device) >> bits[:, None] & 1).to(logits.dtype)
    return (F.logsigmoid(logits) @ ones + F.logsigmoid(-logits) @ (1 - ones)).exp()


def _entropy(p: Tensor) -> Tensor:
    """``−Σ p·log p`` in nats, scalar, with a finite gradient where a probability underflows to 0."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum()
