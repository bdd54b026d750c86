"""What makes logits of a plain Vision Transformer's feature maps: a linear layer, DPT, UPerNet, a mask transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class EncoderAndHead(nn.Module):
    """An encoder, and a head that makes logits [B, K, h, w] of the last `used` of its feature maps."""

    def __init__(self, encoder: nn.Module, head: nn.Module, used: int) -> None:
        super().__init__()
        self.encoder, self.head, self.used = encoder, head, used

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(image)[-self.used :])
        return logits


class LinearHead(nn.Module):
    """Batch norm and a linear layer at every position of the maps, joined at the first one's size.

    As DINOv2's linear probe (Oquab et al. 2024, 7.4): one map of the last layer, or the last four ("+ms" without its scales).

    Args:
        channels: of each map.
        num_classes: classes K.
        dropout: of maps before the norm, as DINOv3's probe has it.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.norm = nn.BatchNorm2d(sum(channels))
        self.classifier = nn.Conv2d(sum(channels), num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        first, *others = maps
        resized = [
            one if one.shape[-2:] == first.shape[-2:] else F.interpolate(one, first.shape[-2:], mode="bilinear")
            for one in others
        ]
        logits: Tensor = self.classifier(self.norm(self.dropout(torch.cat([first, *resized], dim=1))))
        return logits


class DPTHead(DPTDecoder):
    """Dense Prediction Transformer (Ranftl et al. 2021) without the class token: four maps reassembled at 4, 2, 1 and 1/2 times
    their size, fused from coarse to fine. smp's, whose maps fit one another in even grids only, for any grid.

    Args:
        channels: of the maps, all alike.
        num_classes: classes K.
        fusion_channels: of the fused maps; the reassembled ones have as many, twice, four and four times as many.
    """

    def __init__(self, channels: int, num_classes: int, fusion_channels: int) -> None:
        widths = [fusion_channels * factor for factor in (1, 2, 4, 4)]
        # For a patch of 14 too the factors are those of 16, as in DINOv2.
        super().__init__([channels] * 4, [16] * 4, False, "ignore", widths, fusion_channels)
        self.head = DPTSegmentationHead(fusion_channels, num_classes).head

    def forward(self, maps: list[Tensor], prefix_tokens: object = None) -> Tensor:
        made = [reassemble(one) for reassemble, one in zip(self.reassemble_blocks, maps, strict=True)]
        fused: Tensor | None = None
        for fuse, one in zip(self.fusion_blocks, reversed(made), strict=True):
            if fused is not None and fused.shape[-2:] != one.shape[-2:]:
                fused = F.interpolate(fused, one.shape[-2:], mode="bilinear", align_corners=True)
            fused = fuse(one, fused)
        logits: Tensor = self.head(fused)
        return logits


class UPerNetHead(nn.Module):
    """UPerNet (Xiao et al. 2018) over four maps of one size, made a pyramid of 4, 2, 1 and 1/2 times that size by transposed
    convolutions and a pooling, as BEiT and MAE have it (Bao et al. 2022; He et al. 2022).

    Args:
        channels: of the maps, all alike.
        num_classes: classes K.
        decoder_channels: of UPerNet.
    """

    def __init__(self, channels: int, num_classes: int, decoder_channels: int) -> None:
        super().__init__()

        def doubled() -> nn.Module:
            return nn.ConvTranspose2d(channels, channels, 2, stride=2)

        self.pyramid = nn.ModuleList(
            [
                nn.Sequential(doubled(), nn.BatchNorm2d(channels), nn.GELU(), doubled()),
                doubled(),
                nn.Identity(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        )
        # It leaves out the first two, which in a convolutional encoder are the image and the half of it.
        self.decoder = UPerNetDecoder([0, 0, *[channels] * 4], decoder_channels=decoder_channels)
        self.classifier = nn.Conv2d(decoder_channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        made = [scale(one) for scale, one in zip(self.pyramid, maps, strict=True)]
        logits: Tensor = self.classifier(self.decoder([made[0], made[0], *made]))
        return logits


class MaskTransformer(nn.Module):
    """Segmenter's decoder (Strudel et al. 2021): class tokens go through a transformer with the patches'; a patch's logit for a
    class is the product of the two.

    Args:
        channels: of the map.
        num_classes: classes K.
        depth: transformer blocks.
        width: of the tokens in it, a multiple of `heads`.
        heads: of the attention.
    """

    def __init__(self, channels: int, num_classes: int, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.project = nn.Linear(channels, width)
        self.classes = nn.Parameter(torch.empty(1, num_classes, width))
        self.blocks = nn.ModuleList([Block(width, heads, qkv_bias=True) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.of_patches = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.of_classes = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.mask_norm = nn.LayerNorm(num_classes)
        self.apply(_as_segmenter)
        nn.init.trunc_normal_(self.classes, std=0.02)

    def forward(self, maps: list[Tensor]) -> Tensor:
        (one,) = maps
        height, width = one.shape[-2:]
        tokens = self.project(one.flatten(2).transpose(1, 2))
        tokens = torch.cat([tokens, self.classes.expand(tokens.shape[0], -1, -1).to(tokens.dtype)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        patches = F.normalize(tokens[:, : -self.num_classes] @ self.of_patches, dim=-1)
        classes = F.normalize(tokens[:, -self.num_classes :] @ self.of_classes, dim=-1)
        logits: Tensor = self.mask_norm(patches @ classes.transpose(1, 2))
        return logits.transpose(1, 2).reshape(tokens.shape[0], self.num_classes, height, width)


def _as_segmenter(module: Any) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
