"""`debug=profile` says where the time of a step goes: of real runs, and of steps whose seconds are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from src.callbacks import step_profiler
from src.callbacks.step_profiler import SHARES, StepProfiler
from src.train import train
from tests.conftest import settings

BATCH = [
    "[_TrainingEpochLoop].train_dataloader_next", "-[_TrainingEpochLoop].train_dataloader_next",
    "[Strategy]SingleDeviceStrategy.batch_to_device", "-[Strategy]SingleDeviceStrategy.batch_to_device",
    "[Strategy]SingleDeviceStrategy.training_step",
]  # fmt: skip
BACKWARD = ["[Callback]Monitor.on_before_backward", "[LightningModule]M.on_before_backward",
            "[Callback]Monitor.on_after_backward", "[LightningModule]M.on_after_backward"]  # fmt: skip
STEP = ["optimizer_step", "-optimizer_step"]
END = ["-[Strategy]SingleDeviceStrategy.training_step", "[Callback]Monitor.on_train_batch_end"]


def profiled(monkeypatch: pytest.MonkeyPatch, *names: str) -> StepProfiler:
    """A profiler that was told these one second after another; those with a dash ended."""
    clock, profiler = itertools.count(), StepProfiler()
    now = 0

    def tick() -> float:
        return float(now)

    monkeypatch.setattr(step_profiler, "_now", tick)
    for name in names:
        now = next(clock)
        (profiler.stop if name.startswith("-") else profiler.start)(name.removeprefix("-"))
    return profiler


@pytest.mark.parametrize("model", ["cnn", "gan"])
def test_each_share_of_a_run_is_measured(tmp_path: Path, model: str) -> None:
    """Also a test of the names by which Lightning tells what it does, which a release may change."""
    overrides = ["trainer.profiler=steps", "trainer.limit_train_batches=4", "trainer.max_epochs=2", "test=false"]
    outcome = train(settings(tmp_path / "run", f"model={model}", *overrides))
    profiler = outcome.trainer.profiler  # type: ignore[attr-defined]
    assert isinstance(profiler, StepProfiler)
    assert len(profiler.steps) == 8
    for step in profiler.steps:
        assert all(step[share] > 0 for share in SHARES), step
        assert step["forward"] + step["backward"] > step["transfer"]


def test_seconds_go_to_what_they_were_spent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = profiled(monkeypatch, *BATCH, *BACKWARD, *STEP, *END, *BATCH[:1])
    assert profiler.steps == [
        # what follows the backward pass until the optimizer is clipping; what follows the optimizer, schedules and averages
        {"data": 1, "transfer": 1, "forward": 1, "backward": 2, "optimizer": 2 + 1 + 1, "rest": 1 + 1 + 2}
    ]


def test_what_comes_between_two_backward_passes_is_the_second_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = profiled(monkeypatch, *BATCH, *BACKWARD, *BACKWARD, *STEP, *END, *BATCH[:1])
    assert profiler.steps[0]["forward"] == 1 + 2 and profiler.steps[0]["backward"] == 2 + 2
    assert profiler.steps[0]["optimizer"] == 2 + 1 + 1


@pytest.mark.parametrize("then", ["[LightningDataModule]D.val_dataloader", "[Callback]Monitor.on_train_epoch_end"])
def test_validation_and_the_end_of_an_epoch_are_no_step(monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    later = ["[Strategy]SingleDeviceStrategy.batch_to_device", "[Strategy]SingleDeviceStrategy.validation_step"] * 5
    profiler = profiled(monkeypatch, *BATCH, *BACKWARD, *STEP, *END, then, *later, *BATCH[:1])
    assert len(profiler.steps) == 1 and profiler.steps[0]["rest"] == 4 and profiler.steps[0]["transfer"] == 1


def test_the_first_steps_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    profiler = StepProfiler()
    assert profiler.seconds() == {} and profiler.measured() == []
    profiler.steps = [dict.fromkeys(SHARES, value) for value in (100.0, 100.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0)]
    assert profiler.seconds() == dict.fromkeys(SHARES, 2.0)
    profiler.steps = profiler.steps[:1]
    assert profiler.seconds() == {}
