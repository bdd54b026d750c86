"""The loss of STDC-Seg, of classes and details: `loss=stdc`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional as F

from src.config.shares import Share
from src.errors import UserError
from src.losses.base import SegmentationLoss, ratio
from src.losses.ohem import Ohem

NEEDS_BOUNDARY = True  # the config check wants network.boundary=true, and wants no other loss with it


class STDCLoss(SegmentationLoss):
    """OHEM cross entropy of the logits and of auxiliary heads', and binary cross entropy and Dice of the details (Fan et al.
    2021). In evaluation, only the first.

    A pixel is a detail where the Laplacian of the mask is positive, or that of its 2x2 block's first pixel: of the three
    strides that the paper fuses, with 0.6, 0.3 and 0.1, the third alone does not pass the threshold of 0.1. Ignored pixels
    count nowhere, other than in the authors' code.

    Args:
        aux_weight: of each auxiliary head's loss.
        detail_weight: of the details' loss.
        threshold, min_kept: OHEM's, as in `Ohem`.
    """

    def __init__(
        self,
        aux_weight: NonNegativeFloat = 1.0,
        detail_weight: NonNegativeFloat = 1.0,
        threshold: Share = 0.7,
        min_kept: Share = 0.0625,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.aux_weight, self.detail_weight = aux_weight, detail_weight
        self.ohem = Ohem(threshold, min_kept, ignore_index, class_weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        loss: Tensor = self.ohem(logits, mask)
        return loss

    def of_outputs(self, outputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """The loss of a network's outputs in training, a float32 scalar.

        Args:
            outputs: "logits" float [B, K, H, W]; "edges" float [B, 1, H, W]; "aux", "aux2" … float [B, K, H, W], if there.
            mask: integer [B, H, W].

        Raises:
            UserError: the network gives no details.
        """
        if "edges" not in outputs:
            raise UserError("loss: stdc learns details; take network=stdc network.boundary=true, or loss=ohem")
        loss: Tensor = self.ohem(outputs["logits"], mask)
        for name, logits in outputs.items():
            if name.startswith("aux"):
                loss = loss + self.aux_weight * self.ohem(logits, mask)
        return loss + self.detail_weight * self._of_details(outputs["edges"][:, 0].float(), mask)

    def _of_details(self, edges: Tensor, mask: Tensor) -> Tensor:
        """Binary cross entropy of `edges`, float32 [B, H, W], and Dice of each image."""
        valid = (mask != self.ignore_index).float()
        target = details(mask).float()
        cost = F.binary_cross_entropy_with_logits(edges, target, reduction="none") * valid
        entropy = ratio(self.over_devices(cost.sum()), self.over_devices(valid.sum()))
        probability, target = edges.sigmoid() * valid, target * valid
        common, total = (probability * target).sum(dim=(1, 2)), (probability + target).sum(dim=(1, 2))
        dice = 1 - (2 * common + 1) / (total + 1)
        images = torch.full((), float(len(mask)), device=mask.device)
        return entropy + ratio(self.over_devices(dice.sum()), self.over_devices(images))


def details(mask: Tensor) -> Tensor:
    """Bool [B, H, W]: where a mask [B, H, W] has a positive Laplacian at stride 1 or 2."""
    values = mask.float().unsqueeze(1)
    positive = 9 * values > 9 * F.avg_pool2d(values, 3, stride=1, padding=1) + 0.1
    blocks = F.interpolate(positive[..., ::2, ::2].float(), scale_factor=2, mode="nearest") > 0
    height, width = mask.shape[-2:]
    return (positive | blocks[..., :height, :width]).squeeze(1)
