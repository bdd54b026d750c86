"""When a run's checkpoints are written: the best one, the last one, and the one before the last."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from pydantic import PositiveFloat, PositiveInt

from src.callbacks.learner import learner
from src.distributed.library_internals import ask_no_rank_for_sigterm, uncount_cut_epoch, uncount_started_batch
from src.distributed.stop_signals import STOP_SIGNALS
from src.errors import Interrupted, UserError
from src.loggers.boards import tensorboards
from src.metrics.names import better, cannot_be, direction
from src.models.learner import Learner
from src.storage import run_folder

_BATCHES_BETWEEN_LOOKS = 10  # at the clock, where ranks have to agree


class RunCheckpoint(Checkpoint):
    """Keeps `best.ckpt` by a metric, `last.ckpt` at every epoch's end and by steps or time, and `previous.ckpt`.

    Args:
        run_dir: the run folder.
        monitor: the metric, e.g. "val/miou".
        mode: whether the best is the largest or the smallest; None: as the metric says.
        every_n_steps: also save `last.ckpt` within an epoch after so many batches.
        every_minutes: also save `last.ckpt` within an epoch after so much time.

    Attributes:
        best_score: of the monitored metric; None before the first validation.
        best_results: all validation results of the best checkpoint.
        seconds_before: what the run took before it was resumed.
    """

    def __init__(
        self,
        run_dir: str,
        monitor: str,
        mode: Literal["min", "max"] | None = None,
        every_n_steps: PositiveInt | None = None,
        every_minutes: PositiveFloat | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.monitor = monitor
        self.mode = direction(monitor, mode)
        self.every_n_steps, self.every_minutes = every_n_steps, every_minutes
        self.best_score: float | None = None
        self.best_results: dict[str, float] = {}
        self.seconds_before = 0.0
        self._begun = self._saved_at = time.monotonic()
        self._stop: str | None = None  # the signal that this process got
        self._due = self._stops = False  # what all ranks know
        self._between_batches = False
        self._stopped = False  # by a callback that has seen enough, in the newest checkpoint
        self._saved_step: int | None = None  # the newest epoch's end that is in `last.ckpt`

    def has_all(self, trainer: L.Trainer) -> bool:
        """Whether all that was to be trained is in `last.ckpt`."""
        return self._saved_step == trainer.global_step and trainer.fit_loop.done

    def go_on(self) -> None:
        """Takes back that a callback had ended the run."""
        self._stopped = False

    @property
    def best(self) -> Path:
        return self.run_dir / run_folder.BEST

    def state_dict(self) -> dict[str, object]:
        seconds = self.seconds_before + time.monotonic() - self._begun
        return {
            "best_score": self.best_score, "best_results": self.best_results, "seconds": seconds,
            "stopped": self._stopped,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score = state_dict["best_score"]
        self.best_results = dict(state_dict["best_results"])
        self.seconds_before = state_dict["seconds"]
        self._stopped = state_dict.get("stopped", False)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        if self._between_batches:
            uncount_started_batch(checkpoint)
        elif self._cut_short(trainer):
            uncount_cut_epoch(checkpoint)

    @staticmethod
    def _cut_short(trainer: L.Trainer) -> bool:
        """Whether this is the end of an epoch of which batches are left."""
        epoch = trainer.fit_loop.epoch_progress.current
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        ended = epoch.processed > epoch.completed  # type: ignore[attr-defined]
        return bool(ended and done < trainer.num_training_batches)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if reason := cannot_be(self.monitor.removeprefix("val/"), learner(pl_module).label_set.names):
            raise UserError(f"monitor: {reason}")
        trainer.should_stop = trainer.should_stop or self._stopped  # a resumed run that was about to end ends

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = time.monotonic()
        for number in STOP_SIGNALS:  # in place of Lightning's own, which stop without saving, or save within a batch
            signal.signal(number, self._on_signal)
        ask_no_rank_for_sigterm(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Saves after the batch before, once that one's figures have been logged: a resumed run logs only later ones."""
        if batch_idx == 0:
            return  # the epoch's end has saved
        self._look(trainer)
        optimization = learner(pl_module).optimization
        assert optimization is not None
        if not optimization.is_step(batch_idx - 1, trainer.num_training_batches):
            return  # gradients are being accumulated, which no checkpoint holds
        stop = self._stops
        if self._due or stop:
            self._between_batches = True
            self._save_last(trainer, pl_module)
            self._between_batches = False
        if stop:
            raise Interrupted(self._stop)

    def _look(self, trainer: L.Trainer) -> None:
        """Decides, alike on all ranks, whether a checkpoint is due and whether to stop after it."""
        stop = self._stop is not None
        done = trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        self._due = self._due or (self.every_n_steps is not None and done % self.every_n_steps == 0)
        if self.every_minutes is None and not stop and trainer.world_size == 1:
            return
        late = self.every_minutes is not None and time.monotonic() - self._saved_at > self.every_minutes * 60
        if trainer.world_size == 1:
            self._due, self._stops = self._due or late, stop
        elif done % _BATCHES_BETWEEN_LOOKS == 0:
            self._due = trainer.strategy.reduce_boolean_decision(late, all=False) or self._due
            self._stops = trainer.strategy.reduce_boolean_decision(stop, all=False)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if self._stop is not None and trainer.world_size == 1:
            raise Interrupted(self._stop)  # the last checkpoint is of before this validation

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self.offer(trainer, learner(pl_module))

    def offer(self, trainer: L.Trainer, model: Learner) -> bool:
        """Keeps the model as it is as `best.ckpt` if its newest validation is the best so far, and says so."""
        results = model.results["val"]
        score = results.get(self.monitor.removeprefix("val/"))
        if score is None or not better(score, self.best_score, self.mode):  # None: a class that it has not seen
            return False
        model.divergence.check()
        self.best_score, self.best_results = score, dict(results)
        trainer.save_checkpoint(self.best, weights_only=False)
        return True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save_last(trainer, pl_module)
        self._saved_step = trainer.global_step
        stop = trainer.strategy.reduce_boolean_decision(self._stop is not None, all=False)
        if stop and trainer.current_epoch + 1 != trainer.max_epochs:
            raise Interrupted(self._stop)

    def _save_last(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        last = self.run_dir / run_folder.LAST
        for logger in trainer.loggers:
            logger.save()  # what was logged before a checkpoint must outlive a kill too
        for tensorboard in tensorboards(trainer) if trainer.is_global_zero else ():
            tensorboard.experiment.flush()
        learner(pl_module).divergence.check()
        if trainer.is_global_zero:
            run_folder.keep_previous(last, self.run_dir / run_folder.PREVIOUS)
        self._stopped = trainer.should_stop
        trainer.save_checkpoint(last, weights_only=False)
        self._saved_at, self._due = time.monotonic(), False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop is None:
            self._stop = signal.Signals(number).name
        elif number == signal.SIGINT:  # by hand, twice: at once; schedulers and closed terminals repeat themselves
            raise KeyboardInterrupt
