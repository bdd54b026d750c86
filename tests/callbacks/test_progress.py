"""The bar shows the loss that was logged last: another one would have to be waited for."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch

from src.callbacks.progress import Progress
from tests.callbacks.test_adversary import build


def test_the_bar_shows_the_newest_logged_loss(tmp_path: Path) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    model, bar = build(tmp_path), Progress()
    assert bar.get_metrics(trainer, model) == {}
    for loss in (0.5, 0.25):
        model.told = {"loss": torch.tensor(loss)}
        model.figures = {"loss": torch.tensor(9.0)}  # of a step that is not logged
        for _ in range(2):
            assert bar.get_metrics(trainer, model) == {"train/loss": loss}
