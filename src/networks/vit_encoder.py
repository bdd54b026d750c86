"""Plain Vision Transformers of timm as encoders: feature maps of chosen blocks for images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from timm.models.beit import checkpoint_filter_fn as of_beit
from timm.models.eva import Eva
from timm.models.eva import checkpoint_filter_fn as of_eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as of_vit
from timm.models.vision_transformer_sam import VisionTransformerSAM
from timm.models.vision_transformer_sam import checkpoint_filter_fn as of_sam
from torch import Tensor, nn

from src.errors import UserError
from src.networks.weights import OWN_NAMES, downloaded, file_state, fill

_FILTERS = {VisionTransformer: of_vit, Eva: of_eva, Beit: of_beit, VisionTransformerSAM: of_sam}
_ALWAYS_RESAMPLES = ("beit", "vision_transformer_sam")  # timm's files; the others do so on request
_OF_FILTERS = (LookupError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError)


class PlainViT(nn.Module):
    """The patch tokens of chosen blocks as maps; class and register tokens are dropped.

    Each block's tokens pass the transformer's last layer norm, as DINOv2 hands them out; SAM has none. Position embeddings,
    rotary ones and relative biases are resampled to the image's grid.

    Args:
        model: timm's.
        blocks: numbers of the blocks whose tokens are wanted, rising; what comes after the last of them is cut off.
        gradient_checkpointing: compute each block anew in the backward pass instead of keeping what it computed.

    Attributes:
        channels: of every map.
        stride: pixels of a patch's side; image sides must be multiples of it.
        depth: blocks.
    """

    def __init__(self, model: Any, blocks: Sequence[int], gradient_checkpointing: bool = False) -> None:
        super().__init__()
        about = model.feature_info[-1]
        self.channels, self.stride = int(about["num_chs"]), int(about["reduction"])
        self.normalizes = not isinstance(model, VisionTransformerSAM)  # its neck changes the channels
        self.blocks = list(blocks)
        model.prune_intermediate_layers(self.blocks, prune_norm=not self.normalizes, prune_head=True)
        self.depth = self.blocks[-1] + 1
        self.model: Any = model
        self.gradient_checkpointing = gradient_checkpointing
        self.train()

    def train(self, mode: bool = True) -> PlainViT:
        super().train(mode)
        self.model.set_grad_checkpointing(mode and self.gradient_checkpointing)
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """
        Args:
            image: float [B, C, H, W], H and W multiples of the stride.

        Returns:
            A map float [B, channels, H / stride, W / stride] for each of the blocks, in their order.
        """
        if isinstance(self.model, Beit):
            for module in self.model.modules():
                if isinstance(module, _AnyGridAttention):
                    module.grid = image.shape[-2] // self.stride, image.shape[-1] // self.stride
        maps: list[Tensor] = self.model.forward_intermediates(
            image, indices=self.blocks, norm=self.normalizes, intermediates_only=True
        )
        return maps


class _AnyGridAttention(BeitAttention):
    """BEiT's attention, its relative position biases resampled to the grid of the image (bilinearly, as transformers does).

    timm's own takes one size only, and its resampling runs on the CPU, number by number. Written anew with public names;
    `tests/networks/test_vit_encoder.py` compares it with timm's.
    """

    grid: tuple[int, int]

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x)
        if self.q_bias is not None and self.k_bias is not None and self.v_bias is not None:
            qkv = qkv + torch.cat((self.q_bias, self.k_bias, self.v_bias))
        q, k, v = qkv.reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self._bias().to(q.dtype)
        dropout = self.attn_drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        mixed: Tensor = self.proj_drop(self.proj(x.transpose(1, 2).reshape(batch, tokens, -1)))
        return mixed

    def _bias(self) -> Tensor:
        """What is added to the attention: float [1, heads, 1 + h w, 1 + h w], the class token first."""
        height, width = self.grid
        table, (rows, columns) = self.relative_position_bias_table, self.window_size
        of_pairs, of_class = (
            table[:-3].T,
            table[-3:].T,
        )  # the last three: class to patch, patch to class, class to class
        maps = of_pairs.reshape(1, self.num_heads, 2 * rows - 1, 2 * columns - 1)
        if (height, width) != (rows, columns):
            maps = F.interpolate(maps.float(), (2 * height - 1, 2 * width - 1), mode="bilinear").to(table.dtype)
        y = torch.arange(height, device=table.device)
        x = torch.arange(width, device=table.device)
        down = (y[:, None] - y[None, :] + height - 1)[:, None, :, None]
        right = (x[:, None] - x[None, :] + width - 1)[None, :, None, :]
        pairs = maps[0][:, down, right].reshape(self.num_heads, height * width, height * width)
        to_class = of_class[:, 1].reshape(-1, 1, 1).expand(-1, height * width, 1)
        from_class = of_class[:, 0].reshape(-1, 1, 1).expand(-1, 1, height * width)
        first = torch.cat([of_class[:, 2].reshape(-1, 1, 1), from_class], dim=2)
        return torch.cat([first, torch.cat([to_class, pairs], dim=2)], dim=1)[None]


def vit_model(name: str, weights: str | None, in_channels: int, drop_path: float = 0.0) -> Any:
    """A plain Vision Transformer of timm that takes images of any size, whole and without a classifier.

    Args:
        name: timm's.
        weights: "pretrained" or "imagenet" for the library's own, a local file in timm's or the authors' layout, or None.
        in_channels: image channels; pre-trained filters are adapted to them as timm does.
        drop_path: the last block's probability to be left out of an image, growing from 0 at the first (Huang et al. 2016).

    Raises:
        UserError: the weights cannot be had or do not fit, or timm cannot make the model so.
    """
    keys: dict[str, Any] = {"num_classes": 0, "in_chans": in_channels, "drop_path_rate": drop_path}
    if timm.models.model_entrypoint(name).__module__.rpartition(".")[2] not in _ALWAYS_RESAMPLES:
        keys["dynamic_img_size"] = True
    own = weights in OWN_NAMES
    model: Any = (
        downloaded(lambda: timm.create_model(name, pretrained=True, **keys)) if own else timm.create_model(name, **keys)
    )
    if not isinstance(model, tuple(_FILTERS)):
        raise UserError(f"network.encoder: {name!r} is no plain ViT; take e.g. vit_small_patch14_dinov2")
    if isinstance(model, Beit):
        model.patch_embed.strict_img_size = False
        for module in model.modules():
            if isinstance(module, BeitAttention) and module.relative_position_bias_table is not None:
                module.__class__ = _AnyGridAttention
    if weights is not None and not own:
        _load_file(model, weights, in_channels)
    return model


def _load_file(model: Any, weights: str, in_channels: int) -> None:
    """Fills timm's model from a file in timm's layout, or in that of the authors, which timm knows how to translate."""
    state = file_state(weights, model)
    if any(".lora_" in key for key in state):
        raise UserError(
            f"network.encoder_weights: {weights} holds LoRA adapters beside the encoder; start the run with init_from={weights}"
        )
    translate: Any = next(_FILTERS[kind] for kind in type(model).__mro__ if kind in _FILTERS)
    try:
        translated = translate(dict(state), model)
    except _OF_FILTERS as error:
        raise UserError(f"network.encoder_weights: {weights} does not fit the encoder ({error})") from error
    fill(model, translated, weights, in_channels)
