"""A second head that only trains, beside the networks of segmentation_models_pytorch."""

from __future__ import annotations

from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from src.networks.base import SegmentationNetwork


class _WithAuxiliaryHead(nn.Module):
    """One of smp's models, its parts under their names, and a head on the encoder's stage before the last."""

    def __init__(self, model: SegmentationModel, num_classes: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.segmentation_head = model.encoder, model.decoder, model.segmentation_head
        self.auxiliary_head = FCNHead(self.encoder.out_channels[-2], num_classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.encoder(image)
        result = {"logits": self.segmentation_head(self.decoder(features))}
        if self.training:
            result["aux"] = self.auxiliary_head(features[-2])
        return result


def with_auxiliary_head(network: SegmentationNetwork, num_classes: int) -> SegmentationNetwork:
    """The network, with a head of one 3x3 convolution (Zhao et al. 2017) on the encoder's stage before the last, whose
    logits float [B, K, h, w] are "aux" while training. Names of its other weights stay.

    Args:
        network: around one of smp's models.
        num_classes: classes K.
    """
    network.core = _WithAuxiliaryHead(network.core, num_classes)
    return network
