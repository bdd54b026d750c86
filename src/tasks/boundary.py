"""Where one thing ends and another begins."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.losses.base import outlines, ratio


class Boundary:
    """Binary classification of pixels at outlines, which the mask shows: binary cross entropy, in which boundary and
    other pixels weigh the same in total (as in HED, Xie and Tu 2015).

    Args:
        width: pixels to each side of an outline that belong to it. Outlines of ignored parts count too, since void bands
            lie on outlines.
    """

    channels = 1

    def __init__(self, width: int = 1) -> None:
        self.width = width

    def target(self, batch: Batch) -> Tensor:
        """Bool [B, H, W] of the batch's mask."""
        return outlines(batch["mask"], self.width)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        cost = F.binary_cross_entropy_with_logits(output[:, 0].float(), target.float(), reduction="none")
        halves = [
            ratio(sum_over_devices((cost * part).sum()), sum_over_devices(part.sum())) for part in (target, ~target)
        ]
        return (halves[0] + halves[1]) / 2

    def predicted(self, output: Tensor) -> Tensor:
        """Probabilities float32 [B, H, W] of outputs [B, 1, H, W]."""
        return output[:, 0].float().sigmoid()

    def metric(self) -> Metric:
        return BinaryScores()

    def update(self, metric: Metric, output: Tensor, target: Tensor) -> None:
        metric.update(output[:, 0] > 0, target)


class BinaryScores(Metric):
    """`f1` and `iou` of the true pixels, over all images."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")
        self.counts: Tensor

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """Bool, of the same shape."""
        self.counts += torch.stack(
            [(predicted & target).sum(), (predicted & ~target).sum(), (~predicted & target).sum()]
        )

    def compute(self) -> dict[str, Tensor]:
        hit, wrong, missed = self.counts.double()
        return {"f1": 2 * hit / (2 * hit + wrong + missed), "iou": hit / (hit + wrong + missed)}
