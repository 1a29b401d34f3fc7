"""The codebook of one level: a table of codewords and the transform applied to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from semantic_ids.choices import Choice, build
from semantic_ids.quantizers.cache import Cache
from semantic_ids.quantizers.transform import TRANSFORMS, Transform
from semantic_ids.ranges import check_numbers, check_whole

_ZERO_LENGTH = 1e-12


class Codebook(nn.Module):
    """K codewords of width D, computed from a table ``E`` by a transform: ``C = f(E)``.

    Lookup, assignment and decoding all use :meth:`codewords`, in training and at inference. So they
    always see the same codewords.

    ``normalize`` gives all codewords the same length: ``c = g · f(E) / ‖f(E)‖`` with one learned gain
    ``g > 0``. GRIT-VQ normalises without a gain. But a codeword of unit length cannot reduce a residual
    that is shorter than ½, and residuals of deep levels are that short. :meth:`place` can set only the
    directions of normalised codewords. It sets the gain to the mean length of the targets when it places
    all codewords in one call.

    Args:
        size: Number of codewords K.
        dim: Width of the codewords D.
        transform: A choice of :data:`~semantic_ids.quantizers.transform.TRANSFORMS`.
        frozen: True to keep ``E`` as seeded and to learn only the transform (GRIT-VQ's protocol A).
        normalize: True to give all codewords the same length.
        spectral_clip: Bound c ≥ 1 that :meth:`after_step` enforces: the singular values of the
            transform's ``W`` stay in [1/c, c]. 0 means no bound.
        refresh_every: In training, the transform is computed once in so many calls of :meth:`codewords`.

    Raises:
        ValueError: If ``spectral_clip`` or ``refresh_every`` is out of range.
    """

    def __init__(
        self,
        size: int,
        dim: int,
        transform: Choice = "plain",
        *,
        frozen: bool = False,
        normalize: bool = False,
        spectral_clip: float = 0.0,
        refresh_every: int = 1,
    ) -> None:
        super().__init__()
        check_numbers(spectral_clip=spectral_clip)
        if 0 < spectral_clip < 1:
            raise ValueError(f"spectral_clip must be 0, for none, or at least 1, not {spectral_clip}")
        check_whole(refresh_every=refresh_every)
        self.spectral_clip = spectral_clip
        self.table = nn.Parameter(torch.randn(size, dim), requires_grad=not frozen)
        self.transform: Transform = build("transform", TRANSFORMS, transform, size=size, dim=dim)
        self.log_gain = nn.Parameter(torch.zeros(())) if normalize else None
        self._cache = Cache(refresh_every)
        self.register_load_state_dict_post_hook(_refresh_after_loading)

    @property
    def size(self) -> int:
        """Number of codewords K."""
        return len(self.table)

    @property
    def dim(self) -> int:
        """Width of the codewords D."""
        return self.table.shape[1]

    def forward(self) -> Tensor:
        """Compute the codewords ``(K, D)`` from the current parameters.

        The computation has the precision of the parameters, even under autocast.
        """
        with torch.autocast(self.table.device.type, enabled=False):
            codewords = self.transform(self.table)
            if self.log_gain is None:
                return codewords
            length = codewords.norm(dim=1, keepdim=True)
            unit = (codewords / length.clamp(min=_ZERO_LENGTH)).where(length > _ZERO_LENGTH, 0.0)
            return self.log_gain.exp() * unit

    def codewords(self) -> Tensor:
        """Return the codewords ``(K, D)`` with gradient, from the cache if possible.

        In training with ``refresh_every`` > 1, value and gradient may be some calls old, see
        :class:`~semantic_ids.quantizers.cache.Cache`. In eval mode, or if gradients are off, they are
        always current. In eval mode with gradients off, the tensor is kept until a parameter changes:
        do not write to it.
        """
        if self._cache.every > 1 and self.training and torch.is_grad_enabled():
            return self._cache(self)
        if not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()):
            return self._cache.fixed(self)
        return self()

    @torch.no_grad()
    def place(self, rows: Tensor, targets: Tensor) -> None:
        """Make codewords equal to the targets, or parallel to them if the codebook is normalised.

        Args:
            rows: Indices of the codewords ``(r,)`` int64.
            targets: Their new positions ``(r, D)``.
        """
        with torch.autocast(self.table.device.type, enabled=False):
            self.transform.place(self.table, rows, targets)
        if self.log_gain is not None and len(rows) == self.size:
            self.log_gain.copy_(targets.norm(dim=1).mean().clamp(min=_ZERO_LENGTH).log())
        self.refresh()

    def after_step(self) -> None:
        """Apply the spectral clip; call this after each optimizer step."""
        if self.spectral_clip and self.transform.clip(self.spectral_clip):
            self.refresh()

    def refresh(self) -> None:
        """Forget the cached codewords, so that the next call of :meth:`codewords` computes them again."""
        self._cache.drop()

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """Return the figures that GRIT-VQ's appendix D.4 monitors, except for usage.

        Returns:
            ``row_norm_min`` and ``row_norm_max``: lengths of the shortest and the longest codeword.
            ``spectral_norm``: largest singular value of the transform's ``W``, 1 if it has none.
            ``table_gradient_norm`` and ``transform_gradient_norm``: Euclidean norms of the gradients of
            the table and of all other parameters, the gain included. A norm is left out if there is no
            gradient.
        """
        lengths = self().norm(dim=1)
        figures = {
            "row_norm_min": lengths.min().item(),
            "row_norm_max": lengths.max().item(),
            "spectral_norm": self.transform.spectral_norm(),
        }
        shared = [parameter for parameter in self.parameters() if parameter is not self.table]
        for name, parameters in (("table", [self.table]), ("transform", shared)):
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if gradients:
                figures[f"{name}_gradient_norm"] = nn.utils.get_total_norm(gradients).item()
        return figures

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, and forget the cached codewords."""
        self.refresh()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.refresh()  # cached codewords would stay on the old device and in the old precision
        return super()._apply(fn, recurse)


def _refresh_after_loading(codebook: Codebook, keys: Any) -> None:
    """Forget the cached codewords after a state dict was loaded."""
    codebook.refresh()
