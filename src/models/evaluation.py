"""The scores of a model on a split, exact on any number of devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from src.data.labels import LabelSet
from src.data.mask_check import nothing_to_score
from src.data.samples import Batch
from src.data.warn_once import warn_once
from src.errors import UserError
from src.metrics.confusion import ConfusionMatrix, scores
from src.metrics.own import OwnMetrics
from src.metrics.truths import Truths, words
from src.tasks.multi_task import MultiTask

Stage = Literal["val", "test"]


class Observer(Protocol):
    """What looks on while a model is evaluated, at what is scored; on several devices each sees its own images."""

    def strip(self, batch: Batch, top: int, logits: Tensor) -> None:
        """Logits float [B, K, h, W] of rows from `top` on, in the pixels of the masks, of samples of one size."""

    def whole(self, batch: Batch, prediction: Tensor) -> None:
        """Predicted classes [B, H, W] of samples of one size, in the pixels of the masks."""


class Evaluation(nn.Module):
    """Adds up what a stage's scores are computed from, batch by batch. A module, so that its metrics follow the model to its
    device; it has no parameter, and nothing of it is saved.

    Args:
        stage: names the split in messages.
        label_set: the classes.
        tasks: what is learnt beside the classes.
        metrics: what the user computes beside the scores, by name.
    """

    def __init__(
        self,
        stage: Stage,
        label_set: LabelSet,
        tasks: MultiTask | None = None,
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        self.stage, self.names = stage, label_set.names
        self.confusion = ConfusionMatrix(label_set.num_classes, label_set.ignore_index)
        self.mean_loss = MeanMetric()
        self.tasks = {} if tasks is None else dict(tasks.by_name)  # not the module, whose weights are the network's
        self.task_metrics = nn.ModuleDict({} if tasks is None else tasks.metrics())
        self.own_metrics = OwnMetrics(metrics or {}, label_set.names, stage)
        self.truths = Truths(label_set.num_classes)

    def update(self, batch: Batch, prediction: Tensor, outputs: Mapping[str, Tensor], loss: Tensor) -> None:
        """Adds samples of one size.

        Args:
            batch: the samples.
            prediction: classes [B, H, W] in the pixels of the mask.
            outputs: each task's, [B, C, H, W] in the pixels of the mask.
            loss: the mean over the samples, a scalar.
        """
        mask = batch["mask"]
        for name, task in self.tasks.items():
            task.update(self._metric_of_task(name), outputs[name], task.target(batch))
        self.mean_loss.update(loss, weight=len(mask))
        self.confusion.update(prediction, mask)
        self.own_metrics.update(prediction, mask)
        if "whole" in batch:
            self.truths.add(batch["whole"], mask)

    def finish(self, whole_split: bool, speaks: bool) -> tuple[dict[str, float], Tensor]:
        """Computes the scores over all devices (each of which has to call it), and begins anew.

        Args:
            whole_split: whether all of the split was evaluated; of a part nothing is said.
            speaks: whether this process warns of volumes or scenes with little to score.

        Returns:
            The scores, with keys as in metrics.json, and the confusion matrix int64 [K, K], on the CPU.

        Raises:
            UserError: the whole split has no labelled pixel.
        """
        matrix: Tensor = self.confusion.compute()
        shown = self.truths.finish()
        if whole_split and not int(matrix.sum()):
            raise UserError(nothing_to_score(self.stage))
        for line in words(shown, self.names, self.stage) if whole_split and speaks else ():
            warn_once(line)
        loss: Tensor = self.mean_loss.compute()
        matrix = matrix.cpu()
        results = {"loss": float(loss), **scores(matrix, self.names)}
        for name in self.tasks:
            metric = self._metric_of_task(name)
            results |= {f"{name}_{key}": float(value) for key, value in metric.compute().items()}
            metric.reset()
        results |= self.own_metrics.finish()
        self.confusion.reset()
        self.mean_loss.reset()
        return results, matrix

    def _metric_of_task(self, name: str) -> Metric:
        metric = self.task_metrics[name]
        assert isinstance(metric, Metric)
        return metric
