"""Learning from images without labels: a network's own confident predictions as their labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.config.shares import Share
from src.data.labels import LabelSet
from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.losses.base import ratio
from src.losses.dice import dice
from src.models.alignment import Alignment

_CUT = (0.02, 0.4)  # CutMix: share of the image that is pasted in, as UniMatch draws it


class Consistency(NamedTuple):
    """What a method makes of a batch.

    Attributes:
        outputs: the model's, for the labelled images.
        loss: of the unlabelled ones, a scalar, unweighted.
        figures: scalars to log, by name.
        partner: the second network's loss for the labelled images, a scalar; None where there is no second network.
    """

    outputs: dict[str, Tensor]
    loss: Tensor
    figures: dict[str, Tensor]
    partner: Tensor | None = None


class Predictor(Protocol):
    """What the methods ask of a model: see `Segmenter`."""

    semi: SemiSupervision
    label_set: LabelSet
    alignment: Alignment | None

    @property
    def network(self) -> nn.Module: ...
    @property
    def partner(self) -> nn.Module | None: ...
    def outputs(self, image: Tensor) -> dict[str, Tensor]: ...
    def outputs_of(self, network: nn.Module, image: Tensor) -> dict[str, Tensor]: ...
    def segmentation_loss(self, outputs: dict[str, Tensor], mask: Tensor) -> Tensor: ...
    def probabilities(self, image: Tensor) -> Tensor: ...
    def trusts(self, weak: Tensor, probability: Tensor, mask: Tensor) -> Tensor: ...
    def eval(self) -> object: ...
    def train(self) -> object: ...


@contextmanager
def evaluating(model: Predictor) -> Iterator[None]:
    """While it lasts, the model predicts as in evaluation, by the averaged weights if there are any, and learns nothing."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()


class SemiSupervision:
    """How the images that `data.labeled_fraction` leaves unlabelled are used; not at all by default.

    Args:
        method: "fixmatch" (weak-to-strong consistency: Sohn et al. 2020, as in UniMatch, Yang et al. 2023): predictions
            on a weakly changed image label its strongly changed twin. "mean_teacher" (Tarvainen and Valpola 2017): the
            averaged weights' probabilities are asked of the strongly changed twin. "unimatch_v2" (Yang et al. 2025): the
            averaged weights label two strongly changed twins, whose features lose complementary channels. "unimatch" (Yang
            et al. 2023): the network labels two strongly changed twins, and the image itself without half of its features.
            "cps" (Chen et al. 2021): two networks label for one another. "adversarial" (Hung et al. 2018, model=gan):
            predictions are labels where the discriminator takes them for real. "s4gan" (Mittal et al. 2019, model=gan): they
            are for whole images that it takes for real, and the discriminator's features of truth and predictions match.
        weight: of the loss on unlabelled images.
        threshold: fixmatch, unimatch, unimatch_v2: least probability of a predicted class for it to be a label.
        soft: fixmatch, unimatch, unimatch_v2: the label is the predicted distribution itself, not its largest class. Rare
            classes, which are seldom the largest, keep their share.
        align: fixmatch, unimatch, unimatch_v2: predictions are first multiplied by how often labels show a class over how often
            it is predicted (`Alignment`), so that no class takes over.
        dice_weight: fixmatch, unimatch, unimatch_v2: of soft Dice between prediction and labels beside their cross entropy;
            rare classes count as much as common ones in it.
        apart: fixmatch, mean_teacher: labelled and strong images pass the network one after the other, so that batch norm takes
            the statistics of each by themselves (the other methods' authors pass them so or not; they are followed).
        discriminator_threshold: least confidence of the discriminator for that; null asks none ("adversarial" and "s4gan"
            need one; 0.2 and 0.6 in their papers).
        adversarial_weight: of the adversarial loss on unlabelled images (model=gan; 0.001 in the paper).
        cutmix: all but "adversarial" and "s4gan": probability that a strong image gets a box of another one, with its label
            (Yun et al. 2019; with a mean teacher: French et al. 2020). "cps": that an image gets three of French's boxes; with
            0 the networks teach one another on labelled images too.
        start: optimizer steps before the unlabelled images count.
        ramp: steps over which their weight then grows to its full value.
    """

    def __init__(
        self,
        method: Literal["fixmatch", "mean_teacher", "unimatch", "unimatch_v2", "cps", "adversarial", "s4gan"]
        | None = None,
        weight: NonNegativeFloat = 1.0,
        threshold: Share = 0.95,
        discriminator_threshold: Share | None = None,
        adversarial_weight: NonNegativeFloat = 0.0,
        cutmix: Share = 0.5,
        soft: bool = False,
        align: bool = False,
        dice_weight: NonNegativeFloat = 0.0,
        apart: bool = False,
        start: NonNegativeInt = 0,
        ramp: NonNegativeInt = 0,
    ) -> None:
        self.method, self.weight, self.threshold = method, weight, threshold
        self.discriminator_threshold, self.adversarial_weight = discriminator_threshold, adversarial_weight
        self.cutmix, self.soft, self.start, self.ramp = cutmix, soft, start, ramp
        self.align, self.dice_weight, self.apart = align, dice_weight, apart

    def weight_at(self, step: int) -> float:
        """The unlabelled images' weight after so many optimizer steps."""
        return self.weight * ramped(step, self.start, self.ramp)


def ramped(step: int, start: int, ramp: int) -> float:
    """0 before `start`, then linearly to 1 within `ramp` steps."""
    if step < start:
        return 0.0
    return min(1.0, (step - start + 1) / (ramp + 1))


def cutmix(probability: float, strong: Tensor, *labels: Tensor) -> tuple[Tensor, ...]:
    """Pastes into some images a box of the next one in the batch, all that is known of it along with it; draws from torch's
    generator.

    Args:
        probability: of an image to get a box.
        strong: images [B, C, H, W].
        labels: maps [B, H, W] or [B, K, H, W] of these images: classes, probabilities, what is image.
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
    return paste(inside & (chance < probability).view(-1, 1, 1), strong, *labels)


def paste(inside: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
    """Each of `maps`, [B, H, W] or [B, C, H, W], with what the next one in the batch has where `inside`, bool [B, H, W], is."""
    inside = inside.to(maps[0].device, non_blocking=True)  # drawn on the host, which need not wait
    return tuple(torch.where(inside if one.ndim == 3 else inside.unsqueeze(1), one.roll(1, 0), one) for one in maps)


def unlabeled_loss(logits: Tensor, label: Tensor, valid: Tensor, ignore_index: int) -> Tensor:
    """Cross entropy of `logits` [B, K, H, W] to labels int64 [B, H, W], or distributions float [B, K, H, W] that are 0
    throughout where there is none, over all valid pixels (so that few confident pixels weigh little, as in FixMatch)."""
    if label.is_floating_point():
        loss = F.cross_entropy(logits.float(), label, reduction="none")
    else:
        loss = F.cross_entropy(logits.float(), label, ignore_index=ignore_index, reduction="none")
    return ratio(sum_over_devices(loss.sum()), sum_over_devices(valid.sum()))


def pseudo_label_loss(model: Predictor, logits: Tensor, label: Tensor, image: Tensor) -> Tensor:
    """`unlabeled_loss` and, with `semi.dice_weight`, soft Dice over the pixels that have a label.

    Args:
        logits: [U, K, H, W].
        label: as `unlabeled_loss` takes it; classes where there is a weight of Dice.
        image: bool [U, H, W], what is image.
    """
    ignored = model.label_set.ignore_index
    loss = unlabeled_loss(logits, label, image, ignored)
    if model.semi.dice_weight:
        overlap = dice(logits.float(), label, ignored, None, over_devices=sum_over_devices)
        loss = loss + model.semi.dice_weight * overlap
    return loss


def label_figures(label: Tensor, trusted: Tensor, truth: Tensor | None, ignore_index: int) -> dict[str, Tensor]:
    """Figures of pseudo labels, scalars by name.

    "pseudo_labels" is the share of pixels that are trusted. Where the truth is known, "pseudo_label_accuracy" is the share of
    these that are right (0 where none is trusted), and "pseudo_label_recall" the share of a class's pixels that get their
    label, averaged over the classes that there are: it tells whether what is right is more than the background.

    Args:
        label: classes int64 [U, H, W] or probabilities float [U, K, H, W].
        trusted: bool [U, H, W].
        truth: classes uint8 [U, H, W].
    """
    figures = {"pseudo_labels": trusted.float().mean()}
    if truth is not None:
        classes = label.argmax(dim=1) if label.is_floating_point() else label
        known, right = truth != ignore_index, (classes == truth) & trusted
        figures["pseudo_label_accuracy"] = (right & known).sum() / (trusted & known).sum().clamp_min(1)
        figures["pseudo_label_recall"] = (
            (_by_class(truth, right & known) / _by_class(truth, known)).nanmean().nan_to_num()
        )
    return figures


def _by_class(truth: Tensor, chosen: Tensor) -> Tensor:
    """How many of the chosen pixels each class has: int64 [256]. torch's `bincount` would wait for the device."""
    cell = truth.long().masked_fill(~chosen, 256).flatten()
    counts = torch.zeros(257, dtype=torch.int64, device=truth.device)
    return counts.scatter_add_(0, cell, torch.ones_like(cell))[:256]


def labelled_and_strong(model: Predictor, labelled: Tensor, strong: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs for labelled images [B, C, H, W], and logits [U, K, H, W] for unlabelled ones; where sizes allow it in one
    pass, so that batch norm sees both, unless `semi.apart`."""
    if model.semi.apart or strong.shape[1:] != labelled.shape[1:]:
        return model.outputs(labelled), model.outputs(strong)["logits"]
    together, count = model.outputs(torch.cat([labelled, strong])), len(labelled)
    return {name: values[:count] for name, values in together.items()}, together["logits"][count:]


def unlabeled(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Weak and strong images [U, C, H, W] of a batch's unlabelled part, and the mask [U, H, W] of what is image there
    (padding has the label set's ignore index)."""
    return batch["unlabeled_image"], batch["unlabeled_strong"], batch["unlabeled_mask"]
