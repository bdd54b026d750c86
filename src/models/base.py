"""What every segmenter shares: evaluation, the loss, and the optimizer's step; what it predicts is in `prediction.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from src.config.inference import Inference
from src.data.labels import LabelSet
from src.data.samples import Batch
from src.data.trained_on import CHECKPOINT_KEY, Images
from src.distributed.deepspeed import ZeroStrategy
from src.distributed.fsdp import ShardedStrategy, broadcast_buffers
from src.inference.sizes import of_one_size
from src.inference.windows import Outputs
from src.losses.base import loss_of_outputs
from src.models.alignment import Alignment
from src.models.consistency import METHODS
from src.models.evaluation import Evaluation, Observer, Stage
from src.models.normalization import Normalization
from src.models.prediction import Predicting
from src.models.semi import SemiSupervision
from src.networks.base import FollowsTraining
from src.optimization.averaging import MovingAverage
from src.optimization.divergence import Divergence
from src.optimization.manual_steps import step_all
from src.optimization.updates import Optimization, clip_gradients, freeze_batch_norm
from src.seeding import derive
from src.tasks.multi_task import MultiTask

_ONLY_TRAINING = ("discriminator.", "partner.", "alignment.")  # names of what no prediction needs


class Segmenter(Predicting):
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
        aux_weight: weight of the loss of each of the network's auxiliary heads, where it has any.
        ema_decay: evaluate and keep an exponential moving average of the weights; None evaluates the weights themselves.
        batch_norm: "frozen" keeps batch norms' statistics as they are.
        channels_last: memory layout; faster on most devices.

    Attributes:
        results: the newest scores of each stage, exact; keys as in metrics.json.
        matrices: the newest confusion matrix of each stage, int64 [K, K], rows truth, columns prediction.
        divergence: whether the training loss is still a number.
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
        aux_weight: NonNegativeFloat = 0.4,
        ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None,
        batch_norm: Literal["train", "frozen"] = "train",
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        if tasks is not None:  # so that what it learns is optimized, averaged and kept with the network
            network.add_module("tasks", tasks)
        self.network = network.to(memory_format=self.memory_format)
        self.partner = partner.to(memory_format=self.memory_format) if partner is not None else None
        self.normalization = Normalization(intensity, network.pixel_mean, network.pixel_std, channels)  # type: ignore[arg-type]
        self.loss = loss
        self.semi = semi or SemiSupervision()
        self.alignment = Alignment(label_set.num_classes) if self.semi.align else None
        self.ema = MovingAverage(network, ema_decay) if ema_decay is not None else None
        self.label_set, self.optimization, self.seed = label_set, optimization, seed
        self.aux_weight, self.batch_norm = aux_weight, batch_norm
        self.evaluations = nn.ModuleDict(
            {stage: Evaluation(stage, label_set, tasks, metrics) for stage in ("val", "test")}
        )
        self.results: dict[str, dict[str, float]] = {}
        self.matrices: dict[str, Tensor] = {}
        self.channels, self.intensity = channels, intensity
        self.inference = Inference()  # how it predicts; the run or the checkpoint says
        self.images = Images(channels, intensity)  # what else is known of them, the run or the checkpoint adds
        self.config: dict[str, Any] = {}  # the whole run's, as plain containers; travels in the checkpoint
        self.divergence = Divergence()
        self.observer: Observer | None = None
        self._steps = 1  # of the whole run
        self._gradient_norms: list[Tensor] = []  # of the newest step, optimizer by optimizer
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

    def _finish_evaluation(self, stage: Stage) -> None:
        limit = self.trainer.limit_test_batches if stage == "test" else self.trainer.limit_val_batches
        whole_split = not self.trainer.sanity_checking and limit == 1.0
        results, matrix = self._evaluation(stage).finish(whole_split, speaks=self.trainer.is_global_zero)
        self.results[stage], self.matrices[stage] = results, matrix
        for key, value in results.items():
            self.log(f"{stage}/{key}", value, prog_bar=key == "miou", rank_zero_only=True)

    def _evaluation(self, stage: Stage) -> Evaluation:
        evaluation = self.evaluations[stage]
        assert isinstance(evaluation, Evaluation)
        return evaluation

    def on_validation_start(self) -> None:
        """All ranks evaluate one model, that of the checkpoint: batch norms that are not synchronised differ in a step."""
        broadcast_buffers(self)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def on_validation_epoch_end(self) -> None:
        self._finish_evaluation("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def on_test_epoch_end(self) -> None:
        self._finish_evaluation("test")

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if mode and self.batch_norm == "frozen":
            for network in self.networks:
                freeze_batch_norm(network)
        if self.ema is not None:
            self.ema.eval()
        return self

    def segmentation_loss(self, outputs: dict[str, Tensor], mask: Tensor) -> Tensor:
        """The loss of what it asks for: the logits and, with their weight, auxiliary heads', or other outputs."""
        return loss_of_outputs(self.loss, outputs, mask, self.aux_weight)

    def with_tasks(self, segmentation: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The segmentation loss, and those of the tasks with their weights."""
        if self.tasks is None:
            return segmentation
        losses = self.tasks.losses(outputs, batch)
        for name, loss in losses.items():
            self.log(f"train/{name}_loss", loss.detach(), batch_size=len(batch["mask"]))
        return self.tasks.total(segmentation, losses)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes what is drawn in a step (dropout, noise) depend on the seed, the batch's number and the rank alone.

        Lightning's public `global_step` counts optimizer steps; of batches only its loop keeps a count over epochs, which
        its checkpoints restore. tests/training/test_resume.py compares a resumed run's bits.
        """
        torch.manual_seed(derive(self.seed, "step", self.trainer.fit_loop.epoch_loop.total_batch_idx, self.global_rank))
        for network in self.networks:
            if isinstance(network, FollowsTraining):
                network.at_share(self.global_step / self._steps)

    @property
    def networks(self) -> list[nn.Module]:
        """The network, and its partner where it has one."""
        return [self.network] if self.partner is None else [self.network, self.partner]

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
        for name, value in figures.items():
            self.log(f"train/{name}", value)
        return outputs, added

    def trusts(self, weak: Tensor, probability: Tensor, mask: Tensor) -> Tensor:
        """Where a prediction may serve as a label, bool [U, H, W]: where its probability reaches `semi.threshold`."""
        return probability.amax(dim=1) >= self.semi.threshold

    def update(self, loss: Tensor, batch_idx: int) -> None:
        """Takes the loss's gradients, and steps every optimizer where the accumulated batches are complete.

        One backward pass serves all optimizers: plain DDP can do no more, since it sums gradients once after each forward
        pass.

        Args:
            loss: scalar.
            batch_idx: the batch's number in its epoch.
        """
        assert self.optimization is not None
        self.divergence.watch(loss, self.trainer.fit_loop.epoch_loop.total_batch_idx)
        self.manual_backward(loss / self.optimization.accumulate)
        if self.optimization.is_step(batch_idx, self.trainer.num_training_batches):
            self._gradient_norms = []
            step_all(self)
            if isinstance(self.trainer.strategy, ZeroStrategy):
                self._gradient_norms.append(self.trainer.strategy.gradient_norm())
            if self.ema is not None:
                self.ema.follow(self.network)
        for (part, _, _), norm in zip(self.optimized_parts(), self._gradient_norms, strict=False):
            self.log(f"train/{part}gradient_norm", norm)  # between steps, that of the last one

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Called with unscaled gradients whatever the precision: the place to clip. DeepSpeed clips by itself."""
        assert self.optimization is not None
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._gradient_norms.append(clip_gradients(parameters, self.optimization.clip))

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, ShardedStrategy):
            parts = [part for _, part, _ in self.optimized_parts()]
            self.trainer.strategy.shard(parts if self.ema is None else [*parts, self.ema.module])

    def configure_optimizers(self) -> Any:
        optimization = self.optimization
        assert optimization is not None
        self._steps = optimization.steps(self.trainer, self.trainer.datamodule.batches_per_epoch())  # type: ignore[attr-defined]
        built = [optimization.build(part, factor, self._steps) for _, part, factor in self.optimized_parts()]
        return [optimizer for optimizer, _ in built], [{"scheduler": s, "interval": "step"} for _, s in built]

    def optimized_parts(self) -> list[tuple[str, nn.Module, float]]:
        """What gets an optimizer of its own, the network first: a prefix for the names of its figures, the part, and a
        factor on the learning rate."""
        partner = [] if self.partner is None else [("partner_", self.partner, 1.0)]
        return [("", self.network, 1.0), *partner]

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Adds what is needed to predict from the file alone, as plain containers."""
        weights = getattr(self.loss, "class_weights", None)
        checkpoint[CHECKPOINT_KEY] = {
            "config": self.config,
            "label_set": self.label_set.to_dict(),
            "channels": self.channels,
            "intensity": list(self.intensity),
            "dtype": self.images.dtype,
            "modality": self.images.modality,
            "class_weights": None if weights is None else weights.tolist(),
            "gradient_norms": [float(norm) for norm in self._gradient_norms],
        }  # no temperature: weights that go on learning lose theirs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._gradient_norms = [torch.tensor(norm) for norm in checkpoint[CHECKPOINT_KEY]["gradient_norms"]]

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Fills the model from another one's state. A discriminator or a partner that only one of the two has does not
        count, so that a GAN segmenter can start from a CNN segmenter and either can predict from a GAN's checkpoint.

        Raises:
            RuntimeError: anything else is missing, surplus or of another shape.
        """
        own = self.state_dict()
        kept = {key: value for key, value in state.items() if key in own or not key.startswith(_ONLY_TRAINING)}
        missing = {key: value for key, value in own.items() if key not in kept and key.startswith(_ONLY_TRAINING)}
        self.load_state_dict(missing | kept)


def _assembled(strips: Sequence[tuple[Tensor, Outputs]]) -> tuple[Tensor, Outputs]:
    """Classes [B, H, W] and maps [B, C, H, W] of strips that follow one another."""
    if len(strips) == 1:
        return strips[0]
    maps = {name: torch.cat([outputs[name] for _, outputs in strips], dim=-2) for name in strips[0][1]}
    return torch.cat([classes for classes, _ in strips], dim=-2), maps
