"""Gathers what a model's observer has seen, while all devices are still at work."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L
import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeInt

from src.callbacks.learner import segmenter
from src.data.datamodule import SegmentationDataModule
from src.evaluation.matrices import of_cells
from src.evaluation.observation import Observation, Observed, indices_of
from src.evaluation.samples import predicted_sample
from src.evaluation.scores import ranked
from src.models.evaluation import Stage


@dataclass(frozen=True)
class Shown:
    """An image that is shown: why ("worst", "typical"), its place among these, its name, and what is shown of it."""

    why: str
    place: int
    name: str
    picture: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.integer]
    prediction: npt.NDArray[np.integer]


class Observing(L.Callback):
    """Finishes a model's `Observation` at the end of an evaluation.

    Args:
        pictures: so many of the images with the lowest mIoU, and of those nearest to the median, are predicted once more.

    Attributes:
        observed: what was seen of the newest split.
        shown: its pictures, on the first device.
    """

    observed: Observed

    def __init__(self, pictures: NonNegativeInt) -> None:
        self.pictures = pictures
        self.shown: list[Shown] = []

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish(trainer, pl_module, "test")

    def _finish(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: Stage) -> None:
        model = segmenter(pl_module)
        observation, datamodule = model.observer, trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(observation, Observation)
        assert isinstance(datamodule, SegmentationDataModule)
        seen = self.observed = observation.finish()
        self.shown = []
        images = of_cells(seen.ids, seen.wholes, model.label_set.names, stage, seen.matrices, {})
        source = datamodule.source(stage)
        for why, chosen in zip(("worst", "typical"), ranked(images, self.pictures), strict=True):
            for place, row in enumerate(chosen, 1):
                (index,) = indices_of(source, [seen.ids[row]])
                with trainer.precision_plugin.forward_context():  # on every device: each may hold a part of the weights
                    parts = predicted_sample(model, model.device, source, index)
                if trainer.is_global_zero:
                    self.shown.append(Shown(why, place, seen.ids[row], *parts))
