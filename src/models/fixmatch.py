"""`model.semi=fixmatch`: a model's confident predictions for weakly changed images label their strongly changed twins."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from src.data.labels import LabelSet
from src.data.samples import Batch
from src.models.semi import SemiSupervision, cutmix, unlabeled, unlabeled_loss


class Predictor(Protocol):
    """What is asked of a model: see `Segmenter`."""

    semi: SemiSupervision
    label_set: LabelSet

    def outputs(self, image: Tensor) -> dict[str, Tensor]: ...
    def probabilities(self, image: Tensor) -> Tensor: ...
    def trusts(self, weak: Tensor, probability: Tensor, mask: Tensor) -> Tensor: ...
    def eval(self) -> object: ...
    def train(self) -> object: ...


def supervised_and_consistency(model: Predictor, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Passes a batch's labelled images and its strongly changed unlabelled ones through the model.

    Returns:
        The outputs for the labelled images, the consistency loss of the unlabelled ones (a scalar, unweighted), and the share
        of their pixels that got a label.
    """
    weak, strong, mask = unlabeled(batch)
    ignored = model.label_set.ignore_index
    label, trusted = pseudo_labels(model, weak, mask)
    strong, label = cutmix(strong, label, model.semi.cutmix)
    count = len(batch["image"])
    if strong.shape[1:] == batch["image"].shape[1:]:  # one pass, so that batch norm sees both
        together = model.outputs(torch.cat([batch["image"], strong]))
        outputs, logits = {k: v[:count] for k, v in together.items()}, together["logits"][count:]
    else:
        outputs, logits = model.outputs(batch["image"]), model.outputs(strong)["logits"]
    return outputs, unlabeled_loss(logits, label, mask != ignored, ignored), trusted.float().mean()


@torch.no_grad()
def pseudo_labels(model: Predictor, weak: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions for raw images [U, C, H, W], by the averaged weights if there are any, and where they are trusted.

    Returns:
        Classes int64 [U, H, W] with the ignore index where they are not trusted, or with `semi.soft` probabilities float
        [U, K, H, W] with 0 there; and where they are, bool [U, H, W]: nowhere that `mask` is ignored.
    """
    ignored = model.label_set.ignore_index
    model.eval()
    try:
        probability = model.probabilities(weak)
        trusted = (mask != ignored) & model.trusts(weak, probability, mask)
    finally:
        model.train()
    if model.semi.soft:
        return probability * trusted.unsqueeze(1), trusted
    return probability.argmax(dim=1).masked_fill(~trusted, ignored), trusted
