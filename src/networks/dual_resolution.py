"""What DDRNet and PIDNet are made of: residual blocks, heads, and pooling pyramids for the coarse branch.

Layers have the names of the authors' published weights (https://github.com/ydhongHIT/DDRNet and
https://github.com/XuJiacong/PIDNet, both MIT), so that a file of those fills them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016); the sum is not rectified where `rectified` is False."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, rectified: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)
        self.rectified = rectified

    def forward(self, x: Tensor) -> Tensor:
        result = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.downsample(x)
        return F.relu(result) if self.rectified else result


class Bottleneck(nn.Module):
    """Three convolutions and a shortcut, twice as many channels; the sum is not rectified."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * channels)
        self.downsample = _shortcut(in_channels, 2 * channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        result: Tensor = self.bn3(self.conv3(inner)) + self.downsample(x)
        return result


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return projection(in_channels, out_channels, 1, stride)


def stage(in_channels: int, channels: int, count: int, stride: int = 1) -> nn.Sequential:
    """`count` basic blocks, the first with the stride; the last one's sum is not rectified, for something is added to it."""
    return nn.Sequential(
        *(
            BasicBlock(channels if i else in_channels, channels, 1 if i else stride, rectified=i < count - 1)
            for i in range(count)
        )
    )


def bottlenecks(in_channels: int, channels: int, count: int, stride: int = 1) -> nn.Sequential:
    """`count` bottlenecks, the first with the stride; twice as many channels come out."""
    return nn.Sequential(
        *(Bottleneck(2 * channels if i else in_channels, channels, 1 if i else stride) for i in range(count))
    )


def stem(in_channels: int, channels: int) -> nn.Sequential:
    """Two convolutions of stride 2."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, stride=2, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def projection(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution and its batch norm, linear."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def norm_relu_conv(in_channels: int, out_channels: int, kernel: int = 1, groups: int = 1) -> list[nn.Module]:
    """Batch norm, ReLU and a convolution."""
    return [
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False),
    ]


class Head(nn.Module):
    """Logits [B, K, h, w] of features [B, in_channels, h, w]: norm, 3x3 convolution, norm, 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return logits


class _Pyramid(nn.Module):
    """The features themselves and pooled in windows of 5, 9 and 17 and in all, each with `channels` channels."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.scale0 = nn.Sequential(*norm_relu_conv(in_channels, channels))
        for number, (window, stride) in enumerate(((5, 2), (9, 4), (17, 8)), start=1):
            pool = nn.AvgPool2d(window, stride, padding=window // 2)
            self.add_module(f"scale{number}", nn.Sequential(pool, *norm_relu_conv(in_channels, channels)))
        self.scale4 = nn.Sequential(nn.AdaptiveAvgPool2d(1), *norm_relu_conv(in_channels, channels))
        self.compression = nn.Sequential(*norm_relu_conv(5 * channels, out_channels))
        self.shortcut = nn.Sequential(*norm_relu_conv(in_channels, out_channels))

    def pooled(self, x: Tensor) -> list[Tensor]:
        """The four pooled maps, at the features' size."""
        return [resized(self.get_submodule(f"scale{number}")(x), x) for number in (1, 2, 3, 4)]


class DAPPM(_Pyramid):
    """Deep aggregation pyramid pooling: each scale is added to the next and convolved, one after another (DDRNet)."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__(in_channels, channels, out_channels)
        for number in (1, 2, 3, 4):
            self.add_module(f"process{number}", nn.Sequential(*norm_relu_conv(channels, channels, 3)))

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.scale0(x)]
        for number, pooled in enumerate(self.pooled(x), start=1):
            maps.append(self.get_submodule(f"process{number}")(pooled + maps[-1]))
        result: Tensor = self.compression(torch.cat(maps, dim=1)) + self.shortcut(x)
        return result


class PAPPM(_Pyramid):
    """Parallel aggregation pyramid pooling: all scales are convolved at once, in groups (PIDNet)."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__(in_channels, channels, out_channels)
        self.scale_process = nn.Sequential(*norm_relu_conv(4 * channels, 4 * channels, 3, groups=4))

    def forward(self, x: Tensor) -> Tensor:
        first = self.scale0(x)
        others = self.scale_process(torch.cat([pooled + first for pooled in self.pooled(x)], dim=1))
        result: Tensor = self.compression(torch.cat([first, others], dim=1)) + self.shortcut(x)
        return result


def resized(x: Tensor, like: Tensor) -> Tensor:
    """`x` at the height and width of `like`, bilinear."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def initialize(module: nn.Module) -> None:
    """He's normal initialisation by the number of outputs, as both papers' code does; batch norms are as torch makes them."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
