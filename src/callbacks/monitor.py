"""Speed, learning rates and the epoch's mean loss."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch

from src.callbacks.dashboard import newest_batch
from src.callbacks.epoch_losses import EpochLosses
from src.callbacks.learner import learner
from src.data.samples import Batch


class Monitor(L.Callback):
    """Logs images a second (training only, validation and the first batch's start-up left out), learning rates by
    parameter group, the mean training loss of each epoch and, on a GPU, the peak of its memory.

    Attributes:
        images_per_second: over the whole run so far, all devices together; None before two batches.
        loss: mean training loss of the newest epoch.
    """

    def __init__(self) -> None:
        self._images, self._seconds = 0, 0.0
        self._began: float | None = None
        self._epoch_images, self._epoch_seconds = 0, 0.0
        self._losses = EpochLosses()
        self.loss: float | None = None

    @property
    def images_per_second(self) -> float | None:
        return self._images / self._seconds if self._seconds else None

    def state_dict(self) -> dict[str, object]:
        return {"images": self._images, "seconds": self._seconds, "losses": self._losses.floats()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._images, self._seconds = state_dict["images"], state_dict["seconds"]
        self._losses = EpochLosses(state_dict["losses"])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began, self._epoch_images, self._epoch_seconds = None, 0, 0.0
        self._losses = EpochLosses()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._began is not None:
            self._epoch_images += len(batch["image"]) * trainer.world_size
            self._epoch_seconds += now - self._began
        self._began = now
        self._losses.add(learner(pl_module).figures["loss"])
        if trainer.loggers and (newest_batch(trainer) + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            rates = {
                f"learning_rate/{prefix}{group['name']}": group["lr"]
                for (prefix, _, _), optimizer in zip(
                    learner(pl_module).optimized_parts(), trainer.optimizers, strict=True
                )
                for group in optimizer.param_groups
            }
            for logger in trainer.loggers:
                logger.log_metrics(rates, step=newest_batch(trainer))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._images += self._epoch_images
        self._seconds += self._epoch_seconds
        shown: dict[str, float] = {}
        if self._epoch_seconds:
            shown["train/images_per_second"] = self._epoch_images / self._epoch_seconds
        if (mean := self._losses.mean()) is not None:
            self.loss = float(trainer.strategy.reduce(mean.to(pl_module.device), reduce_op="mean"))
            shown["train/loss_mean"] = self.loss
        if torch.cuda.is_available():
            shown["train/gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        pl_module.log_dict(shown, logger=False)
        for (
            logger
        ) in trainer.loggers:  # at once: Lightning would log them after the epoch's checkpoint, too late for a kill
            logger.log_metrics(shown, step=newest_batch(trainer))
