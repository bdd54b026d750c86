"""Mask2Former of transformers, over its own Swin and timm's encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import timm
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from src.errors import UserError
from src.networks.base import IMAGENET_MEAN, IMAGENET_STD, SegmentationNetwork
from src.networks.queries import Layer, Queries, read_tensors, transformers
from src.networks.weights import fill, load_encoder, pixel_statistics

SIZE_DIVISOR = 32  # the config check refuses training crops that are no multiple of it
TRAINS_ON = "masks"  # and losses that do not say the same
# As the published checkpoints have them: channels, depths, heads, window.
_SWIN = {
    "swin-tiny": (96, [2, 2, 6, 2], [3, 6, 12, 24], 7),
    "swin-small": (96, [2, 2, 18, 2], [3, 6, 12, 24], 7),
    "swin-base": (128, [2, 2, 18, 2], [4, 8, 16, 32], 12),
    "swin-large": (192, [2, 2, 18, 2], [6, 12, 24, 48], 12),
}
# The names of a Swin's tensors in transformers' files, and in its modules since version 5.
_IN_FILES = {
    "attention.self.query": "attention.q_proj",
    "attention.self.key": "attention.k_proj",
    "attention.self.value": "attention.v_proj",
    "attention.self.relative_position_bias_table": "attention.relative_position_bias.relative_position_bias_table",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_STAGES = ["stage1", "stage2", "stage3", "stage4"]


def mask2former(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "resnet50",
    encoder_weights: str | None = None,
    num_queries: PositiveInt = 100,
    channels: Annotated[int, Field(ge=32, multiple_of=32)] = 256,
    heads: PositiveInt = 8,
    pixel_decoder_layers: PositiveInt = 6,
    decoder_layers: PositiveInt = 9,
    feedforward: PositiveInt = 2048,
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.3,
) -> SegmentationNetwork:
    """Mask2Former (Cheng et al. 2022); trains with `loss=mask_classification`.

    Below `model.` its tensors have the names of transformers' Mask2FormerForUniversalSegmentation, so that `init_from` takes
    published checkpoints.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        encoder: any of timm's convolutional feature extractors of strides 4 to 32, or transformers' swin-tiny, swin-small,
            swin-base, swin-large.
        encoder_weights: of timm's encoders "imagenet", "efficientnet-lite0" (-lite1, -lite2) or a local file; of a Swin a
            file of transformers' classifier; or None.
        num_queries: masks that are predicted; of an image with more classes the loss leaves out the costliest.
        channels: of pixel decoder, queries and masks, normalised in 32 groups; with 32 of them images need more than 32 pixels.
        heads: of all attention, in both decoders.
        pixel_decoder_layers: of deformable attention over three scales.
        decoder_layers: of masked attention; each is supervised, and so are the queries before the first.
        feedforward: hidden width of the decoder's layers.
        drop_path: stochastic depth of a Swin.

    Raises:
        UserError: transformers is not installed, the encoder cannot serve, or two keys do not fit.
    """
    if channels % heads:
        raise UserError(f"network.heads: {heads} do not divide network.channels={channels}; take e.g. 8")
    library = transformers()
    config = library.Mask2FormerConfig(
        backbone_config=_encoder_config(library, encoder, in_channels, drop_path),
        feature_size=channels, mask_feature_size=channels, hidden_dim=channels, num_attention_heads=heads,
        encoder_layers=pixel_decoder_layers, decoder_layers=decoder_layers + 1, dim_feedforward=feedforward,
        num_queries=num_queries, num_labels=num_classes,
    )  # fmt: skip
    core = _Mask2Former(library.Mask2FormerForUniversalSegmentation(config))
    try:
        core.freeze_unused(in_channels, 2 * SIZE_DIVISOR)
    except (ValueError, RuntimeError, AssertionError, IndexError) as error:
        raise _cannot_serve(encoder, error) from error
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if encoder_weights is not None:
        _load(core, encoder, encoder_weights, in_channels)
    if encoder not in _SWIN:
        mean, std = pixel_statistics(f"tu-{encoder}", encoder_weights)  # type: ignore[assignment]
    return SegmentationNetwork(core, mean, std, SIZE_DIVISOR, encoder="model.model.pixel_level_module.encoder")


class _Mask2Former(Queries):
    def __init__(self, model: Any) -> None:
        super().__init__()
        del model.criterion  # the loss is ours
        self.model = model

    def layers(self, image: Tensor) -> Sequence[Layer]:
        outputs = self.model(pixel_values=image, output_auxiliary_logits=True)
        earlier = [(each["class_queries_logits"], each["masks_queries_logits"]) for each in outputs.auxiliary_logits]
        return [*earlier, (outputs.class_queries_logits, outputs.masks_queries_logits)]


def _encoder_config(library: Any, encoder: str, in_channels: int, drop_path: float) -> Any:
    if encoder in _SWIN:
        width, depths, heads, window = _SWIN[encoder]
        return library.SwinConfig(
            num_channels=in_channels, embed_dim=width, depths=depths, num_heads=heads, window_size=window,
            drop_path_rate=drop_path, out_features=_STAGES,
        )  # fmt: skip
    if not timm.is_model(encoder):
        raise UserError(
            f"network.encoder: timm knows no {encoder!r}; take one of timm.list_models(), or {', '.join(_SWIN)}"
        )
    try:
        features: Any = timm.create_model(encoder, features_only=True, in_chans=in_channels)
        strides = features.feature_info.reduction()
    except (ValueError, RuntimeError, AssertionError, LookupError, AttributeError, TypeError) as error:
        raise _cannot_serve(encoder, error) from error
    if strides[-4:] != [4, 8, 16, 32]:
        raise _cannot_serve(encoder, f"its features have strides {strides}, not 4, 8, 16 and 32")
    last = len(strides)
    return library.TimmBackboneConfig(
        backbone=encoder, num_channels=in_channels, out_indices=list(range(last - 4, last))
    )


def _cannot_serve(encoder: str, reason: object) -> UserError:
    said = " ".join(str(reason).split())[:160]
    return UserError(
        f"network.encoder: {encoder!r} cannot serve mask2former ({said}); take e.g. resnet50, or {', '.join(_SWIN)}"
    )


def _load(core: _Mask2Former, encoder: str, weights: str, in_channels: int) -> None:
    own = core.model.model.pixel_level_module.encoder
    if encoder not in _SWIN:
        named = nn.Module()
        (named.model,) = own.children()  # timm's names behind `model.`, as `load_encoder` expects them
        load_encoder(named, f"tu-{encoder}", weights, in_channels)
        return
    if weights == "imagenet":
        raise UserError(
            f"network.encoder_weights: of {encoder} a file is needed, transformers' SwinForImageClassification of the same "
            "size (model.safetensors); or null"
        )
    state = read_tensors(weights, "")
    fill(own.swin, {as_now(key).removeprefix("swin."): value for key, value in state.items()}, weights, in_channels)


def as_now(name: str) -> str:
    """A tensor's name in the files that transformers writes as its modules are called; they differ in a Swin."""
    before, inside, after = name.partition("pixel_level_module.encoder.")
    if after.startswith(("embeddings.", "encoder.")):
        name = f"{before}{inside}swin.{after}"
    if ".blocks." in name:
        for there, here in _IN_FILES.items():
            name = name.replace(there, here)
    return name
