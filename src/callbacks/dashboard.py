"""What loggers show beyond scalars: charts that belong together, the config, the confusion matrix, HPARAMS."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from src.callbacks.learner import learner
from src.inference.drawing import as_pixels, confusion_figure
from src.loggers.base import Status
from src.loggers.boards import boards, tensorboards
from src.metrics.names import DICE_FOREGROUND, SCORES, TASK_SCORES, background
from src.models.base import Segmenter


def newest_batch(trainer: L.Trainer) -> int:
    """The x-axis of everything that is shown: the number of the newest training batch, counted from 0.

    It is the one that Lightning gives what `self.log` logs while training, and which it keeps in its loop alone:
    `global_step` counts optimizer steps.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed) - 1  # type: ignore[attr-defined]


class Dashboard(L.Callback):
    """Lays out TensorBoard's custom scalars (training and validation loss in one chart), and gives every logger the
    resolved config, and the confusion matrix as a picture after each validation and test."""

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model = learner(pl_module)
        tasks = tuple(model.tasks.by_name) if isinstance(model, Segmenter) and model.tasks is not None else ()
        own = tuple(model.config.get("metrics") or {})
        layout = _layout(model.label_set.names, len(model.optimized_parts()) > 1, tasks, own)
        for logger in tensorboards(trainer):
            logger.experiment.add_custom_scalars(layout)
        for board in boards(trainer):
            board.describe(model.config)

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._matrix(trainer, pl_module, "val")

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._matrix(trainer, pl_module, "test")

    def _matrix(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        model = learner(pl_module)
        if stage not in model.matrices or not (shown := boards(trainer)):
            return
        picture = as_pixels(confusion_figure(model.matrices[stage].numpy(), model.label_set.names))
        for board in shown:
            board.show(f"{stage}/confusion", picture, newest_batch(trainer))


@rank_zero_only
def log_hparams(trainer: L.Trainer, settings: Mapping[str, object], metrics: Mapping[str, float]) -> None:
    """Fills the HPARAMS tab, and the like of other loggers: what was chosen, and the best checkpoint's scores under
    `best/…`."""
    for board in boards(trainer):
        board.conclude(settings, metrics, newest_batch(trainer))


@rank_zero_only
def close_loggers(trainer: L.Trainer, status: Status) -> None:
    """Tells the loggers how the run ended."""
    for board in boards(trainer):
        board.close(status)


def _layout(
    names: tuple[str, ...], adversarial: bool, tasks: Collection[str] = (), own: Collection[str] = ()
) -> dict[str, dict[str, tuple[str, list[str]]]]:
    absent = set() if background(names) is not None else {DICE_FOREGROUND}
    overall = [f"val/{key}" for key, score in SCORES.items() if score.higher_is_better and key not in absent]
    charts: dict[str, tuple[str, list[str]]] = {
        "loss": ("Multiline", ["^train/loss$", "^val/loss$"]),
        "scores (dice is over all classes, dice_foreground without background)": ("Multiline", overall),
        "IoU by class": ("Multiline", [f"^val/iou/{re.escape(name)}$" for name in names]),
        "learning rates": ("Multiline", ["learning_rate/.*"]),
    }
    for task in tasks:
        charts[f"scores of {task}"] = (
            "Multiline", [f"val/{key}" for key, score in TASK_SCORES.items() if score.task == task]
        )  # fmt: skip
    if own:
        charts["own metrics"] = ("Multiline", [f"val/{name}" for name in own])
    if adversarial:
        charts["adversaries"] = ("Multiline", ["^train/(generator|discriminator|adversarial)_loss$"])
        charts["discriminator on truth and maps"] = ("Multiline", ["^train/d_(real|fake)$"])
        charts["gradient norms"] = ("Multiline", ["^train/(discriminator_)?gradient_norm$"])
    return {"training": charts}
