"""Ends a run whose validation no longer improves: `callbacks.early_stopping=true`."""

from __future__ import annotations

import logging
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from pydantic import NonNegativeFloat, PositiveInt

from src.callbacks.learner import learner
from src.metrics.names import better, direction

_log = logging.getLogger(__name__)


class EarlyStopping(L.Callback):
    """Ends the run after so many validations without a better score, or once a score is reached.

    Lightning's own reads what was logged, which here the first device has alone.

    Args:
        monitor: the metric, e.g. "val/miou".
        mode: whether the best is the largest or the smallest; None: as the metric says.
        patience: validations without improvement.
        min_delta: what counts as an improvement is more than this.
        target: the run ends once the metric is as good as this; None: never for that.

    Attributes:
        reason: why the run was ended; None while it was not.
    """

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"] | None = None,
        patience: PositiveInt = 10,
        min_delta: NonNegativeFloat = 0.0,
        target: float | None = None,
    ) -> None:
        self.monitor, self.mode = monitor, direction(monitor, mode)
        self.patience, self.min_delta, self.target = patience, min_delta, target
        self.best: float | None = None
        self.waited = 0
        self.reason: str | None = None

    def state_dict(self) -> dict[str, object]:
        return {"best": self.best, "waited": self.waited, "reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.waited, self.reason = state_dict["best"], state_dict["waited"], state_dict["reason"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.reason = None  # a run that goes on all the same was told to

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        score = learner(pl_module).results["val"].get(self.monitor.removeprefix("val/"))
        if score is None:
            return  # a class that this validation has not seen
        least = self.min_delta if self.mode == "max" else -self.min_delta
        if better(score, None if self.best is None else self.best + least, self.mode):
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.target is not None and (score == self.target or better(score, self.target, self.mode)):
            self._stop(
                trainer, f"{self.monitor} is {score:.4f}, and callbacks.early_stopping.target is {self.target:g}"
            )
        elif self.waited >= self.patience:
            self._stop(
                trainer,
                f"{self.monitor} was not better than {self.best:.4f} in {self.waited} validations "
                "(callbacks.early_stopping.patience)",
            )

    def _stop(self, trainer: L.Trainer, reason: str) -> None:
        self.reason = reason
        trainer.should_stop = True
        _tell(trainer.current_epoch + 1, reason)


@rank_zero_only
def _tell(epoch: int, reason: str) -> None:
    _log.info("stopped after epoch %d: %s", epoch, reason)
