"""How weights are updated, the same for every segmenter: groups, schedule, accumulation, clipping, batch norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from src.config.parts import LayerCount
from src.distributed.fsdp import whole
from src.distributed.library_internals import is_batch_norm
from src.optimization.parameter_groups import parameter_groups


@dataclass(frozen=True)
class Optimization:
    """The settings of `optimizer`, `scheduler` and the trainer's keys that act on an optimizer's step.

    Args:
        optimizer: makes the optimizer: `optimizer(groups)`.
        scheduler: makes the schedule: `scheduler(optimizer=…, total_steps=…)`; stepped once per optimizer step.
        lr, weight_decay: of the groups.
        encoder_lr_factor: multiplies `lr` for the encoder.
        decay_norm_and_bias: whether norms and biases decay too.
        layer_decay: multiplies the rate of each of the encoder's layers, once for every layer above it; None leaves them alike.
        layer_decay_counts, aux_lr_factor, no_decay: see `parameter_groups`.
        accumulate: batches whose gradients make one step.
        clip: largest gradient norm; None clips nothing.
    """

    optimizer: Callable[[list[dict[str, Any]]], Optimizer]
    scheduler: Callable[..., LRScheduler]
    lr: float
    weight_decay: float = 0.0
    encoder_lr_factor: float = 1.0
    decay_norm_and_bias: bool = True
    layer_decay: float | None = None
    layer_decay_counts: LayerCount = "all"
    aux_lr_factor: float = 1.0
    no_decay: Sequence[str] | None = None
    accumulate: int = 1
    clip: float | None = None

    def build(self, network: nn.Module, lr_factor: float, total_steps: int) -> tuple[Optimizer, LRScheduler]:
        """Optimizer and schedule of one network, whose learning rate is `lr` times `lr_factor`."""
        groups = parameter_groups(
            network,
            self.lr * lr_factor,
            self.weight_decay,
            self.encoder_lr_factor,
            self.decay_norm_and_bias,
            self.layer_decay,
            self.layer_decay_counts,
            self.aux_lr_factor,
            self.no_decay,
        )
        optimizer = self.optimizer(groups)
        return optimizer, self.scheduler(optimizer=optimizer, total_steps=total_steps)

    def steps(self, trainer: L.Trainer, batches_per_epoch: int) -> int:
        """Optimizer steps of the whole run."""
        batches = self.batches(trainer, batches_per_epoch)
        epochs = trainer.max_epochs
        steps = math.inf if epochs is None or epochs < 0 else epochs * math.ceil(batches / self.accumulate)
        if trainer.max_steps > 0:
            steps = min(steps, trainer.max_steps)
        return max(1, int(steps))

    @staticmethod
    def batches(trainer: L.Trainer, batches_per_epoch: int) -> int:
        """Of an epoch, those that are trained with."""
        limit = trainer.limit_train_batches
        return min(batches_per_epoch, limit) if isinstance(limit, int) else int(batches_per_epoch * limit)

    def is_step(self, batch_idx: int, batches: int | float) -> bool:
        """Whether the optimizer steps after this batch: after every `accumulate` batches, and at the epoch's end."""
        return (batch_idx + 1) % self.accumulate == 0 or batch_idx + 1 == batches


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float | None) -> Tensor:
    """Scales gradients to a norm of at most `largest`, if there is one, and returns the norm (float scalar) they had before."""
    if largest is not None:
        norm: Tensor = whole(nn.utils.clip_grad_norm_(parameters, largest))
    else:
        norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    return norm


def freeze_batch_norm(network: nn.Module) -> None:
    """Puts every batch norm into evaluation mode: its statistics stay as they are.

    torch's batch norms of one, two and three dimensions and the synchronised one have no public class in common.
    """
    for module in network.modules():
        if is_batch_norm(module):
            module.eval()


def counts_on_each_rank(model: nn.Module, batch_norm: str) -> bool:
    """Whether a model's batch norms take their statistics from the samples of one rank only, where ranks do not synchronise.

    Args:
        batch_norm: "frozen" takes none.
    """
    norms = [m for m in model.modules() if is_batch_norm(m)]
    return batch_norm != "frozen" and any(not isinstance(m, nn.SyncBatchNorm) for m in norms)
