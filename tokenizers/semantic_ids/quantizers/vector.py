"""The vector quantizer: L codebooks in a residual or product composition, with a choice for every part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import Choice, build, check_arguments
from semantic_ids.nearest import squared_distances
from semantic_ids.plugins import nearest_name
from semantic_ids.quality import perplexity
from semantic_ids.quantizers.assignment import ASSIGNMENTS
from semantic_ids.quantizers.codebook import Codebook
from semantic_ids.quantizers.distributed import all_rows, from_first, summed
from semantic_ids.quantizers.learning import LEARNINGS, Learning
from semantic_ids.quantizers.quantizer import Quantized, Quantizer
from semantic_ids.quantizers.regularizer import REGULARIZERS
from semantic_ids.quantizers.residual import WHOLE, equal_blocks, residual_decode, residual_encode
from semantic_ids.quantizers.surrogate import SURROGATES, Direct
from semantic_ids.quantizers.upkeep import Upkeep
from semantic_ids.ranges import MAX_SIZE, check_whole

COMPOSITIONS = ("residual", "product", "multi-head")
"""The ways in which L levels share a latent; :class:`VectorQuantizer` describes them."""


class VectorQuantizer(Quantizer):
    """L codebooks whose codewords add up to the quantized latent.

    The composition says which part of the latent each level quantizes. ``residual``: ``r_1 = z``,
    ``q_l = c_l(r_l)``, ``r_{l+1} = r_l − q_l``. ``product``: each level quantizes its own block of about
    D / L features. ``multi-head``: like ``product``, but one codebook serves all blocks.

    In training the surrogate acts once, on the total ``Σ q_l``. One surrogate per level would either
    multiply the encoder's gradient by L or give the levels too little gradient. The losses of each level
    see its residual with the codewords of earlier levels held fixed. In evaluation there is no noise, and
    :meth:`forward` gives the codes of :meth:`encode`.

    Distances and codewords are computed in float32 or better, even under autocast. All ranks of a
    distributed training keep the same codebooks.

    Args:
        codebook_sizes: Number of codes of every level, ``(K_1, …, K_L)``.
        dim: Width of the latents D.
        composition: ``residual``, ``product`` or ``multi-head``.
        transform: How codewords share parameters, a choice of ``TRANSFORMS``.
        assignment: How a point's codeword is chosen, a choice of ``ASSIGNMENTS``.
        surrogate: The gradient of choosing a codeword, a choice of ``SURROGATES``.
        per_level: True to apply the surrogate to every level's residual instead of the total. The
            gradients of the levels telescope. Noise of the surrogate adds up over the levels.
        learning: How codewords and latents approach each other, a choice of ``LEARNINGS``.
        regularizers: Optional losses, choices of ``REGULARIZERS``.
        codebook: Options of every :class:`~semantic_ids.quantizers.codebook.Codebook`: ``frozen``,
            ``normalize``, ``spectral_clip`` and ``refresh_every``. None keeps their defaults.
        upkeep: Fields of :class:`~semantic_ids.quantizers.upkeep.Upkeep`: ``initialization``,
            ``replacement``, ``dead_below`` and ``reservoir``. None keeps their defaults.

    Attributes:
        moved_arguments: Former arguments and where their values go now, as ``group.option``.

    Raises:
        ValueError: If a choice or an option is unknown, if a size or a number is out of range, or if
            choices do not fit each other.

    Example:
        >>> quantizer = VectorQuantizer((16, 16, 16), dim=8, surrogate="grit", transform="low-rank")
        >>> quantized = quantizer(torch.randn(5, 8))
        >>> quantized.codes.shape, quantized.latents.shape
        (torch.Size([5, 3]), torch.Size([5, 8]))
    """

    moved_arguments: ClassVar[Mapping[str, str]] = {
        **{name: f"codebook.{name}" for name in ("frozen", "normalize", "spectral_clip", "refresh_every")},
        **{name: f"upkeep.{name}" for name in ("initialization", "replacement", "dead_below", "reservoir")},
    }

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        dim: int = 32,
        *,
        composition: str = "residual",
        transform: Choice = "plain",
        assignment: Choice = "nearest",
        surrogate: Choice = "straight-through",
        per_level: bool = False,
        learning: Choice = "gradient",
        regularizers: Sequence[Choice] = (),
        codebook: Mapping[str, Any] | None = None,
        upkeep: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if composition not in COMPOSITIONS:
            suggestion = nearest_name(composition, list(COMPOSITIONS))
            raise ValueError(f"no composition is called {composition!r}. {suggestion}")
        codebook_options, upkeep = codebook or {}, upkeep or {}
        check_arguments("codebook", Codebook, codebook_options, ("size", "dim", "transform"))
        check_arguments("upkeep", Upkeep, upkeep)
        self.upkeep = Upkeep(**upkeep)
        check_whole(1, MAX_SIZE, dim=dim)
        if not codebook_sizes or min(codebook_sizes) < 1:
            raise ValueError(
                f"no quantizer has codebooks of {tuple(codebook_sizes)} codes in {dim} dimensions"
            )
        self.codebook_sizes, self.dim, self.per_level = tuple(codebook_sizes), dim, per_level
        levels = len(self.codebook_sizes)
        if composition == "multi-head" and len(set(self.codebook_sizes)) > 1:
            raise ValueError(f"the heads share a codebook, so sizes must agree, not be {self.codebook_sizes}")
        self.blocks = [WHOLE] * levels if composition == "residual" else equal_blocks(dim, levels)
        widths = [len(range(dim)[block]) for block in self.blocks]
        if composition == "multi-head" and len(set(widths)) > 1:
            raise ValueError(
                f"{levels} heads that share a codebook cannot share {dim} coordinates evenly; give the "
                f"quantizer a dim that is a multiple of {levels}, {{dim: {dim // levels * levels + levels}}}"
            )
        self.codebook_index = [0] * levels if composition == "multi-head" else list(range(levels))
        sizes = self.codebook_sizes[: 1 + max(self.codebook_index)]
        self.learnings = nn.ModuleList(
            build("learning", LEARNINGS, learning, size=size, dim=width)
            for size, width in zip(sizes, widths, strict=False)
        )
        # An optimizer must not change tables that moving averages set.
        frozen = codebook_options.get("frozen", False)
        table_fixed = frozen or not self.learnings[0].by_gradient
        self.codebooks = nn.ModuleList(
            Codebook(size, width, transform, **{**codebook_options, "frozen": table_fixed})
            for size, width in zip(sizes, widths, strict=False)
        )
        self.assignments = nn.ModuleList(build("assignment", ASSIGNMENTS, assignment) for _ in sizes)
        self.regularizers = nn.ModuleList(
            build("regularizer", REGULARIZERS, choice) for choice in regularizers
        )
        self.surrogate = build("surrogate", SURROGATES, surrogate, dim=widths[0] if per_level else dim)
        self._check_gradients(frozen)
        for index, size in enumerate(sizes):
            self.register_buffer(f"usage_{index}", torch.zeros(size, dtype=torch.int64), persistent=False)
        # Not a buffer: each rank keeps its own latents, and DistributedDataParallel would overwrite them.
        self.recent = torch.zeros(0, dim)
        self.register_state_dict_pre_hook(lambda module, *_: module.settle())
        for rule, module in zip(self.learnings, self.codebooks, strict=True):
            rule.forget(module, torch.arange(module.size))

    def _check_gradients(self, frozen: bool) -> None:
        """Raise a :class:`ValueError` if latents or codewords could not learn under these choices."""
        soft = self.assignments[0].carries_gradient
        if soft != isinstance(self.surrogate, Direct):
            raise ValueError(
                "soft assignments carry a gradient of their own: they go with the surrogate 'direct', and it "
                "with no other"
            )
        learning = self.learnings[0]
        if frozen and not learning.by_gradient:
            raise ValueError("a frozen table cannot be moved by averages; leave frozen or ema out")
        if type(learning) is Learning and not (soft or self.surrogate.teaches_codewords):
            raise ValueError("end-to-end learning needs a surrogate that gives codewords a gradient")

    def forward(self, z: Tensor) -> Quantized:
        """Quantize latents ``(..., D)``; in training, count the usage of codes too."""
        with torch.autocast(z.device.type, enabled=False):
            flat = self._flattened(z)
            if self.training:
                self.settle()
                codes, latents, loss = self._train_step(flat)
            else:
                codes, loss = self.encode(flat), flat.new_zeros(())
                # Summed in this order, the value equals that of ``decode`` to the last bit.
                latents = self.decode(codes) + (flat - flat.detach())
        return Quantized(
            codes.reshape(*z.shape[:-1], codes.shape[1]), latents.reshape(z.shape).to(z.dtype), loss
        )

    def _train_step(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes ``(n, L)``, quantized latents and loss of latents ``(n, D)``, and record them."""
        # Two residuals of the same value: in the first one earlier levels are held fixed.
        residual = residual_with_gradient = z
        total, loss = torch.zeros_like(z), z.new_zeros(())
        points_by_level, codes_by_level = [], []
        for index, block, codewords in zip(self.codebook_index, self.blocks, self._codewords(), strict=True):
            points = residual[:, block]
            assigned = self.assignments[index](points, codewords)
            point = assigned.point
            # A soft choice has a gradient for the latents, which the codebook loss must hold fixed.
            chosen = point if assigned.logits is None else F.embedding(assigned.codes, codewords)
            # The losses are means over features, so each block counts by its share of the features.
            share = points.shape[1] / self.dim
            loss = loss + share * self.learnings[index].loss(points, chosen, point)
            for regularizer in self.regularizers:
                loss = loss + regularizer(points, codewords, assigned.logits)
            if self.per_level:
                passed = sum(
                    (
                        self.surrogate(residual_with_gradient[:, block], end) * weight
                        for end, weight in assigned.ends
                    ),
                    torch.zeros_like(point),
                )
                residual_with_gradient = residual_with_gradient - self._zero_padded(passed, block)
                total = total + self._zero_padded(passed, block)
            else:
                total = total + self._zero_padded(point, block)
            residual = residual - self._zero_padded(point.detach(), block)
            points_by_level.append(points.detach())
            codes_by_level.append(assigned.codes)
        for index, levels in self._levels_by_codebook():
            points = torch.cat([points_by_level[level] for level in levels])
            self._observe(index, points, torch.cat([codes_by_level[level] for level in levels]))
        if self.upkeep.reservoir:
            self.recent = torch.cat([self.recent.to(z), z.detach()])[-self.upkeep.reservoir :]
        latents = total if self.per_level else self.surrogate(z, total)
        return torch.stack(codes_by_level, dim=1), latents, loss

    def _zero_padded(self, part: Tensor, block: slice) -> Tensor:
        """Extend ``(n, D_l)`` to ``(n, D)`` with zeros outside the block."""
        return part if block == WHOLE else F.pad(part, (block.start, self.dim - block.stop))

    def _observe(self, index: int, points: Tensor, codes: Tensor) -> None:
        """Count codes ``(n,)`` of codebook ``index`` and show them with their points to its learning rule."""
        # The length of bincount's result depends on the data, which breaks compiled graphs.
        counts = summed(torch.zeros_like(self.usage(index)).index_add_(0, codes, torch.ones_like(codes)))
        self.usage(index).add_(counts)
        self.learnings[index].observe(points, codes, counts)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Return the codes of latents, ``(..., D)`` → ``(..., L)`` int64, without gradient."""
        codes, _ = residual_encode(
            self._codewords(), self._flattened(z), self.blocks, self._inference_assignments()
        )
        return codes.reshape(*z.shape[:-1], len(self.blocks))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the sums of the codewords of codes, ``(..., L)`` → ``(..., D)``, without gradient."""
        flat = codes.reshape(-1, len(self.blocks))
        latents = residual_decode(self._codewords(), flat, self.blocks, self.dim)
        return latents.reshape(*codes.shape[:-1], self.dim)

    @torch.no_grad()
    def last_level_distances(self, z: Tensor) -> Tensor:
        """Return squared distances from the last level's residuals to its codewords.

        Args:
            z: Latents ``(n, D)``.

        Returns:
            ``(n, K_L)`` float64, see :meth:`Quantizer.last_level_distances`.
        """
        *earlier, last = self._codewords()
        _, residual = residual_encode(
            earlier, self._flattened(z), self.blocks[:-1], self._inference_assignments()[:-1]
        )
        return squared_distances(residual[:, self.blocks[-1]], last)

    def _inference_assignments(self) -> list[Callable[[Tensor, Tensor], Tensor]]:
        """Return for each level the function that chooses codes at inference."""
        return [self.assignments[index].codes for index in self.codebook_index]

    def _codewords(self) -> list[Tensor]:
        """Return the codewords ``(K_l, D_l)`` of each level, in float32 or better, with gradient."""
        codewords = [codebook.codewords() for codebook in self.codebooks]
        return [codewords[index].to(self._dtype) for index in self.codebook_index]

    def _flattened(self, z: Tensor) -> Tensor:
        """Reshape latents ``(..., D)`` to ``(n, D)``, in the precision of the codewords."""
        if z.shape[-1] != self.dim:
            raise ValueError(f"latents need {self.dim} features in their last dimension, not {z.shape[-1]}")
        return z.reshape(-1, self.dim).to(self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """Precision of the computation: that of the tables, at least float32."""
        return torch.promote_types(self.codebooks[0].table.dtype, torch.float32)

    def settle(self) -> None:
        """Clip the spectra, and move codewords to their averages, if the choices include this."""
        for codebook, rule in zip(self.codebooks, self.learnings, strict=True):
            codebook.after_step()
            rule.settle(codebook)

    def clip_spectra(self, limit: float) -> None:
        """Force the singular values of the transforms' W into ``[1/limit, limit]``."""
        for codebook in self.codebooks:
            codebook.transform.clip(limit)
            codebook.refresh()

    @torch.no_grad()
    def clip_codewords(self, limit: float) -> None:
        """Shorten codewords that are longer than ``limit`` to that length."""
        for index, codebook in enumerate(self.codebooks):
            codewords = codebook.codewords()
            length = codewords.norm(dim=1)
            rows = (length > limit).nonzero().flatten()
            if len(rows):
                self._place(index, rows, codewords[rows] * (limit / length[rows, None]))

    def _place(self, index: int, rows: Tensor, targets: Tensor) -> None:
        """Place codewords ``rows`` ``(r,)`` at ``targets`` ``(r, D_l)``, and restart their averages there."""
        self.codebooks[index].place(rows, targets)
        self.learnings[index].forget(self.codebooks[index], rows)

    def usage(self, book: int) -> Tensor:
        """Return how often each code was used in training since usage was last cleared, on all ranks.

        Args:
            book: Index of the codebook, from 0.

        Returns:
            ``(K,)`` int64.
        """
        return self.get_buffer(f"usage_{book}")

    @torch.no_grad()
    def seed(self, z: Tensor, generator: torch.Generator) -> None:
        """Place all codewords by the latents of all ranks, each level by its residuals.

        Args:
            z: Latents of this rank ``(..., D)``.
            generator: Random generator on the CPU; the only source of randomness.
        """
        residual = all_rows(self._flattened(z)).clone()
        for index, levels in self._levels_by_codebook():
            codebook = self.codebooks[index]
            points = torch.cat([residual[:, self.blocks[level]] for level in levels])
            every_row = torch.arange(codebook.size, device=z.device)
            self._place(
                index, every_row, from_first(self.upkeep.initialize(points, codebook.size, generator))
            )
            self.assignments[index].seed(points, codebook.codewords())
            self._subtract_chosen(residual, index, levels)

    @torch.no_grad()
    def replace_dead_codes(self, z: Tensor, generator: torch.Generator) -> int:
        """Move dead codewords to places near the latents, and return how many were moved.

        A codeword is dead if it was used too little since usage was last cleared, see
        :attr:`Upkeep.dead_below <semantic_ids.quantizers.upkeep.Upkeep.dead_below>`.

        Args:
            z: Latents of this rank ``(..., D)``; ignored if there is a reservoir of recent latents.
            generator: Random generator on the CPU; the only source of randomness.
        """
        self.settle()
        latents = self.recent.to(z.device) if self.upkeep.reservoir else z
        residual, replaced = all_rows(self._flattened(latents)).clone(), 0
        for index, levels in self._levels_by_codebook():
            codebook, usage = self.codebooks[index], self.usage(index)
            even_usage = float(usage.sum()) / len(usage)
            dead = (usage < max(1.0, self.upkeep.dead_below * even_usage)).nonzero().flatten()
            if 0 < len(dead) < len(usage):
                points = torch.cat([residual[:, self.blocks[level]] for level in levels])
                alive = usage.index_fill(0, dead, 0)  # dead codes that were used a little are no sources
                targets = from_first(
                    self.upkeep.replace(points, codebook.codewords(), alive, len(dead), generator)
                )
                self._place(index, dead[: len(targets)], targets)
                replaced += len(targets)
            self._subtract_chosen(residual, index, levels)
        return replaced

    def clear_usage(self) -> None:
        """Reset the usage counts, so that codes placed just now have time to be used."""
        for index in range(len(self.codebooks)):
            self.usage(index).zero_()

    def _levels_by_codebook(self) -> Iterator[tuple[int, list[int]]]:
        """Yield the index of each codebook and the levels that use it."""
        for index in range(len(self.codebooks)):
            yield index, [level for level, used in enumerate(self.codebook_index) if used == index]

    def _subtract_chosen(self, residual: Tensor, index: int, levels: list[int]) -> None:
        """Subtract the chosen codewords of codebook ``index`` from the residual ``(n, D)``, in place."""
        codewords = self.codebooks[index].codewords()
        for level in levels:
            points = residual[:, self.blocks[level]]
            points -= codewords[self.assignments[index].codes(points, codewords)]

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """Return usage since last cleared, and the figures of :meth:`Codebook.health`.

        Returns:
            Figures by name. Each name ends in the number of its codebook, from 1. ``utilization`` is the
            share of the codes in use, ``dead_codes`` the number of unused codes, ``entropy`` is in bits,
            and ``perplexity`` is ``2 ** entropy``. These four are left out if nothing was counted.
        """
        figures: dict[str, float] = {}
        for number, codebook in enumerate(self.codebooks, start=1):
            usage = self.usage(number - 1).cpu().numpy()
            codebook_figures = codebook.health()
            if usage.any():
                dead, spread = int((usage == 0).sum()), perplexity(usage)
                codebook_figures |= {"utilization": 1 - dead / len(usage), "dead_codes": float(dead)}
                codebook_figures |= {"perplexity": spread, "entropy": float(np.log2(spread))}
            figures |= {f"{name}_{number}": value for name, value in codebook_figures.items()}
        return figures
