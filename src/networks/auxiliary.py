"""A second head that only trains, beside the networks of segmentation_models_pytorch."""

from __future__ import annotations

from segmentation_models_pytorch.base import SegmentationModel
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from src.networks.base import SegmentationNetwork


class _WithAuxiliaryHead(nn.Module):
    """One of smp's models, its parts under their names, and a head on the encoder's stage before the last."""

    ONLY_TRAIN = ("auxiliary_head",)  # heads; see `SegmentationNetwork.only_train`

    def __init__(self, model: SegmentationModel, num_classes: int, channels: int | None) -> None:
        super().__init__()
        self.encoder, self.decoder, self.segmentation_head = model.encoder, model.decoder, model.segmentation_head
        self.auxiliary_head = _head(self.encoder.out_channels[-2], num_classes, channels)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.encoder(image)
        result = {"logits": self.segmentation_head(self.decoder(features))}
        if self.training:
            result["aux"] = self.auxiliary_head(features[-2])
        return result


def with_auxiliary_head(
    network: SegmentationNetwork, num_classes: int, channels: int | None = None
) -> SegmentationNetwork:
    """The network, with a head of one 3x3 convolution (Zhao et al. 2017) on the encoder's stage before the last, whose
    logits float [B, K, h, w] are "aux" while training. Names of its other weights stay.

    Args:
        network: around one of smp's models.
        num_classes: classes K.
        channels: the head's width; None takes a quarter of its input's.
    """
    network.core = _WithAuxiliaryHead(network.core, num_classes, channels)
    return network


def with_dropout(block: nn.Module, probability: float) -> None:
    """Drops whole maps behind a decoder's last block, as mmsegmentation does before its classifier. Weights keep their names.

    Args:
        block: a `Sequential`.
        probability: 0 adds nothing.
    """
    if probability:
        assert isinstance(block, nn.Sequential)
        block.append(nn.Dropout2d(probability))


def _head(in_channels: int, num_classes: int, channels: int | None) -> nn.Sequential:
    head: nn.Sequential = FCNHead(in_channels, num_classes)
    if channels is not None:
        head[0] = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        head[1] = nn.BatchNorm2d(channels)
        head[4] = nn.Conv2d(channels, num_classes, 1)
    return head
