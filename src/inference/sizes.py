"""From a network's outputs to the pixels that are scored and written: the same code in validation, `evaluate` and `predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def sized(values: Tensor, size: Sequence[int]) -> Tensor:
    """Logits or maps [B, C, h, w] at the resolution of the truth, [B, C, *size]: resampled linearly where the network saw
    another one (`data.dataset.spacing`), as they are where it did not."""
    height, width = size
    if values.shape[-2:] == (height, width):
        return values
    return torch.nn.functional.interpolate(values.float(), (height, width), mode="bilinear", align_corners=False)


def of_one_size(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A batch's samples without what `collate` padded them with, so that the network sees each as `predict` shows it: parts
    of the batch whose images, and whose masks, have one size.

    Args:
        batch: with `sizes`, int64 [B, 4], where samples were padded: height and width of each image and of its mask.
    """
    if "sizes" not in batch:
        yield batch
        return
    sizes = [tuple(row) for row in batch["sizes"].tolist()]
    for size in dict.fromkeys(sizes):
        at = [i for i, its in enumerate(sizes) if its == size]
        height, width, true_height, true_width = size
        part: dict[str, Any] = {"image": torch.stack([batch["image"][i][..., :height, :width] for i in at])}
        for key in ("mask", "depth"):
            if key in batch:
                part[key] = torch.stack([batch[key][i][..., :true_height, :true_width] for i in at])
        yield part | {key: [batch[key][i] for i in at] for key in ("id", "whole") if key in batch}
