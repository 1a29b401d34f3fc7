import pytest
import torch
from torch import nn

from recsys.training import Training, TrainingDivergedError, train


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))


X = torch.linspace(-1, 1, 64)


def fit(model: Line, plan: Training, validate=lambda: 0.0, **kwargs):
    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        return (model.slope * X[rows] - 3 * X[rows]).square().mean()

    return train(model, loss_of, len(X), plan, validate=validate, seed=0, **kwargs)


def test_the_weights_that_validated_best_are_kept() -> None:
    model, seen = Line(), []

    def validate() -> float:  # best at the second look, whatever the training loss says
        seen.append(model.slope.item())
        return {1: 0.1, 2: 0.9}.get(len(seen), 0.2)

    fit(
        model,
        Training(steps=40, batch_size=16, learning_rate=0.1, warmup_steps=1, evaluate_every=10),
        validate,
    )
    assert len(seen) == 4
    assert model.slope.item() == seen[1]
    assert seen[3] != seen[1]
    assert not model.training


def test_training_stops_when_patience_runs_out() -> None:
    steps = []
    fit(
        Line(),
        Training(steps=100, batch_size=16, evaluate_every=10, patience=2),
        on_step=lambda step, metrics: steps.append(step),
    )
    assert steps == [10, 20, 30]


def test_it_learns_and_reports_the_schedule() -> None:
    model, rates = Line(), {}
    values = iter(range(100))
    fit(
        model,
        Training(
            steps=200, batch_size=16, learning_rate=0.1, warmup_steps=10, weight_decay=0.5, evaluate_every=10
        ),
        validate=lambda: float(next(values)),
        on_step=lambda step, metrics: rates.update({step: metrics["learning_rate"]}),
    )
    assert model.slope.item() == pytest.approx(3, abs=0.05)  # vectors are spared the weight decay
    assert rates[20] > rates[100] > rates[200] >= 0
    assert max(rates.values()) <= 0.1


def test_a_loss_that_is_no_number_stops_with_the_step() -> None:
    model = Line()
    with pytest.raises(TrainingDivergedError, match="by step 10"):
        train(
            model,
            lambda rows: model.slope.sum() / 0 * 0,
            64,
            Training(steps=20, evaluate_every=10),
            validate=lambda: 0.0,
            seed=0,
        )
