"""Training images that a generator draws by the masks of labelled samples: `data.synthetic`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from src.data.labels import LabelSet
from src.data.samples import Batch
from src.errors import UserError
from src.seeding import derive

REAL = -1  # in the stead of a seed


class Painter(Protocol):
    """Draws images of the data's own kind by masks.

    Attributes:
        label_set, channels, intensity: of what it learnt from, as a source has them.
    """

    label_set: LabelSet
    channels: int
    intensity: tuple[float, float]

    def to(self, device: torch.device) -> Painter: ...

    def draw(self, mask: Tensor, seeds: list[int], dtype: torch.dtype) -> Tensor:
        """Images [B, C, H, W] for masks [B, H, W], each as its seed says."""
        ...


@dataclass(frozen=True)
class Synthetic:
    """A generator and the run that it is of.

    Attributes:
        painter: the generator.
        named: the run or checkpoint, for messages.
        digest: tells its weights from others.
    """

    painter: Painter
    named: str
    digest: str

    def check(self, label_set: LabelSet, channels: int, intensity: tuple[float, float]) -> None:
        """Raises UserError where it draws other classes or images than the data have."""
        painter = self.painter
        for what, its, ours in (
            ("classes", ", ".join(painter.label_set.names), ", ".join(label_set.names)),
            ("channels", painter.channels, channels),
            ("intensities", list(painter.intensity), list(intensity)),
        ):
            if its != ours:
                raise UserError(
                    f"data.synthetic: {self.named} draws images with the {what} {its}, the data have {ours}; train "
                    "model=synthesis on the same data"
                )

    def check_same(self, known: object) -> None:
        """Raises UserError where a run began with other weights, of which a checkpoint knows the digest."""
        if known != self.digest:
            raise UserError(
                f"data.synthetic: {self.named} is not the generator that the run began with; put that back, or start anew from "
                "the run's weights: init_from=RUN_DIR"
            )

    def mixed(self, batch: Batch) -> Batch:
        """A batch whose images with a seed are drawn anew by their masks, on the batch's device."""
        seeds = batch["synthetic"].tolist()
        at = [i for i, seed in enumerate(seeds) if seed != REAL]
        if not at:
            return batch
        mask = batch["mask"]
        image = batch["image"].clone()
        image[at] = self.painter.to(mask.device).draw(mask[at], [seeds[i] for i in at], image.dtype)
        return {**batch, "image": image}


def drawn_by_lot(share: float, seed: int, epoch: int, index: int) -> int:
    """The seed of the image that takes a sample's place, or `REAL`; it depends on nothing but the arguments.

    Args:
        share: of the samples that are drawn.
        seed: the run's.
        epoch, index: the sample's key.
    """
    chosen = derive(seed, "is synthetic", epoch, index) < share * 2**63
    return derive(seed, "synthetic", epoch, index) if chosen else REAL
