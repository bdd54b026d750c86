"""BiSeNetV2: a wide and shallow branch for detail, a narrow and deep one for meaning."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from src.networks.base import SegmentationNetwork

SIZE_DIVISOR = 32  # the config check refuses training crops that are no multiple of it
POOLED_BATCH_NORM = ("bisenetv2",)  # and one image a device: the context block has a batch norm over one pixel an image


def bisenetv2(
    num_classes: int,
    in_channels: int = 3,
    head_channels: PositiveInt = 1024,
    booster_channels: PositiveInt = 128,
    aux: bool = True,
) -> SegmentationNetwork:
    """BiSeNetV2 (Yu et al. 2021, https://arxiv.org/abs/2004.02147), which learns from nothing. Trains on 2 images or more.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        head_channels: of the head.
        booster_channels: of the heads that only train.
        aux: the paper's booster: four more heads, one on each stage of the deep branch, "aux" to "aux4" while training. The
            paper weighs them as much as the head: `model.aux_weight=1`.
    """
    return SegmentationNetwork(
        _BiSeNetV2(num_classes, in_channels, head_channels, booster_channels, aux), size_divisor=SIZE_DIVISOR
    )


class _BiSeNetV2(nn.Module):
    """Names of parts are those of https://github.com/CoinCheung/BiSeNet (MIT)."""

    ONLY_TRAIN = ("boosters",)  # heads; see `SegmentationNetwork.only_train`

    def __init__(
        self, num_classes: int, in_channels: int, head_channels: int, booster_channels: int, aux: bool
    ) -> None:
        super().__init__()
        self.detail = _Detail(in_channels)
        self.segment = _Semantic(in_channels)
        self.bga = _Aggregation(128)
        self.head = _head(128, head_channels, num_classes)
        widths = (16, 32, 64, 128) if aux else ()
        self.boosters = nn.ModuleList(_head(width, booster_channels, num_classes) for width in widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, _Gather):  # at first, only the shortcut
                nn.init.zeros_(module.last_norm.weight)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        *stages, context = self.segment(image)
        result = {"logits": self.head(self.bga(self.detail(image), context))}
        if self.training:
            for number, (booster, features) in enumerate(zip(self.boosters, stages, strict=False), start=1):
                result["aux" if number == 1 else f"aux{number}"] = booster(features)
        return result


def _conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _depthwise(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=in_channels, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


def _pointwise(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def _head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(_conv(in_channels, channels), nn.Dropout(0.1), nn.Conv2d(channels, num_classes, 1))


class _Detail(nn.Sequential):
    """Three stages of plain convolutions, down to stride 8, [B, 128, h, w]."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(
            _conv(in_channels, 64, stride=2), _conv(64, 64),
            _conv(64, 64, stride=2), _conv(64, 64), _conv(64, 64),
            _conv(64, 128, stride=2), _conv(128, 128), _conv(128, 128),
        )  # fmt: skip


class _Semantic(nn.Module):
    """Down to stride 32: features of strides 4, 8, 16 and 32, and those of 32 with the whole image's mean."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = _Stem(in_channels)
        self.stages = nn.ModuleList(
            nn.Sequential(_Gather(before, after, stride=2), *(_Gather(after, after) for _ in range(further)))
            for before, after, further in ((16, 32, 1), (32, 64, 1), (64, 128, 3))
        )
        self.context = _Context(128)

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.stem(image)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return [*features, self.context(features[-1])]


class _Stem(nn.Module):
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = _conv(in_channels, 16, stride=2)
        self.left = nn.Sequential(_conv(16, 8, kernel=1), _conv(8, 16, stride=2))
        self.right = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = _conv(32, 16)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image)
        result: Tensor = self.fuse(torch.cat([self.left(x), self.right(x)], dim=1))
        return result


class _Gather(nn.Module):
    """Gather-and-expansion layer: six times as many channels within, depthwise."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        wide = 6 * in_channels
        # Of stride 2, two depthwise convolutions stand for one of 5x5.
        first = _depthwise(in_channels, wide, stride) if stride > 1 else []
        self.conv1 = _conv(in_channels, in_channels)
        self.dwconv = nn.Sequential(*first, *_depthwise(wide if first else in_channels, wide), nn.ReLU(inplace=True))
        self.conv2 = _pointwise(wide, out_channels)
        self.last_norm = nn.BatchNorm2d(out_channels)
        self.shortcut = (
            nn.Sequential(
                *_depthwise(in_channels, in_channels, stride),
                _pointwise(in_channels, out_channels),
                nn.BatchNorm2d(out_channels),
            )
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.last_norm(self.conv2(self.dwconv(self.conv1(x)))) + self.shortcut(x))


class _Context(nn.Module):
    """Context embedding: the image's mean is added to every pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv_gap = _conv(channels, channels, kernel=1)
        self.conv_last = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.conv_gap(self.bn(x.mean(dim=(2, 3), keepdim=True)))
        result: Tensor = self.conv_last(mean + x)
        return result


class _Aggregation(nn.Module):
    """Bilateral guided aggregation: each branch says which of the other's features count, at both strides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left1 = nn.Sequential(*_depthwise(channels, channels), _pointwise(channels, channels))
        self.left2 = nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.AvgPool2d(3, stride=2, padding=1),
        )
        self.right1 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.right2 = nn.Sequential(*_depthwise(channels, channels), _pointwise(channels, channels))
        self.conv = _conv(channels, channels)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        fine = self.left1(detail) * torch.sigmoid(_resized(self.right1(context), detail))
        coarse = self.left2(detail) * torch.sigmoid(self.right2(context))
        result: Tensor = self.conv(fine + _resized(coarse, detail))
        return result


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
