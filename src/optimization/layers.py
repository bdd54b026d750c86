"""The layers of an encoder by the names of its parameters: what `optimizer.layer_decay` counts."""

from __future__ import annotations

import re

from torch import nn

from src.config.parts import LayerCount
from src.errors import UserError

# Blocks as timm, smp and torchvision name them: `blocks.3` (ViT), `stages_2.blocks.5` (ConvNeXt), `layers_1.blocks.0` (Swin),
# `block2.1` (MiT), `layer3.0` (ResNet), `7.block` (MobileNet); and what stands between two stages.
_LAYER = re.compile(
    r"^(?P<only>\d+)\.|(?:^|[._])(?P<kind>stages|layers|layer|blocks|block|patch_embed|norm)[._]?(?P<stage>\d+)"
    r"(?:\.(?:blocks\.)?(?P<block>\d+)\.)?"
)
_Place = tuple[int, int]  # number of a stage, and of a block in it


def layer_factors(encoder: object, decay: float, counts: LayerCount = "all") -> list[tuple[list[int], float]]:
    """The encoder's layers from the embedding up: the ids of each one's parameters, and the factor of its learning rate.

    As in BEiT and MAE every block is a layer; with `n` blocks the embedding has `decay ** (n + 1)`, the first block
    `decay ** n`, the last one `decay`, and what comes after it 1. Layers between two stages count to the block that they
    lead to, a stage's norm to its last block.

    Args:
        encoder: a module; anything else is refused.
        decay: what a rate is multiplied by for each layer above it.
        counts: "blocks" counts the blocks alone, as EoMT's authors do: the last one has 1, and the embedding has what the first
            one has, `decay ** (n - 1)`.

    Raises:
        UserError: there is no encoder, nothing of it learns, or its parameters' names tell no blocks.
    """
    if not isinstance(encoder, nn.Module) or not any(p.requires_grad for p in encoder.parameters()):
        raise UserError("optimizer.layer_decay: this network has no encoder that learns; set it to null")
    places = _places([name for name, _ in encoder.named_parameters()])
    blocks = sorted({place for place in places.values() if isinstance(place, tuple)})
    if len(blocks) < 2:
        raise UserError(
            "optimizer.layer_decay: the blocks of this encoder are not known by their names; take optimizer.encoder_lr_factor"
        )
    number: dict[_Place | str, int] = {"embedding": 0, "end": len(blocks) + 1}
    number |= {place: 1 + i for i, place in enumerate(blocks)}
    layers: list[list[int]] = [[] for _ in range(len(blocks) + 2)]
    for name, parameter in encoder.named_parameters():
        layers[number[places[name]]].append(id(parameter))
    top = len(blocks) + 1
    if counts == "blocks":
        return [(ids, decay ** min(max(top - 1 - i, 0), top - 2)) for i, ids in enumerate(layers)]
    return [(ids, decay ** (top - i)) for i, ids in enumerate(layers)]


def _places(names: list[str]) -> dict[str, _Place | str]:
    """The block of each parameter, by its name, or "embedding" or "end" for those before and after all blocks.

    Args:
        names: in the encoder's order.
    """
    found = {name: match for name in names if (match := _LAYER.search(name)) is not None}
    if all(match["kind"] in ("patch_embed", "norm") for match in found.values()):
        found = {}
    stages = {name: int(match["only"] or match["stage"]) for name, match in found.items()}
    last: dict[int, int] = {}
    for name, match in found.items():
        last[stages[name]] = max(last.get(stages[name], 0), int(match["block"] or 0))
    places: dict[str, _Place | str] = {}
    begun = False
    for name in names:
        if name not in found or (found[name]["kind"] == "patch_embed" and stages[name] == min(stages.values())):
            places[name] = "end" if begun else "embedding"
            continue
        begun, match, stage = True, found[name], stages[name]
        places[name] = (stage, last[stage] if match["kind"] == "norm" else int(match["block"] or 0))
    return places
