"""`init_from=hf:REPOSITORY`: SegFormer and UPerNet as transformers saves them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeGuard

from src.config.parts import Part
from src.errors import UserError
from src.files.untrusted import shown
from src.networks.foreign import hub_files, segformer, upernet
from src.networks.foreign.found import Foreign, check_network

_UNNAMED = re.compile(r"LABEL_\d+")  # what transformers writes where nobody named the classes


def read(repository: str, network: Part) -> Foreign:
    """A model of transformers, from the hub or a folder.

    Raises:
        UserError: it is no model that there is here, cannot be had, or the run's network is another one.
    """
    about = hub_files.describe(repository, "hf")
    origin = f"hf:{shown(repository)}"
    kind = about.get("model_type")
    of_kind = {"segformer": _segformer, "upernet": _upernet}.get(str(kind))
    if of_kind is None:
        raise UserError(
            f"init_from: {origin} is a {shown(str(kind))}, and of transformers' models SegFormer and UPerNet have the layers "
            "of a network here; an encoder's weights of timm go in with init_from=timm-encoder:FILE"
        )
    keys = of_kind(about, origin)
    check_network(network, origin, str(kind), keys)
    rename = segformer.from_transformers if kind == "segformer" else upernet.from_transformers
    return Foreign(origin, rename(hub_files.tensors_of(repository, "hf")), _classes(about))


def _segformer(about: Mapping[str, object], origin: str) -> dict[str, object]:
    """The keys of the network that a description is of."""
    depths, widths = about.get("depths"), about.get("hidden_sizes")
    encoder = None
    if _are_numbers(depths) and _are_numbers(widths):
        encoder = segformer.encoder_of(depths, widths[0])
    if encoder is None:
        raise UserError(
            f"init_from: {origin} has stages of {shown(str(depths))} blocks and {shown(str(widths))} channels, which none "
            "of mit_b0 to mit_b5 has; take another model"
        )
    return {"encoder": encoder, "decoder_channels": about.get("decoder_hidden_size", 256)}


def _upernet(about: Mapping[str, object], origin: str) -> dict[str, object]:
    """As `_segformer`."""
    of_encoder = about.get("backbone_config")
    body = of_encoder if isinstance(of_encoder, dict) else {}
    kind, depths = str(body.get("model_type")), body.get("depths")
    widths = body.get("hidden_sizes") if kind == "convnext" else [body.get("embed_dim")]
    encoder = None
    if _are_numbers(depths) and _are_numbers(widths):
        encoder = upernet.encoder_of(kind, depths, widths[0], body.get("window_size"))
    if encoder is None:
        raise UserError(
            f"init_from: {origin} has an encoder {shown(kind)} with stages of {shown(str(depths))} blocks and "
            f"{shown(str(widths))} channels, which no Swin Transformer or ConvNeXt of the papers has; take another model"
        )
    if about.get("pool_scales", [1, 2, 3, 6]) != [1, 2, 3, 6]:
        raise UserError(
            f"init_from: {origin} pools to {shown(str(about['pool_scales']))}, and upernet here to 1, 2, 3, 6"
        )
    return {"encoder": encoder, "decoder_channels": about.get("hidden_size", 512)}


def _are_numbers(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and bool(values) and all(isinstance(value, int) for value in values)


def _classes(about: Mapping[str, object]) -> list[str] | None:
    names = about.get("id2label")
    if not isinstance(names, dict):
        return None
    in_order = [names.get(str(row)) for row in range(len(names))]
    if not all(isinstance(name, str) for name in in_order) or all(_UNNAMED.fullmatch(str(n)) for n in in_order):
        return None
    return [str(name) for name in in_order]
