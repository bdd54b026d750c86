"""What every segmenter shares: evaluation, the loss, and the optimizer's step; what it predicts is in `prediction.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torchmetrics import Metric

from src.config.inference import Inference
from src.data.labels import LabelSet
from src.data.samples import Batch
from src.data.trained_on import CHECKPOINT_KEY
from src.errors import UserError
from src.inference.sizes import of_one_size
from src.inference.windows import Outputs
from src.losses.base import loss_of_outputs
from src.models.alignment import Alignment
from src.models.consistency import METHODS
from src.models.distillation import Distillation
from src.models.evaluation import Evaluation, Observer, Stage
from src.models.learner import Learner, digest
from src.models.normalization import Normalization
from src.models.prediction import Predicting
from src.models.semi import SemiSupervision
from src.optimization.updates import Optimization
from src.tasks.multi_task import MultiTask


class Segmenter(Learner, Predicting):
    """A network that gives a class to every pixel; subclasses say how a training step updates its weights.

    Args:
        network: gives `{"logits": [B, K, H, W], …}` for normalised images.
        loss: `loss(logits, mask)`, a scalar.
        label_set: the classes.
        channels, intensity: of the raw images.
        optimization: None for a model that only predicts.
        seed: the run's seed.
        semi: how unlabelled images are used; None uses none.
        partner: a second network of the same build, which learns with the first one and predicts nothing (`semi.method=cps`).
        tasks: what is learnt beside the classes; the network has its output channels.
        metrics: what is computed beside the scores, by name; see `src.metrics.own.OwnMetrics`.
        taught_by: a trained segmenter whose predictions teach too; it is no part of the model, and never saved with it.
        distill: how; None as by default.
        aux_weight: weight of the loss of each of the network's auxiliary heads, where it has any.
        ema_decay: evaluate and keep an exponential moving average of the weights; None evaluates the weights themselves.
        batch_norm: "frozen" keeps batch norms' statistics as they are.
        channels_last: memory layout; faster on most devices.

    Attributes:
        observer: what looks on while it is evaluated; None for nothing.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        label_set: LabelSet,
        channels: int,
        intensity: tuple[float, float],
        optimization: Optimization | None = None,
        seed: int = 0,
        semi: SemiSupervision | None = None,
        partner: nn.Module | None = None,
        tasks: MultiTask | None = None,
        metrics: Mapping[str, Metric] | None = None,
        taught_by: Segmenter | None = None,
        distill: Distillation | None = None,
        aux_weight: NonNegativeFloat = 0.4,
        ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None,
        batch_norm: Literal["train", "frozen"] = "train",
        channels_last: bool = True,
    ) -> None:
        if tasks is not None:  # so that what it learns is optimized, averaged and kept with the network
            network.add_module("tasks", tasks)
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        super().__init__(
            network.to(memory_format=memory_format), loss, label_set, channels, intensity, optimization, seed, ema_decay,
            batch_norm,
        )  # fmt: skip
        self.memory_format = memory_format
        self.partner = partner.to(memory_format=memory_format) if partner is not None else None
        self.normalization = Normalization(intensity, network.pixel_mean, network.pixel_std, channels)  # type: ignore[arg-type]
        self.semi = semi or SemiSupervision()
        self.alignment = Alignment(label_set.num_classes) if self.semi.align else None
        self.aux_weight = aux_weight
        self.distill = distill or Distillation()
        self._teacher = [] if taught_by is None else [taught_by]  # in a list: it is no part of the model
        self._teacher_is = "" if taught_by is None else digest(taught_by)
        self.evaluations = nn.ModuleDict(
            {stage: Evaluation(stage, label_set, tasks, metrics) for stage in ("val", "test")}
        )
        self.inference = Inference()  # how it predicts; the run or the checkpoint says
        self.observer: Observer | None = None
        self.train()  # Lightning keeps each part's mode as it finds it

    def _evaluate(self, stage: Stage, batch: Batch) -> None:
        """Scores predictions in the pixels of the truth, which are those that `predict` writes.

        The loss of an image that comes in several strips is theirs, weighted by their rows.
        """
        for part in of_one_size(batch):
            mask = part["mask"]
            strips: list[tuple[Tensor, Outputs]] = []
            loss = torch.zeros((), device=mask.device)
            for top, outputs in self.predicted(part["image"], mask.shape[-2:]):
                if "uncounted" in batch:
                    continue  # the other ranks have all there is, and may need this one to predict with them
                logits = outputs.pop("logits").to(mask.device)
                rows = logits.shape[-2]
                of_strip = self.loss(logits, mask[..., top : top + rows, :])
                loss = of_strip if rows == mask.shape[-2] else loss + of_strip * (rows / mask.shape[-2])
                if self.observer is not None:
                    self.observer.strip(part, top, logits)
                strips.append((logits.argmax(dim=1), outputs))
            if strips:
                prediction, maps = _assembled(strips)
                self._evaluation(stage).update(part, prediction, maps, loss)
                if self.observer is not None:
                    self.observer.whole(part, prediction)

    def _scores(self, stage: Stage, whole_split: bool) -> tuple[dict[str, float], Tensor | None]:
        return self._evaluation(stage).finish(whole_split, speaks=self.trainer.is_global_zero)

    def _evaluation(self, stage: Stage) -> Evaluation:
        evaluation = self.evaluations[stage]
        assert isinstance(evaluation, Evaluation)
        return evaluation

    @property
    def own_metrics(self) -> dict[str, Metric]:
        """What the user computes beside the scores, by name."""
        return self._evaluation("val").own_metrics.metrics

    def segmentation_loss(self, outputs: dict[str, Tensor], mask: Tensor) -> Tensor:
        """The loss of what it asks for: the logits and, with their weight, auxiliary heads', or other outputs."""
        return loss_of_outputs(self.loss, outputs, mask, self.aux_weight)

    def with_others(self, segmentation: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The segmentation loss, and those of the teacher and of the tasks with their weights."""
        if self._teacher:
            segmentation = segmentation + self._distilled(self._teacher[0], outputs["logits"], batch)
        if self.tasks is None:
            return segmentation
        losses = self.tasks.losses(outputs, batch)
        for name, loss in losses.items():
            self.figures[f"{name}_loss"] = loss.detach()
        return self.tasks.total(segmentation, losses)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self._teacher:
            checkpoint[CHECKPOINT_KEY]["teacher"] = self._teacher_is

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self._teacher and checkpoint[CHECKPOINT_KEY].get("teacher") != self._teacher_is:
            raise UserError(
                "model.teacher: has other weights than the teacher that the run learnt from so far; give that one, or start "
                "anew: python -m src.train like=RUN_DIR"
            )

    def _distilled(self, teacher: Segmenter, logits: Tensor, batch: Batch) -> Tensor:
        if teacher.device != self.device:
            teacher.to(self.device)
        with torch.no_grad():
            given = teacher.logits(batch["image"])
        losses = self.distill.losses(logits, given)
        for name, loss in losses.items():
            self.figures[f"distill_{name}_loss"] = loss.detach()
        return self.distill.total(losses)

    @property
    def networks(self) -> list[nn.Module]:
        """The network, and its partner where it has one."""
        return [*super().networks, *([] if self.partner is None else [self.partner])]

    def supervised_and_unlabeled(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
        """Outputs for the batch's labelled images, and what a method of consistency adds to their loss where one is at work
        (else None): the weighted loss of unlabelled images, and a partner's own of the labelled ones."""
        method = METHODS.get(self.semi.method or "")
        if self.alignment is not None:
            self.alignment.see(batch["mask"])
        weight = self.semi.weight_at(self.global_step) if method is not None else 0.0
        if method is None or (weight == 0 and self.partner is None):
            return self.outputs(batch["image"]), None
        outputs, consistency, figures, of_partner = method(self, batch)
        added = weight * consistency
        figures = figures | {"unlabeled_loss": added.detach()}
        if of_partner is not None:
            added, figures["partner_loss"] = added + of_partner, of_partner.detach()
        self.figures |= {name: value.detach() for name, value in figures.items()}
        return outputs, added

    def optimized_parts(self) -> list[tuple[str, nn.Module, float]]:
        partner = [] if self.partner is None else [("partner_", self.partner, 1.0)]
        return [*super().optimized_parts(), *partner]

    def trusts(self, weak: Tensor, probability: Tensor, mask: Tensor) -> Tensor:
        """Where a prediction may serve as a label, bool [U, H, W]: where its probability reaches `semi.threshold`."""
        return probability.amax(dim=1) >= self.semi.threshold


def _assembled(strips: Sequence[tuple[Tensor, Outputs]]) -> tuple[Tensor, Outputs]:
    """Classes [B, H, W] and maps [B, C, H, W] of strips that follow one another."""
    if len(strips) == 1:
        return strips[0]
    maps = {name: torch.cat([outputs[name] for _, outputs in strips], dim=-2) for name in strips[0][1]}
    return torch.cat([classes for classes, _ in strips], dim=-2), maps
