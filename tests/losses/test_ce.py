"""Cross entropy against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from src.losses.ce import CrossEntropy
from tests.losses.batches import VOID, batch


class TestCrossEntropy:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    @pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 0.5, 2.0, 3.0])], ids=["plain", "weighted"])
    @pytest.mark.parametrize("void", [0.0, 0.3])
    def test_equals_torch(self, smoothing: float, weights: Tensor | None, void: float) -> None:
        logits, mask = batch(void=void)
        loss = CrossEntropy(smoothing, class_weights=weights)
        expected = F.cross_entropy(logits, mask, weights, ignore_index=VOID, label_smoothing=smoothing)
        torch.testing.assert_close(loss(logits, mask), expected)
