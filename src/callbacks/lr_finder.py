"""Tries learning rates before a run begins: `callbacks.lr_finder=true`."""

from __future__ import annotations

import copy
import itertools
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
import torch
from PIL import Image
from pydantic import PositiveFloat, PositiveInt

from src.callbacks.learner import segmenter
from src.data.datamodule import SegmentationDataModule
from src.errors import UserError
from src.files.atomic import replacing
from src.inference.drawing import as_pixels
from src.loggers.boards import boards
from src.models.base import Segmenter
from src.optimization.updates import clip_gradients
from src.seeding import derive
from src.storage import run_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)
_KEEPS = 0.9  # what the mean of the losses keeps of itself in a step
_DIVERGED = 4.0  # times the lowest mean
_FIRST, _LAST = 10, 5  # steps at the ends of the curve whose slope says nothing


class LRFinder(L.Callback):
    """Tries rising learning rates on a copy of the network, one a step (the range test of Smith 2017), writes the curve to
    `lr_finder.csv` and `lr_finder.png`, says where the loss falls fastest, and lets the run begin as it was configured.

    Parameter groups keep their factors. A run that goes on is not tried again. Lightning's tuner has no hold of steps that a
    model takes itself.

    Args:
        run_dir: the run folder.
        lowest, highest: the rates between which it goes, evenly by their logarithm.
        steps: how many; it ends sooner where the loss diverges.

    Attributes:
        suggestion: the rate at which the loss falls fastest; None where it does not fall.
    """

    def __init__(
        self, run_dir: str, lowest: PositiveFloat = 1e-6, highest: PositiveFloat = 1.0, steps: PositiveInt = 100
    ) -> None:
        self._run_dir = Path(run_dir)
        self.lowest, self.highest, self.steps = lowest, highest, steps
        self.suggestion: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step or trainer.current_epoch:
            return
        if trainer.world_size > 1:
            raise UserError(
                "callbacks.lr_finder: tries rates on one device; take trainer.devices=1, then train with the rate on many"
            )
        model = segmenter(pl_module)
        with torch.random.fork_rng():
            torch.manual_seed(derive(model.seed, "lr_finder"))
            rates, losses = self._tried(trainer, model)
        smooth = _smoothed(losses)
        self.suggestion = steepest(rates, smooth)
        rows = (f"{r!r},{loss!r},{s!r}" for r, loss, s in zip(rates, losses, smooth, strict=True))
        run_folder.write_text(
            self._run_dir / run_folder.LR_CURVE, "\n".join(["learning_rate,loss,smoothed", *rows, ""])
        )
        assert model.optimization is not None
        figure = _figure(rates, smooth, self.suggestion, model.optimization.lr)
        picture = as_pixels(figure)
        with replacing(self._run_dir / run_folder.LR_PICTURE) as partial:
            Image.fromarray(picture).save(partial)
        for board in boards(trainer):
            board.show("lr_finder", picture, 0)
        found = (
            "the loss does not fall" if self.suggestion is None else f"the loss falls fastest at {self.suggestion:.1e}"
        )
        _log.info("lr_finder: %s (optimizer.lr is %.1e); the curve: %s", found, model.optimization.lr,
                  self._run_dir / run_folder.LR_PICTURE)  # fmt: skip

    def _tried(self, trainer: L.Trainer, model: Segmenter) -> tuple[list[float], list[float]]:
        datamodule, optimization = trainer.datamodule, model.optimization  # type: ignore[attr-defined]
        assert isinstance(datamodule, SegmentationDataModule) and optimization is not None
        network = copy.deepcopy(model.network)
        optimizer, _ = optimization.build(network, 1.0, self.steps)
        factors = [group["initial_lr"] / optimization.lr for group in optimizer.param_groups]
        rates: list[float] = []
        losses: list[float] = []
        batches = itertools.chain.from_iterable(itertools.repeat(datamodule.first_epoch()))
        for rate, batch in zip(np.geomspace(self.lowest, self.highest, self.steps).tolist(), batches, strict=False):
            for group, factor in zip(optimizer.param_groups, factors, strict=True):
                group["lr"] = rate * factor
            there = datamodule.on_after_batch_transfer(trainer.strategy.batch_to_device(batch), 0)
            with trainer.precision_plugin.forward_context():
                loss = model.segmentation_loss(model.outputs_of(network, there["image"]), there["mask"])
            value = float(loss.detach())
            lowest = min(_smoothed(losses), default=math.inf)
            if not math.isfinite(value) or _smoothed([*losses, value])[-1] > _DIVERGED * lowest:
                break
            rates.append(rate)
            losses.append(value)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            clip_gradients([p for group in optimizer.param_groups for p in group["params"]], optimization.clip)
            optimizer.step()
        return rates, losses


def steepest(rates: list[float], smooth: list[float]) -> float | None:
    """The rate at which a curve of losses falls fastest over the logarithm of the rate; None where it falls nowhere, or is too
    short to tell."""
    if len(rates) < _FIRST + _LAST + 2:
        return None
    slopes = np.gradient(np.array(smooth), np.log(rates))[_FIRST:-_LAST]
    at = int(slopes.argmin())
    return rates[_FIRST + at] if slopes[at] < 0 else None


def _smoothed(losses: list[float]) -> list[float]:
    """The moving average, without the pull of its start."""
    found, mean = [], 0.0
    for step, loss in enumerate(losses, start=1):
        mean = _KEEPS * mean + (1 - _KEEPS) * loss
        found.append(mean / (1 - _KEEPS**step))
    return found


def _figure(rates: list[float], smooth: list[float], suggestion: float | None, now: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, smooth, color="black")
    if suggestion is not None:
        axes.axvline(suggestion, color="tab:red", label=f"falls fastest: {suggestion:.1e}")
    axes.axvline(now, color="tab:blue", linestyle="--", label=f"optimizer.lr: {now:.1e}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss, smoothed")
    axes.legend()
    return figure
