"""Learning from images without labels: a network's own confident predictions as their labels."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torch.nn import functional as F

from src.config.shares import Share
from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.losses.base import ratio

_CUT = (0.02, 0.4)  # CutMix: share of the image that is pasted in, as UniMatch draws it


class SemiSupervision:
    """How the images that `data.labeled_fraction` leaves unlabelled are used; not at all by default.

    Args:
        method: "fixmatch" (weak-to-strong consistency: Sohn et al. 2020, as in UniMatch, Yang et al. 2023): predictions
            on a weakly changed image label its strongly changed twin. "adversarial" (Hung et al. 2018, model=gan):
            predictions are labels where the discriminator takes them for real.
        weight: of the loss on unlabelled images.
        threshold: fixmatch: least probability of a predicted class for it to be a label.
        soft: fixmatch: the label is the predicted distribution itself, not its largest class: with threshold=0 and
            `model.ema_decay` a mean teacher (Tarvainen and Valpola 2017), with CutMix that of French et al. 2020. Rare
            classes, which are seldom the largest, keep their share.
        discriminator_threshold: least confidence of the discriminator for that; null asks none ("adversarial" needs
            one; 0.2 in the paper).
        adversarial_weight: of the adversarial loss on unlabelled images (model=gan; 0.001 in the paper).
        cutmix: fixmatch: probability that a strong image gets a box of another one, with its label (Yun et al. 2019).
        start: optimizer steps before the unlabelled images count.
        ramp: steps over which their weight then grows to its full value.
    """

    def __init__(
        self,
        method: Literal["fixmatch", "adversarial"] | None = None,
        weight: NonNegativeFloat = 1.0,
        threshold: Share = 0.95,
        discriminator_threshold: Share | None = None,
        adversarial_weight: NonNegativeFloat = 0.0,
        cutmix: Share = 0.5,
        soft: bool = False,
        start: NonNegativeInt = 0,
        ramp: NonNegativeInt = 0,
    ) -> None:
        self.method, self.weight, self.threshold = method, weight, threshold
        self.discriminator_threshold, self.adversarial_weight = discriminator_threshold, adversarial_weight
        self.cutmix, self.soft, self.start, self.ramp = cutmix, soft, start, ramp

    def weight_at(self, step: int) -> float:
        """The unlabelled images' weight after so many optimizer steps."""
        return self.weight * ramped(step, self.start, self.ramp)


def ramped(step: int, start: int, ramp: int) -> float:
    """0 before `start`, then linearly to 1 within `ramp` steps."""
    if step < start:
        return 0.0
    return min(1.0, (step - start + 1) / (ramp + 1))


def cutmix(strong: Tensor, label: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Pastes into some images a box of the next one in the batch, labels along with it; draws from torch's generator.

    Args:
        strong: images [B, C, H, W].
        label: classes int64 [B, H, W] or probabilities float [B, K, H, W].
    """
    count, (height, width) = len(strong), strong.shape[-2:]
    share, stretch, top, left, chance = torch.rand(5, count)
    share = _CUT[0] + (_CUT[1] - _CUT[0]) * share
    stretch = 0.3 ** (2 * stretch - 1)  # height over width, 0.3 to 1 / 0.3
    box_height = (share * stretch).sqrt().clamp(max=1) * height
    box_width = (share / stretch).sqrt().clamp(max=1) * width
    y0, x0 = top * (height - box_height), left * (width - box_width)
    rows, columns = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    inside = (rows >= y0.view(-1, 1, 1)) & (rows < (y0 + box_height).view(-1, 1, 1))
    inside = inside & (columns >= x0.view(-1, 1, 1)) & (columns < (x0 + box_width).view(-1, 1, 1))
    inside = (inside & (chance < probability).view(-1, 1, 1)).to(strong.device)
    of_label = inside if label.ndim == 3 else inside.unsqueeze(1)
    return torch.where(inside.unsqueeze(1), strong.roll(1, 0), strong), torch.where(of_label, label.roll(1, 0), label)


def unlabeled_loss(logits: Tensor, label: Tensor, valid: Tensor, ignore_index: int) -> Tensor:
    """Cross entropy of `logits` [B, K, H, W] to labels int64 [B, H, W], or distributions float [B, K, H, W] that are 0
    throughout where there is none, over all valid pixels (so that few confident pixels weigh little, as in FixMatch)."""
    if label.is_floating_point():
        loss = F.cross_entropy(logits.float(), label, reduction="none")
    else:
        loss = F.cross_entropy(logits.float(), label, ignore_index=ignore_index, reduction="none")
    return ratio(sum_over_devices(loss.sum()), sum_over_devices(valid.sum()))


def unlabeled(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Weak and strong images [U, C, H, W] of a batch's unlabelled part, and the mask [U, H, W] of what is image there
    (padding has the label set's ignore index)."""
    return batch["unlabeled_image"], batch["unlabeled_strong"], batch["unlabeled_mask"]
