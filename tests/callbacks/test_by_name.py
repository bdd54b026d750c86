"""Callbacks that a word of the command line adds: early stopping, the best few checkpoints, weight averaging, rates tried."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from src.callbacks.lr_finder import steepest
from src.cli.request import Request
from src.errors import Interrupted
from src.storage import run_folder
from src.storage.trust import OWN
from src.train import train
from tests.conftest import settings
from tests.same import assert_same

BY_NAME = [
    "callbacks.early_stopping=true", "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=1",
    "callbacks.top_k=true", "callbacks.top_k.k=2", "callbacks.swa=true", "callbacks.swa.start=2", "test=false",
    "trainer.max_epochs=5",
]  # fmt: skip
FINDER = ["callbacks.lr_finder=true", "callbacks.lr_finder.steps=20"]


class StopAfter(L.Callback):
    """Ends a run as a signal does."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == self.epochs:
            raise Interrupted("SIGTERM")


def written(*overrides: str) -> list[str]:
    return list(Request.parse("train", overrides).arguments)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by_name") / "run"
    pictures = "callbacks.pictures={_target_: src.callbacks.pictures.Pictures, samples: 1}"
    train(settings(folder, *BY_NAME, *FINDER, "logger=[csv,tensorboard]", pictures))
    return folder


def weights(file: Path) -> dict[str, Tensor]:
    content: dict[str, Any] = torch.load(file, weights_only=True)
    return {key: value for key, value in content["state_dict"].items() if key.startswith("network.")}


def metrics(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / run_folder.METRICS).read_text())
    return content


def test_the_run_ends_early_and_says_why(run_dir: Path) -> None:
    said = metrics(run_dir)
    assert (
        said["status"] == "completed" and said["epochs"] == 3
    )  # of 5: one validation, and two that gained no more than 1
    assert "val/miou was not better than" in said["stopped_early"]
    assert "in 2 validations (callbacks.early_stopping.patience)" in said["stopped_early"]


def test_the_best_few_are_kept(run_dir: Path) -> None:
    with (run_dir / "csv/metrics.csv").open() as stream:
        scores = [float(row["val/miou"]) for row in csv.DictReader(stream) if row["val/miou"]]
    assert len(scores) == 3
    best = sorted(range(3), key=lambda epoch: (-scores[epoch], epoch))[:2]
    kept = {file.name for file in (run_dir / run_folder.TOP).iterdir()}
    assert kept == {f"epoch_{epoch + 1:03}.ckpt" for epoch in best}
    top = weights(run_dir / run_folder.TOP / f"epoch_{best[0] + 1:03}.ckpt")
    if not metrics(run_dir)["swa"]["miou"] > max(scores):
        assert_same(top, weights(run_dir / run_folder.BEST))


def test_the_mean_of_the_last_epochs(run_dir: Path) -> None:
    said = metrics(run_dir)["swa"]
    assert said["averaged"] == 2 and 0 <= said["miou"] <= 1
    mean, last = weights(run_dir / run_folder.SWA), weights(run_dir / run_folder.LAST)
    tracked = [key for key in mean if key.endswith("num_batches_tracked")]
    assert tracked and all(int(mean[key]) == 24 // 4 for key in tracked)  # renewed by an epoch
    before = weights(run_dir / run_folder.PREVIOUS)  # of epoch 2
    assert any(not torch.equal(before[key], last[key]) for key in mean)
    for key in (key for key in mean if key.endswith(("weight", "bias"))):
        torch.testing.assert_close(mean[key], (before[key] + last[key]) / 2)


def test_rates_are_tried(run_dir: Path) -> None:
    with (run_dir / run_folder.LR_CURVE).open() as stream:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    assert 5 < len(rows) <= 20
    assert rows[0]["learning_rate"] == pytest.approx(1e-6)
    assert rows[1]["learning_rate"] / rows[0]["learning_rate"] == pytest.approx(1e6 ** (1 / 19))
    assert Image.open(run_dir / run_folder.LR_PICTURE).size[0] > 300


def test_every_logger_has_what_it_holds(run_dir: Path) -> None:
    """TensorBoard has its pictures also where it is not the first logger, and the table all that is logged."""
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    pictures = set(events.Tags()["images"])
    assert {"val/confusion", "lr_finder"} < pictures  # and that of a sample
    assert "config/text_summary" in events.Tags()["tensors"]
    with (run_dir / "csv/metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for tag in ("val/miou", "train/loss", "train/loss_mean", "learning_rate/head", "swa/miou"):
        curve = events.Scalars(tag)
        assert [int(row["step"]) for row in rows if row[tag]] == [event.step for event in curve], tag
        assert [float(row[tag]) for row in rows if row[tag]] == pytest.approx([event.value for event in curve]), tag
    assert [int(row["step"]) for row in rows] == sorted({int(row["step"]) for row in rows})


def test_where_a_curve_falls_fastest() -> None:
    rates = [10.0**k for k in range(-20, 20)]
    curve = [1 / (1 + 2.0**k) for k in range(-20, 20)]  # a step down around 1
    assert steepest(rates, curve) == pytest.approx(1.0)
    assert steepest(rates, [-loss for loss in curve]) is None
    assert steepest(rates[:9], curve[:9]) is None


def test_a_word_adds_the_node_before_its_keys() -> None:
    first, second = written("callbacks.top_k.k=5", "callbacks.top_k=true")
    assert (
        first.startswith("++callbacks.top_k={_target_: 'src.callbacks.top_k.TopK'") and second == "callbacks.top_k.k=5"
    )
    assert written(*written("callbacks.swa=true")) == written("callbacks.swa=true")
    assert written("callbacks.none=true", "test=true") == ["callbacks.none=true", "test=true"]


@pytest.mark.slow
def test_trying_rates_changes_nothing_of_the_run(tmp_path: Path) -> None:
    for name, more in (("with", FINDER), ("without", [])):
        train(settings(tmp_path / name, "~logger", "test=false", "trainer.max_epochs=1", *more))
    ours, theirs = (weights(tmp_path / name / run_folder.LAST) for name in ("with", "without"))
    assert_same(ours, theirs)


@pytest.mark.slow
def test_averaging_goes_on(tmp_path: Path) -> None:
    """A run that stops in between and goes on has the same mean; best few and patience too."""
    given = ["callbacks.swa=true", "callbacks.swa.start=2", "callbacks.swa.lr=0.02", "callbacks.top_k=true"]
    given += ["~logger", "test=false", "trainer.max_epochs=4"]
    train(settings(tmp_path / "whole", *given))
    cut = settings(tmp_path / "cut", *given)
    cut["callbacks"]["stop"] = {"_target_": "tests.callbacks.test_by_name.StopAfter", "epochs": 2}
    assert train(cut, trust=OWN).status == "interrupted"
    del cut["callbacks"]["stop"]
    train(cut, resume=True)
    for file in (run_folder.SWA, run_folder.BEST, run_folder.LAST):
        assert_same(weights(tmp_path / "whole" / file), weights(tmp_path / "cut" / file))
    names = [{file.name for file in (tmp_path / name / run_folder.TOP).iterdir()} for name in ("whole", "cut")]
    assert names[0] == names[1] and len(names[0]) == 3
    assert_same(metrics(tmp_path / "whole")["swa"], metrics(tmp_path / "cut")["swa"])
