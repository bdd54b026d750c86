"""Which parameters learn at which rate, and which are decayed."""

from __future__ import annotations

from typing import Any

from torch import nn

from src.errors import UserError
from src.optimization.layers import layer_factors


def parameter_groups(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    encoder_lr_factor: float = 1.0,
    decay_norm_and_bias: bool = True,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """A torch optimizer's parameter groups: every trainable parameter of `network` once, in its order.

    Args:
        network: its `encoder`, a module or None, is the pre-trained part; everything else is the head.
        lr: learning rate of the head.
        weight_decay: of whatever is decayed.
        encoder_lr_factor: the encoder's learning rate is `lr` times this.
        decay_norm_and_bias: if false, one-dimensional parameters (biases, normalisation layers) do not decay.
        layer_decay: what the rate of an encoder's layer is multiplied by for each layer above it (BEiT, Bao et al. 2022);
            None or 1 leaves them alike.

    Returns:
        Groups with the keys `name`, `params`, `lr`, `weight_decay`; those of `encoder`, `encoder_no_decay`, `head` and
        `head_no_decay`, in this order, that are not empty. With layer decay `encoder_layer_00` (the embedding),
        `encoder_layer_01` … stand in the place of `encoder`.

    Raises:
        UserError: no parameter is trainable, or the encoder has no layers that learn at rates of their own.
    """
    encoder = getattr(network, "encoder", None)
    in_encoder = {id(p) for p in encoder.parameters()} if isinstance(encoder, nn.Module) else set()
    parts: dict[int, str] = dict.fromkeys(in_encoder, "encoder")
    rates = {"encoder": lr * encoder_lr_factor}
    if layer_decay is not None and layer_decay != 1 and hasattr(network, "encoder"):
        for number, (ids, factor) in enumerate(layer_factors(encoder, layer_decay)):
            parts |= dict.fromkeys(ids, part := f"encoder_layer_{number:02d}")
            rates[part] = lr * encoder_lr_factor * factor
    groups: dict[str, dict[str, Any]] = {}
    for part, rate in (*rates.items(), ("head", lr)):
        groups[part] = {"name": part, "params": [], "lr": rate, "weight_decay": weight_decay}
        bare = f"{part}_no_decay"
        groups[bare] = {"name": bare, "params": [], "lr": rate, "weight_decay": 0.0}
    for parameter in network.parameters():
        if parameter.requires_grad:
            part = parts.get(id(parameter), "head")
            decayed = decay_norm_and_bias or parameter.ndim > 1
            groups[part if decayed else f"{part}_no_decay"]["params"].append(parameter)
    filled = [group for group in groups.values() if group["params"]]
    if not filled:
        raise UserError("network: every parameter is frozen, there is nothing to train; unfreeze some")
    return filled
