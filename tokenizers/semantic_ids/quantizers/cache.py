"""A cache for a module's output that keeps the output's gradient, or keeps the output without gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call


@dataclass(frozen=True)
class Snapshot:
    """A module's output at copies of its parameters, with the autograd graph between them.

    Attributes:
        copies: Copies of the learned parameters, by name. An optimizer step does not change them.
        output: The module's output at these copies.
    """

    copies: dict[str, Tensor]
    output: Tensor


def take_snapshot(module: nn.Module) -> Snapshot:
    """Call ``module()`` on copies of its parameters, so that the output has a graph of its own."""
    learned = _learned_parameters(module)
    copies = {name: parameter.detach().clone().requires_grad_() for name, parameter in learned.items()}
    return Snapshot(copies, functional_call(module, copies, ()))


class Cache:
    """Calls a module without arguments only every ``every``-th time, and repeats its output in between.

    This is GRIT-VQ's caching (arXiv 2602.01140, §4.4 and appendix I.7). Value and gradient are those at
    the parameters of the last refresh. Between two refreshes the module's forward is not computed. Each
    backward goes through the kept graph, and its gradient is given to the current parameters.
    Caching saves time if the forward is expensive, as for attention or for thousands of codes. At 256
    codes the bookkeeping of a call costs as much as a low-rank transform. A copy of a cache starts empty.

    If nothing learns, :meth:`fixed` keeps the output for as long as the parameters do not change.

    Args:
        every: Number of calls from one refresh to the next.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.drop()

    def drop(self) -> None:
        """Forget the kept output, so that the next call refreshes it."""
        self._snapshot: Snapshot | None = None
        self._fixed: tuple[dict[nn.Parameter, int], Tensor] | None = None
        self._calls = 0

    def __call__(self, module: nn.Module) -> Tensor:
        """Return the output of ``module()``, with gradient, as computed now or at the last refresh."""
        learned = _learned_parameters(module)
        snapshot = self._snapshot
        if snapshot is None or self._calls == self.every or snapshot.copies.keys() != learned.keys():
            self._snapshot, self._calls = take_snapshot(module), 0
        self._calls += 1
        return _SnapshotOutput.apply(self._snapshot, *learned.values())

    def fixed(self, module: nn.Module) -> Tensor:
        """Return the output of ``module()`` without gradient, computed only if a parameter has changed.

        Changes are recognised by PyTorch's counter of in-place changes. Fused optimizers and changes
        through ``parameter.data`` do not raise that counter: call :meth:`drop` after them.
        """
        if any(parameter.is_inference() for parameter in module.parameters()):
            return cast(Tensor, module())  # inference tensors do not count their changes
        versions = {parameter: parameter._version for parameter in module.parameters()}
        if self._fixed is None or self._fixed[0] != versions:
            with torch.inference_mode(False), torch.no_grad():
                self._fixed = versions, module()
        return self._fixed[1]

    def __reduce__(self) -> tuple[type[Cache], tuple[int]]:
        # Autograd graphs can be neither copied nor pickled, so a copy starts empty.
        return Cache, (self.every,)


class _SnapshotOutput(torch.autograd.Function):
    """The output of a snapshot, as a function of the module's current parameters."""

    @staticmethod
    def forward(ctx: Any, snapshot: Snapshot, *parameters: Tensor) -> Tensor:
        ctx.snapshot = snapshot
        return snapshot.output.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        snapshot: Snapshot = ctx.snapshot
        copies = tuple(snapshot.copies.values())
        # The graph is retained because the next step needs it again.
        gradients = torch.autograd.grad(
            snapshot.output, copies, gradient, retain_graph=True, allow_unused=True
        )
        return None, *gradients


def _learned_parameters(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that require a gradient, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
