"""A module's output kept for some calls: with the gradient that it had when it was made, or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call


@dataclass(frozen=True)
class Snapshot:
    """A module's output at copies of its parameters, with the graph that leads from one to the other.

    Attributes:
        copies: of the parameters that learn, by name; an optimizer step does not change them.
        output: what the module made of them.
    """

    copies: dict[str, Tensor]
    output: Tensor


def take_snapshot(module: nn.Module) -> Snapshot:
    """``module()`` with a graph of its own."""
    learned = _learned(module)
    copies = {name: parameter.detach().clone().requires_grad_() for name, parameter in learned.items()}
    return Snapshot(copies, functional_call(module, copies, ()))


class Cache:
    """Calls a module without arguments every ``every``-th time, and gives what it gave in between.

    GRIT-VQ's caching (arXiv 2602.01140, §4.4 and appendix I.7). Value and gradient are those at the
    parameters of the last refresh: between two refreshes no forward of the module is paid, while each
    backward goes through the kept graph, to the parameters as they stand. That pays where the forward
    is dear, as for attention or thousands of codes; at 256 codes the book-keeping of a call costs as
    much as a low-rank transform. A copy starts empty.

    Where nothing learns, :meth:`fixed` keeps the output for as long as it is true.

    Args:
        every: calls from one refresh to the next.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.drop()

    def drop(self) -> None:
        """Refresh at the next call."""
        self._snapshot: Snapshot | None = None
        self._fixed: tuple[dict[nn.Parameter, int], Tensor] | None = None
        self._calls = 0

    def __call__(self, module: nn.Module) -> Tensor:
        """The output of ``module()``, now or at the last refresh, with gradient."""
        learned = _learned(module)
        kept = self._snapshot
        if kept is None or self._calls == self.every or kept.copies.keys() != learned.keys():
            self._snapshot, self._calls = take_snapshot(module), 0
        self._calls += 1
        return _Read.apply(self._snapshot, *learned.values())

    def fixed(self, module: nn.Module) -> Tensor:
        """The output of ``module()`` without gradient, made anew only where a parameter has changed.

        Parameters are known by the count of their changes in place. Fused optimizers, and changes
        through ``parameter.data``, do not count: after them :meth:`drop` what is kept.
        """
        if any(parameter.is_inference() for parameter in module.parameters()):
            return cast(Tensor, module())  # these have no such count
        versions = {parameter: parameter._version for parameter in module.parameters()}
        if self._fixed is None or self._fixed[0] != versions:
            with torch.inference_mode(False), torch.no_grad():
                self._fixed = versions, module()
        return self._fixed[1]

    def __reduce__(self) -> tuple[type[Cache], tuple[int]]:
        # Neither copy nor pickle can take a graph along.
        return Cache, (self.every,)


class _Read(torch.autograd.Function):
    """A snapshot's output, as a function of the parameters themselves."""

    @staticmethod
    def forward(ctx: Any, snapshot: Snapshot, *parameters: Tensor) -> Tensor:
        ctx.snapshot = snapshot
        return snapshot.output.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        snapshot: Snapshot = ctx.snapshot
        # The graph is needed again at the next step.
        copies = tuple(snapshot.copies.values())
        gradients = torch.autograd.grad(
            snapshot.output, copies, gradient, retain_graph=True, allow_unused=True
        )
        return None, *gradients


def _learned(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
