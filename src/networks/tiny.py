"""The smallest CNN segmenter: three convolutions, made fully convolutional."""

from __future__ import annotations

from itertools import pairwise

from pydantic import PositiveInt
from torch import nn

from src.networks.base import SegmentationNetwork


def tiny(num_classes: int, in_channels: int = 3, width: PositiveInt = 32) -> SegmentationNetwork:
    """Three 3x3 convolutions with batch norm and ReLU, then a 1x1 classifier at every pixel.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        width: channels of the first convolution; the others have twice as many.
    """
    widths = [in_channels, width, 2 * width, 2 * width]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return SegmentationNetwork(nn.Sequential(*layers, nn.Conv2d(widths[-1], num_classes, 1)))
