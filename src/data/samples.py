"""Defines what travels from a data set to the model: the pixels of a sample, a sample, a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from src.errors import UserError

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Pixels:
    """The maps of one sample that are changed together.

    Attributes:
        image: [C, H, W] in its own dtype.
        mask: uint8 [H, W].
        depth: float32 [H, W] in the data set's unit, NaN where unknown; None where the sample has none.
    """

    image: Tensor
    mask: Tensor
    depth: Tensor | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> Pixels:
        """All maps, moved in the same way; `move` takes [..., H, W] and copies pixels only."""
        return Pixels(move(self.image), move(self.mask), None if self.depth is None else move(self.depth))


class Sample(TypedDict):
    """One sample: image [C, H, W], mask [H, W], its name.

    `depth` is float32 [H, W], with `use_depth`; `whole` names what the sample is cut out of; `uncounted` marks one that is
    evaluated and not scored; `strong`, [C, H, W], is the strongly changed image of an unlabelled sample (`strong2` a second
    one, where the method takes two), whose mask says only where it is padded; its `truth`, [H, W], is for figures alone,
    nothing learns from it. `synthetic` is the seed of an image to be drawn in the place of this one, or -1.
    """

    image: Tensor
    mask: Tensor
    id: str
    depth: NotRequired[Tensor]
    whole: NotRequired[str]
    uncounted: NotRequired[bool]
    strong: NotRequired[Tensor]
    strong2: NotRequired[Tensor]
    truth: NotRequired[Tensor]
    synthetic: NotRequired[int]


class Batch(TypedDict):
    """A batch: image uint8 [B, C, H, W] (in its own dtype, where that is another), mask uint8 [B, H, W], the samples' names.

    `depth` is float32 [B, H, W]; `whole` has a name for each sample; `uncounted` is there where no sample counts. Of
    unlabelled samples, where there are any, the images are [U, C, H, W] and the mask is [U, H, W]; their truth, uint8
    [U, H, W], where all of them have one, is for figures alone.

    `sizes`, int64 [B, 4], has height and width of each image and of its mask: where samples were padded to the size of the
    largest, and where a mask has not its image's size. `synthetic`, int64 [B], has seeds of images to be drawn, or -1.
    """

    image: Tensor
    mask: Tensor
    id: list[str]
    depth: NotRequired[Tensor]
    sizes: NotRequired[Tensor]
    whole: NotRequired[list[str]]
    uncounted: NotRequired[bool]
    synthetic: NotRequired[Tensor]
    unlabeled_image: NotRequired[Tensor]
    unlabeled_strong: NotRequired[Tensor]
    unlabeled_strong2: NotRequired[Tensor]
    unlabeled_mask: NotRequired[Tensor]
    unlabeled_truth: NotRequired[Tensor]


def collate(samples: list[Sample], ignore_index: int) -> Batch:
    """A batch of samples, labelled and unlabelled.

    Images of different size are padded at the right and below to the largest, and so are masks; losses ignore the padding.
    Evaluation takes it off again, by `sizes`.

    Raises:
        UserError: images have different numbers of channels.
    """
    labelled = [sample for sample in samples if "strong" not in sample]
    unlabelled = [sample for sample in samples if "strong" in sample]
    for part in (labelled, unlabelled):
        if len({sample["image"].shape[0] for sample in part}) > 1:
            raise UserError(f"{part[0]['id']}: images of one batch have different numbers of channels")
    first = labelled[0]
    batch: Batch = {
        "image": _stack([sample["image"] for sample in labelled], 0),
        "mask": _stack([sample["mask"] for sample in labelled], ignore_index),
        "id": [sample["id"] for sample in labelled],
    }
    if "depth" in first:
        batch["depth"] = _stack([sample["depth"] for sample in labelled], math.nan)
    if "whole" in first:
        batch["whole"] = [sample["whole"] for sample in labelled]
    if "uncounted" in first:
        batch["uncounted"] = first["uncounted"]
    if "synthetic" in first:
        batch["synthetic"] = torch.tensor([sample["synthetic"] for sample in labelled])
    sizes = [(*sample["image"].shape[-2:], *sample["mask"].shape[-2:]) for sample in labelled]
    if len(set(sizes)) > 1 or sizes[0][:2] != sizes[0][2:]:
        batch["sizes"] = torch.tensor(sizes)
    if unlabelled:
        batch["unlabeled_image"] = _stack([sample["image"] for sample in unlabelled], 0)
        batch["unlabeled_strong"] = _stack([sample["strong"] for sample in unlabelled], 0)
        batch["unlabeled_mask"] = _stack([sample["mask"] for sample in unlabelled], ignore_index)
        if "strong2" in unlabelled[0]:
            batch["unlabeled_strong2"] = _stack([sample["strong2"] for sample in unlabelled], 0)
        if all("truth" in sample for sample in unlabelled):
            batch["unlabeled_truth"] = _stack([sample["truth"] for sample in unlabelled], ignore_index)
    return batch


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on a device; from pinned memory without waiting for it. Lightning's own way there looks into
    every sample's name."""
    there = {
        key: value.to(device, non_blocking=device.type == "cuda") if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }
    return cast(Batch, there)


def _stack(maps: list[Tensor], fill: float) -> Tensor:
    """Maps [..., H, W] as one tensor, each filled up at the right and below to the largest."""
    height, width = (max(side) for side in zip(*(one.shape[-2:] for one in maps), strict=True))
    padding = [(0, width - one.shape[-1], 0, height - one.shape[-2]) for one in maps]
    return torch.stack(
        [
            torch.nn.functional.pad(one, around, value=fill) if any(around) else one
            for one, around in zip(maps, padding, strict=True)
        ]
    )
