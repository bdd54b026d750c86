"""Learning from another network's predictions beside the labels."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from src.inference.sizes import sized


class Distillation:
    """How a teacher's logits teach a student's; all pixels do, ignored ones too.

    Args:
        kl_weight: of the Kullback-Leibler divergence from the teacher's softened probabilities, at every pixel (Hinton et al.
            2015).
        kl_temperature: that both logits are divided by first.
        channel_weight: of the divergence of each class's map, made a distribution over the image's pixels (Shu et al. 2021,
            channel-wise distillation; 3 in the paper for logits).
        channel_temperature: likewise; 4 in the paper.
    """

    def __init__(
        self,
        kl_weight: NonNegativeFloat = 0.0,
        kl_temperature: PositiveFloat = 2.0,
        channel_weight: NonNegativeFloat = 3.0,
        channel_temperature: PositiveFloat = 4.0,
    ) -> None:
        self.kl_weight, self.kl_temperature = kl_weight, kl_temperature
        self.channel_weight, self.channel_temperature = channel_weight, channel_temperature

    def losses(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """The losses that have a weight, unweighted scalars by name, of logits [B, K, H, W]."""
        if teacher.shape[-2:] != student.shape[-2:]:
            teacher = sized(teacher, student.shape[-2:])
        found = {}
        if self.kl_weight:
            found["kl"] = pixelwise(student, teacher, self.kl_temperature)
        if self.channel_weight:
            found["channel"] = channelwise(student, teacher, self.channel_temperature)
        return found

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        weights = {"kl": self.kl_weight, "channel": self.channel_weight}
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def pixelwise(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher || student) over classes, mean over pixels: a float32 scalar of logits [B, K, H, W]. By T² its gradients
    do not shrink with the temperature."""
    return temperature**2 * _divergence(student, teacher, temperature, dim=1).mean()


def channelwise(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher || student) over the pixels of each class's map, mean over classes and images: a float32 scalar of logits
    [B, K, H, W]."""
    return temperature**2 * _divergence(student.flatten(2), teacher.flatten(2), temperature, dim=2).mean()


def _divergence(student: Tensor, teacher: Tensor, temperature: float, dim: int) -> Tensor:
    ours = F.log_softmax(student.float() / temperature, dim=dim)
    theirs = F.log_softmax(teacher.float() / temperature, dim=dim)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=dim)
