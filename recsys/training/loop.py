"""The training loop that all trained retrievers share, with the same settings and model selection."""

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

from recsys.training.acceleration import make_accelerator
from recsys.training.checkpoint import Checkpoint, Progress
from semantic_ids.errors import TrainingDivergedError
from semantic_ids.randomness import shuffled_batches
from semantic_ids.ranges import check_numbers, check_whole
from semantic_ids.types import OnStep

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch = tuple[Any, ...]
"""Arguments of a model's ``forward``: tensors, or lists of tensors."""

BatchesOf = Callable[[Tensor], Iterator[tuple[int, Batch]]]
"""A function from training rows, ``(B,)`` int64 on the CPU, to the batches that contain them.

Each batch comes with the number of examples that its loss is the mean of. Batches are yielded one at a
time, to save memory."""

SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "constant": lambda step, steps, warmup: 1.0,
    "linear": lambda step, steps, warmup: 1.0 - step / steps,
    "cosine": lambda step, steps, warmup: 0.5 + 0.5 * math.cos(math.pi * step / steps),
    "inverse-sqrt": lambda step, steps, warmup: (1.0 + step / warmup) ** -0.5,
}
"""Learning-rate schedules after the warm-up, by name.

Each is a function of three numbers: steps since the end of the warm-up, steps from there to the end of
training, and steps of the warm-up (at least 1). It returns the learning rate as a share of its peak."""

_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Training:
    """Settings of a training. For a fair comparison, use the same ones for all methods compared.

    Attributes:
        steps: Largest number of optimizer steps.
        batch_size: Number of training rows in a step. Retrievers define what a row is.
        learning_rate: Peak of the learning rate.
        schedule: Name of the schedule after the warm-up, one of :data:`SCHEDULES`.
        warmup_steps: Number of first steps, during which the learning rate rises linearly to its peak.
        weight_decay: Weight decay of matrices. Biases, norms and other vectors have none.
        clip_norm: Largest norm of the gradient; larger ones are scaled down to it.
        evaluate_every: Number of steps between two evaluations on the validation set.
        patience: Number of evaluations in a row without a better score after which training stops.
        precision: Precision of matrix products inside the model; weights and their updates are float32.
            ``float16`` takes effect on GPUs only.
        compile: Whether to compile the model with ``torch.compile``. Parts that cannot be compiled run
            uncompiled, with a warning.

    Raises:
        ValueError: If a number is out of range, or if a name is unknown.

    Example:
        >>> training = Training(steps=100, learning_rate=0.01, warmup_steps=10, schedule="linear")
        >>> [round(training.learning_rate_at(step), 6) for step in (1, 10, 100)]
        [0.001, 0.01, 0.0]
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
        def values(*names: str) -> dict[str, Any]:
            return {f"training.{name}": getattr(self, name) for name in names}

        check_whole(**values("steps", "batch_size", "evaluate_every", "patience"))
        check_whole(0, **values("warmup_steps"))
        check_numbers(0, above=True, **values("learning_rate", "clip_norm"))
        check_numbers(0, **values("weight_decay"))
        for name, known in (("schedule", SCHEDULES), ("precision", _PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"training.{name} is one of {', '.join(known)}, not {getattr(self, name)!r}")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step; steps are counted from 1."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        after_warmup, all_after_warmup = step - self.warmup_steps, self.steps - self.warmup_steps
        schedule = SCHEDULES[self.schedule]
        return self.learning_rate * schedule(after_warmup, all_after_warmup, max(1, self.warmup_steps))


def train(
    model: nn.Module,
    batches_of: BatchesOf,
    count: int,
    settings: Training,
    *,
    validate: Callable[[], float],
    seed: int,
    on_step: OnStep | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train ``model`` in place and leave it with the weights of the best validation score, in eval mode.

    Under ``accelerate launch`` with several processes, each process takes its part of every batch, and
    gradients are averaged. Otherwise everything runs on the device that the model is on.

    When memory runs out, on a GPU or a CPU, the step is repeated in smaller pieces, with a warning. Gradients
    stay the same for a loss that is a mean over examples. A loss that contrasts the examples of a batch sees
    fewer of them at once.

    Args:
        model: The model; ``forward(*batch)`` returns the scalar loss of a batch.
        batches_of: Function from training rows to batches, see :data:`BatchesOf`.
        count: Number of training rows; they are numbered ``0 … count - 1``.
        settings: Steps, batch size, learning rate and so on.
        validate: Returns the validation score, higher is better. The model is in eval mode when it is
            called.
        seed: Seed of the order of the rows. Dropout follows torch's global random state, see
            :func:`semantic_ids.randomness.seeded`.
        on_step: Called at every evaluation with the step and the metrics ``loss`` (mean since the previous
            call), ``learning_rate`` and ``valid``.
        checkpoint: File that is written at every evaluation and removed at the end. If it exists at the
            start, training resumes from it and ends with the numbers of an uninterrupted run; only in float16
            they may differ, because the scale of the loss starts anew. Metrics that were reported before the
            interruption are reported again. If the file is damaged or belongs to another training, this one
            starts anew, with a warning.

    Raises:
        ValueError: If there are no training rows or too few for the number of processes.
        TrainingDivergedError: If the loss or a weight is NaN or infinite. The model then has the best weights
            so far, and the checkpoint keeps its last content.
    """
    if count < 1:
        raise ValueError("there are no training examples; users need 4 interactions to give one")
    accelerator = _accelerator(settings, count, model)
    optimizer = _optimizer(model, settings)
    progress = (checkpoint.load(model, optimizer) if checkpoint else None) or Progress.start(model)
    for step, report in progress.reports if on_step else ():
        on_step(step, report)  # type: ignore[misc]
    if accelerator.process_index:  # the first process keeps the caller's random state
        torch.manual_seed(seed + accelerator.process_index)
    prepared_model, prepared_optimizer = accelerator.prepare(model, optimizer)
    pieces = _Pieces(accelerator, prepared_model, batches_of)
    loss_sum, num_losses = torch.zeros(()), 0
    batches = shuffled_batches(count, settings.batch_size, torch.Generator().manual_seed(seed))
    try:
        for step, rows in zip(range(1, settings.steps + 1), batches, strict=False):
            if progress.evaluations_since_best >= settings.patience:
                break
            if step <= progress.step:
                continue  # done before the interruption; drawing its rows keeps the order of later ones
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate_at(step)
            loss = pieces.backward(rows)
            accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
            prepared_optimizer.step()
            prepared_optimizer.zero_grad()
            loss_sum, num_losses = loss_sum.to(loss.device) + loss, num_losses + 1
            if step % settings.evaluate_every and step != settings.steps:
                continue

            mean_loss = float(loss_sum) / num_losses
            _require_finite(mean_loss, model, step, settings)
            model.eval()
            with torch.no_grad():
                score = validate()
            report = {"loss": mean_loss, "learning_rate": settings.learning_rate_at(step), "valid": score}
            progress.record(step, score, report, model)
            loss_sum, num_losses = torch.zeros(()), 0
            if checkpoint and accelerator.is_main_process:
                checkpoint.save(model, optimizer, progress)
            if on_step:
                on_step(step, report)
    finally:  # also after an error, the model ends in float32 and with its best weights
        accelerator.unwrap_model(prepared_model, keep_fp32_wrapper=False, keep_torch_compile=False)
        progress.restore_best(model)
    if checkpoint and accelerator.is_main_process:
        checkpoint.remove()


def _require_finite(mean_loss: float, model: nn.Module, step: int, settings: Training) -> None:
    """Raise a :class:`TrainingDivergedError` if the loss or a weight is NaN or infinite."""
    what = ""
    if not math.isfinite(mean_loss):
        what = f"the training loss is {mean_loss}"
    elif not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        what = "weights are NaN or infinite"
    if what:
        raise TrainingDivergedError(
            f"{what} by step {step}; try a smaller training.learning_rate than {settings.learning_rate}, or "
            f"more training.warmup_steps than {settings.warmup_steps}"
        )


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out; on a CPU torch raises a plain RuntimeError."""
    known = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in known)
    )


class _Pieces:
    """Computes the gradients of a step in pieces, as large as memory allows.

    Args:
        accelerator: Distributes the step over processes.
        model: The model as the accelerator prepared it.
        batches_of: Function from training rows to batches.

    Attributes:
        size: Largest number of rows in a piece; halved whenever memory runs out.
    """

    def __init__(self, accelerator: Accelerator, model: nn.Module, batches_of: BatchesOf) -> None:
        self.accelerator, self.model, self.batches_of = accelerator, model, batches_of
        self.size = sys.maxsize

    def backward(self, rows: Tensor) -> Tensor:
        """Set the gradients of the mean loss of the step's ``rows``, and return that loss."""
        own = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        while True:
            try:
                return self._backward(own, len(rows))
            except (RuntimeError, MemoryError) as error:
                half = min(self.size, len(own)) // 2
                # With several processes the others would wait for this one for ever.
                if not _is_out_of_memory(error) or half == 0 or self.accelerator.num_processes > 1:
                    raise
                self.size = half
            self.model.zero_grad()
            torch.cuda.empty_cache()
            message = f"out of memory: going on with {self.size} training examples at once"
            warnings.warn(message, RuntimeWarning, stacklevel=3)

    def _backward(self, own: Tensor, count: int) -> Tensor:
        """Do the work of :meth:`backward` once, with pieces of the present size.

        Args:
            own: Rows of this process.
            count: Number of rows of all processes.
        """
        device = self.accelerator.device
        loss_sum, examples = torch.zeros((), device=device), torch.zeros((), device=device)
        # The total number of examples is known only at the end. Until then losses are divided by the number
        # of rows; afterwards gradients and loss are rescaled.
        for weight, batch, is_last in self._batches(own):
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                loss = self.model(*batch) * (weight / count)
                self.accelerator.backward(loss)
            loss_sum, examples = loss_sum + loss.detach(), examples + weight
        loss_sum, examples = self.accelerator.reduce((loss_sum, examples))
        scale = count / examples
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                # The accelerator has averaged gradients over processes, but their sum is needed.
                parameter.grad *= scale * self.accelerator.num_processes
        return loss_sum * scale

    def _batches(self, own: Tensor) -> Iterator[tuple[int, Batch, bool]]:
        """Yield the batches of all pieces: number of examples, batch, and whether it is the last one."""
        pieces = own.split(self.size)
        for number, piece in enumerate(pieces, start=1):
            previous: tuple[int, Batch] | None = None
            for batch in self.batches_of(piece):
                if previous:
                    yield *previous, False
                previous = batch
            if previous:
                yield *previous, number == len(pieces)


def _accelerator(settings: Training, count: int, model: nn.Module) -> Accelerator:
    """Return the accelerator for a training of ``count`` rows.

    Raises:
        ValueError: If a batch has fewer rows than there are processes.
    """
    if settings.compile:
        torch._dynamo.config.suppress_errors = True  # parts that cannot be compiled run uncompiled
    accelerator = make_accelerator(
        precision=_PRECISIONS[settings.precision],
        backend="inductor" if settings.compile else "no",
        cpu=next(model.parameters()).device.type == "cpu",
    )
    batch_size = min(settings.batch_size, count)
    if batch_size < accelerator.num_processes:
        raise ValueError(f"a batch of {batch_size} is too small for {accelerator.num_processes} processes")
    return accelerator


def _optimizer(model: nn.Module, settings: Training) -> torch.optim.AdamW:
    """Return AdamW with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )
