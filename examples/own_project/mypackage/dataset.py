"""A data set of one's own: walls with a crack, drawn on the fly so that the example needs no files."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from src.data.labels import LabelSet


class Cracks:
    """Grey walls, each with one dark crack; mask value 0 is wall, 1 is crack.

    A data set is a class with these attributes and methods; `src/data/dataset.py` says what each is.

    Args:
        split: given by the program.
        length: images in each split.
        side: height and width of an image, in pixels.
    """

    label_set = LabelSet(("wall", "crack"), ((128, 128, 128), (220, 40, 40)))
    channels = 3
    intensity = (0.0, 255.0)

    def __init__(
        self,
        split: Literal["train", "val", "test"],
        *,
        length: PositiveInt = 200,
        side: Annotated[int, Field(ge=16)] = 64,
    ) -> None:
        self.split, self.length, self.side = split, length, side

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"{self.split}_{index:04d}"

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image uint8 [3, H, W] and mask uint8 [H, W], always the same of an index."""
        rng = np.random.default_rng([("train", "val", "test").index(self.split), index])
        down, across = np.mgrid[: self.side, : self.side]
        start, slope = rng.uniform(0.2, 0.8) * self.side, rng.uniform(-0.3, 0.3)
        wave = rng.uniform(0, 3) * np.sin(down * rng.uniform(0.1, 0.4))
        mask = np.abs(across - start - slope * down - wave) < 2
        wall = rng.uniform(120, 200) + rng.normal(0, 12, (self.side, self.side))
        gray = np.where(mask, 0.4 * wall, wall).clip(0, 255).astype(np.uint8)
        return torch.from_numpy(np.stack([gray] * 3)), torch.from_numpy(mask.astype(np.uint8))
