"""Cross entropy and Lovász-softmax together: `loss=ce_lovasz`."""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from src.config.shares import Share
from src.losses.base import SegmentationLoss
from src.losses.ce import cross_entropy
from src.losses.lovasz import lovasz_softmax


class CrossEntropyLovasz(SegmentationLoss):
    """`ce_weight` * cross entropy + `lovasz_weight` * Lovász-softmax; see `CrossEntropy` and `Lovasz`."""

    def __init__(
        self,
        ce_weight: NonNegativeFloat = 1.0,
        lovasz_weight: NonNegativeFloat = 1.0,
        label_smoothing: Share = 0.0,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.ce_weight = ce_weight
        self.lovasz_weight = lovasz_weight
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, mask = logits.float(), mask.long()
        ce = cross_entropy(logits, mask, self.ignore_index, self.class_weights, self.label_smoothing, self.over_devices)
        lovasz = lovasz_softmax(logits, mask, self.ignore_index, self.class_weights)
        return self.ce_weight * ce + self.lovasz_weight * lovasz
