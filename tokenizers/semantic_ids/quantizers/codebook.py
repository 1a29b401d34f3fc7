"""One level's codewords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from semantic_ids.choices import Choice, build
from semantic_ids.quantizers.cache import Cache
from semantic_ids.quantizers.transform import TRANSFORMS, Transform

_ZERO_LENGTH = 1e-12


class Codebook(nn.Module):
    """K codewords of width D: a table ``E`` seen through a transform, ``C = f(E)``.

    Looking up, assigning and decoding all go through :meth:`codewords`, in training as at
    inference, so that there is only one codebook.

    ``normalize`` makes all codewords equally long, ``c = g · f(E) / ‖f(E)‖`` with one learned gain
    ``g > 0``. GRIT-VQ normalises without a gain, but a codeword of unit length cannot lower a
    residual shorter than ½, which is what deep levels have. A normalised codebook can only place
    directions; the gain is set to the targets' mean length when all codewords are placed at once.

    Args:
        size: K.
        dim: D.
        transform: a choice of :data:`~semantic_ids.quantizers.transform.TRANSFORMS`.
        frozen: keep ``E`` as it is seeded and learn the transform only (GRIT-VQ's protocol A).
        normalize: all codewords have one length.
        spectral_clip: bound c ≥ 1: :meth:`after_step` keeps the singular values of the transform's
            ``W`` in [1/c, c]; 0 for no bound.
        refresh_every: training calls of :meth:`codewords` from one run of the transform to the next.

    Raises:
        ValueError: ``spectral_clip`` or ``refresh_every`` is out of range.
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
        if not (spectral_clip == 0 or spectral_clip >= 1):
            raise ValueError(f"spectral_clip must be 0, for none, or at least 1, not {spectral_clip}")
        if refresh_every < 1:
            raise ValueError(f"refresh_every must be at least 1, not {refresh_every}")
        self.spectral_clip = spectral_clip
        self.table = nn.Parameter(torch.randn(size, dim), requires_grad=not frozen)
        self.transform: Transform = build("transform", TRANSFORMS, transform, size=size, dim=dim)
        self.log_gain = nn.Parameter(torch.zeros(())) if normalize else None
        self._cache = Cache(refresh_every)
        self.register_load_state_dict_post_hook(_refresh)

    @property
    def size(self) -> int:
        """K."""
        return len(self.table)

    @property
    def dim(self) -> int:
        """D."""
        return self.table.shape[1]

    def forward(self) -> Tensor:
        """``(K, D)`` at the parameters as they stand, in their precision whatever autocast says."""
        with torch.autocast(self.table.device.type, enabled=False):
            codewords = self.transform(self.table)
            if self.log_gain is None:
                return codewords
            length = codewords.norm(dim=1, keepdim=True)
            unit = (codewords / length.clamp(min=_ZERO_LENGTH)).where(length > _ZERO_LENGTH, 0.0)
            return self.log_gain.exp() * unit

    def codewords(self) -> Tensor:
        """``(K, D)``, with gradient.

        While training with ``refresh_every`` > 1, value and gradient may be those of some calls ago, see
        :class:`~semantic_ids.quantizers.cache.Cache`; in eval mode or without gradient they never are.
        In eval mode without gradient they are kept until a parameter changes: do not write to them.
        """
        if self._cache.every > 1 and self.training and torch.is_grad_enabled():
            return self._cache(self)
        if not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()):
            return self._cache.fixed(self)
        return self()

    @torch.no_grad()
    def place(self, rows: Tensor, targets: Tensor) -> None:
        """Make codewords ``rows`` ``(r,)`` equal to ``targets`` ``(r, D)``, or parallel if normalised."""
        with torch.autocast(self.table.device.type, enabled=False):
            self.transform.place(self.table, rows, targets)
        if self.log_gain is not None and len(rows) == self.size:
            self.log_gain.copy_(targets.norm(dim=1).mean().clamp(min=_ZERO_LENGTH).log())
        self.refresh()

    def after_step(self) -> None:
        """Apply the spectral clip; for after each optimizer step."""
        if self.spectral_clip and self.transform.clip(self.spectral_clip):
            self.refresh()

    def refresh(self) -> None:
        """Forget kept codewords, so that the next call of :meth:`codewords` makes them anew."""
        self._cache.drop()

    @torch.no_grad()
    def health(self) -> dict[str, float]:
        """What GRIT-VQ's appendix D.4 monitors, beside usage.

        ``row_norm_min`` and ``row_norm_max``: lengths of the shortest and the longest codeword.
        ``spectral_norm``: largest singular value of the transform's ``W``, 1 where there is none.
        ``table_gradient_norm`` and ``transform_gradient_norm`` (the gain's included): Euclidean
        norms, left out where there is no gradient.
        """
        lengths = self().norm(dim=1)
        found = {
            "row_norm_min": lengths.min().item(),
            "row_norm_max": lengths.max().item(),
            "spectral_norm": self.transform.spectral_norm(),
        }
        shared = [parameter for parameter in self.parameters() if parameter is not self.table]
        for name, parameters in (("table", [self.table]), ("transform", shared)):
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            if gradients:
                found[f"{name}_gradient_norm"] = nn.utils.get_total_norm(gradients).item()
        return found

    def train(self, mode: bool = True) -> Self:
        """Change the mode, and forget kept codewords."""
        self.refresh()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.refresh()  # they would stay on the old device, in the old precision
        return super()._apply(fn, recurse)


def _refresh(codebook: Codebook, keys: Any) -> None:
    codebook.refresh()
