"""What all that is trained shares: one step of all optimizers, the average of the weights, what a checkpoint says."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self

import lightning as L
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from src.data.labels import LabelSet
from src.data.samples import Batch
from src.data.trained_on import CHECKPOINT_KEY, Images
from src.distributed.deepspeed import ZeroStrategy
from src.distributed.fsdp import ShardedStrategy, broadcast_buffers
from src.models.evaluation import Stage
from src.networks.base import FollowsTraining
from src.networks.discriminators import Discriminator
from src.optimization.averaging import MovingAverage
from src.optimization.divergence import Divergence
from src.optimization.manual_steps import step_all
from src.optimization.updates import Optimization, clip_gradients, freeze_batch_norm
from src.seeding import derive

_ONLY_TRAINING = ("discriminator.", "partner.", "alignment.")  # names of what no prediction needs


class Learner(L.LightningModule, ABC):
    """A network with its optimizers, and a discriminator beside it where a subclass has one; subclasses say what a training
    step learns from, and how they are scored.

    Args:
        network: what is trained.
        loss: of what the network gives.
        label_set: the classes.
        channels, intensity: of the raw images.
        optimization: None for a model that does not learn.
        seed: the run's seed.
        ema_decay: evaluate and keep an exponential moving average of the weights; None evaluates the weights themselves.
        batch_norm: "frozen" keeps batch norms' statistics as they are.

    Attributes:
        results: the newest scores of each stage, exact; keys as in metrics.json.
        matrices: the newest confusion matrix of each stage that has one, int64 [K, K], rows truth, columns prediction.
        judged: a discriminator's scores of the newest batch, "real" and "fake", for the histograms.
        figures: the newest scalars of the epoch's training by name ("loss", "gradient_norm" …), without graph, on the device;
            what not every batch has is that of the newest one that had it.
        told: those that were logged last.
        divergence: whether the training loss is still a number.
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
        ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None,
        batch_norm: Literal["train", "frozen"] = "train",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.loss = loss
        self.ema = MovingAverage(network, ema_decay) if ema_decay is not None else None
        self.label_set, self.optimization, self.seed = label_set, optimization, seed
        self.batch_norm = batch_norm
        self.results: dict[str, dict[str, float]] = {}
        self.matrices: dict[str, Tensor] = {}
        self.judged: dict[str, Tensor] = {}
        self.figures: dict[str, Tensor] = {}
        self.told: dict[str, Tensor] = {}
        self.discriminator: Discriminator | None = None
        self.discriminator_lr_factor = 1.0  # its learning rate is `optimizer.lr` times this
        self.channels, self.intensity = channels, intensity
        self.images = Images(channels, intensity)  # what else is known of them, the run or the checkpoint adds
        self.config: dict[str, Any] = {}  # the whole run's, as plain containers; travels in the checkpoint
        self.divergence = Divergence()
        self._steps = 1  # of the whole run
        self._gradient_norms: list[Tensor] = []  # of the newest step, optimizer by optimizer

    def check_size(self, height: int, width: int) -> None:
        """Raises UserError where training images are too small for the discriminator."""
        if self.discriminator is not None:
            self.discriminator.check_size(height, width)

    @abstractmethod
    def _evaluate(self, stage: Stage, batch: Batch) -> None:
        """Adds a batch to what a stage is scored by."""

    @abstractmethod
    def _scores(self, stage: Stage, whole_split: bool) -> tuple[dict[str, float], Tensor | None]:
        """A stage's scores over all devices, with keys as in metrics.json, and its confusion matrix if it has one; begins anew.

        Args:
            whole_split: whether all of the split was evaluated.
        """

    def _finish_evaluation(self, stage: Stage) -> None:
        limit = self.trainer.limit_test_batches if stage == "test" else self.trainer.limit_val_batches
        results, matrix = self._scores(stage, not self.trainer.sanity_checking and limit == 1.0)
        self.results[stage] = results
        if matrix is not None:
            self.matrices[stage] = matrix
        for key, value in results.items():
            self.log(f"{stage}/{key}", value, prog_bar=key == "miou", rank_zero_only=True)

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

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode and self.batch_norm == "frozen":
            for network in self.networks:
                freeze_batch_norm(network)
        if self.ema is not None:
            self.ema.eval()
        return self

    def on_train_epoch_start(self) -> None:
        self.figures = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes what is drawn in a step (dropout, noise) depend on the seed, the batch's number and the rank alone.

        Lightning's public `global_step` counts optimizer steps; of batches only its loop keeps a count over epochs, which
        its checkpoints restore. tests/training/test_resume.py compares a resumed run's bits.
        """
        seed = derive(self.seed, "step", self.trainer.fit_loop.epoch_loop.total_batch_idx, self.global_rank)
        # not by `torch.manual_seed`, which writes down the stack for each kind of device that is not in use
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)
        for network in self.networks:
            if isinstance(network, FollowsTraining):
                network.at_share(self.global_step / self._steps)

    @property
    def networks(self) -> list[nn.Module]:
        """The network, and what else of its build learns with it."""
        return [self.network]

    def update(self, loss: Tensor, batch_idx: int) -> None:
        """Takes the loss's gradients, and steps every optimizer where the accumulated batches are complete.

        One backward pass serves all optimizers: plain DDP can do no more, since it sums gradients once after each forward
        pass.

        Args:
            loss: scalar.
            batch_idx: the batch's number in its epoch.
        """
        assert self.optimization is not None
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx
        self.divergence.watch(loss, number)
        accumulate = self.optimization.accumulate
        self.manual_backward(loss if accumulate == 1 else loss / accumulate)
        if self.optimization.is_step(batch_idx, self.trainer.num_training_batches):
            self._gradient_norms = []
            for part, _, _ in self.optimized_parts():
                self.figures.pop(f"{part}gradient_norm", None)
            step_all(self)
            if isinstance(self.trainer.strategy, ZeroStrategy) and self._shows_norm(number):
                self._gradient_norms.append(self.trainer.strategy.gradient_norm())
            if self.ema is not None:
                self.ema.follow(self.network)
        for (part, _, _), norm in zip(self.optimized_parts(), self._gradient_norms, strict=False):
            self.figures[f"{part}gradient_norm"] = norm  # between steps, that of the last one
        self._tell(number, batch_idx)

    def _tell(self, number: int, batch_idx: int) -> None:
        """Hands the batch's figures to Lightning where its loggers write them, and at an epoch's end for what looks there.

        Between those it would copy them, and everything that it hands on waits for the device.
        """
        logged = (number + 1) % self._logged_every == 0 or self.trainer.should_stop
        if logged or batch_idx + 1 == self.trainer.num_training_batches:
            self.divergence.check()
            self.told = dict(self.figures)
            self.log_dict({f"train/{name}": value for name, value in self.figures.items()}, batch_size=1)

    def _shows_norm(self, number: int) -> bool:
        """Whether the gradients' norm of this batch's step is shown: at one of the batches until the next step."""
        assert self.optimization is not None
        return (number + self.optimization.accumulate) // self._logged_every > number // self._logged_every

    @property
    def _logged_every(self) -> int:
        return int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Called with unscaled gradients whatever the precision: the place to clip. DeepSpeed clips by itself."""
        assert self.optimization is not None
        clip = self.optimization.clip
        if clip is not None or self._shows_norm(self.trainer.fit_loop.epoch_loop.total_batch_idx):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._gradient_norms.append(clip_gradients(parameters, clip))

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
        parts: list[tuple[str, nn.Module, float]] = [("", self.network, 1.0)]
        if self.discriminator is not None:
            parts.append(("discriminator_", self.discriminator, self.discriminator_lr_factor))
        return parts

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
        """Fills the model from another one's state. What only trains, a discriminator or a partner, may be in one of the two
        alone, so that a GAN segmenter can start from a CNN segmenter and either can predict from a GAN's checkpoint.

        Raises:
            RuntimeError: anything else is missing, surplus or of another shape.
        """
        own = self.state_dict()
        kept = {key: value for key, value in state.items() if key in own or not key.startswith(_ONLY_TRAINING)}
        missing = {key: value for key, value in own.items() if key not in kept and key.startswith(_ONLY_TRAINING)}
        self.load_state_dict(missing | kept)


def digest(module: nn.Module) -> str:
    """The SHA-256 of a module's weights, in hexadecimal digits."""
    hashed = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        hashed.update(key.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
