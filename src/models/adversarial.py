"""`model.semi=adversarial`: what a discriminator of label maps makes of unlabelled images (AdvSemiSeg, Hung et al. 2018)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from src.data.labels import LabelSet
from src.data.samples import Batch
from src.distributed.sums import sum_over_devices
from src.losses.adversarial import Kind, generator_loss
from src.models.label_maps import Generated, Truth, generated_map
from src.models.semi import SemiSupervision, label_figures, unlabeled, unlabeled_loss
from src.networks.discriminators import Discriminator, score_weight


class Adversary(Protocol):
    """What methods that ask a discriminator want of a model: see `GANSegmenter`."""

    semi: SemiSupervision
    label_set: LabelSet
    discriminator: Discriminator | None
    adversarial: Kind
    truth: Truth
    truth_confidence: float
    generated: Generated
    gumbel_temperature: float
    feature_weight: float
    judged: dict[str, Tensor]

    @property
    def global_step(self) -> int: ...
    def normalization(self, image: Tensor) -> Tensor: ...
    def outputs(self, image: Tensor) -> dict[str, Tensor]: ...
    def taken_for_real(self, raw: Tensor, probability: Tensor, mask: Tensor) -> Tensor: ...
    def believed(self, scores: Tensor) -> Tensor: ...
    def as_shown(self, scores: Tensor) -> Tensor: ...


def on_unlabeled(model: Adversary, batch: Batch, share: float, logged: dict[str, Tensor]) -> Tensor:
    """The adversarial loss on unlabelled images and, with `semi.method=adversarial`, cross entropy to those of their own
    predictions that the discriminator takes for real.

    Args:
        share: of the adversarial weight, 0…1, that counts by now.
        logged: figures, to which its own are added.
    """
    assert model.discriminator is not None
    semi, ignored = model.semi, model.label_set.ignore_index
    adversarial_weight = share * semi.adversarial_weight
    weight = semi.weight_at(model.global_step) if semi.method == "adversarial" else 0.0
    weak, _, mask = unlabeled(batch)
    added = torch.zeros((), device=weak.device)
    if not weight and not adversarial_weight:
        return added
    valid = (mask != ignored).unsqueeze(1).float()
    logits = model.outputs(weak)["logits"]
    fake, image = generated_map(logits, model.generated, model.gumbel_temperature), model.normalization(weak)
    if adversarial_weight:
        scores, _ = model.discriminator(fake, image, valid)
        of_unlabeled = generator_loss(model.adversarial, scores, score_weight(valid, scores), sum_over_devices)
        added = added + adversarial_weight * of_unlabeled
    if weight:
        with torch.no_grad():
            probability = logits.float().softmax(dim=1)
            trusted = model.taken_for_real(weak, probability, mask) & (mask != ignored)
            label = probability.argmax(dim=1).masked_fill(~trusted, ignored)
        logged |= label_figures(label, trusted, batch.get("unlabeled_truth"), ignored)
        loss = unlabeled_loss(logits, label, trusted, ignored)
        logged["unlabeled_loss"] = loss.detach()
        added = added + weight * loss
    return added
