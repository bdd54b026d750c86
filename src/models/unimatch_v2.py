"""`model.semi=unimatch_v2`: the averaged network labels weakly changed images for two strongly changed views of each, whose
features lose complementary channels (Yang et al. 2025)."""

from __future__ import annotations

import torch
from torch import nn

from src.data.samples import Batch
from src.errors import UserError
from src.models.channel_dropout import complementary_dropout
from src.models.fixmatch import pseudo_labels
from src.models.semi import Consistency, Predictor, cutmix, label_figures, pseudo_label_loss, unlabeled


def unimatch_v2(model: Predictor, batch: Batch) -> Consistency:
    """Passes a batch's labelled images through the model, then the two strong views of its unlabelled ones.

    The loss is the mean of both views' cross entropies, as FixMatch has it for one. Each view has colours and a CutMix box of
    its own.

    Raises:
        UserError: the network has no encoder whose channels could be dropped.
    """
    encoder = model.network.encoder
    if not isinstance(encoder, nn.Module):
        raise UserError(
            "model.semi.method: unimatch_v2 drops channels of the network's encoder and this network has none"
        )
    weak, strong, mask = unlabeled(batch)
    ignored = model.label_set.ignore_index
    label, trusted = pseudo_labels(model, weak, mask)
    views = [cutmix(model.semi.cutmix, one, label, mask) for one in (strong, batch["unlabeled_strong2"])]
    outputs = model.outputs(batch["image"])
    with complementary_dropout(encoder):
        both = model.outputs(torch.cat([image for image, _, _ in views]))["logits"].chunk(2)
    losses = [
        pseudo_label_loss(model, logits, mixed, image != ignored)
        for logits, (_, mixed, image) in zip(both, views, strict=True)
    ]
    figures = label_figures(label, trusted, batch.get("unlabeled_truth"), ignored)
    return Consistency(outputs, (losses[0] + losses[1]) / 2, figures)
