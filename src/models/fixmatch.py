"""`model.semi=fixmatch`: a model's confident predictions for weakly changed images label their strongly changed twins
(Sohn et al. 2020, with CutMix as in UniMatch, Yang et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from src.data.samples import Batch
from src.models.semi import (
    Consistency,
    Predictor,
    cutmix,
    evaluating,
    label_figures,
    labelled_and_strong,
    pseudo_label_loss,
    unlabeled,
)


def fixmatch(model: Predictor, batch: Batch) -> Consistency:
    """Passes a batch's labelled images and its strongly changed unlabelled ones through the model."""
    weak, strong, mask = unlabeled(batch)
    ignored = model.label_set.ignore_index
    label, trusted = pseudo_labels(model, weak, mask)
    figures = label_figures(label, trusted, batch.get("unlabeled_truth"), ignored)
    strong, label, mask = cutmix(model.semi.cutmix, strong, label, mask)
    outputs, logits = labelled_and_strong(model, batch["image"], strong)
    return Consistency(outputs, pseudo_label_loss(model, logits, label, mask != ignored), figures)


def pseudo_labels(model: Predictor, weak: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions for raw images [U, C, H, W], by the averaged weights if there are any, as `trusted_labels` has them."""
    with evaluating(model):
        return trusted_labels(model, weak, model.probabilities(weak), mask)


def trusted_labels(model: Predictor, weak: Tensor, probability: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """What of probabilities [U, K, H, W] of raw images [U, C, H, W] is a label, and where.

    Returns:
        Classes int64 [U, H, W] with the ignore index where they are not trusted, or with `semi.soft` probabilities float
        [U, K, H, W] with 0 there; and where they are, bool [U, H, W]: nowhere that `mask` is ignored.
    """
    ignored = model.label_set.ignore_index
    if model.alignment is not None:
        probability = model.alignment.align(probability, mask != ignored)
    trusted = (mask != ignored) & model.trusts(weak, probability, mask)
    if model.semi.soft:
        return probability * trusted.unsqueeze(1), trusted
    return probability.argmax(dim=1).masked_fill(~trusted, ignored), trusted
