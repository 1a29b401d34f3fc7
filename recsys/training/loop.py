"""One training loop for every retriever: the same budget, schedule and model choice for all."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from recsys.training.checkpoint import Checkpoint, Progress
from semantic_ids.randomness import shuffled_batches
from semantic_ids.types import OnStep

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch = tuple[Any, ...]
"""Tensors, or lists of tensors: the arguments of a model's ``forward``."""

BatchesOf = Callable[[Tensor], Iterator[tuple[int, Batch]]]
"""Training rows ``(B,)`` int64 on the CPU → the batches that they are worked through in, each with the
number of examples that its loss is the mean over. One batch after another is held in memory."""

SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "constant": lambda step, steps, warmup: 1.0,
    "linear": lambda step, steps, warmup: 1.0 - step / steps,
    "cosine": lambda step, steps, warmup: 0.5 + 0.5 * math.cos(math.pi * step / steps),
    "inverse-sqrt": lambda step, steps, warmup: (1.0 + step / warmup) ** -0.5,
}
"""What a learning rate does behind its warm-up, by name: steps since then, steps from then to the end
and steps of the warm-up (at least 1) → share of the peak."""

_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Training:
    """What fitting may cost and how it is steered; equal for all that is compared.

    Attributes:
        steps: optimizer steps at the most.
        batch_size: training examples a step.
        learning_rate: peak of the schedule.
        schedule: a name of :data:`SCHEDULES`.
        warmup_steps: steps on which the learning rate rises linearly to its peak.
        weight_decay: on matrices; biases, norms and other vectors are spared.
        clip_norm: bound on the gradient's norm.
        evaluate_every: steps between two looks at the validation set.
        patience: looks without a better value after which training stops.
        precision: of the products inside the model; weights and their updates are float32. ``float16`` is
            for GPUs; elsewhere it leaves everything as it is.
        compile: the model by ``torch.compile``; what cannot be compiled runs as it is, with a warning.
    """

    steps: int = 2000
    batch_size: int = 512
    learning_rate: float = 1e-3
    schedule: Literal["constant", "linear", "cosine", "inverse-sqrt"] = "cosine"
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    evaluate_every: int = 250
    patience: int = 5
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, not {getattr(self, name)}")
        for name, known in (("schedule", SCHEDULES), ("precision", _PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"training.{name} is one of {', '.join(known)}, not {getattr(self, name)!r}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        since, in_all = step - self.warmup_steps, self.steps - self.warmup_steps
        return self.learning_rate * SCHEDULES[self.schedule](since, in_all, max(1, self.warmup_steps))


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite."""


def train(
    model: nn.Module,
    batches_of: BatchesOf,
    count: int,
    plan: Training,
    *,
    validate: Callable[[], float],
    seed: int,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train ``model`` in place and leave it with the weights that validated best, in eval mode.

    Started by ``accelerate launch`` in several processes, each takes its part of every batch and
    gradients are averaged; without, everything runs on the one device that the model is on.

    When memory runs out, steps go on in smaller pieces, with a warning. The pieces' gradients add
    up to the same for a loss that is a mean over examples; a loss that contrasts the examples of a
    batch then sees fewer of them at once.

    Args:
        model: its ``forward(*batch)`` gives the scalar loss of a batch.
        batches_of: see :data:`BatchesOf`.
        count: number of training rows.
        plan: the budget.
        validate: called with the model in eval mode; higher is better.
        seed: order of the rows. (Dropout follows torch's global state: see ``seeded``.)
        on_step: gets ``loss`` (mean since the last call), ``learning_rate`` and ``valid`` at
            every evaluation.
        checkpoint: is written at every evaluation, and gone when training is over. If it is there at
            the start, training goes on from it and ends with the numbers that it would have had
            uninterrupted (in float16, but for the scale of the loss, which is found anew); what was
            reported before is reported again.

    Raises:
        ValueError: there is nothing to train on, or too little for the processes; or the checkpoint
            is of another training.
        TrainingDivergedError: the loss is no number. The model then has the weights that validated
            best so far, and the checkpoint stays as it was before.
    """
    if count < 1:
        raise ValueError("there are no training examples; users need 4 interactions to give one")
    accelerator = _accelerator(plan, count)
    optimizer = _optimizer(model, plan)
    progress = (
        checkpoint.load(model, optimizer) if checkpoint and checkpoint.exists() else Progress.start(model)
    )
    for step, report in progress.reports if on_step else ():
        on_step(step, report)  # type: ignore[misc]
    if accelerator.process_index:  # the first has the caller's own random state
        torch.manual_seed(seed + accelerator.process_index)
    forward, stepped = accelerator.prepare(model, optimizer)
    pieces = _Pieces(accelerator, forward, batches_of)
    total, seen = torch.zeros(()), 0
    batches = shuffled_batches(count, plan.batch_size, torch.Generator().manual_seed(seed))
    try:
        for step, rows in zip(range(1, plan.steps + 1), batches, strict=False):
            if progress.looks_since_best >= plan.patience:
                break
            if step <= progress.step:
                continue  # done before; the rows that follow are those of an uninterrupted training
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate_at(step)
            loss = pieces.backward(rows)
            accelerator.clip_grad_norm_(model.parameters(), plan.clip_norm)
            stepped.step()
            stepped.zero_grad()
            total, seen = total.to(loss.device) + loss, seen + 1
            if step % plan.evaluate_every and step != plan.steps:
                continue

            mean_loss = _finite(float(total) / seen, step, plan)
            model.eval()
            with torch.no_grad():
                value = validate()
            report = {"loss": mean_loss, "learning_rate": plan.learning_rate_at(step), "valid": value}
            progress.look(step, value, report, model)
            total, seen = torch.zeros(()), 0
            if checkpoint and accelerator.is_main_process:
                checkpoint.save(model, optimizer, progress)
            if on_step:
                on_step(step, report)
    finally:  # what comes after training is float32 again, and as good as it was
        accelerator.unwrap_model(forward, keep_fp32_wrapper=False, keep_torch_compile=False)
        progress.restore_best(model)
    if checkpoint and accelerator.is_main_process:
        checkpoint.remove()


def _finite(mean_loss: float, step: int, plan: Training) -> float:
    if not math.isfinite(mean_loss):
        raise TrainingDivergedError(
            f"the training loss is {mean_loss} by step {step}; try a smaller learning rate than "
            f"{plan.learning_rate}, or more warm-up than {plan.warmup_steps} steps"
        )
    return mean_loss


class _Pieces:
    """Works through a step's rows in pieces, the largest that memory has room for."""

    def __init__(self, accelerator: Accelerator, forward: nn.Module, batches_of: BatchesOf) -> None:
        self.accelerator, self.forward, self.batches_of = accelerator, forward, batches_of
        self.size = sys.maxsize  # rows of a piece

    def backward(self, rows: Tensor) -> Tensor:
        """Give the parameters the gradients of the rows' mean loss, and the caller that loss."""
        own = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        while True:
            try:
                return self._backward(own, len(rows))
            except torch.OutOfMemoryError:
                half = min(self.size, len(own)) // 2
                if half == 0 or self.accelerator.num_processes > 1:  # the others would wait for ever
                    raise
                self.size = half
            self.forward.zero_grad()
            torch.cuda.empty_cache()
            what = f"out of memory: going on with {self.size} training examples at once"
            warnings.warn(what, RuntimeWarning, stacklevel=3)

    def _backward(self, own: Tensor, count: int) -> Tensor:
        """Of the rows of this process, and the number of those of all."""
        device = self.accelerator.device
        loss_sum, examples = torch.zeros((), device=device), torch.zeros((), device=device)
        # How many examples there are in all is known at the end; until then the rows stand for them.
        for weight, batch, is_last in self._batches(own):
            with nullcontext() if is_last else self.accelerator.no_sync(self.forward):
                loss = self.forward(*batch) * (weight / count)
                self.accelerator.backward(loss)
            loss_sum, examples = loss_sum + loss.detach(), examples + weight
        loss_sum, examples = self.accelerator.reduce((loss_sum, examples))
        scale = count / examples
        for parameter in self.forward.parameters():
            if parameter.grad is not None:
                parameter.grad *= scale * self.accelerator.num_processes  # processes are averaged over
        return loss_sum * scale

    def _batches(self, own: Tensor) -> Iterator[tuple[int, Batch, bool]]:
        """Every batch with its weight, and whether it is the last."""
        pieces = own.split(self.size)
        for number, piece in enumerate(pieces, start=1):
            waiting: tuple[int, Batch] | None = None
            for batch in self.batches_of(piece):
                if waiting:
                    yield *waiting, False
                waiting = batch
            if waiting:
                yield *waiting, number == len(pieces)


def _accelerator(plan: Training, count: int) -> Accelerator:
    # Imported here, for it takes seconds and whoever only ranks needs none.
    from accelerate import Accelerator  # noqa: PLC0415
    from accelerate.state import AcceleratorState  # noqa: PLC0415

    AcceleratorState._reset_state()  # else the first training of a process fixes the precision of all
    if plan.compile:
        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
    accelerator = Accelerator(
        mixed_precision=_PRECISIONS[plan.precision],
        dynamo_backend="inductor" if plan.compile else "no",
    )
    if min(plan.batch_size, count) < accelerator.num_processes:
        raise ValueError(
            f"a batch of {min(plan.batch_size, count)} is too small for {accelerator.num_processes} processes"
        )
    return accelerator


def _optimizer(model: nn.Module, plan: Training) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=plan.learning_rate,
    )
