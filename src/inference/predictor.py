"""What prediction needs of a segmenter, so that the models may use this package and not the other way round."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from src.data.labels import LabelSet
from src.data.trained_on import Images


class Predictor(Protocol):
    """A trained segmenter in evaluation mode; `src.models.base.Segmenter` is one.

    Attributes:
        label_set: the classes of its masks.
        images: the kind of image that it was trained on.
        channels, intensity: of that image; its values lie in `intensity`.
    """

    label_set: LabelSet
    images: Images
    channels: int
    intensity: tuple[float, float]

    def logits(self, image: Tensor) -> Tensor:
        """Logits float [B, K, H, W] of raw images [B, C, H, W]."""

    def uncertainty(self, image: Tensor) -> dict[str, Tensor]:
        """Maps float [B, H, W] by name, of raw images [B, C, H, W]."""

    def task_maps(self, image: Tensor) -> dict[str, Tensor]:
        """What is predicted beside the classes, by task, of raw images [B, C, H, W]."""
