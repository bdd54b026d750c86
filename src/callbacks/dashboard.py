"""TensorBoard beyond scalars: charts that belong together, the config, the confusion matrix, HPARAMS."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import lightning as L
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from src.callbacks.learner import learner
from src.inference.drawing import confusion_figure
from src.metrics.names import DICE_FOREGROUND, SCORES, TASK_SCORES, background
from src.models.base import Segmenter


def newest_batch(trainer: L.Trainer) -> int:
    """The x-axis of everything that is shown: the number of the newest training batch, counted from 0.

    It is the one that Lightning gives what `self.log` logs while training, and which it keeps in its loop alone:
    `global_step` counts optimizer steps.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed) - 1  # type: ignore[attr-defined]


class Dashboard(L.Callback):
    """Lays out TensorBoard's custom scalars (training and validation loss in one chart), and writes the resolved config
    as text and the confusion matrix as a figure after each validation and test."""

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(trainer.logger, TensorBoardLogger):
            return
        model = learner(pl_module)
        writer = trainer.logger.experiment
        tasks = tuple(model.tasks.by_name) if isinstance(model, Segmenter) and model.tasks is not None else ()
        own = tuple(model.config.get("metrics") or {})
        writer.add_custom_scalars(_layout(model.label_set.names, len(model.optimized_parts()) > 1, tasks, own))
        config = yaml.safe_dump(model.config, sort_keys=False)
        writer.add_text("config", "    " + config.replace("\n", "\n    "))

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._matrix(trainer, pl_module, "val")

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._matrix(trainer, pl_module, "test")

    def _matrix(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        model = learner(pl_module)
        if isinstance(trainer.logger, TensorBoardLogger) and stage in model.matrices:
            figure = confusion_figure(model.matrices[stage].numpy(), model.label_set.names)
            trainer.logger.experiment.add_figure(f"{stage}/confusion", figure, global_step=newest_batch(trainer))


@rank_zero_only
def log_hparams(trainer: L.Trainer, settings: Mapping[str, object], metrics: Mapping[str, float]) -> None:
    """Fills the HPARAMS tab: what was chosen, and the best checkpoint's scores under `best/…`."""
    if isinstance(trainer.logger, TensorBoardLogger):
        shown = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in settings.items()}
        trainer.logger.log_hyperparams(shown, {f"best/{k}": v for k, v in metrics.items()}, step=newest_batch(trainer))
        trainer.logger.save()


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
