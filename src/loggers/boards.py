"""The run's loggers that take pictures and settings, TensorBoard's among them."""

from __future__ import annotations

from collections.abc import Mapping

import lightning as L
import yaml
from lightning.pytorch.loggers import TensorBoardLogger

from src.loggers.base import Board, Picture, Status, plain


class TensorBoard(Board):
    """Lightning's TensorBoard logger as a board."""

    def __init__(self, logger: TensorBoardLogger) -> None:
        self.logger = logger

    def describe(self, config: Mapping[str, object]) -> None:
        text = yaml.safe_dump(dict(config), sort_keys=False)
        self.logger.experiment.add_text("config", "    " + text.replace("\n", "\n    "))

    def show(self, tag: str, picture: Picture, step: int) -> None:
        self.logger.experiment.add_image(tag, picture, global_step=step, dataformats="HWC")

    def conclude(self, chosen: Mapping[str, object], scores: Mapping[str, float], step: int) -> None:
        self.logger.log_hyperparams(plain(chosen), {f"best/{k}": v for k, v in scores.items()}, step=step)
        self.logger.save()

    def close(self, status: Status) -> None:
        self.logger.experiment.flush()


def boards(trainer: L.Trainer) -> list[Board]:
    """Those of the trainer's loggers, in its order; call it on the first device alone."""
    found = [TensorBoard(one) if isinstance(one, TensorBoardLogger) else one for one in trainer.loggers]
    return [one for one in found if isinstance(one, Board)]


def tensorboards(trainer: L.Trainer) -> list[TensorBoardLogger]:
    """TensorBoard's loggers alone, for what only they show: charts that belong together, histograms."""
    return [one for one in trainer.loggers if isinstance(one, TensorBoardLogger)]
