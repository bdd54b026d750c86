"""Distance from the camera, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.losses.base import ratio


class Depth:
    """Regression with an L1 loss (Kendall et al. 2018); a softplus keeps distances positive.

    The target is the batch's `depth`, float [B, H, W] in the data set's unit; pixels without one (NaN, infinite, or not
    above 0) do not count.
    """

    channels = 1

    def target(self, batch: Batch) -> Tensor:
        """The batch's own."""
        return batch["depth"]

    def predicted(self, output: Tensor) -> Tensor:
        """Distances float32 [B, H, W] of outputs [B, 1, H, W]."""
        return F.softplus(output[:, 0].float())

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        valid = is_depth(target)
        error = (self.predicted(output) - target.where(valid, 0.0)).abs() * valid
        return ratio(sum_over_devices(error.sum()), sum_over_devices(valid.sum()))

    def metric(self) -> Metric:
        return DepthErrors()

    def update(self, metric: Metric, output: Tensor, target: Tensor) -> None:
        metric.update(self.predicted(output), target)


class DepthErrors(Metric):
    """Over all pixels with a depth (Eigen et al. 2014): `abs_rel`, mean |p - d| / d; `rmse`; `delta1`, share of
    max(p / d, d / p) < 1.25."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")
        self.sums: Tensor

    def update(self, predicted: Tensor, target: Tensor) -> None:
        """
        Args:
            predicted: float [B, H, W], above 0.
            target: float [B, H, W]; what is no depth is left out.
        """
        valid = is_depth(target)
        p, d = predicted[valid].double(), target[valid].double()
        close = torch.maximum(p / d, d / p) < 1.25
        self.sums += torch.stack([((p - d).abs() / d).sum(), ((p - d) ** 2).sum(), close.sum(), valid.sum()])

    def compute(self) -> dict[str, Tensor]:
        relative, squared, close, count = self.sums
        return {"abs_rel": relative / count, "rmse": (squared / count).sqrt(), "delta1": close / count}


def is_depth(target: Tensor) -> Tensor:
    return target.isfinite() & (target > 0)
