"""SegFormer (Xie et al. 2021) as transformers, mmsegmentation and the paper's authors name its layers, in smp's names.

All four have the same Mix Transformer. The decoder of transformers and of the authors is smp's; mmsegmentation's has a batch
norm and a ReLU behind each projection, which no weights of smp's can stand for, so that its head starts anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from src.networks.foreign.found import CORE, Table

_STAGES = range(4)
# Blocks of each stage and channels of the first.
_ENCODERS: dict[tuple[tuple[int, ...], int], str] = {
    ((2, 2, 2, 2), 32): "mit_b0",
    ((2, 2, 2, 2), 64): "mit_b1",
    ((3, 4, 6, 3), 64): "mit_b2",
    ((3, 4, 18, 3), 64): "mit_b3",
    ((3, 8, 27, 3), 64): "mit_b4",
    ((3, 6, 40, 3), 64): "mit_b5",
}
_FROM = "segformer.encoder"
_TRANSFORMERS = Table({
    f"{_FROM}.patch_embeddings.{{s}}.proj": "encoder.patch_embed{n}.proj",
    f"{_FROM}.patch_embeddings.{{s}}.layer_norm": "encoder.patch_embed{n}.norm",
    f"{_FROM}.block.{{s}}.{{b}}.layer_norm_1": "encoder.block{n}.{b}.norm1",
    f"{_FROM}.block.{{s}}.{{b}}.layer_norm_2": "encoder.block{n}.{b}.norm2",
    f"{_FROM}.block.{{s}}.{{b}}.attention.self.query": "encoder.block{n}.{b}.attn.q",
    f"{_FROM}.block.{{s}}.{{b}}.attention.self.key": "encoder.block{n}.{b}.attn.k",
    f"{_FROM}.block.{{s}}.{{b}}.attention.self.value": "encoder.block{n}.{b}.attn.v",
    f"{_FROM}.block.{{s}}.{{b}}.attention.self.sr": "encoder.block{n}.{b}.attn.sr",
    f"{_FROM}.block.{{s}}.{{b}}.attention.self.layer_norm": "encoder.block{n}.{b}.attn.norm",
    f"{_FROM}.block.{{s}}.{{b}}.attention.output.dense": "encoder.block{n}.{b}.attn.proj",
    f"{_FROM}.block.{{s}}.{{b}}.mlp.dense1": "encoder.block{n}.{b}.mlp.fc1",
    f"{_FROM}.block.{{s}}.{{b}}.mlp.dwconv.dwconv": "encoder.block{n}.{b}.mlp.dwconv.dwconv",
    f"{_FROM}.block.{{s}}.{{b}}.mlp.dense2": "encoder.block{n}.{b}.mlp.fc2",
    f"{_FROM}.layer_norm.{{s}}": "encoder.norm{n}",
    "decode_head.linear_c.{s}.proj": "decoder.mlp_stage.{d}.linear",
    "decode_head.linear_fuse": "decoder.fuse_stage.0",
    "decode_head.batch_norm": "decoder.fuse_stage.1",
    "decode_head.classifier": "segmentation_head.0",
})  # fmt: skip
_MMSEG = Table({
    "backbone.layers.{s}.0.projection": "encoder.patch_embed{n}.proj",
    "backbone.layers.{s}.0.norm": "encoder.patch_embed{n}.norm",
    "backbone.layers.{s}.1.{b}.norm1": "encoder.block{n}.{b}.norm1",
    "backbone.layers.{s}.1.{b}.norm2": "encoder.block{n}.{b}.norm2",
    "backbone.layers.{s}.1.{b}.attn.attn": "encoder.block{n}.{b}.attn.qkv",  # `.in_proj_weight`, `.in_proj_bias`
    "backbone.layers.{s}.1.{b}.attn.attn.out_proj": "encoder.block{n}.{b}.attn.proj",
    "backbone.layers.{s}.1.{b}.attn.sr": "encoder.block{n}.{b}.attn.sr",
    "backbone.layers.{s}.1.{b}.attn.norm": "encoder.block{n}.{b}.attn.norm",
    "backbone.layers.{s}.1.{b}.ffn.layers.0": "encoder.block{n}.{b}.mlp.fc1",
    "backbone.layers.{s}.1.{b}.ffn.layers.1": "encoder.block{n}.{b}.mlp.dwconv.dwconv",
    "backbone.layers.{s}.1.{b}.ffn.layers.4": "encoder.block{n}.{b}.mlp.fc2",
    "backbone.layers.{s}.2": "encoder.norm{n}",
})  # fmt: skip
_AUTHORS = Table({
    **{f"decode_head.linear_c{4 - stage}.proj": f"decoder.mlp_stage.{stage}.linear" for stage in _STAGES},
    "decode_head.linear_fuse.conv": "decoder.fuse_stage.0",
    "decode_head.linear_fuse.bn": "decoder.fuse_stage.1",
    "decode_head.linear_pred": "segmentation_head.0",
})  # fmt: skip


def encoder_of(depths: Sequence[int], channels: int) -> str | None:
    """The name of the Mix Transformer that has so many blocks in its stages; None where it is none of the paper's.

    Args:
        channels: of the first stage.
    """
    return _ENCODERS.get((tuple(depths), channels))


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `SegformerForSemanticSegmentation.save_pretrained`; queries, keys and values are apart there."""
    renamed = _TRANSFORMERS.renamed(state)
    return _joined(renamed)


def from_mmseg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder of mmsegmentation's checkpoint; queries, keys and values are one matrix, the MLP is of 1x1 convolutions."""
    result: dict[str, Tensor] = {}
    for key, value in _MMSEG.renamed(state).items():
        if match := re.fullmatch(r"(.*\.attn\.)qkv\.in_proj_(weight|bias)", key):
            third = len(value) // 3
            result[f"{match[1]}q.{match[2]}"], result[f"{match[1]}kv.{match[2]}"] = value[:third], value[third:]
        elif re.fullmatch(rf"{CORE}encoder\..*\.fc[12]\.weight", key) and value.ndim == 4:
            result[key] = value.flatten(1)
        else:
            result[key] = value
    return result


def from_authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the paper's own checkpoints; their encoder is smp's."""
    encoder = re.compile(r"backbone\.((?:patch_embed|block|norm)\d\..*)")
    return {
        f"{CORE}encoder.{match[1]}" if (match := encoder.fullmatch(key)) else key: value
        for key, value in _AUTHORS.renamed(state).items()
    }


def encoder_in(state: Mapping[str, Tensor]) -> str | None:
    """The name of the Mix Transformer whose tensors, by our names, these are; None where they are none of the paper's."""
    first = state.get(f"{CORE}encoder.patch_embed1.proj.weight")
    blocks = [{key.split(".")[3] for key in state if key.startswith(f"{CORE}encoder.block{s + 1}.")} for s in _STAGES]
    return None if first is None else encoder_of([len(numbers) for numbers in blocks], len(first))


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys and values as the one matrix that smp has."""
    for key in [key for key in state if ".attn.k." in key]:
        partner = key.replace(".attn.k.", ".attn.v.")
        if partner in state:
            both = torch.cat([state.pop(key), state.pop(partner)])
            state[key.replace(".attn.k.", ".attn.kv.")] = both
    return state
