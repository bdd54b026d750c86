"""Ends a run that is a trial of a search and does worse than the trials before it."""

from __future__ import annotations

from typing import Any

import lightning as L

from src.callbacks.learner import learner
from src.errors import Pruned


class Pruning(L.Callback):
    """Tells the study each validation's score, and stops when its pruner says so; all ranks stop together.

    Args:
        trial: an `optuna.Trial`.
        metric: e.g. "val/miou".
    """

    def __init__(self, trial: Any, metric: str) -> None:
        self.trial, self.metric = trial, metric
        self._validated = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        score = (
            learner(pl_module).results.get("val", {}).get(self.metric.removeprefix("val/")) if self._validated else None
        )
        self._validated = pruned = False
        if trainer.is_global_zero and score is not None:
            self.trial.report(score, step=trainer.current_epoch)
            pruned = self.trial.should_prune()
        if trainer.strategy.reduce_boolean_decision(pruned, all=False):
            raise Pruned(f"pruned after epoch {trainer.current_epoch + 1}: {self.metric} {score:.4f}")
