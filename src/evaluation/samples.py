"""One sample as it is shown: its picture, its truth and what a model says of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from src.data.sources import Source
from src.inference.drawing import Picture, as_picture
from src.inference.predictor import Predictor
from src.inference.sizes import sized

Mask = npt.NDArray[np.integer]


@torch.no_grad()
def predicted_sample(model: Predictor, device: torch.device, source: Source, index: int) -> tuple[Picture, Mask, Mask]:
    """The picture [H, W, 3], the true classes and the predicted ones [H, W], in the pixels of the truth."""
    image, mask = source.read(index)
    strips = [
        outputs["logits"].argmax(dim=1)[0].cpu() for _, outputs in model.predicted(image[None].to(device), mask.shape)
    ]
    if image.shape[-2:] != mask.shape:
        image = sized(image[None].float(), mask.shape)[0]
    return as_picture(image.numpy(), source.intensity), mask.numpy(), torch.cat(strips).numpy()
