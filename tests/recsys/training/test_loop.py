from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import save_file
from torch import Tensor, nn

from recsys.training.checkpoint import Checkpoint
from recsys.training.loop import SCHEDULES, Training, train
from semantic_ids.errors import TrainingDivergedError
from semantic_ids.randomness import default_device

X = torch.linspace(-1, 1, 64)


class Line(nn.Module):
    """Is to find the slope 3 by squared errors; some noise stands for dropout."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        return (self.slope * (x + self.noise * torch.randn_like(x)) - 3 * x).square().mean()


def whole(rows: Tensor) -> Iterator[tuple[int, tuple[Tensor]]]:
    yield len(rows), (X[rows],)


def fit(
    model: nn.Module, settings: Training, validate: Callable[[], float] = lambda: 0.0, **kwargs: Any
) -> None:
    train(model, kwargs.pop("batches_of", whole), len(X), settings, validate=validate, seed=0, **kwargs)


def test_the_weights_that_validated_best_are_kept() -> None:
    model, seen = Line(), []

    def validate() -> float:  # best at the second evaluation, whatever the training loss says
        seen.append(model.slope.item())
        return {1: 0.1, 2: 0.9}.get(len(seen), 0.2)

    settings = Training(steps=40, batch_size=16, learning_rate=0.1, warmup_steps=1, evaluate_every=10)
    fit(model, settings, validate)
    assert len(seen) == 4
    assert model.slope.item() == seen[1]
    assert seen[3] != seen[1]
    assert not model.training


def test_training_stops_when_patience_runs_out() -> None:
    steps = []
    settings = Training(steps=100, batch_size=16, evaluate_every=10, patience=2)
    fit(Line(), settings, on_step=lambda step, metrics: steps.append(step))
    assert steps == [10, 20, 30]


def test_it_learns_and_reports_the_schedule() -> None:
    model, rates = Line(), {}
    values = iter(range(100))
    settings = Training(
        steps=200, batch_size=16, learning_rate=0.1, warmup_steps=10, weight_decay=0.5, evaluate_every=10
    )
    fit(
        model,
        settings,
        validate=lambda: float(next(values)),
        on_step=lambda step, metrics: rates.update({step: metrics["learning_rate"]}),
    )
    assert model.slope.item() == pytest.approx(3, abs=0.05)  # vectors are spared the weight decay
    assert rates[20] > rates[100] > rates[200] >= 0
    assert max(rates.values()) <= 0.1


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("constant", [1, 1, 1]),
        ("linear", [1, 0.75, 0]),
        ("cosine", [1, 0.853553, 0]),  # (1 + cos 45°) / 2
        ("inverse-sqrt", [1, 0.57735, 0.333333]),  # warm-up 10: at steps 30 and 90, √(10 / step)
    ],
)
def test_schedules_by_name(name: str, after: list[float]) -> None:
    settings = Training(steps=90, learning_rate=2.0, schedule=name, warmup_steps=10)
    assert [settings.learning_rate_at(step) for step in (1, 5)] == pytest.approx([0.2, 1.0])
    assert [settings.learning_rate_at(step) for step in (10, 30, 90)] == pytest.approx(
        [2 * share for share in after], abs=1e-5
    )


def test_what_is_unknown_is_said_with_what_is_known() -> None:
    with pytest.raises(
        ValueError, match="schedule is one of constant, linear, cosine, inverse-sqrt, not 'cos'"
    ):
        Training(schedule="cos")
    with pytest.raises(ValueError, match="precision is one of float32, bfloat16, float16"):
        Training(precision="bf16")
    assert set(SCHEDULES) == {"constant", "linear", "cosine", "inverse-sqrt"}


def test_batches_of_a_step_add_up_to_the_step() -> None:
    def in_parts(rows: Tensor) -> Iterator[tuple[int, tuple[Tensor]]]:
        for part in rows.split(5):
            yield len(part), (X[part],)

    settings = Training(steps=20, batch_size=16, learning_rate=0.1, evaluate_every=10)
    slopes, losses = [], []
    for batches_of in (whole, in_parts):
        model, seen = Line(), []
        fit(
            model,
            settings,
            batches_of=batches_of,
            on_step=lambda step, metrics, seen=seen: seen.append(metrics["loss"]),
        )
        slopes.append(model.slope.item())
        losses.append(seen)
    assert slopes[1] == pytest.approx(slopes[0], rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


class Crammed(Line):
    """Has memory for so many examples at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.sizes = room, []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.sizes.append(len(x))
        return super().forward(x)


def test_out_of_memory_goes_on_in_halves_with_the_same_numbers() -> None:
    settings = Training(steps=12, batch_size=16, learning_rate=0.1, evaluate_every=6)
    roomy, crammed = Line(), Crammed(room=5)
    fit(roomy, settings)
    with pytest.warns(RuntimeWarning, match="out of memory: going on with 4 training examples at once"):
        fit(crammed, settings)
    assert crammed.slope.item() == pytest.approx(roomy.slope.item(), rel=1e-5)
    assert crammed.sizes == [4] * 4 * 12  # once found, the size stays


class AllocatorFails(Crammed):
    """Fails as torch does on a CPU, or as Python does."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__(room)
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise self.error
        return super().forward(x)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        MemoryError(),
    ],
)
def test_out_of_memory_on_a_cpu_goes_on_in_halves_too(error: Exception) -> None:
    settings = Training(steps=4, batch_size=16, learning_rate=0.1, evaluate_every=2)
    roomy, crammed = Line(), AllocatorFails(5, error)
    fit(roomy, settings)
    with pytest.warns(RuntimeWarning, match="out of memory: going on with 4 training examples at once"):
        fit(crammed, settings)
    assert crammed.slope.item() == pytest.approx(roomy.slope.item(), rel=1e-5)


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(RuntimeError) as failure:
        torch.empty(2**60, dtype=torch.uint8)
    model = AllocatorFails(5, failure.value)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        fit(model, Training(steps=2, batch_size=16))


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fit(AllocatorFails(5, RuntimeError("shapes do not fit")), Training(steps=2, batch_size=16))


def uneven(rows: Tensor) -> Iterator[tuple[int, tuple[Tensor]]]:
    """Row r stands for r % 5 + 1 examples, as a history does for its places."""
    for part in rows.split(7):
        yield int((part % 5 + 1).sum()), (X[part.repeat_interleave(part % 5 + 1)],)


def test_examples_weigh_alike_whatever_the_pieces() -> None:
    def at_once(rows: Tensor) -> Iterator[tuple[int, tuple[Tensor]]]:
        yield int((rows % 5 + 1).sum()), (X[rows.repeat_interleave(rows % 5 + 1)],)

    settings = Training(steps=20, batch_size=16, learning_rate=0.1, evaluate_every=10, clip_norm=0.1)
    slopes, losses = [], []
    for batches_of, model in ((at_once, Line()), (uneven, Line()), (uneven, Crammed(room=12))):
        seen: list[float] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            fit(
                model,
                settings,
                batches_of=batches_of,
                on_step=lambda step, m, seen=seen: seen.append(m["loss"]),
            )
        slopes.append(model.slope.item())
        losses.append(seen)
    assert slopes[1:] == pytest.approx([slopes[0]] * 2, rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_memory_for_not_even_one_example_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(RuntimeWarning):
        fit(Crammed(room=0), Training(steps=2, batch_size=16))


class StopsError(Exception):
    """What a crash is in these tests."""


def curve(
    model: nn.Module, settings: Training, checkpoint: Path | None, stop_at: int = 0
) -> list[tuple[int, dict]]:
    reports: list[tuple[int, dict]] = []

    def on_step(step: int, metrics: dict) -> None:
        reports.append((step, dict(metrics)))
        if step == stop_at:
            raise StopsError

    torch.manual_seed(0)
    kept = Checkpoint(checkpoint, {"settings": asdict(settings)}) if checkpoint else None
    fit(
        model,
        settings,
        lambda: -abs(next(model.parameters()).sum().item() - 1),
        on_step=on_step,
        checkpoint=kept,
    )
    return reports


def test_an_interrupted_training_ends_with_the_numbers_of_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = Training(steps=60, batch_size=24, learning_rate=0.1, evaluate_every=10, patience=9)
    through, broken, again = (Line(noise=0.5) for _ in range(3))
    expected = curve(through, settings, None)
    file = tmp_path / "checkpoints" / "some.safetensors"
    with pytest.raises(StopsError):
        curve(broken, settings, file, stop_at=30)
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert curve(again, settings, file) == expected  # what was reported before is reported again
    assert again.slope.item() == through.slope.item()
    assert not file.exists()


def test_a_checkpoint_at_the_end_of_patience_is_the_end(tmp_path: Path) -> None:
    settings = Training(
        steps=60, batch_size=24, learning_rate=0.3, warmup_steps=1, evaluate_every=10, patience=2
    )
    expected = curve(Line(noise=0.5), settings, None)
    assert expected[-1][0] < 60
    with pytest.raises(StopsError):
        curve(Line(noise=0.5), settings, tmp_path / "it", stop_at=expected[-1][0])
    assert curve(Line(noise=0.5), settings, tmp_path / "it") == expected


def checkpoint_at(path: Path, settings: Training, stop_at: int = 10) -> bytes:
    """Write a checkpoint by an interrupted training, and return its content."""
    with pytest.raises(StopsError):
        curve(Line(), settings, path, stop_at=stop_at)
    return path.read_bytes()


def test_a_checkpoint_of_another_training_is_kept_aside(tmp_path: Path) -> None:
    content = checkpoint_at(tmp_path / "it", Training(steps=60, batch_size=24, evaluate_every=10))
    other = Training(steps=50, batch_size=24, evaluate_every=10)
    expected = curve(Line(), other, None)
    with pytest.warns(
        RuntimeWarning, match=r"it is the checkpoint of another training: it is now called it\.ot"
    ):
        assert curve(Line(), other, tmp_path / "it") == expected
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"it.other": content}


def test_a_checkpoint_of_another_model_is_kept_aside(tmp_path: Path) -> None:
    settings = Training(steps=60, batch_size=24, evaluate_every=10)
    checkpoint_at(tmp_path / "it", settings)
    with pytest.warns(RuntimeWarning, match="checkpoint of another training"):
        Checkpoint(tmp_path / "it", {"settings": asdict(settings)}).load(
            nn.Linear(2, 2), torch.optim.AdamW(nn.Linear(2, 2).parameters())
        )
    assert [file.name for file in tmp_path.iterdir()] == ["it.other"]


@pytest.mark.parametrize("content", [b"", b"no such thing", b"\x08" + bytes(7) + b'{"a": 1}', None])
def test_what_is_no_checkpoint_is_dropped(tmp_path: Path, content: bytes | None) -> None:
    settings = Training(steps=20, batch_size=24, evaluate_every=10)
    if content is None:
        save_file({"weights": torch.zeros(1)}, tmp_path / "it")
    else:
        (tmp_path / "it").write_bytes(content)
    with pytest.warns(RuntimeWarning, match="it was damaged: training starts anew"):
        assert curve(Line(), settings, tmp_path / "it") == curve(Line(), settings, None)
    assert not list(tmp_path.iterdir())


def test_every_flipped_bit_and_every_cut_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    settings, file = Training(steps=60, batch_size=24, evaluate_every=10), tmp_path / "it"
    content = checkpoint_at(file, settings)
    checkpoint, model = Checkpoint(file, {"settings": asdict(settings)}), Line()
    optimizer = torch.optim.AdamW(model.parameters())
    draws = random.Random(0)  # noqa: S311 — no secret
    damaged = []
    for _ in range(1000):
        changed = bytearray(content)
        changed[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        damaged.append(bytes(changed))
    damaged += [content[: draws.randrange(len(content))] for _ in range(50)]
    for changed in damaged:
        file.write_bytes(changed)
        with pytest.warns(RuntimeWarning, match="it was damaged"):
            assert checkpoint.load(model, optimizer) is None
        assert not file.exists()
    assert model.slope.item() == 0
    file.write_bytes(content)
    progress = checkpoint.load(model, optimizer)
    assert progress
    assert progress.step == 10


class Breaks(Line):
    """Its loss is no number from the given step on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.steps = at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        return super().forward(x) * (float("nan") if self.steps >= self.at else 1.0)


def test_a_loss_that_is_no_number_stops_at_the_last_good_state(tmp_path: Path) -> None:
    settings = Training(steps=60, batch_size=16, learning_rate=0.1, evaluate_every=10, patience=9)
    good = Line()
    with pytest.raises(StopsError):
        curve(good, settings, tmp_path / "good", stop_at=20)
    model = Breaks(at=24)
    with pytest.raises(TrainingDivergedError, match=r"loss is nan by step 30; try a smaller training\.lea"):
        curve(model, settings, tmp_path / "it")
    assert model.slope.item() == good.slope.item()
    assert not model.training
    assert (tmp_path / "it").read_bytes() == (tmp_path / "good").read_bytes()


class LastStepBreaks(Line):
    """Its loss is a number at every step, but the gradient of the last one is not."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        loss = super().forward(x)
        return loss + ((self.slope * 0).sqrt().sum() if self.calls == 4 else 0)


def test_weights_that_are_no_numbers_stop_the_training_too() -> None:
    settings = Training(steps=4, batch_size=16, learning_rate=0.1, evaluate_every=4)
    with pytest.raises(TrainingDivergedError, match="weights are NaN or infinite by step 4; try a smaller"):
        fit(LastStepBreaks(), settings)


def test_low_precision_reaches_the_products_and_leaves_the_weights() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)
            self.dtypes: set[torch.dtype] = set()

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x[:, None])
            self.dtypes.add(y.dtype)
            return (y.float() - 3 * x[:, None]).square().mean()

    model = Product()
    forward = model.forward
    with pytest.raises(StopsError):
        curve(
            model, Training(steps=4, batch_size=16, precision="bfloat16", evaluate_every=2), None, stop_at=4
        )
    assert model.dtypes == {torch.bfloat16}
    assert model.layer.weight.dtype == torch.float32
    assert model.forward == forward  # what comes after training is float32 again


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a C++ compiler and a POSIX system")
def test_a_compiled_model_learns_the_same() -> None:
    settings = {"steps": 12, "batch_size": 16, "learning_rate": 0.1, "evaluate_every": 6}
    plain, compiled = Line(), Line()
    fit(plain, Training(**settings))
    fit(compiled, Training(**settings, compile=True))
    assert compiled.slope.item() == pytest.approx(plain.slope.item(), rel=1e-5)


SETTINGS_OF_ACCELERATE = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_DYNAMO_BACKEND": "inductor",
    "ACCELERATE_DYNAMO_MODE": "max-autotune",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_USE_FSDP": "true",
    "ACCELERATE_USE_MEGATRON_LM": "true",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
    "ACCELERATE_USE_CPU": "true",
    "ACCELERATE_TORCH_DEVICE": "meta",
    "ACCELERATE_SPLIT_BATCHES": "true",
    "FSDP_VERSION": "2",
    "FORK_LAUNCHED": "1",
}
LEFT_BY_A_POD = {
    "WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "3",
    "MASTER_ADDR": "10.255.255.1",
    "MASTER_PORT": "29500",
    "PMI_SIZE": "2",
    "OMPI_COMM_WORLD_SIZE": "2",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
}


@pytest.mark.parametrize("variables", [SETTINGS_OF_ACCELERATE, LEFT_BY_A_POD], ids=["accelerate", "pod"])
def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    settings = Training(steps=20, batch_size=16, learning_rate=0.1, evaluate_every=10)
    expected = curve(Line(noise=0.5), settings, None)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert curve(Line(noise=0.5), settings, None) == expected
    assert dict(os.environ) == before
    assert not torch.distributed.is_initialized()
    assert default_device().index in (None, 0)


def test_settings_of_an_earlier_accelerator_change_nothing() -> None:
    settings = Training(steps=20, batch_size=16, learning_rate=0.1, evaluate_every=10)
    expected = curve(Line(noise=0.5), settings, None)
    AcceleratorState._reset_state(reset_partial_state=True)
    Accelerator(gradient_accumulation_steps=4, mixed_precision="bf16")
    assert curve(Line(noise=0.5), settings, None) == expected


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_loop import Line, X, uneven
from recsys.training.loop import Training, train
model = Line()
train(model, uneven, len(X), Training(steps=30, batch_size=15, learning_rate=0.1, evaluate_every=10),
      validate=lambda: model.slope.item(), seed=0)
result = Path(sys.argv[1]) / f"slope-{{torch.distributed.get_rank()}}"  # one stdout would mix their lines
result.write_text(f"{{torch.distributed.get_world_size()}} {{model.slope.item().hex()}}")
torch.distributed.barrier()  # or the one that is done first pulls the ground from under the other
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_with_uneven_shares_learn_what_one_does(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}
    out = subprocess.run(
        [*launch, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert out.returncode == 0, out.stderr
    alone = Line()
    settings = Training(steps=30, batch_size=15, learning_rate=0.1, evaluate_every=10)
    fit(alone, settings, alone.slope.item, batches_of=uneven)
    results = [file.read_text().split() for file in tmp_path.glob("slope-*")]
    assert [world for world, _ in results] == ["2", "2"]
    for _, slope in results:
        assert float.fromhex(slope) == pytest.approx(alone.slope.item(), rel=1e-5)
