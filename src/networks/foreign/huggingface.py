"""`init_from=hf:REPOSITORY`: SegFormer as transformers saves it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeGuard

from src.config.parts import Part
from src.errors import UserError
from src.files.untrusted import shown
from src.networks.foreign import hub_files, segformer
from src.networks.foreign.found import Foreign, check_network

_UNNAMED = re.compile(r"LABEL_\d+")  # what transformers writes where nobody named the classes


def read(repository: str, network: Part) -> Foreign:
    """A model of transformers, from the hub or a folder.

    Raises:
        UserError: it is no SegFormer, cannot be had, or the run's network is another one.
    """
    about = hub_files.describe(repository, "hf")
    origin = f"hf:{shown(repository)}"
    kind = about.get("model_type")
    if kind != "segformer":
        raise UserError(
            f"init_from: {origin} is a {shown(str(kind))}, and of transformers' models only SegFormer has the layers of a "
            "network here; an encoder's weights of timm go in with init_from=timm-encoder:FILE"
        )
    depths, widths = about.get("depths"), about.get("hidden_sizes")
    encoder = None
    if _are_numbers(depths) and _are_numbers(widths):
        encoder = segformer.encoder_of(depths, widths[0])
    if encoder is None:
        raise UserError(
            f"init_from: {origin} has stages of {shown(str(depths))} blocks and {shown(str(widths))} channels, which none "
            "of mit_b0 to mit_b5 has; take another model"
        )
    check_network(
        network, origin, "segformer", {"encoder": encoder, "decoder_channels": about.get("decoder_hidden_size", 256)}
    )
    state = segformer.from_transformers(hub_files.tensors_of(repository, "hf"))
    return Foreign(origin, state, _classes(about))


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
