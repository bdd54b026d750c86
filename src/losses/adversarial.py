"""Adversarial losses: what a discriminator's scores cost it, and what they cost the generator.

Scores are float [B, 1, h, w], higher for what is taken to be real; weights are float [B, 1, h, w], the share of each
score's pixels that are not ignored. Every loss is a float32 scalar, the weighted mean over scores (0 where nothing has
weight), and no discriminator's loss is below 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from src.distributed.sums import of_this_device
from src.losses.base import ratio

Sum = Callable[[Tensor], Tensor]
Kind = Literal["bce", "lsgan", "hinge"]
_ELEMENT: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    # of a real one's score, of a generated one's, and of the generator for its own
    "bce": (lambda s: F.softplus(-s), F.softplus, lambda s: F.softplus(-s)),
    "lsgan": (lambda s: (s - 1).square(), lambda s: s.square(), lambda s: 0.5 * (s - 1).square()),
    "hinge": (lambda s: F.relu(1 - s), lambda s: F.relu(1 + s), lambda s: -s),
}


def discriminator_loss(
    kind: Kind, real: Tensor, fake: Tensor, weight: Tensor, over_devices: Sum = of_this_device
) -> Tensor:
    """Half the cost of the truth's scores and half that of the generated maps'.

    "bce" is binary cross entropy (Goodfellow et al. 2014; 0.69 where it cannot tell), "lsgan" least squares (Mao et
    al. 2017; 0.25), "hinge" Lim and Ye 2017 (1).
    """
    of_real, of_fake, _ = _ELEMENT[kind]
    costs = 0.5 * (of_real(real.float()) + of_fake(fake.float()))
    return weighted_mean(costs, weight, over_devices)


def unpaired_discriminator_loss(kind: Kind, real: Tensor, fake: Tensor, over_devices: Sum = of_this_device) -> Tensor:
    """As `discriminator_loss`, for scores of other images, of which there may be more or fewer: half of each one's mean."""
    of_real, of_fake, _ = _ELEMENT[kind]
    costs = (of_real(real.float()), of_fake(fake.float()))
    halves = [0.5 * weighted_mean(cost, torch.ones_like(cost), over_devices) for cost in costs]
    return halves[0] + halves[1]


def generator_loss(kind: Kind, fake: Tensor, weight: Tensor, over_devices: Sum = of_this_device) -> Tensor:
    """What the generator pays for scores of its maps; for "bce" the non-saturating form."""
    return weighted_mean(_ELEMENT[kind][2](fake.float()), weight, over_devices)


def map_distance(
    probability: Tensor,
    mask: Tensor,
    ignore_index: int,
    power: Literal[1, 2],
    over_devices: Sum = of_this_device,
) -> Tensor:
    """L1 (power 1) or squared L2 (power 2) distance of a soft map to the one-hot truth, mean over valid pixels.

    Args:
        probability: float [B, K, H, W].
        mask: integer [B, H, W].
    """
    valid = mask != ignore_index
    difference = (probability - one_hot(mask, probability.shape[1])).abs()
    distance = (difference if power == 1 else difference.square()).sum(dim=1)
    return weighted_mean(distance, valid, over_devices)


def feature_distance(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """Multi-scale L1 (SegAN, Xue et al. 2018): mean absolute difference of the discriminator's features, averaged over
    its layers; both lists of float [B, c, h, w]."""
    distances = [(a - b).abs().float().mean() for a, b in zip(real, fake, strict=True)]
    total = distances[0]
    for distance in distances[1:]:
        total = total + distance
    return total / len(distances)


def r1_penalty(scores: Tensor, real: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018): mean over images of the squared gradient of their scores' sum at the real map, float
    [B, K, H, W], from which the scores were computed."""
    (gradient,) = torch.autograd.grad(scores.float().sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def one_hot(mask: Tensor, classes: int) -> Tensor:
    """Float [B, K, H, W] of an integer mask [B, H, W]; 0 everywhere for values that are no class."""
    # in the layout that torch's `one_hot` gives, which looks for the largest value first and so waits for it
    return (mask.unsqueeze(-1) == torch.arange(classes, device=mask.device)).permute(0, 3, 1, 2).float()


def weighted_mean(values: Tensor, weight: Tensor, over_devices: Sum = of_this_device) -> Tensor:
    """Mean of `values` with `weight` of the same shape, over all devices with `sum_over_devices`; 0 where nothing has
    weight."""
    weight = weight.to(values.dtype)
    return ratio(over_devices((values * weight).sum()), over_devices(weight.sum()))
