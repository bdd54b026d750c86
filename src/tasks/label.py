"""Which classes an image shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.losses.base import ratio


class Label:
    """Image classification, several labels an image: the mean over pixels of an output a class, binary cross entropy.

    Args:
        classes: K. The mask says which of them an image shows.
    """

    def __init__(self, classes: int) -> None:
        self.channels = classes

    def target(self, batch: Batch) -> Tensor:
        """Bool [B, K] of the batch's mask."""
        mask = batch["mask"].flatten(1).long()
        shown = torch.zeros(len(mask), 256, dtype=torch.bool, device=mask.device)
        return shown.scatter_(1, mask, True)[:, : self.channels]

    def predicted(self, output: Tensor) -> Tensor:
        """Probabilities float32 [B, K] of outputs [B, K, H, W]."""
        return output.float().mean(dim=(2, 3)).sigmoid()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        cost = F.binary_cross_entropy_with_logits(output.float().mean(dim=(2, 3)), target.float(), reduction="sum")
        return ratio(sum_over_devices(cost), sum_over_devices(torch.ones_like(target, dtype=torch.float32).sum()))

    def metric(self) -> Metric:
        return LabelAccuracy()

    def update(self, metric: Metric, output: Tensor, target: Tensor) -> None:
        metric.update(self.predicted(output) > 0.5, target)


class LabelAccuracy(Metric):
    """`accuracy`: share of right answers, over images and classes."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.counts: Tensor

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Bool [B, K]."""
        self.counts += torch.stack([(predicted == target).sum(), torch.tensor(target.numel(), device=target.device)])

    def compute(self) -> dict[str, Tensor]:
        return {"accuracy": self.counts[0] / self.counts[1]}
