"""`model.semi=mean_teacher`: the averaged network's probabilities are what its student should give for the same images, changed
strongly (Tarvainen and Valpola 2017; with CutMix as in French et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.losses.base import ratio
from src.models.semi import Consistency, Predictor, cutmix, evaluating, label_figures, labelled_and_strong, unlabeled


def mean_teacher(model: Predictor, batch: Batch) -> Consistency:
    """Passes a batch's labelled images and its strongly changed unlabelled ones through the model.

    The teacher, which is the moving average of the weights, sees the weakly changed images. Every pixel counts, as in the first
    paper; `semi.ramp` is its ramp-up.
    """
    weak, strong, mask = unlabeled(batch)
    ignored = model.label_set.ignore_index
    valid = mask != ignored
    with evaluating(model):
        probability = model.probabilities(weak)
    figures = label_figures(probability, valid, batch.get("unlabeled_truth"), ignored)
    strong, probability, valid = cutmix(model.semi.cutmix, strong, probability, valid)
    outputs, logits = labelled_and_strong(model, batch["image"], strong)
    return Consistency(outputs, squared_distance(logits, probability, valid), figures)


def squared_distance(logits: Tensor, probability: Tensor, valid: Tensor) -> Tensor:
    """Squared distance of softmax(`logits`) to probabilities [U, K, H, W], summed over classes: the mean over valid pixels."""
    distance = (logits.float().softmax(dim=1) - probability).square().sum(dim=1) * valid
    return ratio(sum_over_devices(distance.sum()), sum_over_devices(valid.sum()))
