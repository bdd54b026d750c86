"""What prediction needs of a segmenter, so that the models may use this package and not the other way round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor

from src.config.inference import Inference
from src.data.labels import LabelSet
from src.data.trained_on import Images
from src.inference.windows import Outputs, Readable, Strip


class Predictor(Protocol):
    """A trained segmenter in evaluation mode; `src.models.base.Segmenter` is one.

    Attributes:
        label_set: the classes of its masks.
        images: the kind of image that it was trained on.
        channels, intensity: of that image; its values lie in `intensity`.
        inference: how it predicts.
        takes_batches: whether what it says of an image does not depend on those that it sees with it.
    """

    label_set: LabelSet
    images: Images
    channels: int
    intensity: tuple[float, float]
    inference: Inference

    @property
    def takes_batches(self) -> bool: ...

    def predicted(self, image: Tensor, size: Sequence[int] | None = None) -> Iterator[Strip]:
        """What is predicted for raw images [B, C, H, W] by `inference`, strip by strip: "logits" float [B, K, h, W] and other
        maps, as large as the image, or of a size."""

    def predicted_scene(self, scene: Readable, mirrored: Readable) -> Iterator[Strip]:
        """As `predicted`, of a scene that is read window by window."""

    def uncertainty(self, outputs: Outputs) -> dict[str, Tensor]:
        """Maps float [B, H, W] by name, of what was predicted."""

    def shares(self, logits: Tensor) -> Tensor:
        """What logits [B, K, ...] say as probabilities, at the model's temperature: float32 [B, K, ...]."""

    def task_maps(self, outputs: Outputs) -> dict[str, Tensor]:
        """What is predicted beside the classes, by task: maps float [B, H, W]."""
