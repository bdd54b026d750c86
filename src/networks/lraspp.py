"""Lite R-ASPP over the encoders of segmentation_models_pytorch and timm."""

from __future__ import annotations

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPPHead

_INNER = 128  # channels, as in torchvision


class LRASPP(nn.Module):
    """Torchvision's head on features of stride 8 and, of the dilated last stage, 16 (Howard et al. 2019).

    Built as smp's models are.

    Args:
        encoder_name: smp's name of the encoder.
        encoder_weights: None; weights come later.
        in_channels: image channels.
        classes: K.
        own: further keys of the encoder.
    """

    def __init__(
        self,
        encoder_name: str,
        encoder_weights: None,
        in_channels: int,
        classes: int,
        **own: object,
    ) -> None:
        super().__init__()
        self.encoder = smp.encoders.get_encoder(
            encoder_name, in_channels=in_channels, depth=5, weights=encoder_weights, output_stride=16, **own
        )
        channels = self.encoder.out_channels
        self.head = LRASPPHead(channels[3], channels[5], classes, _INNER)

    def forward(self, image: Tensor) -> Tensor:
        """Logits float [B, K, h, w] of stride 8."""
        features = self.encoder(image)
        logits: Tensor = self.head({"low": features[3], "high": features[5]})
        return logits
