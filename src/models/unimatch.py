"""`model.semi=unimatch`: a network's confident predictions label two strongly changed views of an image, and the weakly changed
image itself when half of its feature channels are dropped (Yang et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.data.samples import Batch
from src.errors import UserError
from src.models.channel_dropout import with_dropped_twin
from src.models.fixmatch import trusted_labels
from src.models.semi import Consistency, Predictor, cutmix, label_figures, pseudo_label_loss, unlabeled

_VIEW, _FEATURES = 0.25, 0.5  # weights of the authors' code: of each strong view, of the dropped features


def unimatch(model: Predictor, batch: Batch) -> Consistency:
    """Passes a batch's labelled images with its weakly changed unlabelled ones through the model, then the two strong views.

    The labels are the network's own, in training mode and from that first pass, as in the authors' code; that of a pasted box
    they take from the network in evaluation. Each view has colours and a CutMix box of its own.

    Raises:
        UserError: the network has no encoder whose channels could be dropped.
    """
    weak, strong, mask = unlabeled(batch)
    ignored = model.label_set.ignore_index
    outputs, logits, dropped = _labelled_and_weak(model, batch["image"], weak)
    with torch.no_grad():
        label, trusted = trusted_labels(model, weak, logits.float().softmax(dim=1), mask)
    views = [cutmix(model.semi.cutmix, one, label, mask) for one in (strong, batch["unlabeled_strong2"])]
    both = model.outputs(torch.cat([image for image, _, _ in views]))["logits"].chunk(2)
    loss = _FEATURES * pseudo_label_loss(model, dropped, label, mask != ignored)
    for of_view, (_, mixed, image) in zip(both, views, strict=True):
        loss = loss + _VIEW * pseudo_label_loss(model, of_view, mixed, image != ignored)
    return Consistency(outputs, loss, label_figures(label, trusted, batch.get("unlabeled_truth"), ignored))


def _labelled_and_weak(model: Predictor, labelled: Tensor, weak: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Outputs for labelled images [B, C, H, W]; logits [U, K, H, W] of weak ones, constants; and those with dropped features.
    Where sizes allow it in one pass, so that batch norm sees all."""
    encoder = model.network.encoder
    if not isinstance(encoder, nn.Module) or isinstance(encoder, nn.ModuleDict):
        raise UserError("model.semi.method: unimatch drops channels of the network's encoder and this network has none")
    together = weak.shape[1:] == labelled.shape[1:]
    seen = torch.cat([labelled, weak]) if together else weak
    with with_dropped_twin(encoder):
        outputs = model.outputs(seen)
    logits, dropped = (half[-len(weak) :] for half in outputs["logits"].chunk(2))
    of_labelled = {name: values[: len(labelled)] for name, values in outputs.items()} if together else None
    return of_labelled or model.outputs(labelled), logits.detach(), dropped
