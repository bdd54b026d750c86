"""OHEM keeps the pixels that it says it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from src.losses.ce import CrossEntropy
from src.losses.ohem import Ohem
from tests.losses.batches import VOID, batch, value_and_gradient


class TestOhem:
    @staticmethod
    def losses(logits: Tensor, mask: Tensor) -> Tensor:
        """Cross entropy of the valid pixels, the hardest first."""
        return F.cross_entropy(logits, mask, ignore_index=VOID, reduction="none")[mask != VOID].sort(descending=True)[0]

    @pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
    def test_keeps_the_hardest_share(self, share: float) -> None:
        logits, mask = batch()
        losses = self.losses(logits, mask)
        kept = int(np.ceil(share * len(losses)))
        value, gradient = value_and_gradient(Ohem(threshold=0.0, min_kept=share), logits, mask)
        torch.testing.assert_close(value, losses[:kept].mean())
        assert (gradient.abs().sum(1) > 0).sum() == kept

    def test_keeps_all_below_the_threshold(self) -> None:
        logits, mask = batch()
        losses = self.losses(logits, mask)
        hard = losses[(-losses).exp() < 0.4]
        assert 0.1 < len(hard) / len(losses) < 0.9
        torch.testing.assert_close(Ohem(threshold=0.4, min_kept=0.05)(logits, mask), hard.mean())

    def test_threshold_one_is_cross_entropy(self) -> None:
        logits, mask = batch()
        torch.testing.assert_close(Ohem(1.0, 0.0)(logits, mask), CrossEntropy()(logits, mask))

    def test_nothing_kept_costs_nothing(self) -> None:
        value, gradient = value_and_gradient(Ohem(0.0, 0.0), *batch())
        assert value == 0
        assert (gradient == 0).all()
