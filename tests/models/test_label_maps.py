"""What the discriminator sees as real."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.losses.adversarial import one_hot
from src.models.label_maps import Truth, true_map


class TestTruth:
    @staticmethod
    def real(truth: Truth, confidence: float = 0.8) -> tuple[Tensor, Tensor, Tensor]:
        """What the discriminator sees as real, the generator's map, the mask; the top row is ignored."""
        torch.manual_seed(0)
        fake = (4 * torch.randn(2, 6, 16, 16)).softmax(dim=1)
        mask = torch.randint(6, (2, 16, 16)).where(torch.rand(2, 16, 16) < 0.5, fake.argmax(dim=1))
        mask[:, 0] = 255
        return true_map(mask, fake, truth, confidence)[:, :, 1:], fake[:, :, 1:], mask[:, 1:]

    @pytest.mark.parametrize("truth", ["soft", "onehot", "smooth"])
    def test_it_is_a_probability_with_the_true_class_on_top(self, truth: Truth) -> None:
        real, _, mask = self.real(truth)
        assert real.dtype == torch.float32
        assert real.min() >= 0
        torch.testing.assert_close(real.sum(dim=1), torch.ones(2, 15, 16))
        assert torch.equal(real.argmax(dim=1), mask)

    def test_onehot_and_smooth(self) -> None:
        real, _, mask = self.real("onehot")
        assert torch.equal(real, one_hot(mask, 6))
        smooth, _, _ = self.real("smooth")
        torch.testing.assert_close(smooth, real * 0.8 + (1 - real) * 0.2 / 5)

    def test_soft_raises_the_true_class_and_keeps_what_is_right_and_sure(self) -> None:
        real, fake, mask = self.real("soft")
        of_true, before = (x.gather(1, mask.unsqueeze(1)).squeeze(1) for x in (real, fake))
        sure = before >= 0.8
        assert 0.2 < sure.float().mean() < 0.8
        torch.testing.assert_close(of_true, before.clamp_min(0.8))
        kept = sure.unsqueeze(1).expand_as(real)
        torch.testing.assert_close(real[kept], fake[kept])
        others = (1 - one_hot(mask, 6)) * fake  # the rest of a raised pixel keeps its proportions
        torch.testing.assert_close(
            (1 - one_hot(mask, 6)) * real, others * ((1 - of_true) / (1 - before)).unsqueeze(1), rtol=1e-3, atol=1e-6
        )
