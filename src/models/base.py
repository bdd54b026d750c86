"""What every segmenter shares: normalising, logits, evaluation, metrics, prediction, and the optimizer's step."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric, Metric

from src.data.labels import LabelSet
from src.errors import NonFiniteLoss
from src.metrics.confusion import ConfusionMatrix, scores
from src.models.normalization import Normalization
from src.models.optimization import (
    Optimization,
    averaged,
    clip_gradients,
    freeze_batch_norm,
    is_finite,
    step_scaled_ema_decay,
)
from src.seeding import derive

Stage = Literal["val", "test"]
CHECKPOINT_KEY = "segmenter"  # where a Lightning checkpoint holds what makes it a segmenter's


class Segmenter(L.LightningModule):
    """A network that gives a class to every pixel; subclasses say how a training step updates its weights.

    A batch is `{"image": [B, C, H, W] raw, "mask": [B, H, W], "id": list[str]}`.

    Args:
        network: gives `{"logits": [B, K, H, W], …}` for normalised images.
        loss: `loss(logits, mask)`, a scalar.
        label_set: the classes.
        channels, intensity: of the raw images.
        optimization: None for a model that only predicts.
        seed: the run's seed.
        aux_weight: weight of the loss of the network's auxiliary head, where it has one.
        ema_decay: evaluate and keep an exponential moving average of the weights; None evaluates the weights themselves.
        batch_norm: "frozen" keeps batch norms' statistics as they are.
        channels_last: memory layout; faster on most devices.

    Attributes:
        results: the newest scores of each stage, exact; keys as in metrics.json.
        matrices: the newest confusion matrix of each stage, int64 [K, K], rows truth, columns prediction.
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
        aux_weight: NonNegativeFloat = 0.4,
        ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None,
        batch_norm: Literal["train", "frozen"] = "train",
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format)
        self.normalization = Normalization(intensity, network.pixel_mean, network.pixel_std, channels)  # type: ignore[arg-type]
        self.loss = loss
        self.ema: AveragedModel | None = averaged(network, ema_decay) if ema_decay is not None else None
        self.label_set, self.optimization, self.seed = label_set, optimization, seed
        self.aux_weight, self.ema_decay, self.batch_norm = aux_weight, ema_decay, batch_norm
        classes, ignored = label_set.num_classes, label_set.ignore_index
        self.confusion = nn.ModuleDict({stage: ConfusionMatrix(classes, ignored) for stage in ("val", "test")})
        self.mean_loss = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})
        self.results: dict[str, dict[str, float]] = {}
        self.matrices: dict[str, Tensor] = {}
        self.channels, self.intensity = channels, intensity
        self.config: dict[str, Any] = {}  # the whole run's, as plain containers; travels in the checkpoint
        self._first_bad_step = torch.tensor(-1)
        self.train()  # Lightning keeps each part's mode as it finds it

    # ------------------------------------------------------------------ prediction

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """All of the network's outputs for raw images [B, C, H, W]; evaluation takes the averaged weights if there are any."""
        network = self.ema.module if self.ema is not None and not self.training else self.network
        result: dict[str, Tensor] = network(self.normalization(image).contiguous(memory_format=self.memory_format))
        return result

    def logits(self, image: Tensor) -> Tensor:
        """Logits float [B, K, H, W] of raw images [B, C, H, W]."""
        return self.outputs(image)["logits"]

    forward = logits

    def probabilities(self, image: Tensor) -> Tensor:
        """Softmax over classes, float32 [B, K, H, W], of raw images [B, C, H, W]."""
        return self.logits(image).float().softmax(dim=1)

    # ------------------------------------------------------------------ evaluation

    @staticmethod
    def _of(metrics: nn.ModuleDict, stage: Stage) -> Metric:
        metric = metrics[stage]
        assert isinstance(metric, Metric)
        return metric

    def _evaluate(self, stage: Stage, batch: dict[str, Any]) -> None:
        logits = self.logits(batch["image"])
        self._of(self.mean_loss, stage).update(self.loss(logits, batch["mask"]), weight=len(logits))
        self._of(self.confusion, stage).update(logits.argmax(dim=1), batch["mask"])

    def _finish(self, stage: Stage) -> None:
        matrix: Tensor = self._of(self.confusion, stage).compute()  # sums over devices
        loss: Tensor = self._of(self.mean_loss, stage).compute()
        self.matrices[stage] = matrix.cpu()
        self.results[stage] = {"loss": float(loss), **scores(self.matrices[stage], self.label_set.names)}
        for key, value in self.results[stage].items():
            self.log(f"{stage}/{key}", value, prog_bar=key == "miou", rank_zero_only=True)
        self._of(self.confusion, stage).reset()
        self._of(self.mean_loss, stage).reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate("val", batch)

    def on_validation_epoch_end(self) -> None:
        self._finish("val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate("test", batch)

    def on_test_epoch_end(self) -> None:
        self._finish("test")

    # ------------------------------------------------------------------ training

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if mode and self.batch_norm == "frozen":
            freeze_batch_norm(self.network)
        if self.ema is not None:
            self.ema.eval()
        return self

    def segmentation_loss(self, outputs: dict[str, Tensor], mask: Tensor) -> Tensor:
        """The loss of the logits, and of the auxiliary head's with its weight."""
        loss: Tensor = self.loss(outputs["logits"], mask)
        if "aux" in outputs:
            loss = loss + self.aux_weight * self.loss(outputs["aux"], mask)
        return loss

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """What is drawn in a step (dropout, noise) depends on the seed, the step and the rank alone."""
        torch.manual_seed(derive(self.seed, "step", self.trainer.fit_loop.epoch_loop.total_batch_idx, self.global_rank))

    def update(self, loss: Tensor, network: nn.Module, optimizer: LightningOptimizer, batch_idx: int) -> None:
        """Takes the loss's gradients, and steps where the accumulated batches are complete.

        Args:
            loss: scalar.
            network: whose averaged copy follows the step.
            optimizer: of the network.
            batch_idx: the batch's number in its epoch.
        """
        assert self.optimization is not None
        self._watch(loss)
        self.manual_backward(loss / self.optimization.accumulate)
        if self.optimization.is_step(batch_idx, self.trainer.num_training_batches):
            optimizer.step()
            optimizer.zero_grad()
            schedulers = self.lr_schedulers()
            for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
                scheduler.step()  # type: ignore[union-attr]
            self._average(network)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Called with unscaled gradients whatever the precision: the place to clip."""
        assert self.optimization is not None
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.log("train/gradient_norm", clip_gradients(parameters, self.optimization.clip))

    def configure_optimizers(self) -> Any:
        optimization = self.optimization
        assert optimization is not None
        steps = optimization.steps(self.trainer, self.trainer.datamodule.batches_per_epoch())  # type: ignore[attr-defined]
        optimizer, scheduler = optimization.build(self.network, steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is needed to predict from the file alone, as plain containers."""
        weights = getattr(self.loss, "class_weights", None)
        checkpoint[CHECKPOINT_KEY] = {
            "config": self.config,
            "label_set": self.label_set.to_dict(),
            "channels": self.channels,
            "intensity": list(self.intensity),
            "class_weights": None if weights is None else weights.tolist(),
        }

    def raise_if_diverged(self) -> None:
        """Raises NonFiniteLoss if any loss so far was NaN or infinite."""
        step = int(self._first_bad_step)
        if step >= 0:
            raise NonFiniteLoss(f"the training loss became NaN or infinite in step {step}")

    def _average(self, network: nn.Module) -> None:
        if self.ema is None or self.ema_decay is None:
            return
        updates = int(self.ema.n_averaged)
        decay = step_scaled_ema_decay(self.ema_decay, updates)
        self.ema.multi_avg_fn = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.ema.update_parameters(network)

    def _watch(self, loss: Tensor) -> None:
        step = self.trainer.fit_loop.epoch_loop.total_batch_idx
        first = self._first_bad_step.to(loss.device)
        self._first_bad_step = torch.where((first < 0) & ~is_finite(loss), step, first)
        # Reading it waits for the device, so not after every step.
        if loss.device.type == "cpu" or step % 50 == 0:
            self.raise_if_diverged()
