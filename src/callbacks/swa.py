"""Averages the weights of the last epochs (stochastic weight averaging, Izmailov et al. 2018): `callbacks.swa=true`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, update_bn

from src.callbacks.checkpoint import RunCheckpoint
from src.callbacks.dashboard import newest_batch
from src.callbacks.learner import segmenter
from src.data.datamodule import SegmentationDataModule
from src.distributed.library_internals import is_batch_norm
from src.errors import UserError
from src.models.base import Segmenter
from src.seeding import derive
from src.storage import run_folder

_log = logging.getLogger(__name__)


class SWA(L.Callback):
    """Takes the mean of the network's weights at the ends of the epochs from `start` on. Once the training is done, `finish`
    puts it in the network's place, renews the statistics of batch norm by an epoch of training images, scores it on val, and
    keeps it as `checkpoints/swa.ckpt`; as `best.ckpt` too if it is better than every epoch was.

    Args:
        run_dir: the run folder.
        start: the first epoch whose weights count, from 1; below 1 the share of the epochs before it.
        lr: a constant learning rate from then on, as in the paper; None keeps the schedule's.
    """

    def __init__(
        self,
        run_dir: str,
        start: PositiveInt | Annotated[float, Field(gt=0, lt=1)] = 0.75,
        lr: PositiveFloat | None = None,
    ) -> None:
        self._run_dir, self._start, self._lr = Path(run_dir), start, lr
        self._average: AveragedModel | None = None

    @property
    def averaged(self) -> int:
        """How many epochs are in the mean."""
        return 0 if self._average is None else int(self._average.n_averaged)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and self._average is None:  # before a checkpoint brings its state
            self._average = AveragedModel(segmenter(pl_module).network).requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._average is None else {"average": self._average.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._average is not None and "average" in state_dict:
            self._average.load_state_dict(state_dict["average"])

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self.averaged:  # nothing yet: no file is to be twice as large for it
            checkpoint["callbacks"].pop(self.state_key, None)

    def _first(self, trainer: L.Trainer) -> int:
        """The first epoch that counts, from 0."""
        assert trainer.max_epochs is not None
        return self._start - 1 if isinstance(self._start, int) else math.floor(self._start * trainer.max_epochs)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._average is not None
        self._average.to(pl_module.device)
        model = segmenter(pl_module)
        if self._lr is None:
            return
        assert model.optimization is not None
        batches = model.optimization.batches(trainer, trainer.datamodule.batches_per_epoch())  # type: ignore[attr-defined]
        step = self._first(trainer) * math.ceil(batches / model.optimization.accumulate)
        for planned in trainer.lr_scheduler_configs:
            schedule = planned.scheduler
            if not isinstance(schedule, LambdaLR):
                raise UserError(f"callbacks.swa.lr: {type(schedule).__name__} cannot be held; set it to null")
            schedule.lr_lambdas = [
                _held(shape, step, self._lr / model.optimization.lr) for shape in schedule.lr_lambdas
            ]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch >= self._first(trainer):
            assert self._average is not None
            self._average.update_parameters(segmenter(pl_module).network)

    def finish(self, trainer: L.Trainer, model: Segmenter, datamodule: SegmentationDataModule) -> dict[str, float]:
        """Puts the mean in the place of the weights, scores it and keeps it.

        Returns:
            How many epochs are in it, and its scores on val, as in metrics.json; nothing where there is no epoch in it.
        """
        if not self.averaged:
            _log.warning("callbacks.swa: the run ended before the first epoch that counts; nothing was averaged")
            return {}
        assert self._average is not None
        model.network.load_state_dict(self._average.module.state_dict())
        if model.batch_norm != "frozen":
            _renew_batch_norm(trainer, model, datamodule)
        loggers = trainer.loggers
        trainer.loggers = []  # val/miou and the like are curves over the epochs
        trainer.validate(model, datamodule=datamodule, verbose=False)
        trainer.loggers = loggers
        results = dict(model.results["val"])
        for logger in loggers:
            logger.log_metrics({f"swa/{key}": value for key, value in results.items()}, step=newest_batch(trainer))
        best, checkpoint = False, trainer.checkpoint_callback
        if isinstance(checkpoint, RunCheckpoint):
            best = checkpoint.offer(trainer, model)
        trainer.save_checkpoint(self._run_dir / run_folder.SWA, weights_only=False)
        _log.info("swa: the mean of %d epochs has val mIoU %.4f%s", self.averaged, results["miou"],
                  ", the best so far" if best else "; an epoch was better")  # fmt: skip
        return {"averaged": self.averaged, **results}


def _held(shape: Callable[[int], float], first: int, factor: float) -> Callable[[int], float]:
    return lambda step: shape(step) if step < first else factor


class _Network(nn.Module):
    """A network that takes raw images, as torch's renewal of batch norm calls it."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.network = model.network
        self._outputs = model.outputs_of  # bound: a module would be a part of this one

    def forward(self, image: Tensor) -> None:
        self._outputs(self.network, image)


def _renew_batch_norm(trainer: L.Trainer, model: Segmenter, datamodule: SegmentationDataModule) -> None:
    """Takes the statistics of batch norm anew, as the mean over the batches of an epoch and over the devices."""
    norms = [module for module in model.network.modules() if is_batch_norm(module)]
    if not norms:
        return
    device = trainer.strategy.root_device
    model.to(device)

    def images() -> Iterator[Tensor]:
        for batch in datamodule.first_epoch():
            yield datamodule.on_after_batch_transfer(move_data_to_device(batch, device), 0)["image"]

    with torch.random.fork_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
        torch.manual_seed(derive(model.seed, "swa"))
        update_bn(images(), _Network(model))
    for norm in norms:
        for buffer in norm.buffers(recurse=False):
            if buffer.is_floating_point():
                buffer.copy_(trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))
