"""PIDNet: three branches, of detail, context and boundaries."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.networks.base import SegmentationNetwork
from src.networks.dual_resolution import (
    DAPPM,
    PAPPM,
    BasicBlock,
    Head,
    bottlenecks,
    initialize,
    norm_relu_conv,
    projection,
    resized,
    stage,
    stem,
)
from src.networks.published import load_published

SIZE_DIVISOR = 8  # the config check refuses training crops that are no multiple of it
POOLED_BATCH_NORM = ("pidnet",)  # and one image a device: the pooling pyramid has a batch norm over one pixel an image


class _Size(NamedTuple):
    """`blocks` in a stage of the detail branch, `context` in one of the context branch; channels of stem, pyramid, head."""

    blocks: int
    context: int
    stem: int
    pyramid: int
    head: int


_SIZES = {"s": _Size(2, 3, 32, 96, 128), "m": _Size(2, 3, 64, 96, 128), "l": _Size(3, 4, 64, 112, 256)}


def pidnet(
    num_classes: int,
    in_channels: int = 3,
    size: Literal["s", "m", "l"] = "s",
    encoder_weights: str | None = None,
    aux: bool = True,
    boundary: bool = False,
) -> SegmentationNetwork:
    """PIDNet-S, -M and -L (Xu et al. 2023, https://arxiv.org/abs/2206.02066). Trains on 2 images or more.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        size: PIDNet-S, -M or -L.
        encoder_weights: a local file of the authors' weights, e.g. PIDNet_S_ImageNet.pth.tar, or None.
        aux: a second head, on the detail branch, trained with `model.aux_weight`, or by `loss=pidnet`.
        boundary: a head for boundaries, "edges" float [B, 1, H, W] while training; `loss=pidnet` trains it, and no other.
    """
    backbone = _Backbone(in_channels, _SIZES[size])
    core = _Core(backbone, _SIZES[size], num_classes, aux, boundary)
    initialize(core)
    if encoder_weights is not None:
        context = ("conv1.", "layer1.", "layer2.", "layer3.", "layer4.")
        load_published(backbone, encoder_weights, in_channels, context, "conv1.0.weight")
    return SegmentationNetwork(core, size_divisor=SIZE_DIVISOR, encoder="backbone")


class _Core(nn.Module):
    ONLY_TRAIN = ("seghead_p", "seghead_d")  # heads; see `SegmentationNetwork.only_train`

    def __init__(self, backbone: _Backbone, size: _Size, num_classes: int, aux: bool, boundary: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.final_layer = Head(4 * size.stem, size.head, num_classes)
        self.seghead_p = Head(2 * size.stem, size.head, num_classes) if aux else None
        self.seghead_d = Head(2 * size.stem, size.stem, 1) if boundary else None

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        fused, detail, edges = self.backbone(image)
        result = {"logits": self.final_layer(fused)}
        if self.training and self.seghead_p is not None:
            result["aux"] = self.seghead_p(detail)
        if self.training and self.seghead_d is not None:
            result["edges"] = self.seghead_d(edges)
        return result


class _Backbone(nn.Module):
    """Branches I (context, down to stride 64), P (detail) and D (boundaries), both of stride 8, and what joins them.

    Names of layers are the authors'; `_` after one is P's, `_d` D's.
    """

    def __init__(self, in_channels: int, size: _Size) -> None:
        super().__init__()
        c, light = size.stem, size.blocks == 2
        self.conv1 = stem(in_channels, c)
        self.layer1 = stage(c, c, size.blocks)
        self.layer2 = stage(c, 2 * c, size.blocks, stride=2)
        self.layer3 = stage(2 * c, 4 * c, size.context, stride=2)
        self.layer4 = stage(4 * c, 8 * c, size.context, stride=2)
        self.layer5 = bottlenecks(8 * c, 8 * c, 2, stride=2)

        self.compression3, self.compression4 = projection(4 * c, 2 * c, 1), projection(8 * c, 2 * c, 1)
        self.pag3, self.pag4 = _PixelAttention(2 * c, c), _PixelAttention(2 * c, c)
        self.layer3_ = stage(2 * c, 2 * c, size.blocks)
        self.layer4_ = stage(2 * c, 2 * c, size.blocks)
        self.layer5_ = bottlenecks(2 * c, 2 * c, 1)

        narrow = c if light else 2 * c
        self.layer3_d = BasicBlock(2 * c, narrow)
        self.layer4_d = bottlenecks(c, c, 1) if light else BasicBlock(2 * c, 2 * c)
        self.layer5_d = bottlenecks(2 * c, 2 * c, 1)
        self.diff3, self.diff4 = projection(4 * c, narrow, 3), projection(8 * c, 2 * c, 3)

        self.spp = (PAPPM if light else DAPPM)(16 * c, size.pyramid, 4 * c)
        self.dfm = _LightBoundaryAttention(4 * c) if light else _BoundaryAttention(4 * c)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of stride 8 for the classes, and for the heads that only train: of the detail and the boundary branch."""
        context = F.relu(self.layer2(F.relu(self.layer1(self.conv1(image)))))
        detail, edges = self.layer3_(context), self.layer3_d(context)

        context = F.relu(self.layer3(context))
        early = self.pag3(detail, self.compression3(context))
        edges = edges + resized(self.diff3(context), edges)

        context = F.relu(self.layer4(context))
        detail, edges = self.layer4_(F.relu(early)), self.layer4_d(F.relu(edges))
        detail = self.pag4(detail, self.compression4(context))
        boundary = edges + resized(self.diff4(context), edges)

        detail, edges = self.layer5_(F.relu(detail)), self.layer5_d(F.relu(boundary))
        context = resized(self.spp(self.layer5(context)), detail)
        return self.dfm(detail, context, edges), early, boundary


class _PixelAttention(nn.Module):
    """Takes from the context, pixel by pixel, as much as it agrees with the detail (PagFM)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.f_x, self.f_y = projection(channels, inner, 1), projection(channels, inner, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        alike = (self.f_x(detail) * resized(self.f_y(context), detail)).sum(dim=1, keepdim=True)
        share = torch.sigmoid(alike)
        return (1 - share) * detail + share * resized(context, detail)


class _BoundaryAttention(nn.Module):
    """Detail at boundaries, context elsewhere (Bag)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*norm_relu_conv(channels, channels, 3))

    def forward(self, detail: Tensor, context: Tensor, edges: Tensor) -> Tensor:
        share = torch.sigmoid(edges)
        result: Tensor = self.conv(share * detail + (1 - share) * context)
        return result


class _LightBoundaryAttention(nn.Module):
    """The same with two convolutions of 1x1 (Light-Bag)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_p, self.conv_i = projection(channels, channels, 1), projection(channels, channels, 1)

    def forward(self, detail: Tensor, context: Tensor, edges: Tensor) -> Tensor:
        share = torch.sigmoid(edges)
        result: Tensor = self.conv_p((1 - share) * context + detail) + self.conv_i(context + share * detail)
        return result
