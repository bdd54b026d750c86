"""For benchmarks/few_labels.py: a segmenter whose pseudo labels come from elsewhere, to tell a fault of the plumbing from one
of the labels. Part of no recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.data.samples import Batch
from src.models.base import Segmenter
from src.models.cnn import CNNSegmenter


class Told(CNNSegmenter):
    """Takes the labels of unlabelled images from the truth, or from a teacher that has learnt already.

    Args:
        teacher: a checkpoint; None for the truth.
    """

    def __init__(self, *positional: Any, teacher: str | None = None, **shared: Any) -> None:
        super().__init__(*positional, **shared)
        self._truth: Tensor | None = None
        self._teacher: list[Segmenter] = []  # no module of this one: not trained, not saved
        if teacher is not None:
            from src.training.build import model_from_checkpoint

            self._teacher = [model_from_checkpoint(Path(teacher))[0]]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self._truth = batch.get("unlabeled_truth")
        super().training_step(batch, batch_idx)
        self._truth = None

    def probabilities(self, image: Tensor) -> Tensor:
        """One-hot truth, 0 where it is unknown; or the teacher's."""
        if self._truth is None:
            return super().probabilities(image)
        if self._teacher:
            return self._teacher[0].to(image.device).probabilities(image)
        classes = torch.arange(self.label_set.num_classes, device=image.device).view(1, -1, 1, 1)
        return (self._truth.unsqueeze(1) == classes).float()
