"""Distribution alignment: pseudo labels are to show each class as often as labels do (Berthelot et al. 2020, ReMixMatch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.distributed.sums import sum_over_devices

_DECAY = 0.99  # of the running averages, a step


class Alignment(nn.Module):
    """Running averages of how often labels show a class and how often it is predicted, and what follows for predictions.

    Attributes:
        labelled, predicted: float32 [K], each sums to 1; over the global batches.
    """

    labelled: Tensor
    predicted: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("labelled", "predicted"):
            self.register_buffer(name, torch.full((num_classes,), 1 / num_classes))

    @torch.no_grad()
    def see(self, mask: Tensor) -> None:
        """Takes in the classes uint8 or int64 [B, H, W] of labelled images; what is no class does not count."""
        classes = len(self.labelled)
        counts = torch.stack([(mask == k).sum() for k in range(classes)]).float()
        _follow(self.labelled, sum_over_devices(counts))

    @torch.no_grad()
    def align(self, probability: Tensor, valid: Tensor) -> Tensor:
        """Takes in predictions, and gives them back with each class's probability times how often it is labelled over how
        often it is predicted, of sum 1 again.

        Args:
            probability: float [U, K, H, W].
            valid: bool [U, H, W], what is image.
        """
        counts = (probability.float() * valid.unsqueeze(1)).sum((0, 2, 3))
        _follow(self.predicted, sum_over_devices(counts))
        share = self.labelled / self.predicted.clamp_min(1e-6)
        aligned = probability * share.to(probability).view(1, -1, 1, 1)
        return aligned / aligned.sum(dim=1, keepdim=True).clamp_min(torch.finfo(aligned.dtype).tiny)


def _follow(average: Tensor, counts: Tensor) -> None:
    total = counts.sum()
    now = torch.where(total > 0, counts / total.clamp_min(1e-12), average)
    average.lerp_(now, 1 - _DECAY)
