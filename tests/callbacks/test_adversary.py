"""A word, once, when discriminator or generator has lost."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from src.callbacks.adversary import Adversary
from src.models.base import Segmenter
from src.train import train
from src.training.build import build_data, build_model
from tests.conftest import settings

GAN = ["model=gan"]
ALONE = ["model=gan", "model.adversarial_weight=0"]


@pytest.fixture
def trainer() -> L.Trainer:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.state.fn = TrainerFn.FITTING
    return trainer


def build(tmp_path: Path, *overrides: str) -> Segmenter:
    given = settings(tmp_path, *overrides)
    source = build_data(given["data"], 0).source("train")
    return build_model(given, source.label_set, source.channels, source.intensity)


def epoch(
    adversary: Adversary,
    trainer: L.Trainer,
    model: Segmenter,
    losses: Iterable[float] = (),
    matrix: Tensor | None = None,
) -> None:
    """What a training epoch with these discriminator losses and this validation result tells the callback."""
    adversary.on_train_epoch_start(trainer, model)
    for loss in losses:
        model.figures["discriminator_loss"] = torch.tensor(loss)
        adversary.on_train_batch_end(trainer, model, None, {}, 0)
    adversary.on_train_epoch_end(trainer, model)
    if matrix is not None:
        model.matrices["val"] = matrix
        adversary.on_validation_end(trainer, model)


def confusion(predicted: int, share: float, true: int = 0, true_share: float = 0.5) -> Tensor:
    """A confusion matrix of 6 classes with such shares of one predicted and one true class."""
    rows, columns = (torch.full((6,), (1 - s) / 5) for s in (true_share, share))
    rows[true], columns[predicted] = true_share, share
    return (torch.outer(rows, columns) * 1e6).long()


def test_a_discriminator_that_wins_is_said_once_with_the_knob(
    tmp_path: Path, trainer: L.Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    model, adversary = build(tmp_path, *GAN), Adversary(won_below=0.05)
    epoch(adversary, trainer, model, [0.01, 0.2])  # its mean counts
    assert not caplog.records
    for _ in range(2):
        epoch(adversary, trainer, model, [0.01, 0.07])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "the discriminator wins outright" in record.message
    assert "lower model.discriminator_lr_factor" in record.message
    assert "\n" not in record.message


@pytest.mark.parametrize(
    ("options", "knob"), [(GAN, "lower model.adversarial_weight"), (ALONE, "optimizer.lr"), ([], "optimizer.lr")]
)
def test_a_collapse_is_said_once_with_the_knob(
    tmp_path: Path, trainer: L.Trainer, caplog: pytest.LogCaptureFixture, options: list[str], knob: str
) -> None:
    model, adversary = build(tmp_path, *options), Adversary()
    epoch(adversary, trainer, model, matrix=confusion(predicted=2, share=0.999))
    assert not caplog.records  # a first epoch may end so
    for _ in range(2):
        epoch(adversary, trainer, model, matrix=confusion(predicted=2, share=0.999))
    (record,) = caplog.records
    assert "99.9% of the validation pixels are 'rectangle' (truth: 10.0%)" in record.message
    assert knob in record.message


@pytest.mark.parametrize(
    "matrix",
    [
        confusion(predicted=2, share=0.98),
        confusion(predicted=0, share=0.999, true=0, true_share=0.995),  # as the truth is
        torch.zeros(6, 6, dtype=torch.int64),  # everything ignored
    ],
)
def test_no_word_otherwise(
    tmp_path: Path, trainer: L.Trainer, caplog: pytest.LogCaptureFixture, matrix: Tensor
) -> None:
    epoch(Adversary(), trainer, build(tmp_path, *GAN), [0.6, 0.7], matrix)
    trainer.state.fn = TrainerFn.TESTING
    epoch(Adversary(), trainer, build(tmp_path), matrix=confusion(predicted=2, share=1.0))  # no training, no advice
    assert not caplog.records


def test_a_resumed_run_says_nothing_twice_and_keeps_its_epochs_losses(
    tmp_path: Path, trainer: L.Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    model, first, second = build(tmp_path, *GAN), Adversary(), Adversary()
    epoch(first, trainer, model, [0.01])
    second.load_state_dict(first.state_dict())
    epoch(second, trainer, model, [0.01])
    assert len(caplog.records) == 1
    fresh, half = Adversary(), Adversary()
    model.figures["discriminator_loss"] = torch.tensor(0.5)
    half.on_train_batch_end(trainer, model)
    fresh.load_state_dict(half.state_dict())  # within an epoch: it goes on with the mean
    model.figures["discriminator_loss"] = torch.tensor(0.01)
    fresh.on_train_batch_end(trainer, model)
    fresh.on_train_epoch_end(trainer, model)
    assert len(caplog.records) == 1


def test_a_real_run_tells_and_shows_the_scores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(settings(tmp_path, *GAN, "callbacks.adversary.won_below=9", "test=false"))
    assert sum("the discriminator wins outright" in record.message for record in caplog.records) == 1
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    for name in ("real", "fake"):
        shown = events.Histograms(f"train/scores_{name}")
        assert len(shown) == 2  # epochs
        assert shown[0].histogram_value.min >= 0 and shown[0].histogram_value.max <= 1
