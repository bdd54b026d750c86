"""EoMT of transformers, over timm's plain ViTs: a ViT that is a segmentation network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from pydantic import PositiveFloat, PositiveInt
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from src.errors import UserError
from src.networks.base import SegmentationNetwork
from src.networks.queries import Layer, Queries, read_tensors, transformers
from src.networks.weights import OWN_NAMES, downloaded, fill, pixel_statistics

TRAINS_ON = "masks"  # the config check refuses losses that do not say the same
_EXAMPLES = "vit_small_patch14_reg4_dinov2, vit_base_patch14_reg4_dinov2, vit_large_patch14_reg4_dinov2"


def eomt(
    num_classes: int,
    in_channels: int = 3,
    encoder: str = "vit_large_patch14_reg4_dinov2",
    encoder_weights: str | None = None,
    num_queries: PositiveInt = 100,
    num_blocks: PositiveInt = 4,
    patch_size: PositiveInt = 16,
    image_size: PositiveInt = 512,
    mask_annealing: bool = True,
    annealing_power: PositiveFloat = 0.9,
) -> SegmentationNetwork:
    """EoMT (Kerssies et al. 2025); trains with `loss=mask_classification`.

    Below `model.` its tensors have the names of transformers' EomtForUniversalSegmentation, so that `init_from` takes
    published checkpoints.

    Args:
        num_classes: classes K.
        in_channels: image channels.
        encoder: one of timm's plain ViTs with a class token.
        encoder_weights: "pretrained" for those that timm knows under this name, a local file with timm's names, or None. Patch
            and position embeddings are resampled to `patch_size` and `image_size`.
        num_queries: masks that are predicted; of an image with more classes the loss leaves out the costliest.
        num_blocks: the encoder's last blocks, which the queries go through; the masks before each of them are supervised.
        patch_size: pixels a side of a token; images are padded to a multiple of it.
        image_size: side of the images whose position embeddings are kept, a multiple of `patch_size`; for images of another
            size they are resampled.
        mask_annealing: while training, queries see less and less of the masks that are predicted before a block and in the
            end nothing, block by block: of L blocks, block i from (i + 1) / (L + 2) of the training to (i + 2) / (L + 2). Then
            no mask is needed to predict. Without annealing they always attend within their masks.
        annealing_power: of the polynomial by which the share of masked queries falls.

    Raises:
        UserError: transformers is not installed, the encoder is no plain ViT, or two keys do not fit.
    """
    if image_size % patch_size:
        raise UserError(
            f"network.image_size: {image_size} is no multiple of network.patch_size={patch_size}; "
            f"take {max(1, round(image_size / patch_size)) * patch_size}"
        )
    library = transformers()
    vit = _plain_vit(encoder, encoder_weights, in_channels)
    depth = len(vit.blocks)
    if num_blocks > depth:
        raise UserError(f"network.num_blocks: {num_blocks}, and {encoder} has {depth} blocks; take at most {depth}")
    config = library.EomtConfig(
        hidden_size=vit.embed_dim, num_hidden_layers=depth, num_attention_heads=vit.blocks[0].attn.num_heads,
        mlp_ratio=vit.blocks[0].mlp.fc1.out_features // vit.embed_dim, layer_norm_eps=vit.norm.eps,
        num_register_tokens=vit.num_reg_tokens, num_channels=in_channels, image_size=image_size, patch_size=patch_size,
        num_blocks=num_blocks, num_queries=num_queries, num_labels=num_classes, attn_implementation="sdpa",
    )  # fmt: skip
    model = library.EomtForUniversalSegmentation(config)
    if not vit.num_reg_tokens:  # nothing to learn; an empty parameter is not every optimizer's
        empty = model.embeddings.register_tokens.detach()
        del model.embeddings.register_tokens
        model.embeddings.register_buffer("register_tokens", empty)
    core = _Eomt(model, annealing_power if mask_annealing else None)
    if encoder_weights is not None:
        found = _renamed(vit.state_dict(), vit, model)
        model.load_state_dict(model.state_dict() | found)
    core.freeze_unused(in_channels, 2 * patch_size)
    mean, std = pixel_statistics(f"tu-{encoder}", encoder_weights)
    parts = ["model.embeddings", "model.layers", "model.layernorm"]
    return SegmentationNetwork(core, mean, std, patch_size, encoder=parts)


class _Eomt(Queries):
    """transformers' modules, run for images of any size, with what every supervised block predicts.

    Args:
        model: an EomtForUniversalSegmentation.
        power: of the annealing; None for none.
    """

    def __init__(self, model: Any, power: float | None) -> None:
        super().__init__()
        del model.criterion  # the loss is ours
        self.model, self.power = model, power
        self.grid = model.grid_size[0]
        self.masked = [model.config.num_queries] * model.config.num_blocks
        self.register_load_state_dict_post_hook(_count_masked)  # type: ignore[no-untyped-call]

    def at_share(self, share: float) -> None:
        """Anneals the masks: see `annealed`."""
        if self.power is not None:
            shares = annealed(share, self.model.config.num_blocks, self.power)
            self.model.attn_mask_probs.copy_(torch.tensor(shares), non_blocking=True)

    def train(self, mode: bool = True) -> _Eomt:
        super().train(mode)
        _count_masked(self)
        return self

    def layers(self, image: Tensor) -> Sequence[Layer]:
        model, patch = self.model, self.model.config.patch_size
        size = image.shape[-2] // patch, image.shape[-1] // patch
        tokens = self.embedded(image, size)
        first = len(model.layers) - model.config.num_blocks
        predictions: list[Layer] = []
        for number, block in enumerate(model.layers):
            if number == first:
                tokens = torch.cat([model.query.weight.expand(image.shape[0], -1, -1), tokens], dim=1)
            visible = None
            if number >= first and (self.training or self.masked[number - first]):
                classes, masks = self._predict(model.layernorm(tokens), size)
                predictions.append((classes, masks))
                visible = self._visible(masks, size, number - first, tokens.shape[1])
            tokens = block(tokens, visible)
        return [*predictions, self._predict(model.layernorm(tokens), size)]

    def embedded(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Class token, registers and patches with their positions, [B, T, C]."""
        embeddings = self.model.embeddings
        positions = embeddings.position_embeddings.weight.unsqueeze(0)
        if size != (self.grid, self.grid):
            positions = resample_abs_pos_embed(positions, list(size), num_prefix_tokens=0)
        patches = embeddings.patch_embeddings(image) + positions
        prefix = torch.cat([embeddings.cls_token, embeddings.register_tokens], dim=1).expand(image.shape[0], -1, -1)
        return torch.cat([prefix, patches], dim=1)

    def _predict(self, tokens: Tensor, size: tuple[int, int]) -> Layer:
        model, queries = self.model, self.model.config.num_queries
        chosen = tokens[:, :queries]
        patches = tokens[:, queries + model.embeddings.num_prefix_tokens :].transpose(1, 2)
        pixels = model.upscale_block(patches.reshape(*patches.shape[:2], *size))
        masks = torch.einsum("bqc,bchw->bqhw", model.mask_head(chosen), pixels)
        return model.class_predictor(chosen), masks

    @torch.no_grad()
    def _visible(self, masks: Tensor, size: tuple[int, int], block: int, tokens: int) -> Tensor:
        """What each token attends to, bool [B, 1, T, T]: all, but for the queries that see the patches of their mask alone.

        In training each query is masked with the annealed probability; in evaluation the same share of them is, always the
        first ones, so that a prediction depends on nothing but weights and image.
        """
        queries = masks.shape[1]
        inside = F.interpolate(masks, size, mode="bilinear", align_corners=False).flatten(2) > 0
        if self.training:
            free = torch.rand(masks.shape[:2], device=masks.device) > self.model.attn_mask_probs[block]
        else:
            free = (torch.arange(queries, device=masks.device) >= self.masked[block]).expand(masks.shape[0], queries)
        inside = inside | free.unsqueeze(2)
        others = torch.ones(masks.shape[0], queries, tokens - inside.shape[2], dtype=torch.bool, device=masks.device)
        rest = torch.ones(masks.shape[0], tokens - queries, tokens, dtype=torch.bool, device=masks.device)
        return torch.cat([torch.cat([others, inside], dim=2), rest], dim=1).unsqueeze(1)


def _count_masked(core: nn.Module, *_: object) -> None:
    """Notes how many queries attend within their masks in evaluation, as plain numbers: an exported graph cannot ask."""
    assert isinstance(core, _Eomt)
    shares = core.model.attn_mask_probs
    if not shares.is_meta:
        core.masked = [round(share * core.model.config.num_queries) for share in shares.tolist()]


def annealed(share: float, blocks: int, power: float) -> list[float]:
    """The share of queries that are masked before each block, after `share` of the training (Kerssies et al. 2025)."""
    progress = [(share - (i + 1) / (blocks + 2)) * (blocks + 2) for i in range(blocks)]
    return [float((1 - min(1.0, max(0.0, each))) ** power) for each in progress]


def _plain_vit(name: str, weights: str | None, in_channels: int) -> Any:
    """timm's ViT: of a shape only where no weights are asked for, else with them.

    Raises:
        UserError: timm knows no such ViT, it has parts that EoMT has not, or the weights cannot be had.
    """
    if not timm.is_model(name):
        raise UserError(f"network.encoder: timm knows no {name!r}; take e.g. {_EXAMPLES}")
    with torch.device("meta"):
        vit: Any = timm.create_model(name, num_classes=0, in_chans=in_channels)
    plain = isinstance(vit, timm.models.VisionTransformer) and vit.cls_token is not None and vit.pos_embed is not None
    if not plain or not isinstance(vit.blocks[0].attn.q_norm, nn.Identity) or type(vit.blocks[0].mlp) is not Mlp:
        raise UserError(f"network.encoder: {name!r} is no plain ViT with a class token; take e.g. {_EXAMPLES}")
    if weights is None:
        return vit
    if weights in OWN_NAMES:
        return downloaded(
            lambda: timm.create_model(name, pretrained=True, num_classes=0, in_chans=in_channels),
            mend="take a local file or null",
        )
    vit = timm.create_model(name, num_classes=0, in_chans=in_channels)
    fill(vit, read_tensors(weights, "pretrained, "), weights, in_channels)
    return vit


def _renamed(state: Mapping[str, Tensor], vit: Any, model: Any) -> dict[str, Tensor]:
    """A ViT's tensors by transformers' names, embeddings resampled."""
    config = model.config
    grid = config.image_size // config.patch_size
    positions, cls_token = state["pos_embed"], state["cls_token"]
    if not vit.no_embed_class:  # what the prefix tokens have of positions is added to them for good
        cls_token = cls_token + positions[:, :1]
        positions = positions[:, vit.num_prefix_tokens :]
    found = {
        "embeddings.cls_token": cls_token,
        "embeddings.patch_embeddings.projection.weight": resample_patch_embed(
            state["patch_embed.proj.weight"], [config.patch_size, config.patch_size]
        ),
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "embeddings.position_embeddings.weight": resample_abs_pos_embed(positions, [grid, grid], num_prefix_tokens=0)[
            0
        ],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    if vit.num_reg_tokens:
        found["embeddings.register_tokens"] = state["reg_token"]
    plain = {
        "norm1": "norm1",
        "norm2": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "attn.proj": "attention.out_proj",
    }
    for i in range(len(vit.blocks)):
        there, here = f"blocks.{i}", f"layers.{i}"
        for kind in ("weight", "bias"):
            found |= {f"{here}.{new}.{kind}": state[f"{there}.{old}.{kind}"] for old, new in plain.items()}
            parts = zip("qkv", state[f"{there}.attn.qkv.{kind}"].chunk(3), strict=True)
            found |= {f"{here}.attention.{letter}_proj.{kind}": part for letter, part in parts}
        for number in (1, 2):
            if f"{there}.ls{number}.gamma" in state:
                found[f"{here}.layer_scale{number}.lambda1"] = state[f"{there}.ls{number}.gamma"]
    return found
