"""Set prediction for networks of queries: `loss=mask_classification`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from src.config.shares import Share
from src.errors import UserError
from src.losses.base import SegmentationLoss, ratio
from src.losses.ce import cross_entropy
from src.optional_packages import needs

TRAINS_ON = "masks"  # the config check pairs it with the networks that say the same; all others train on logits


class MaskClassification(SegmentationLoss):
    """The loss of MaskFormer and Mask2Former (Cheng et al. 2021, 2022): each class of an image is one binary mask, the
    Hungarian method gives each mask the query that costs least, and matched queries learn class and mask, others "no object".
    Masks are compared at sampled points, three quarters of them where the prediction is least sure (Kirillov et al. 2020).

    Every layer of the network is supervised so, and the losses are summed. Ignored pixels are nobody's: no point is drawn
    from them, other than detectron2's loss, for which they are outside of every mask. An image of nothing else costs 0.
    `class_weights` weigh the matched queries' classes.

    In evaluation there are no queries to match, only the map of classes: then the loss is that map's cross entropy, whose
    values cannot be compared with those in training.

    Args:
        class_weight, mask_weight, dice_weight: of the queries' cross entropy, the masks' binary cross entropy and the masks'
            Dice loss, in the loss and in the cost of a match.
        no_object_weight: of a query without a mask in the cross entropy.
        num_points: at which a mask is compared.
        oversample_ratio: so many times as many points are drawn for the least sure ones to be chosen from.
        importance_sample_ratio: the share of points that are chosen so; the others are drawn evenly.
    """

    def __init__(
        self,
        class_weight: NonNegativeFloat = 2.0,
        mask_weight: NonNegativeFloat = 5.0,
        dice_weight: NonNegativeFloat = 5.0,
        no_object_weight: NonNegativeFloat = 0.1,
        num_points: PositiveInt = 12544,
        oversample_ratio: Annotated[float, Field(ge=1)] = 3.0,
        importance_sample_ratio: Share = 0.75,
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.class_weight, self.mask_weight, self.dice_weight = class_weight, mask_weight, dice_weight
        self.no_object_weight, self.num_points = no_object_weight, num_points
        self.oversample_ratio, self.importance_sample_ratio = oversample_ratio, importance_sample_ratio
        needs("scipy.optimize", "transformers")  # now, and not after the first batch

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        return cross_entropy(logits.float(), mask.long(), self.ignore_index, self.class_weights, 0.0, self.over_devices)

    def of_outputs(self, outputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """The loss of a network's queries, a float32 scalar.

        Args:
            outputs: "mask_classes" float [B, L, Q, K + 1], the last class being "no object"; "mask_logits" float
                [B, L, Q, h, w], over an image that may be padded at the right and below; "extent" float [B, 2], the share of
                its height and width that is image. L layers, the last of which predicts.
            mask: integer [B, H, W], of the image without the padding.

        Raises:
            UserError: the network has no queries.
        """
        if "mask_logits" not in outputs:
            raise UserError(
                "loss: mask_classification needs a network of queries; take network=mask2former or network=eomt"
            )
        classes, masks = outputs["mask_classes"], outputs["mask_logits"]
        with torch.autocast(classes.device.type, enabled=False):
            mask = mask.long()
            present = [self._classes_of(one) for one in mask]
            last = classes.shape[1] - 1
            losses = [
                self._of_layer(classes[:, layer].float(), masks[:, layer].float(), outputs["extent"], mask, present)
                for layer in (last, *range(last))
            ]
            return torch.stack(losses).sum()

    def _classes_of(self, mask: Tensor) -> Tensor:
        """The classes that an image has, int64 [M]."""
        found: Tensor = torch.unique(mask)
        return found[found != self.ignore_index]

    def _of_layer(self, classes: Tensor, masks: Tensor, extent: Tensor, mask: Tensor, present: list[Tensor]) -> Tensor:
        """The loss of one layer.

        Args:
            classes: float32 [B, Q, K + 1].
            masks: float32 [B, Q, h, w].
            extent: float [B, 2].
            mask: int64 [B, H, W].
            present: the classes of each image.
        """
        matches = [self._match(classes[i], masks[i], extent[i], mask[i], each) for i, each in enumerate(present)]
        image = torch.cat([torch.full_like(query, i) for i, (query, _) in enumerate(matches)])
        query = torch.cat([query for query, _ in matches])
        label = torch.cat([each[chosen] for each, (_, chosen) in zip(present, matches, strict=True)])

        target = torch.full(classes.shape[:2], classes.shape[2] - 1, device=classes.device)
        target[image, query] = label
        seen = torch.tensor([len(each) > 0 for each in present], device=classes.device).unsqueeze(1)
        weight = self._weights(classes)[target] * seen
        error = weight * F.cross_entropy(classes.transpose(1, 2), target, reduction="none")
        of_classes = ratio(self.over_devices(error.sum()), self.over_devices(weight.sum()))

        chosen = masks[image, query].unsqueeze(1)
        with torch.no_grad():
            points = self._points(chosen, extent[image], mask, image)
            truth, valid = self._truth(mask, image, points, label)
        predicted = _sampled(chosen, points, extent[image])
        count = valid.sum(dim=1).clamp_min(1)
        binary = (F.binary_cross_entropy_with_logits(predicted, truth, reduction="none") * valid).sum(dim=1) / count
        share, truth = predicted.sigmoid() * valid, truth * valid
        overlap = 1 - (2 * (share * truth).sum(dim=1) + 1) / (share.sum(dim=1) + truth.sum(dim=1) + 1)
        number = self.over_devices(torch.tensor(float(len(query)), device=masks.device))
        of_masks = self.mask_weight * binary.sum() + self.dice_weight * overlap.sum()
        return self.class_weight * of_classes + ratio(self.over_devices(of_masks), number)

    def _weights(self, classes: Tensor) -> Tensor:
        """The weight of each class and of "no object", float32 [K + 1]."""
        weights = classes.new_ones(classes.shape[2])
        if self.class_weights is not None:
            weights[:-1] = self.class_weights
        weights[-1] = self.no_object_weight
        return weights

    @torch.no_grad()
    def _match(
        self, classes: Tensor, masks: Tensor, extent: Tensor, mask: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries of one image and, for each, the number of its class in `present`, two times int64 [min(Q, M)]."""
        points = torch.rand(1, self.num_points, 2, device=masks.device)
        first = torch.zeros(len(present), dtype=torch.long, device=masks.device)
        truth, valid = self._truth(mask.unsqueeze(0), first, points.expand(len(present), -1, -1), present)
        everywhere = points.expand(len(masks), -1, -1), extent.expand(len(masks), -1)
        predicted = _sampled(masks.unsqueeze(1), *everywhere)
        inside, outside = truth * valid, (1 - truth) * valid
        binary = F.softplus(-predicted) @ inside.T + F.softplus(predicted) @ outside.T
        binary = binary / valid.sum(dim=1).clamp_min(1)
        share = predicted.sigmoid()
        overlap = 1 - (2 * share @ inside.T + 1) / (share @ valid.T + inside.sum(dim=1) + 1)
        cost = self.mask_weight * binary - self.class_weight * classes.softmax(dim=-1)[:, present]
        cost = torch.nan_to_num(cost + self.dice_weight * overlap, nan=1e30, posinf=1e30, neginf=1e30)
        queries, chosen = needs("scipy.optimize", "transformers").linear_sum_assignment(cost.cpu().numpy())
        return torch.as_tensor(queries, device=masks.device), torch.as_tensor(chosen, device=masks.device)

    def _points(self, chosen: Tensor, extent: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        """Where matched masks float [R, 1, h, w] are compared, [R, P, 2] (x, y) in 0…1: most of them where they are near 0."""
        drawn = torch.rand(len(chosen), int(self.num_points * self.oversample_ratio), 2, device=chosen.device)
        certain = _sampled(chosen, drawn, extent).abs()
        _, _, valid = _corners(mask, image, drawn, self.ignore_index)
        certain = torch.where(valid, certain, torch.inf)
        kept = int(self.importance_sample_ratio * self.num_points)
        unsure = torch.topk(-certain, k=kept, dim=1).indices
        points = torch.gather(drawn, 1, unsure.unsqueeze(2).expand(-1, -1, 2))
        more = torch.rand(len(chosen), self.num_points - kept, 2, device=chosen.device)
        return torch.cat([points, more], dim=1)

    def _truth(self, mask: Tensor, image: Tensor, points: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Share of class `label` [R] in image `image` [R] at points [R, P, 2], and whether a point counts: float32 [R, P]."""
        labels, weights, valid = _corners(mask, image, points, self.ignore_index)
        return ((labels == label.view(-1, 1, 1)) * weights).sum(dim=2), valid.float()


def _sampled(masks: Tensor, points: Tensor, extent: Tensor) -> Tensor:
    """Logits of masks [R, 1, h, w] at points [R, P, 2] (x, y) of the image without padding, [R, P]."""
    grid = 2 * points * extent.flip(1).unsqueeze(1) - 1
    return F.grid_sample(masks, grid.unsqueeze(2), align_corners=False).flatten(1)


def _corners(mask: Tensor, image: Tensor, points: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """The four pixels around points, as `grid_sample` sees them, without the memory of a map for every class.

    Args:
        mask: int64 [B, H, W].
        image: the image of each row of points, int64 [R].
        points: [R, P, 2] (x, y) in 0…1.

    Returns:
        Labels int64 [R, P, 4], weights float32 [R, P, 4] (0 outside of the image), and bool [R, P]: none that has weight is
        ignored.
    """
    height, width = mask.shape[1:]
    x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    columns = torch.stack([left, left + 1, left, left + 1], dim=2)
    rows = torch.stack([top, top, top + 1, top + 1], dim=2)
    weights = (1 - (columns - x.unsqueeze(2)).abs()) * (1 - (rows - y.unsqueeze(2)).abs())
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    weights = weights * inside
    at = image.view(-1, 1, 1), rows.clamp(0, height - 1).long(), columns.clamp(0, width - 1).long()
    labels = mask[at]
    return labels, weights, ~((labels == ignore_index) & (weights > 0)).any(dim=2)
