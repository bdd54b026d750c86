"""A weighted sum of losses: `loss=sum`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from src.losses.base import SegmentationLoss


class Sum(SegmentationLoss):
    """The weighted sum of other losses, each of which is given what this one is: `ignore_index` and the class weights.

    In a config a term is the node of a loss with a `weight` beside its keys (1 where it has none).

    Args:
        terms: weights, and losses of logits, float32 [B, K, H, W], and masks, int64 [B, H, W].
    """

    def __init__(
        self,
        terms: Sequence[tuple[float, nn.Module]],
        ignore_index: int = 255,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(ignore_index, class_weights)
        self.weights = [weight for weight, _ in terms]
        self.terms = nn.ModuleList([loss for _, loss in terms])

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits, mask = logits.float(), mask.long()
        weighted = [weight * loss(logits, mask) for weight, loss in zip(self.weights, self.terms, strict=True)]
        total: Tensor = weighted[0]
        for cost in weighted[1:]:
            total = total + cost
        return total
