"""UPerNet (Xiao et al. 2018) over Swin Transformers (Liu et al. 2021) and ConvNeXt (Liu et al. 2022), as transformers names its
layers, in smp's and timm's names.

Its second head has more channels than ours and starts anew. Logits are the same where windows are smaller than the maps: in
smaller ones transformers shrinks them, and timm, as mmsegmentation, does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from src.networks.foreign.found import CORE, Table

_SWIN: dict[tuple[tuple[int, ...], int, int], str] = {  # blocks of each stage, channels of the first, the windows' side
    ((2, 2, 6, 2), 96, 7): "swin_tiny_patch4_window7_224",
    ((2, 2, 18, 2), 96, 7): "swin_small_patch4_window7_224",
    ((2, 2, 18, 2), 128, 7): "swin_base_patch4_window7_224",
    ((2, 2, 18, 2), 128, 12): "swin_base_patch4_window12_384",
    ((2, 2, 18, 2), 192, 7): "swin_large_patch4_window7_224",
    ((2, 2, 18, 2), 192, 12): "swin_large_patch4_window12_384",
}
_CONVNEXT: dict[tuple[tuple[int, ...], int], str] = {
    ((3, 3, 9, 3), 96): "convnext_tiny",
    ((3, 3, 27, 3), 96): "convnext_small",
    ((3, 3, 27, 3), 128): "convnext_base",
    ((3, 3, 27, 3), 192): "convnext_large",
    ((3, 3, 27, 3), 256): "convnext_xlarge",
}
_BLOCK, _OURS = "backbone.encoder.layers.{s}.blocks.{b}", "encoder.model.layers_{s}.blocks.{b}"
_STAGE, _OUR_STAGE = "backbone.encoder.stages.{s}", "encoder.model.stages_{s}"
_HEAD = {
    **{f"decode_head.psp_modules.{i}.1": f"decoder.psp.blocks.{i}.1" for i in range(4)},
    "decode_head.bottleneck": "decoder.psp.out_conv",
    **{f"decode_head.lateral_convs.{i}": f"decoder.fpn_lateral_blocks.{2 - i}.conv_norm_relu" for i in range(3)},
    **{f"decode_head.fpn_convs.{i}": f"decoder.fpn_conv_blocks.{2 - i}" for i in range(3)},
    "decode_head.fpn_bottleneck": "decoder.fusion_block",
}
_TABLE = Table({
    **{f"{theirs}.conv": f"{ours}.0" for theirs, ours in _HEAD.items()},
    **{f"{theirs}.batch_norm": f"{ours}.1" for theirs, ours in _HEAD.items()},
    **{f"backbone.hidden_states_norms.stage{i + 1}": f"decoder.feature_norms.{i}" for i in range(4)},
    "decode_head.classifier": "segmentation_head.0",
    # Swin
    "backbone.embeddings.patch_embeddings.projection": "encoder.model.patch_embed.proj",
    "backbone.embeddings.norm": "encoder.model.patch_embed.norm",
    f"{_BLOCK}.layernorm_before": f"{_OURS}.norm1",
    f"{_BLOCK}.layernorm_after": f"{_OURS}.norm2",
    f"{_BLOCK}.attention.self": f"{_OURS}.attn",  # `.relative_position_bias_table`
    f"{_BLOCK}.attention.self.query": f"{_OURS}.attn.q",
    f"{_BLOCK}.attention.self.key": f"{_OURS}.attn.k",
    f"{_BLOCK}.attention.self.value": f"{_OURS}.attn.v",
    f"{_BLOCK}.attention.output.dense": f"{_OURS}.attn.proj",
    f"{_BLOCK}.intermediate.dense": f"{_OURS}.mlp.fc1",
    f"{_BLOCK}.output.dense": f"{_OURS}.mlp.fc2",
    # merges patches behind a stage there, before the next one here
    "backbone.encoder.layers.{s}.downsample.reduction": "encoder.model.layers_{n}.downsample.reduction",
    "backbone.encoder.layers.{s}.downsample.norm": "encoder.model.layers_{n}.downsample.norm",
    # ConvNeXt
    "backbone.embeddings.patch_embeddings": "encoder.model.stem_0",
    "backbone.embeddings.layernorm": "encoder.model.stem_1",
    f"{_STAGE}.downsampling_layer.{{b}}": f"{_OUR_STAGE}.downsample.{{b}}",
    f"{_STAGE}.layers.{{b}}": f"{_OUR_STAGE}.blocks.{{b}}",  # `.layer_scale_parameter`
    f"{_STAGE}.layers.{{b}}.dwconv": f"{_OUR_STAGE}.blocks.{{b}}.conv_dw",
    f"{_STAGE}.layers.{{b}}.layernorm": f"{_OUR_STAGE}.blocks.{{b}}.norm",
    f"{_STAGE}.layers.{{b}}.pwconv1": f"{_OUR_STAGE}.blocks.{{b}}.mlp.fc1",
    f"{_STAGE}.layers.{{b}}.pwconv2": f"{_OUR_STAGE}.blocks.{{b}}.mlp.fc2",
})  # fmt: skip


def encoder_of(kind: str, depths: Sequence[int], channels: int, window: object) -> str | None:
    """timm's name of an encoder; None where it is none of the papers'.

    Args:
        kind: "swin" or "convnext".
        channels: of the first stage.
    """
    if kind == "swin" and isinstance(window, int):
        return _SWIN.get((tuple(depths), channels, window))
    return _CONVNEXT.get((tuple(depths), channels)) if kind == "convnext" else None


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `UperNetForSemanticSegmentation.save_pretrained`; queries, keys and values are one matrix here."""
    renamed = _TABLE.renamed(state)
    result: dict[str, Tensor] = {}
    for key, value in renamed.items():
        apart = [key.replace(".attn.q.", f".attn.{part}.") for part in "qkv"] if ".attn.q." in key else []
        if apart and all(one in renamed for one in apart):
            result[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat([renamed[one] for one in apart])
        elif ".attn.k." not in key and ".attn.v." not in key:
            result[key.replace(".layer_scale_parameter", ".gamma") if key.startswith(CORE) else key] = value
    return result
