"""How generator and discriminator fare against each other: histograms, and a word when one of them has lost."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from pydantic import NonNegativeFloat

from src.callbacks.dashboard import newest_batch
from src.callbacks.epoch_losses import EpochLosses
from src.callbacks.learner import learner
from src.loggers.boards import tensorboards
from src.models.base import Segmenter
from src.models.gan import GANSegmenter

_log = logging.getLogger(__name__)
_ONE_CLASS = 0.99  # share of all predicted pixels


class Adversary(L.Callback):
    """Writes histograms of the discriminator's scores on truth and generated maps each epoch, and says once in the log
    when the discriminator wins outright or the generator collapses (predicts one class in two validations running); for a
    model without adversary only the latter.

    Args:
        won_below: mean loss of the discriminator over an epoch, under which it has won.
    """

    def __init__(self, won_below: NonNegativeFloat = 0.05) -> None:
        self.won_below = won_below
        self._losses = EpochLosses()
        self._said: list[str] = []
        self._in_a_row = 0  # validations in which one class was all that was predicted

    def state_dict(self) -> dict[str, object]:
        return {"losses": self._losses.floats(), "said": list(self._said), "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._losses = EpochLosses(state_dict["losses"])
        self._said, self._in_a_row = list(state_dict["said"]), state_dict["in_a_row"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._losses = EpochLosses()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        loss = learner(pl_module).figures.get("discriminator_loss")
        if loss is not None:
            self._losses.add(loss)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for logger in tensorboards(trainer):
            for name, scores in learner(pl_module).judged.items():
                logger.experiment.add_histogram(
                    f"train/scores_{name}", scores.flatten().float().cpu(), global_step=newest_batch(trainer)
                )
        if (mean := self._losses.mean()) is not None and float(mean) < self.won_below:
            self._say(
                "won",
                f"the discriminator wins outright: its loss was below {self.won_below} for an epoch, so the generator learns "
                "nothing from it; lower model.discriminator_lr_factor, or take discriminator.spectral_norm=true, "
                "model.truth=soft or a narrower discriminator.width",
            )

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model = learner(pl_module)
        matrix = model.matrices.get("val")
        if not isinstance(model, Segmenter) or trainer.state.fn != "fit" or matrix is None or not int(matrix.sum()):
            return
        predicted, true = matrix.sum(dim=0) / matrix.sum(), matrix.sum(dim=1) / matrix.sum()
        most = int(predicted.argmax())
        one_class = float(predicted[most]) > _ONE_CLASS and float(true[most]) < _ONE_CLASS
        self._in_a_row = self._in_a_row + 1 if one_class else 0
        if self._in_a_row == 2:  # a first epoch may well end so
            knobs = "lower optimizer.lr or take loss=ce_dice"
            if isinstance(model, GANSegmenter) and model.discriminator is not None:
                knobs = "lower model.adversarial_weight, or raise model.adversarial_start"
            self._say(
                "collapsed",
                f"the predictions have collapsed: {float(predicted[most]):.1%} of the validation pixels are "
                f"{model.label_set.names[most]!r} (truth: {float(true[most]):.1%}); {knobs}",
            )

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.append(what)
            _log.warning("%s", text)
