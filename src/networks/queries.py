"""What networks share that predict a set of masks with classes, by queries, instead of a class for each pixel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.errors import UserError
from src.networks.weights import read_file, tensors
from src.optional_packages import needs

Layer = tuple[
    Tensor, Tensor
]  # class logits [B, Q, K + 1], the last class being "no object", and mask logits [B, Q, h, w]


class Queries(nn.Module, ABC):
    """A core of queries. A subclass says in `layers` what each of its layers predicts, the last one being the prediction."""

    @abstractmethod
    def layers(self, image: Tensor) -> Sequence[Layer]:
        """What each layer predicts for images [B, C, H, W]; all masks have one size."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """
        Returns:
            "logits", and while training what `src.losses.mask_classification` asks for. In training the logits are made of
            the masks as they are, at a quarter of the resolution; in evaluation of masks at that of the image, as
            Mask2Former's authors do, which takes Q maps of its size.
        """
        layers = self.layers(image)
        classes, masks = layers[-1]
        if not self.training:
            masks = F.interpolate(masks.float(), image.shape[-2:], mode="bilinear", align_corners=False)
            return {"logits": semantic_logits(classes, masks)}
        return {
            "logits": semantic_logits(classes, masks),
            "mask_classes": torch.stack([each for each, _ in layers], dim=1),
            "mask_logits": torch.stack([each for _, each in layers], dim=1),
        }

    def freeze_unused(self, in_channels: int, side: int) -> None:
        """Freezes what no gradient reaches: plain DDP fails where a gradient never comes."""
        self.eval()
        with torch.inference_mode(False), torch.enable_grad():
            layers = self.layers(torch.zeros(1, in_channels, side, side))
            torch.stack([classes.sum() + masks.sum() for classes, masks in layers]).sum().backward()  # type: ignore[no-untyped-call]
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self.train()


def semantic_logits(classes: Tensor, masks: Tensor) -> Tensor:
    """Log of each class's score at each pixel, float32 [B, K, h, w]: the sum over queries of the class's probability times the
    mask's (Cheng et al. 2021). Its largest is that of the scores, and its softmax are the scores over their sum.

    Args:
        classes: logits [B, Q, K + 1], the last class being "no object".
        masks: logits [B, Q, h, w].
    """
    with torch.autocast(masks.device.type, enabled=False):
        probability = classes.float().softmax(dim=-1)[..., :-1]
        scores = torch.einsum("bqk,bqhw->bkhw", probability, masks.float().sigmoid())
        return scores.clamp_min(torch.finfo(torch.float32).tiny).log()


def transformers() -> Any:
    """The library, with its hints to authors of models turned off.

    Raises:
        UserError: it is not installed; names the extra.
    """
    library = needs("transformers", "transformers")
    needs("scipy.optimize", "transformers")  # the library asks for it where it builds these models
    library.logging.set_verbosity_error()
    return library


def read_tensors(weights: str, others: str) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Args:
        weights: the value of `network.encoder_weights`.
        others: what else it may be, for the error.

    Raises:
        UserError: there is no such file, or it holds no tensors.
    """
    file = Path(weights).expanduser()
    if not file.is_file():
        raise UserError(f"network.encoder_weights: there is no file {file}; choose {others}a file or null")
    return tensors(read_file(file, "network.encoder_weights"))
