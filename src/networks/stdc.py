"""STDC-Seg: one branch whose layers' outputs are all kept, narrower from layer to layer."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.networks.base import SegmentationNetwork
from src.networks.published import load_published

SIZE_DIVISOR = 32  # the config check refuses training crops that are no multiple of it
POOLED_BATCH_NORM = ("stdc",)  # and one image a device: what is pooled over the image has batch norms

_BLOCKS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}  # in the stages of stride 8, 16, 32


def stdc(
    num_classes: int,
    in_channels: int = 3,
    size: Literal["stdc1", "stdc2"] = "stdc1",
    encoder_weights: str | None = None,
    aux: bool = True,
    boundary: bool = False,
) -> SegmentationNetwork:
    """STDC1-Seg and STDC2-Seg (Fan et al. 2021, https://arxiv.org/abs/2104.13188). Trains on 2 images or more.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        size: which encoder.
        encoder_weights: a local file of the authors' weights, e.g. STDCNet813M_73.91.tar, or None.
        aux: two more heads, on what the decoder makes of strides 32 and 16, "aux" and "aux2" while training. The paper weighs
            them as much as the head: `model.aux_weight=1`.
        boundary: the detail head on the features of stride 8, "edges" float [B, 1, H, W] while training; `loss=stdc` trains
            it, and no other.
    """
    backbone = _Backbone(in_channels, _BLOCKS[size])
    core = _Core(backbone, num_classes, aux, boundary)
    if encoder_weights is not None:
        load_published(backbone, encoder_weights, in_channels, ("features.",), "features.0.conv.weight")
    return SegmentationNetwork(core, size_divisor=SIZE_DIVISOR, encoder="backbone")


class _Conv(nn.Module):
    """Convolution, batch norm, ReLU; names are the authors', https://github.com/MichaelFan01/STDC-Seg (MIT)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _ShortTerm(nn.Module):
    """Short-term dense concatenation: four convolutions of a half, a quarter, an eighth and an eighth of the channels."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv_list = nn.ModuleList(
            [
                _Conv(in_channels, half, kernel=1),
                _Conv(half, channels // 4),
                _Conv(channels // 4, channels // 8),
                _Conv(channels // 8, channels // 8),
            ]
        )
        self.avd_layer: nn.Module = nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            down = nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False)
            self.avd_layer = nn.Sequential(down, nn.BatchNorm2d(half))
            self.skip = nn.AvgPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_list[0](x)
        kept, x = [self.skip(first)], self.avd_layer(first)
        for convolution in list(self.conv_list)[1:]:
            x = convolution(x)
            kept.append(x)
        return torch.cat(kept, dim=1)


class _Backbone(nn.Module):
    def __init__(self, in_channels: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        features: list[nn.Module] = [_Conv(in_channels, 32, stride=2), _Conv(32, 64, stride=2)]
        self.last = []  # positions of each stage's last block
        before = 64
        for count, channels in zip(blocks, (256, 512, 1024), strict=True):
            for number in range(count):
                features.append(_ShortTerm(before, channels, stride=1 if number else 2))
                before = channels
            self.last.append(len(features) - 1)
        self.features = nn.Sequential(*features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of strides 8, 16 and 32."""
        kept = []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in self.last:
                kept.append(x)
        return kept


class _Core(nn.Module):
    """The decoder of BiSeNet (Yu et al. 2018) with the encoder's stage of stride 8 for its spatial path."""

    ONLY_TRAIN = ("conv_out32", "conv_out16", "conv_out_sp8")  # heads; see `SegmentationNetwork.only_train`

    def __init__(self, backbone: _Backbone, num_classes: int, aux: bool, boundary: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.arm16, self.arm32 = _Refinement(512, 128), _Refinement(1024, 128)
        self.conv_head16, self.conv_head32 = _Conv(128, 128), _Conv(128, 128)
        self.conv_avg = _Conv(1024, 128, kernel=1)
        self.ffm = _Fusion(256 + 128, 256)
        self.conv_out = _head(256, 256, num_classes)
        self.conv_out32 = _head(128, 64, num_classes) if aux else None
        self.conv_out16 = _head(128, 64, num_classes) if aux else None
        self.conv_out_sp8 = _head(256, 64, 1) if boundary else None
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("backbone."):
                nn.init.kaiming_normal_(module.weight, a=1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        fine, middle, coarse = self.backbone(image)
        whole = self.conv_avg(coarse.mean(dim=(2, 3), keepdim=True))
        coarse = self.conv_head32(_nearest(self.arm32(coarse) + whole, middle))
        context = self.conv_head16(_nearest(self.arm16(middle) + coarse, fine))
        result = {"logits": self.conv_out(self.ffm(fine, context))}
        if self.training:
            if self.conv_out32 is not None and self.conv_out16 is not None:
                result |= {"aux": self.conv_out32(coarse), "aux2": self.conv_out16(context)}
            if self.conv_out_sp8 is not None:
                result["edges"] = self.conv_out_sp8(fine)
        return result


def _head(in_channels: int, channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(_Conv(in_channels, channels), nn.Conv2d(channels, num_classes, 1, bias=False))


def _nearest(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


class _Refinement(nn.Module):
    """Attention refinement: channels weighed by the image's mean."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = _Conv(in_channels, out_channels)
        self.conv_atten = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(x.mean(dim=(2, 3), keepdim=True))))


class _Fusion(nn.Module):
    """Feature fusion: both paths side by side, and channels weighed by the image's mean added once more."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convblk = _Conv(in_channels, out_channels, kernel=1)
        self.conv1 = nn.Conv2d(out_channels, out_channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(out_channels // 4, out_channels, 1, bias=False)

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        x: Tensor = self.convblk(torch.cat([fine, context], dim=1))
        weight = torch.sigmoid(self.conv2(F.relu(self.conv1(x.mean(dim=(2, 3), keepdim=True)))))
        return x * weight + x
