"""Networks of segmentation_models_pytorch over its own encoders and all of timm's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import segmentation_models_pytorch as smp
from pydantic import Field, NonNegativeInt, PositiveInt

from src.errors import UserError
from src.networks import vit_models
from src.networks.auxiliary import with_auxiliary_head, with_dropout
from src.networks.base import Freeze, SegmentationNetwork
from src.networks.encoders import encoder_name, is_plain_vit, of_any_size
from src.networks.lora import LoRA
from src.networks.lraspp import LRASPP
from src.networks.weights import load_encoder, pixel_statistics

SIZE_DIVISOR = 32  # the config check refuses training crops that are no multiple of it
POOLED_BATCH_NORM = ("deeplabv3plus", "pan")  # and one image a device for these


def unet(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet34",
    encoder_weights: str | None = None,
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = 5,
    decoder_channels: list[PositiveInt] | None = None,
    decoder_attention: Literal["scse"] | None = None,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """U-Net (Ronneberger et al. 2015).

    Args:
        num_classes: classes K.
        in_channels: image channels.
        encoder: one of smp's encoders or any of timm's feature extractors.
        encoder_weights: "pretrained" (or "imagenet"), "efficientnet-lite0" (-lite1, -lite2), a local file, or None.
        encoder_depth: stages of the encoder.
        decoder_channels: one number a stage, coarse to fine; None takes 256 halved at each.
        decoder_attention: "scse" for squeeze and excitation (Roy et al. 2018).
        freeze: "encoder": it does not learn, and stays in evaluation mode.
    """
    return _build(
        smp.Unet, num_classes, in_channels, encoder, encoder_weights, freeze, encoder_depth=encoder_depth,
        decoder_channels=_halved(decoder_channels, encoder_depth), decoder_attention_type=decoder_attention,
    )  # fmt: skip


def fpn(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet34",
    encoder_weights: str | None = None,
    pyramid_channels: PositiveInt = 256,
    segmentation_channels: PositiveInt = 128,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """Feature pyramid network for segmentation (Kirillov et al. 2019); keys as in `unet`."""
    return _build(
        smp.FPN, num_classes, in_channels, encoder, encoder_weights, freeze, decoder_pyramid_channels=pyramid_channels,
        decoder_segmentation_channels=segmentation_channels, decoder_dropout=dropout,
    )  # fmt: skip


def unetplusplus(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet34",
    encoder_weights: str | None = None,
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = 5,
    decoder_channels: list[PositiveInt] | None = None,
    decoder_attention: Literal["scse"] | None = None,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """U-Net++ (Zhou et al. 2018), without its deep supervision; keys as in `unet`. Not over Mix Transformers."""
    return _build(
        smp.UnetPlusPlus, num_classes, in_channels, encoder, encoder_weights, freeze, encoder_depth=encoder_depth,
        decoder_channels=_halved(decoder_channels, encoder_depth), decoder_attention_type=decoder_attention,
    )  # fmt: skip


def manet(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet34",
    encoder_weights: str | None = None,
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = 5,
    decoder_channels: list[PositiveInt] | None = None,
    attention_channels: PositiveInt = 64,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """MA-Net (Fan et al. 2020), a U-Net with attention; keys as in `unet`.

    Args:
        attention_channels: in which the pixels of the coarsest stage are compared, each with each: memory grows with the square
            of their number.
    """
    return _build(
        smp.MAnet, num_classes, in_channels, encoder, encoder_weights, freeze, encoder_depth=encoder_depth,
        decoder_channels=_halved(decoder_channels, encoder_depth), decoder_pab_channels=attention_channels,
    )  # fmt: skip


def linknet(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet34",
    encoder_weights: str | None = None,
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = 5,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """LinkNet (Chaurasia and Culurciello 2017); keys as in `unet`. Not over Mix Transformers."""
    return _build(smp.Linknet, num_classes, in_channels, encoder, encoder_weights, freeze, encoder_depth=encoder_depth)


def pspnet(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet50",
    encoder_weights: str | None = None,
    encoder_depth: Annotated[int, Field(ge=3, le=5)] = 5,
    output_stride: Literal[8, 16, 32] = 8,
    decoder_channels: PositiveInt = 512,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    aux: bool = True,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """PSPNet (Zhao et al. 2017), whose last convolution is 1x1 in smp, and 3x3 in the paper; keys as in `unet`.

    Args:
        output_stride: of the dilated encoder; 32 dilates nothing.
        aux: the paper's second head, on the stage before the last; trained with `model.aux_weight`.
    """
    network = _build(
        smp.PSPNet, num_classes, in_channels, encoder, encoder_weights, freeze, encoder_depth=encoder_depth,
        output_stride=output_stride, psp_out_channels=decoder_channels, psp_dropout=dropout,
        upsampling=min(output_stride, 2**encoder_depth),
    )  # fmt: skip
    return with_auxiliary_head(network, num_classes) if aux else network


def pan(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet34",
    encoder_weights: str | None = None,
    output_stride: Literal[16, 32] = 16,
    decoder_channels: PositiveInt = 32,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """Pyramid attention network (Li et al. 2018); keys as in `unet`. Trains on 2 images or more.

    Args:
        output_stride: of the dilated encoder. Images are padded to a multiple of 8 times it: the pyramid halves three times.
    """
    network = _build(
        smp.PAN, num_classes, in_channels, encoder, encoder_weights, freeze, encoder_output_stride=output_stride,
        decoder_channels=decoder_channels,
    )  # fmt: skip
    network.size_divisor = 8 * output_stride
    return network


def deeplabv3plus(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet50",
    encoder_weights: str | None = None,
    output_stride: Literal[8, 16] = 16,
    decoder_channels: PositiveInt = 256,
    atrous_rates: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)] | None = None,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    freeze: Freeze | None = None,
    aux: bool = False,
    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> SegmentationNetwork:
    """DeepLabV3+ (Chen et al. 2018); keys as in `unet`. Trains on 2 images or more: its pooled branch has batch norm.

    Args:
        output_stride: of the dilated encoder.
        atrous_rates: of the three dilated branches; None takes 12, 24, 36.
        dropout: where the branches are joined, as the paper's authors have it.
        aux: a second head on the third stage, as mmsegmentation has; trained with `model.aux_weight`.
        head_dropout: of maps before the classifier, as mmsegmentation has it.
    """
    network = _build(
        smp.DeepLabV3Plus, num_classes, in_channels, encoder, encoder_weights, freeze, encoder_output_stride=output_stride,
        decoder_channels=decoder_channels, decoder_atrous_rates=tuple(atrous_rates or (12, 24, 36)),
        decoder_aspp_dropout=dropout,
    )  # fmt: skip
    with_dropout(network.core.get_submodule("decoder.block2"), head_dropout)
    return with_auxiliary_head(network, num_classes) if aux else network


def segformer(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "mit_b0",
    encoder_weights: str | None = None,
    decoder_channels: PositiveInt = 256,
    freeze: Freeze | None = None,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> SegmentationNetwork:
    """SegFormer (Xie et al. 2021): a plain decoder over a Mix Transformer (or any other encoder); keys as in `unet`.

    Args:
        dropout: of maps before the classifier; the authors have 0.1.
    """
    network = _build(
        smp.Segformer,
        num_classes,
        in_channels,
        encoder,
        encoder_weights,
        freeze,
        decoder_segmentation_channels=decoder_channels,
    )
    with_dropout(network.core.get_submodule("decoder.fuse_stage"), dropout)
    return network


def upernet(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet34",
    encoder_weights: str | None = None,
    decoder_channels: PositiveInt = 256,
    layers: Annotated[list[NonNegativeInt], Field(min_length=4, max_length=4)] | None = None,
    freeze: Freeze | None = None,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    gradient_checkpointing: bool = False,
    lora: LoRA | None = None,
    aux: bool = False,
    aux_channels: PositiveInt | None = None,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> SegmentationNetwork:
    """UPerNet (Xiao et al. 2018), over a plain ViT too (as in BEiT and MAE); keys as in `unet`.

    Args:
        layers, gradient_checkpointing, lora: of a plain ViT; see `src.networks.vit_models.dpt`.
        drop_path: of timm's encoders: the last block's probability to be left out of an image, growing from 0 at the first; 0
            leaves timm's own.
        aux: a second head on the third stage, as mmsegmentation has, not over a plain ViT; trained with `model.aux_weight`.
        aux_channels: its width; None takes a quarter of its input's.
        dropout: of maps before the classifier; mmsegmentation has 0.1.
    """
    if is_plain_vit(encoder_name(encoder)):
        if aux:
            raise UserError(f"network.aux: {encoder} has no stages for a second head to stand on; set it to false")
        network = vit_models.upernet(
            num_classes, in_channels, encoder, encoder_weights, decoder_channels, layers, freeze, drop_path,
            gradient_checkpointing, lora,
        )  # fmt: skip
        with_dropout(network.core.get_submodule("head.decoder.fusion_block"), dropout)
        return network
    of_timm = encoder_name(encoder).startswith("tu-")
    vit_models.refuse_keys_of_vits(encoder, layers, 0.0 if of_timm else drop_path, gradient_checkpointing, lora)
    skipped = {"drop_path_rate": drop_path} if drop_path else {}
    network = _build(
        smp.UPerNet,
        num_classes,
        in_channels,
        encoder,
        encoder_weights,
        freeze,
        decoder_channels=decoder_channels,
        **skipped,
    )
    with_dropout(network.core.get_submodule("decoder.fusion_block"), dropout)
    return with_auxiliary_head(network, num_classes, aux_channels) if aux else network


def lraspp(
    num_classes: int, in_channels: int, encoder: str, encoder_weights: str | None, freeze: Freeze | None
) -> SegmentationNetwork:
    """Lite R-ASPP over any encoder that can be dilated to stride 16; `network=lraspp` with `network.encoder` of smp or timm."""
    return _build(LRASPP, num_classes, in_channels, encoder, encoder_weights, freeze)


def _halved(channels: list[int] | None, depth: int) -> list[int]:
    """One number a stage, coarse to fine; None takes 256 halved at each."""
    channels = channels or [256 // 2**stage for stage in range(depth)]
    if len(channels) != depth:
        raise UserError(f"network.decoder_channels: {len(channels)} numbers for {depth} stages (network.encoder_depth)")
    return channels


def _build(
    architecture: Any,
    num_classes: int,
    in_channels: int,
    encoder: str,
    encoder_weights: str | None,
    freeze: Freeze | None,
    **own: object,
) -> SegmentationNetwork:
    name = encoder_name(encoder)
    core = of_any_size(
        lambda **sizes: architecture(
            encoder_name=name, encoder_weights=None, in_channels=in_channels, classes=num_classes, **own, **sizes
        ),
        encoder,
        in_channels,
    )
    if encoder_weights is not None:
        load_encoder(core.get_submodule("encoder"), name, encoder_weights, in_channels)
    mean, std = pixel_statistics(name, encoder_weights)
    return SegmentationNetwork(core, mean, std, SIZE_DIVISOR, encoder="encoder", freeze=freeze)
