"""A run that goes on with a changed config: the schedule is planned anew, and the change is written down."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from torch.optim.lr_scheduler import LambdaLR

from src.callbacks.checkpoint import RunCheckpoint
from src.callbacks.learner import learner
from src.config.changes import Said
from src.data.datamodule import SegmentationDataModule
from src.distributed.library_internals import set_schedule_position
from src.errors import UserError
from src.models.learner import Learner
from src.storage import resume
from src.storage.checkpoint_states import Counts

_log = logging.getLogger(__name__)
_OF_SCHEDULE = ("optimizer.", "scheduler.", "trainer.max_", "trainer.accumulate_grad_batches", "data.batch_size")


class Changed(L.Callback):
    """Gives the optimizers of a resumed run the settings that it has now, where a checkpoint would keep those that it had.

    The schedule is a closed form of the step, so it is put where a run planned so from its start would be: at the same step,
    or, where an epoch has another number of steps than before, at the same epoch.

    Args:
        run_dir: the run folder.
        values: each key that has changed since the checkpoint, with its value before and now.
        before: batches and steps of the run that the checkpoint is of.
        said: what the user says of them.
    """

    def __init__(self, run_dir: Path, values: Mapping[str, tuple[object, object]], before: Counts, said: Said) -> None:
        self.run_dir, self.values, self.before, self.said = run_dir, values, before, said
        self._recorded = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.said.longer and isinstance(trainer.checkpoint_callback, RunCheckpoint):
            trainer.checkpoint_callback.go_on()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if any(key.startswith(_OF_SCHEDULE) for key in self.values):
            self._plan(trainer, learner(pl_module))
        self.record(trainer)

    @rank_zero_only
    def record(self, trainer: L.Trainer) -> None:
        """Writes the change down, once all processes have read what was."""
        if not self._recorded:
            resume.record(self.run_dir, self.values, self.said.config, trainer.current_epoch, trainer.global_step)
            for key, (before, now) in self.values.items():
                _log.info("changed at epoch %d, step %d: %s from %s to %s", trainer.current_epoch, trainer.global_step,
                          key, before, now)  # fmt: skip
        self._recorded = True

    def _plan(self, trainer: L.Trainer, model: Learner) -> None:
        optimization, data = model.optimization, trainer.datamodule  # type: ignore[attr-defined]
        assert optimization is not None and isinstance(data, SegmentationDataModule)
        batches = optimization.batches(trainer, data.batches_per_epoch())
        each = math.ceil(batches / optimization.accumulate)
        each_before = math.ceil(
            optimization.batches(trainer, data.batches_per_epoch(self.before.batch_size)) / self.before.accumulate
        )
        total = optimization.steps(trainer, data.batches_per_epoch())
        by_epochs = (trainer.max_epochs or 0) > 0 and total == (trainer.max_epochs or 0) * each
        for (_, part, factor), optimizer, planned in zip(
            model.optimized_parts(), trainer.optimizers, trainer.lr_scheduler_configs, strict=True
        ):
            fresh, schedule = optimization.build(part, factor, total)
            running = planned.scheduler
            if not (isinstance(running, LambdaLR) and isinstance(schedule, LambdaLR)):
                raise UserError(
                    f"scheduler: {type(running).__name__} cannot be planned anew on the way; start from the run's weights: "
                    f"python -m src.train init_from={self.run_dir} …"
                )
            step = running.last_epoch
            if by_epochs and each != each_before:
                step = round(step * each / each_before)
            running.base_lrs = list(schedule.base_lrs)
            for group, own, rate, shape in zip(
                optimizer.param_groups, fresh.param_groups, schedule.base_lrs, running.lr_lambdas, strict=True
            ):
                group |= {key: value for key, value in own.items() if key not in ("params", "lr")}
                group["lr"] = rate * shape(step)
            set_schedule_position(running, step, [group["lr"] for group in optimizer.param_groups])
