"""The loss of PIDNet, of classes and boundaries: `loss=pidnet`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from src.config.shares import Share
from src.errors import UserError
from src.losses.base import SegmentationLoss, outlines, ratio
from src.losses.ce import cross_entropy
from src.losses.ohem import Ohem

NEEDS_BOUNDARY = True  # the config check wants network.boundary=true, and wants no other loss with it


class PIDNetLoss(SegmentationLoss):
    """Four losses (Xu et al. 2023, eq. 4): OHEM cross entropy of the logits; cross entropy of the detail branch's; binary cross
    entropy of the boundaries, where boundary and other pixels weigh the same in total; and OHEM cross entropy of the logits
    once more, where a boundary is predicted. In evaluation, only the first.

    Boundaries are made of the mask: an outline of an ignored part is one too, for void bands lie on outlines, but an ignored
    pixel counts nowhere, other than in the authors' code, where it is a boundary or none.

    Args:
        aux_weight: of the detail branch's loss, where the network has the head.
        edge_weight: of the boundaries' loss.
        edge_width: pixels to each side of an outline that are boundary; the authors' boundaries are 4 wide.
        edge_threshold: where a boundary has at least this probability, the logits count once more.
        threshold, min_kept: OHEM's, as in `Ohem`; the authors keep 131,072 pixels of 6 images of 1024x1024.
    """

    def __init__(
        self,
        aux_weight: NonNegativeFloat = 0.4,
        edge_weight: NonNegativeFloat = 20.0,
        edge_width: PositiveInt = 2,
        edge_threshold: Share = 0.8,
        threshold: Share = 0.9,
        min_kept: Share = 0.0208,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.aux_weight, self.edge_weight = aux_weight, edge_weight
        self.edge_width, self.edge_threshold = edge_width, edge_threshold
        self.ohem = Ohem(threshold, min_kept, ignore_index, class_weights)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        loss: Tensor = self.ohem(logits, mask)
        return loss

    def of_outputs(self, outputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """The loss of a network's outputs in training, a float32 scalar.

        Args:
            outputs: "logits" float [B, K, H, W]; "edges" float [B, 1, H, W]; "aux" float [B, K, H, W], if there.
            mask: integer [B, H, W].

        Raises:
            UserError: the network gives no boundaries.
        """
        if "edges" not in outputs:
            raise UserError("loss: pidnet learns boundaries; take network=pidnet network.boundary=true, or loss=ohem")
        logits, edges, mask = outputs["logits"], outputs["edges"][:, 0].float(), mask.long()
        loss: Tensor = self.ohem(logits, mask) + self.ohem.among(
            logits, mask, edges.detach().sigmoid() > self.edge_threshold
        )
        if "aux" in outputs:
            aux = outputs["aux"].float()
            loss = loss + self.aux_weight * cross_entropy(
                aux, mask, self.ignore_index, self.class_weights, over_devices=self.over_devices
            )
        return loss + self.edge_weight * self._of_edges(edges, mask)

    def _of_edges(self, edges: Tensor, mask: Tensor) -> Tensor:
        """Binary cross entropy of `edges`, float32 [B, H, W], in which each of two kinds of pixels has the other's share."""
        target, valid = outlines(mask, self.edge_width), mask != self.ignore_index
        cost = F.binary_cross_entropy_with_logits(edges, target.float(), reduction="none")
        kinds = torch.stack([target & valid, ~target & valid])
        sums = self.over_devices((cost * kinds).sum(dim=(1, 2, 3)))
        counts = self.over_devices(kinds.sum(dim=(1, 2, 3)).float())
        share = ratio(counts, counts.sum())
        return ratio((sums * share.flip(0)).sum(), counts.sum())
