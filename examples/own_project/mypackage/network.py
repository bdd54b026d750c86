"""A network of one's own: dilated convolutions at full resolution."""

from __future__ import annotations

from pydantic import PositiveInt
from torch import nn

from src.networks.base import SegmentationNetwork


def dilated(
    num_classes: int, in_channels: int = 3, width: PositiveInt = 16, depth: PositiveInt = 3
) -> SegmentationNetwork:
    """3x3 convolutions whose dilation doubles from one to the next, then a 1x1 classifier at every pixel.

    The program gives the number of classes and of image channels; the other keys are those of conf/network/mine.yaml, and
    their annotations are what the config is checked against.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        width: channels of every convolution.
        depth: convolutions; the last sees 2^(depth + 1) - 1 pixels.
    """
    layers: list[nn.Module] = []
    for number in range(depth):
        channels = in_channels if number == 0 else width
        layers += [nn.Conv2d(channels, width, 3, padding=2**number, dilation=2**number), nn.ReLU(inplace=True)]
    return SegmentationNetwork(nn.Sequential(*layers, nn.Conv2d(width, num_classes, 1)))
