"""FCN, DeepLabV3 and LR-ASPP of torchvision."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models import segmentation

from src.networks.base import Freeze, SegmentationNetwork
from src.networks.weights import load_torchvision

POOLED_BATCH_NORM = ("deeplabv3",)  # the config check refuses one image a device


class _Core(nn.Module):
    """A torchvision segmentation model with our names for its outputs."""

    ONLY_TRAIN = ("model.aux_classifier",)  # heads; see `SegmentationNetwork.only_train`

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.model(image)
        result = {"logits": outputs["out"]}
        if self.training and "aux" in outputs:
            result["aux"] = outputs["aux"]
        return result


def fcn(
    num_classes: int,
    in_channels: int = 3,
    encoder: Literal["resnet50", "resnet101"] = "resnet50",
    encoder_weights: str | None = None,
    aux: bool = True,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """Fully convolutional network (Long et al. 2015) over a ResNet dilated to stride 8.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        encoder: the backbone.
        encoder_weights: "pretrained" (or "imagenet"), "imagenet1k_v1" or "imagenet1k_v2", a local file, or None.
        aux: a second head on the third stage, trained with `model.aux_weight`.
        freeze: "encoder": it does not learn, and stays in evaluation mode.
    """
    return _build(
        getattr(segmentation, f"fcn_{encoder}"),
        num_classes,
        in_channels,
        encoder,
        encoder_weights,
        freeze,
        aux_loss=aux,
    )


def deeplabv3(
    num_classes: int,
    in_channels: int = 3,
    encoder: Literal["resnet50", "resnet101", "mobilenet_v3_large"] = "resnet50",
    encoder_weights: str | None = None,
    aux: bool = True,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """DeepLabV3 (Chen et al. 2017); keys as in `fcn`. Trains on 2 images or more: its pooled branch has batch norm."""
    builder = getattr(segmentation, f"deeplabv3_{encoder}")
    return _build(builder, num_classes, in_channels, encoder, encoder_weights, freeze, aux_loss=aux)


def lraspp(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "mobilenet_v3_large",
    encoder_weights: str | None = None,
    freeze: Freeze | None = None,
) -> SegmentationNetwork:
    """Lite R-ASPP (Howard et al. 2019), for small devices; keys as in `fcn`.

    Args:
        encoder: "mobilenet_v3_large" is torchvision's; or one of smp's encoders or timm's that can be dilated to stride 16.
    """
    if encoder != "mobilenet_v3_large":
        from src.networks import smp_models

        return smp_models.lraspp(num_classes, in_channels, encoder, encoder_weights, freeze)
    builder = segmentation.lraspp_mobilenet_v3_large
    return _build(builder, num_classes, in_channels, encoder, encoder_weights, freeze)


def _build(
    builder: Any,
    num_classes: int,
    in_channels: int,
    encoder: str,
    encoder_weights: str | None,
    freeze: Freeze | None,
    **own: object,
) -> SegmentationNetwork:
    model = builder(weights=None, weights_backbone=None, num_classes=num_classes, **own)
    if encoder_weights is not None:
        load_torchvision(model.backbone, encoder, encoder_weights)
    if in_channels != 3:
        _change_first_convolution(model.backbone, in_channels, keep=encoder_weights is not None)
    return SegmentationNetwork(_Core(model), encoder="model.backbone", freeze=freeze)


def _change_first_convolution(backbone: nn.Module, in_channels: int, keep: bool) -> None:
    """Gives the backbone another number of input channels; pre-trained filters are repeated over them."""
    from timm.models import adapt_input_conv

    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    filters = first.weight.data
    first.in_channels = in_channels
    if keep:
        first.weight = nn.Parameter(adapt_input_conv(in_channels, filters))
    else:
        first.weight = nn.Parameter(filters.new_empty(len(filters), in_channels, *filters.shape[2:]))
        nn.init.kaiming_normal_(first.weight, mode="fan_out")  # as torchvision does
