"""Networks over plain Vision Transformers of timm: `network=linear`, `dpt`, `segmenter`, and `upernet` over such an encoder."""

from __future__ import annotations

from typing import Annotated, Any

import segmentation_models_pytorch as smp
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import nn

from src.errors import UserError
from src.networks.base import Freeze, SegmentationNetwork
from src.networks.encoders import STRIDE, encoder_name, freeze_unused, is_plain_vit, of_any_size
from src.networks.lora import LoRA
from src.networks.vit_encoder import PlainViT, vit_model
from src.networks.vit_heads import DPTHead, EncoderAndHead, LinearHead, MaskTransformer, UPerNetHead
from src.networks.weights import load_encoder, pixel_statistics

BelowOne = Annotated[float, Field(ge=0, lt=1)]
Four = Annotated[list[NonNegativeInt], Field(min_length=4, max_length=4)]


def linear(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "vit_small_patch16_dinov3",
    encoder_weights: str | None = None,
    layers: PositiveInt = 1,
    freeze: Freeze | None = None,
    drop_path: BelowOne = 0.0,
    gradient_checkpointing: bool = False,
    lora: LoRA | None = None,
    dropout: BelowOne = 0.0,
) -> SegmentationNetwork:
    """Batch norm and a linear layer over the encoder's last feature maps, as DINOv2's linear probe (Oquab et al. 2024).

    Over an encoder that is no plain ViT (ConvNeXt, Swin, ResNet) it takes the last stages, brought to the finest one's size.

    Args:
        layers: last blocks (or stages) whose maps are joined; DINOv2 takes 1, and 4 for "+ms". The other keys are as in `dpt`.
        dropout: of maps before the batch norm; DINOv3's probe has 0.1.
    """
    if not is_plain_vit(encoder_name(encoder)):
        return _linear_over_stages(
            num_classes,
            in_channels,
            encoder,
            encoder_weights,
            layers,
            freeze,
            drop_path,
            gradient_checkpointing,
            lora,
            dropout,
        )
    body = _Encoder(in_channels, encoder, encoder_weights, drop_path, gradient_checkpointing, lora)
    if layers > body.depth:
        raise UserError(f"network.layers: {encoder} has {body.depth} blocks; take {body.depth} or fewer")
    blocks = list(range(body.depth - layers, body.depth))
    return body.network(blocks, lambda channels: LinearHead([channels] * layers, num_classes, dropout), freeze)


def dpt(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "vit_small_patch16_dinov3",
    encoder_weights: str | None = None,
    decoder_channels: PositiveInt = 256,
    layers: Four | None = None,
    freeze: Freeze | None = None,
    drop_path: BelowOne = 0.0,
    gradient_checkpointing: bool = False,
    lora: LoRA | None = None,
) -> SegmentationNetwork:
    """Dense Prediction Transformer (Ranftl et al. 2021) over a plain ViT.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        encoder: a plain ViT of timm: ViT, DeiT, DINOv2, DINOv3, MAE, BEiT, SAM, AugReg, EVA02, CLIP, SigLIP.
        encoder_weights: "pretrained" (or "imagenet") for timm's own, a local file, or None.
        decoder_channels: of the fused maps.
        layers: numbers of four blocks, from 0; None takes the last of each quarter.
        freeze: "encoder": it does not learn, and stays in evaluation mode.
        drop_path: the last block's probability to be left out of an image; from 0 at the first it grows linearly.
        gradient_checkpointing: compute each block anew in the backward pass: less memory, more time.
        lora: adapters that learn in the encoder's stead.
    """
    body = _Encoder(in_channels, encoder, encoder_weights, drop_path, gradient_checkpointing, lora)
    return body.network(body.four(layers), lambda channels: DPTHead(channels, num_classes, decoder_channels), freeze)


def upernet(
    num_classes: int,
    in_channels: int,
    encoder: str,
    encoder_weights: str | None,
    decoder_channels: int,
    layers: list[int] | None,
    freeze: Freeze | None,
    drop_path: float,
    gradient_checkpointing: bool,
    lora: LoRA | None,
) -> SegmentationNetwork:
    """UPerNet (Xiao et al. 2018) over a plain ViT; keys as in `dpt`."""
    body = _Encoder(in_channels, encoder, encoder_weights, drop_path, gradient_checkpointing, lora)
    return body.network(
        body.four(layers), lambda channels: UPerNetHead(channels, num_classes, decoder_channels), freeze
    )


def segmenter(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "vit_small_patch16_dinov3",
    encoder_weights: str | None = None,
    decoder_layers: PositiveInt = 2,
    decoder_width: PositiveInt | None = None,
    decoder_heads: PositiveInt | None = None,
    freeze: Freeze | None = None,
    drop_path: BelowOne = 0.0,
    gradient_checkpointing: bool = False,
    lora: LoRA | None = None,
) -> SegmentationNetwork:
    """Segmenter with its mask transformer (Strudel et al. 2021) over a plain ViT; keys as in `dpt`.

    Args:
        decoder_layers: transformer blocks of the decoder.
        decoder_width: of its tokens; None takes the encoder's.
        decoder_heads: of its attention; None takes one for each 64 of the width.
    """
    body = _Encoder(in_channels, encoder, encoder_weights, drop_path, gradient_checkpointing, lora)

    def head(channels: int) -> nn.Module:
        width = decoder_width or channels
        heads = decoder_heads or max(1, width // 64)
        if width % heads:
            raise UserError(
                f"network.decoder_heads: the width {width} cannot be split among {heads} heads; give a divisor"
            )
        return MaskTransformer(channels, num_classes, decoder_layers, width, heads)

    return body.network([body.depth - 1], head, freeze)


class _Encoder:
    """A plain ViT with its weights, before it is cut to the blocks that a head wants."""

    def __init__(
        self,
        in_channels: int,
        encoder: str,
        encoder_weights: str | None,
        drop_path: float,
        gradient_checkpointing: bool,
        lora: LoRA | None,
    ) -> None:
        name = encoder_name(encoder)
        if not is_plain_vit(name):
            raise UserError(
                f"network.encoder: {encoder!r} is no plain ViT of timm, which this network is for; take e.g. "
                "vit_small_patch14_dinov2, or network=upernet"
            )
        self.model: Any = vit_model(name.removeprefix("tu-"), encoder_weights, in_channels, drop_path)
        self.statistics = pixel_statistics(name, encoder_weights)
        self.in_channels, self.checkpointing, self.lora = in_channels, gradient_checkpointing, lora
        self.depth = len(self.model.blocks)

    def four(self, given: list[int] | None) -> list[int]:
        """Four numbers of blocks, rising: those that are given, or the last of each quarter."""
        blocks = given or [self.depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
        if sorted(set(blocks)) != blocks or not 0 <= blocks[0] <= blocks[-1] < self.depth:
            raise UserError(f"network.layers: should be four rising numbers from 0 to {self.depth - 1}, not {blocks}")
        return blocks

    def network(self, blocks: list[int], head: Any, freeze: Freeze | None) -> SegmentationNetwork:
        """The encoder cut to these blocks, and `head(channels)` on their maps."""
        encoder = PlainViT(self.model, blocks, self.checkpointing)
        core = EncoderAndHead(encoder, head(encoder.channels), len(blocks))
        freeze_unused(core, self.in_channels, 2 * encoder.stride, 3 * encoder.stride)
        _adapt(encoder, self.lora, freeze)
        return SegmentationNetwork(core, *self.statistics, encoder.stride, encoder="encoder", freeze=freeze)


def _adapt(encoder: nn.Module, lora: LoRA | None, freeze: Freeze | None) -> None:
    if lora is not None and lora.rank > 0:
        if freeze is not None:
            raise UserError(
                "network.freeze: LoRA's adapters are in the encoder and all else of it is frozen; set it to null"
            )
        lora.adapt(encoder)


def _linear_over_stages(
    num_classes: int,
    in_channels: int,
    encoder: str,
    encoder_weights: str | None,
    layers: int,
    freeze: Freeze | None,
    drop_path: float,
    gradient_checkpointing: bool,
    lora: LoRA | None,
    dropout: float,
) -> SegmentationNetwork:
    refuse_keys_of_vits(encoder, None, drop_path, gradient_checkpointing, lora)
    name = encoder_name(encoder)

    def build(**sizes: object) -> nn.Module:
        body = smp.encoders.get_encoder(name, in_channels=in_channels, weights=None, **sizes)
        channels = [width for width in body.out_channels[1:] if width > 0]
        if layers > len(channels):
            raise UserError(f"network.layers: {encoder} has {len(channels)} stages; take {len(channels)} or fewer")
        return EncoderAndHead(body, LinearHead(channels[-layers:], num_classes, dropout), layers)

    core = of_any_size(build, encoder, in_channels)
    if encoder_weights is not None:
        load_encoder(core.get_submodule("encoder"), name, encoder_weights, in_channels)
    mean, std = pixel_statistics(name, encoder_weights)
    return SegmentationNetwork(core, mean, std, STRIDE, encoder="encoder", freeze=freeze)


def refuse_keys_of_vits(
    encoder: str, layers: list[int] | None, drop_path: float, gradient_checkpointing: bool, lora: LoRA | None
) -> None:
    """Ends where keys that only plain ViTs have are given for another encoder.

    Raises:
        UserError: the first such key.
    """
    given = {
        "layers": layers is not None,
        "drop_path": drop_path > 0,
        "gradient_checkpointing": gradient_checkpointing,
        "lora": lora is not None and lora.rank > 0,
    }
    for key, is_given in given.items():
        if is_given:
            raise UserError(
                f"network.{key}: is for plain ViTs, and {encoder!r} is none; leave it out, or take another encoder"
            )
