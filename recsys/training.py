"""One training loop for every retriever: the same budget, schedule and model choice for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semantic_ids.randomness import shuffled_batches
from semantic_ids.tokenizer import OnStep


@dataclass(frozen=True)
class Training:
    """What fitting may cost and how it is steered; equal for all that is compared.

    Attributes:
        steps: optimizer steps at the most.
        batch_size: training examples a step.
        learning_rate: peak of the schedule (linear warm-up, then cosine to zero).
        warmup_steps: steps until the peak.
        weight_decay: on matrices; biases, norms and other vectors are spared.
        clip_norm: bound on the gradient's norm.
        evaluate_every: steps between two looks at the validation set.
        patience: looks without a better value after which training stops.
    """

    steps: int = 2000
    batch_size: int = 512
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    evaluate_every: int = 250
    patience: int = 5

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, not {getattr(self, name)}")


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite."""


def train(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor],
    count: int,
    plan: Training,
    *,
    validate: Callable[[], float],
    seed: int,
    on_step: OnStep | None = None,
) -> nn.Module:
    """Train ``model`` in place and leave it with the weights that validated best, in eval mode.

    Args:
        model: holds the parameters that ``loss_of`` uses.
        loss_of: rows ``(B,)`` int64 on the CPU → scalar loss.
        count: number of training rows.
        plan: the budget.
        validate: called with the model in eval mode; higher is better.
        seed: order of the batches. (Dropout follows torch's global state: see ``seeded``.)
        on_step: gets ``loss`` (mean since the last call), ``learning_rate`` and ``valid`` at
            every evaluation.

    Raises:
        ValueError: there is nothing to train on.
        TrainingDivergedError: the loss is no number; the message names the step.
    """
    if count < 1:
        raise ValueError("there are no training examples; users need 4 interactions to give one")
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    spared = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": spared, "weight_decay": 0.0}],
        lr=plan.learning_rate,
    )
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, 1.0, max(1, plan.warmup_steps))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, plan.steps - plan.warmup_steps))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, decay], [max(1, plan.warmup_steps)])

    best, best_weights, looks_since_best = -float("inf"), None, 0
    total, seen = torch.zeros(()), 0
    batches = shuffled_batches(count, plan.batch_size, torch.Generator().manual_seed(seed))
    for step, rows in zip(range(1, plan.steps + 1), batches, strict=False):
        model.train()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(rows)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), plan.clip_norm)
        learning_rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        total, seen = total.to(loss.device) + loss.detach(), seen + 1

        if step % plan.evaluate_every == 0 or step == plan.steps:
            mean_loss = float(total) / seen
            if not torch.isfinite(total):
                raise TrainingDivergedError(
                    f"the training loss is {mean_loss} by step {step}; try a smaller learning rate "
                    f"than {plan.learning_rate}, or more warm-up than {plan.warmup_steps} steps"
                )
            model.eval()
            with torch.no_grad():
                value = validate()
            if on_step:
                on_step(step, {"loss": mean_loss, "learning_rate": learning_rate, "valid": value})
            total, seen = torch.zeros(()), 0
            if value > best:
                best, looks_since_best = value, 0
                best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
            else:
                looks_since_best += 1
                if looks_since_best >= plan.patience:
                    break
    if best_weights is not None:
        model.load_state_dict(best_weights)
    return model.eval()
