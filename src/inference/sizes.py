"""From a network's outputs to the pixels that are scored and written: the same code in validation, `evaluate` and `predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from src.data.samples import Batch


def sized(values: Tensor, size: Sequence[int]) -> Tensor:
    """Logits or maps [B, C, h, w] at the resolution of the truth, [B, C, *size]: resampled linearly where the network saw
    another one (`data.dataset.spacing`), as they are where it did not."""
    height, width = size
    if values.shape[-2:] == (height, width):
        return values
    return torch.nn.functional.interpolate(values.float(), (height, width), mode="bilinear", align_corners=False)


def of_one_size(batch: Batch) -> Iterator[Batch]:
    """A batch's samples without what `collate` padded them with, so that the network sees each as `predict` shows it: parts
    of the batch whose images, and whose masks, have one size."""
    if "sizes" not in batch:
        yield batch
        return
    sizes = [tuple(row) for row in batch["sizes"].tolist()]
    for size in dict.fromkeys(sizes):
        at = [i for i, its in enumerate(sizes) if its == size]
        height, width, true_height, true_width = size
        part: Batch = {
            "image": torch.stack([batch["image"][i][..., :height, :width] for i in at]),
            "mask": torch.stack([batch["mask"][i][..., :true_height, :true_width] for i in at]),
            "id": [batch["id"][i] for i in at],
        }
        if "depth" in batch:
            part["depth"] = torch.stack([batch["depth"][i][..., :true_height, :true_width] for i in at])
        if "whole" in batch:
            part["whole"] = [batch["whole"][i] for i in at]
        yield part
