"""L1: how far an image that was drawn is from the real one (`loss=l1`, of `model=synthesis`)."""

from __future__ import annotations

from torch import Tensor, nn

from src.losses.adversarial import weighted_mean

TRAINS_ON = "images"


class L1(nn.Module):
    """Mean absolute difference of two images over the pixels of a known class, a float32 scalar (Isola et al. 2017).

    Args:
        ignore_index: mask value of the other pixels.
        class_weights: None; pixels count alike.
    """

    def __init__(self, ignore_index: int = 255, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, drawn: Tensor, real: Tensor, mask: Tensor) -> Tensor:
        """
        Args:
            drawn, real: float [B, C, H, W], in the same units.
            mask: integer [B, H, W].
        """
        return weighted_mean((drawn.float() - real.float()).abs().mean(dim=1), mask != self.ignore_index)
