"""The vector quantizer: L codebooks in a residual or product walk, with one choice for each of its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semantic_ids.choices import Choice, build, nearest_name
from semantic_ids.nearest import squared_distances
from semantic_ids.quality import perplexity
from semantic_ids.quantizers.assignment import ASSIGNMENTS
from semantic_ids.quantizers.codebook import Codebook
from semantic_ids.quantizers.distributed import all_rows, from_first, summed
from semantic_ids.quantizers.learning import LEARNINGS, Learning
from semantic_ids.quantizers.quantizer import Quantized, Quantizer
from semantic_ids.quantizers.regularizer import REGULARIZERS
from semantic_ids.quantizers.residual import WHOLE, add_up, walk
from semantic_ids.quantizers.surrogate import SURROGATES, Direct
from semantic_ids.quantizers.upkeep import INITIALIZATIONS, REPLACEMENTS

COMPOSITIONS = ("residual", "product", "multi-head")


class VectorQuantizer(Quantizer):
    """L codebooks whose codewords add up to the quantized latent.

    ``residual``: ``r_1 = z``, ``q_l = c_l(r_l)``, ``r_{l+1} = r_l − q_l``. ``product``: each level quantizes
    a block of D / L coordinates of its own; ``multi-head`` is that with one codebook for all blocks.

    In training the surrogate acts once, on the total ``Σ q_l``: one a level would either multiply
    the encoder's gradient by L or starve the levels. Each level's losses see the residual with what
    earlier levels took away held fixed. In evaluation there is no noise, and codes are those of
    :meth:`encode`.

    Distances and codewords are float32 or better, whatever autocast says; all ranks of a distributed
    training keep the same codebooks.

    Args:
        codebook_sizes: ``(K_1, …, K_L)``.
        dim: width of the latents D.
        composition: ``residual``, ``product`` or ``multi-head``.
        transform: how codewords share parameters, a choice of ``TRANSFORMS``.
        assignment: which codeword a point gets, a choice of ``ASSIGNMENTS``.
        surrogate: how gradients pass that, a choice of ``SURROGATES``.
        per_level: let the surrogate act on every level's residual instead, gradients telescoping; what
            noise it puts on the value adds up over levels.
        learning: how codewords and latents meet, a choice of ``LEARNINGS``.
        regularizers: optional losses, choices of ``REGULARIZERS``.
        frozen: give the optimizer the transforms only, not the tables (GRIT-VQ's protocol A).
        normalize, spectral_clip, refresh_every: see :class:`~semantic_ids.quantizers.codebook.Codebook`.
        initialization: where codewords start, a name of ``INITIALIZATIONS``.
        replacement: where dead codes go, a name of ``REPLACEMENTS``.
        dead_below: share of the even usage below which a code counts as dead; unused ones always do.
        reservoir: how many recent latents replacements draw from; 0 for the last batch alone.
    """

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
        frozen: bool = False,
        normalize: bool = False,
        spectral_clip: float = 0.0,
        refresh_every: int = 1,
        initialization: str = "k-means",
        replacement: str = "latents",
        dead_below: float = 0.0,
        reservoir: int = 0,
    ) -> None:
        super().__init__()
        for name, kind, known in (
            (composition, "composition", COMPOSITIONS),
            (initialization, "initialization", INITIALIZATIONS),
            (replacement, "replacement", REPLACEMENTS),
        ):
            if name not in known:
                raise ValueError(f"no {kind} is called {name!r}. {nearest_name(name, list(known))}")
        if not codebook_sizes or min(*codebook_sizes, dim) < 1:
            raise ValueError(
                f"no quantizer has codebooks of {tuple(codebook_sizes)} codes in {dim} dimensions"
            )
        if not 0 <= dead_below < 1 or reservoir < 0:
            raise ValueError(
                f"dead_below is in [0, 1) and reservoir at least 0, not {dead_below}, {reservoir}"
            )
        self.codebook_sizes, self.dim, self.per_level = tuple(codebook_sizes), dim, per_level
        self.initialize, self.replace = INITIALIZATIONS[initialization], REPLACEMENTS[replacement]
        self.dead_below = dead_below
        levels = len(self.codebook_sizes)
        if composition == "multi-head" and len(set(self.codebook_sizes)) > 1:
            raise ValueError(f"the heads share a codebook, so sizes must agree, not be {self.codebook_sizes}")
        self.blocks = [WHOLE] * levels if composition == "residual" else _blocks(dim, levels)
        widths = [len(range(dim)[block]) for block in self.blocks]
        if composition == "multi-head" and len(set(widths)) > 1:
            raise ValueError(
                f"{levels} heads that share a codebook cannot share {dim} coordinates evenly; give the "
                f"quantizer a dim that is a multiple of {levels}, {{dim: {dim // levels * levels + levels}}}"
            )
        self.book_of = [0] * levels if composition == "multi-head" else list(range(levels))
        sizes = self.codebook_sizes[: 1 + max(self.book_of)]
        self.learnings = nn.ModuleList(
            build("learning", LEARNINGS, learning, size=size, dim=width)
            for size, width in zip(sizes, widths, strict=False)
        )
        self.codebooks = nn.ModuleList(
            Codebook(
                size,
                width,
                transform,
                frozen=frozen or not self.learnings[0].by_gradient,
                normalize=normalize,
                spectral_clip=spectral_clip,
                refresh_every=refresh_every,
            )
            for size, width in zip(sizes, widths, strict=False)
        )
        self.assignments = nn.ModuleList(build("assignment", ASSIGNMENTS, assignment) for _ in sizes)
        self.regularizers = nn.ModuleList(
            build("regularizer", REGULARIZERS, choice) for choice in regularizers
        )
        self.surrogate = build("surrogate", SURROGATES, surrogate, dim=widths[0] if per_level else dim)
        self._check_gradients(frozen)
        for book, size in enumerate(sizes):
            self.register_buffer(f"usage_{book}", torch.zeros(size, dtype=torch.int64), persistent=False)
        # Not a buffer: every rank has its own, and DistributedDataParallel would overwrite them.
        self.recent, self.reservoir = torch.zeros(0, dim), reservoir
        self.register_state_dict_pre_hook(lambda module, *_: module.settle())
        for codebook, averages in zip(self.codebooks, self.learnings, strict=True):
            averages.forget(codebook, torch.arange(codebook.size))

    def _check_gradients(self, frozen: bool) -> None:
        """Refuse choices under which latents or codewords could not learn."""
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
        """Latents ``(..., D)`` → codes ``(..., L)``, quantized latents ``(..., D)`` and the loss.

        In training, also counts how often codes are used.
        """
        with torch.autocast(z.device.type, enabled=False):
            flat = self._flat(z)
            if self.training:
                self.settle()
                codes, latents, loss = self._train_step(flat)
            else:
                codes, loss = self.encode(flat), flat.new_zeros(())
                # Added up in this order, the value is that of ``decode`` to the last bit.
                latents = self.decode(codes) + (flat - flat.detach())
        return Quantized(
            codes.reshape(*z.shape[:-1], codes.shape[1]), latents.reshape(z.shape).to(z.dtype), loss
        )

    def _train_step(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # What is left with the levels before held fixed, and with their gradients.
        left = live = z
        total, loss = torch.zeros_like(z), z.new_zeros(())
        seen, codes = [], []
        for book, block, words in zip(self.book_of, self.blocks, self._words(), strict=True):
            points = left[:, block]
            assigned = self.assignments[book](points, words)
            point = assigned.point
            # The gradient of a soft choice leads back to the latents, which a codebook loss holds fixed.
            codeword = point if assigned.logits is None else F.embedding(assigned.codes, words)
            # Blocks share the mean over features that a residual level has for itself.
            share = points.shape[1] / self.dim
            loss = loss + share * self.learnings[book].loss(points, codeword, point)
            for regularizer in self.regularizers:
                loss = loss + regularizer(points, words, assigned.logits)
            if self.per_level:
                passed = sum(
                    (self.surrogate(live[:, block], end) * weight for end, weight in assigned.ends),
                    torch.zeros_like(point),
                )
                live = live - self._in_place(passed, block)
                total = total + self._in_place(passed, block)
            else:
                total = total + self._in_place(point, block)
            left = left - self._in_place(point.detach(), block)
            seen.append(points.detach())
            codes.append(assigned.codes)
        for book, levels in self._levels():
            points, chosen = (torch.cat([part[at] for at in levels]) for part in (seen, codes))
            self._observe(book, points, chosen)
        if self.reservoir:
            self.recent = torch.cat([self.recent.to(z), z.detach()])[-self.reservoir :]
        return torch.stack(codes, dim=1), total if self.per_level else self.surrogate(z, total), loss

    def _in_place(self, part: Tensor, block: slice) -> Tensor:
        """``(n, D_l)`` → ``(n, D)``: zero outside the block."""
        return part if block == WHOLE else F.pad(part, (block.start, self.dim - block.stop))

    def _observe(self, book: int, points: Tensor, codes: Tensor) -> None:
        # bincount would do, but the length of what it returns depends on the data, which breaks graphs.
        counts = summed(torch.zeros_like(self.usage(book)).index_add_(0, codes, torch.ones_like(codes)))
        self.usage(book).add_(counts)
        self.learnings[book].observe(points, codes, counts)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents ``(..., D)`` → codes ``(..., L)`` int64."""
        codes, _ = walk(self._words(), self._flat(z), self.blocks, self._choices())
        return codes.reshape(*z.shape[:-1], len(self.blocks))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(..., L)`` → the sum of their codewords ``(..., D)``."""
        flat = codes.reshape(-1, len(self.blocks))
        return add_up(self._words(), flat, self.blocks, self.dim).reshape(*codes.shape[:-1], self.dim)

    @torch.no_grad()
    def last_level_distances(self, z: Tensor) -> Tensor:
        """``(n, D)`` → ``(n, K_L)`` float64, see :meth:`Quantizer.last_level_distances`."""
        *earlier, last = self._words()
        _, left = walk(earlier, self._flat(z), self.blocks[:-1], self._choices()[:-1])
        return squared_distances(left[:, self.blocks[-1]], last)

    def _choices(self) -> list[Callable[[Tensor, Tensor], Tensor]]:
        """Each level's assignment at inference."""
        return [self.assignments[book].codes for book in self.book_of]

    def _words(self) -> list[Tensor]:
        """Each level's codewords, in float32 or better, with gradient."""
        words = [book.codewords() for book in self.codebooks]
        return [words[book].to(self._dtype) for book in self.book_of]

    def _flat(self, z: Tensor) -> Tensor:
        """``(..., D)`` → ``(n, D)``, as precise as the codewords."""
        if z.shape[-1] != self.dim:
            raise ValueError(f"latents need {self.dim} features in their last dimension, not {z.shape[-1]}")
        return z.reshape(-1, self.dim).to(self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.codebooks[0].table.dtype, torch.float32)

    def settle(self) -> None:
        """Clip spectra and move codewords by their averages, as far as transform and learning ask for it."""
        for book, learning in zip(self.codebooks, self.learnings, strict=True):
            book.after_step()
            learning.settle(book)

    def clip_spectra(self, limit: float) -> None:
        """Bring the singular values of the transforms' W into ``[1/limit, limit]``."""
        for book in self.codebooks:
            book.transform.clip(limit)
            book.refresh()

    @torch.no_grad()
    def clip_codewords(self, limit: float) -> None:
        """Shorten codewords that are longer than ``limit``."""
        for book, codebook in enumerate(self.codebooks):
            words = codebook.codewords()
            length = words.norm(dim=1)
            rows = (length > limit).nonzero().flatten()
            if len(rows):
                self._place(book, rows, words[rows] * (limit / length[rows, None]))

    def _place(self, book: int, rows: Tensor, targets: Tensor) -> None:
        """Put codewords ``rows`` at ``targets``, and let nothing that was learned of them move them back."""
        self.codebooks[book].place(rows, targets)
        self.learnings[book].forget(self.codebooks[book], rows)

    def usage(self, book: int) -> Tensor:
        """``(K,)`` int64: how often each code was used in training since last cleared, on all ranks."""
        return self.get_buffer(f"usage_{book}")

    @torch.no_grad()
    def seed(self, z: Tensor, generator: torch.Generator) -> None:
        """Place all codewords by the latents ``(..., D)`` of all ranks, each level on what is left."""
        left = all_rows(self._flat(z)).clone()
        for book, levels in self._levels():
            codebook, points = self.codebooks[book], torch.cat([left[:, self.blocks[at]] for at in levels])
            everyone = torch.arange(codebook.size, device=z.device)
            self._place(book, everyone, from_first(self.initialize(points, codebook.size, generator)))
            self.assignments[book].seed(points, codebook.codewords())
            self._take_away(left, book, levels)

    @torch.no_grad()
    def replace_dead_codes(self, z: Tensor, generator: torch.Generator) -> int:
        """Move codewords unused since usage was last cleared to where the latents ``(..., D)`` are."""
        self.settle()
        latents = self.recent.to(z.device) if self.reservoir else z
        left, replaced = all_rows(self._flat(latents)).clone(), 0
        for book, levels in self._levels():
            codebook, usage = self.codebooks[book], self.usage(book)
            dead = (usage < max(1.0, self.dead_below * float(usage.sum()) / len(usage))).nonzero().flatten()
            if 0 < len(dead) < len(usage):
                points = torch.cat([left[:, self.blocks[at]] for at in levels])
                alive = usage.index_fill(0, dead, 0)  # those used a little are no sources either
                there = from_first(self.replace(points, codebook.codewords(), alive, len(dead), generator))
                self._place(book, dead[: len(there)], there)
                replaced += len(there)
            self._take_away(left, book, levels)
        return replaced

    def clear_usage(self) -> None:
        """Count usage anew, so that a code just placed has time to be used."""
        for book in range(len(self.codebooks)):
            self.usage(book).zero_()

    def _levels(self) -> Iterator[tuple[int, list[int]]]:
        """The codebooks, and the levels that use each."""
        for book in range(len(self.codebooks)):
            yield book, [level for level, used in enumerate(self.book_of) if used == book]

    def _take_away(self, left: Tensor, book: int, levels: list[int]) -> None:
        words = self.codebooks[book].codewords()
        for level in levels:
            points = left[:, self.blocks[level]]
            points -= words[self.assignments[book].codes(points, words)]

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """Usage since last cleared, and what :meth:`Codebook.health` says, of each codebook from 1."""
        figures: dict[str, float] = {}
        for number, codebook in enumerate(self.codebooks, start=1):
            usage = self.usage(number - 1).cpu().numpy()
            about = codebook.health()
            if usage.any():
                even = perplexity(usage)
                dead = int((usage == 0).sum())
                about |= {
                    "utilization": 1 - dead / len(usage),
                    "dead_codes": float(dead),
                    "perplexity": even,
                    "entropy": float(np.log2(even)),
                }
            figures |= {f"{name}_{number}": value for name, value in about.items()}
        return figures


def _blocks(dim: int, levels: int) -> list[slice]:
    """Consecutive blocks of ``dim`` coordinates, of nearly the same width."""
    if dim < levels:
        raise ValueError(f"{levels} levels cannot share {dim} coordinates; give the quantizer a larger dim")
    ends = [dim * level // levels for level in range(levels + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]
