"""`model.semi=cps`: two networks of one build and different initial weights label for one another (Chen et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from src.data.samples import Batch
from src.models.semi import Consistency, Predictor, label_figures, paste, unlabeled, unlabeled_loss

_BOXES = (
    3  # French et al. 2020, as the authors take them: so many boxes, whose areas together are this share of the image
)
_AREA = (0.25, 0.5)


def cps(model: Predictor, batch: Batch) -> Consistency:
    """Passes a batch's labelled and weakly changed unlabelled images through both networks.

    Each one's classes, without a threshold, are the other's labels; the loss is the sum of both cross entropies. As in the
    authors' code the networks stay in training mode when they label. With CutMix they label unlabelled images apart and learn
    from the mixed ones; without, they label and learn in one pass, of labelled images too. There what the mask ignores does
    not count, as it may be padding, which the authors do not set apart.
    """
    assert model.partner is not None
    networks = (model.network, model.partner)
    weak, _, mask = unlabeled(batch)
    ignored = model.label_set.ignore_index
    valid = mask != ignored
    if model.semi.cutmix:
        with torch.no_grad():
            labels = [model.outputs_of(one, weak)["logits"].argmax(dim=1) for one in networks]
        inside = boxes(model.semi.cutmix, len(weak), *weak.shape[-2:])
        mixed, *maps, image = paste(inside, weak, *labels, valid)
        logits = [model.outputs_of(one, mixed)["logits"] for one in networks]
        outputs = [model.outputs_of(one, batch["image"]) for one in networks]
    else:
        outputs = [model.outputs_of(one, batch["image"]) for one in networks]
        both = [
            [own["logits"], model.outputs_of(one, weak)["logits"]] for own, one in zip(outputs, networks, strict=True)
        ]
        labels = [of_weak.detach().argmax(dim=1) for _, of_weak in both]
        logits = [_pixels(pair) for pair in both]
        maps = [one.detach().argmax(dim=1) for one in logits]
        image = _pixels([(batch["mask"] != ignored).unsqueeze(1), valid.unsqueeze(1)])[:, 0]
    first, second = (label.masked_fill(~image, ignored) for label in maps)
    loss = unlabeled_loss(logits[0], second, image, ignored) + unlabeled_loss(logits[1], first, image, ignored)
    figures = label_figures(labels[1], valid, batch.get("unlabeled_truth"), ignored)
    return Consistency(outputs[0], loss, figures, model.segmentation_loss(outputs[1], batch["mask"]))


def boxes(probability: float, count: int, height: int, width: int) -> Tensor:
    """Where images are to get another's pixels, bool [count, height, width]: inside an odd number of three boxes, in each image
    with `probability`. Draws from torch's generator."""
    chance = torch.rand(count)
    inside = torch.zeros(count, height, width, dtype=torch.bool)
    rows, columns = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    for _ in range(_BOXES):
        share, stretch, top, left = torch.rand(4, count)
        share = _AREA[0] + (_AREA[1] - _AREA[0]) * share
        tall = share**stretch  # height over the image's, from all of it to `share`
        box_height = (tall * _BOXES**-0.5 * height).round()
        box_width = (share / tall * _BOXES**-0.5 * width).round()
        y0, x0 = ((height - box_height) * top).round(), ((width - box_width) * left).round()
        box = (rows >= y0.view(-1, 1, 1)) & (rows < (y0 + box_height).view(-1, 1, 1))
        box = box & (columns >= x0.view(-1, 1, 1)) & (columns < (x0 + box_width).view(-1, 1, 1))
        inside = inside ^ box
    return inside & (chance < probability).view(-1, 1, 1)


def _pixels(maps: list[Tensor]) -> Tensor:
    """All pixels of maps [B, K, H, W], which may be of several sizes, as one [1, K, N]."""
    return torch.cat([one.movedim(1, 0).flatten(1) for one in maps], dim=1).unsqueeze(0)
