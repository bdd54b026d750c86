"""Cross entropy and Lovász-softmax together: `loss=ce_lovasz`."""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from src.config.shares import Share
from src.losses.ce import CrossEntropy
from src.losses.lovasz import Lovasz
from src.losses.sum import Sum


class CrossEntropyLovasz(Sum):
    """`ce_weight` * cross entropy + `lovasz_weight` * Lovász-softmax; see `CrossEntropy` and `Lovasz`."""

    def __init__(
        self,
        ce_weight: NonNegativeFloat = 1.0,
        lovasz_weight: NonNegativeFloat = 1.0,
        label_smoothing: Share = 0.0,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        ce = CrossEntropy(label_smoothing, ignore_index, class_weights)
        lovasz = Lovasz(ignore_index, class_weights)
        super().__init__([(ce_weight, ce), (lovasz_weight, lovasz)], ignore_index, class_weights)
