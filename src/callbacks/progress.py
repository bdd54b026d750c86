"""What a run says while it runs: a bar on a terminal, a line an epoch in the log."""

from __future__ import annotations

import logging
import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from src.callbacks.learner import learner
from src.metrics.names import title

_log = logging.getLogger(__name__)


class Progress(RichProgressBar):
    """Rich's progress bar where standard output is a terminal; a line an epoch in the log everywhere."""

    def __init__(self, refresh_rate: int = 1) -> None:
        self._loss: Tensor | None = None
        self._shown = 0.0
        super().__init__(
            refresh_rate=refresh_rate if sys.stdout is not None and sys.stdout.isatty() else 0, leave=False
        )

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if (told := learner(pl_module).told.get("loss")) is not None:
            if told is not self._loss:  # it waits for the device only where a new one was told
                self._loss, self._shown = told, float(told)
            metrics["train/loss"] = self._shown
        return metrics

    @rank_zero_only
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        now = trainer.callback_metrics
        parts = [f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}"]
        monitored = getattr(trainer.checkpoint_callback, "monitor", None)
        shown = dict.fromkeys(["val/loss", "val/miou", *([monitored] if monitored else [])])
        for key, text in (
            ("train/loss_mean", "train loss"),
            *((key, f"val {title(key.removeprefix('val/'))}") for key in shown),
        ):
            if key in now:
                parts.append(f"{text} {float(now[key]):.4f}")
        if "train/images_per_second" in now:
            parts.append(f"{float(now['train/images_per_second']):.0f} images/s")
        _log.info("  ".join(parts))
