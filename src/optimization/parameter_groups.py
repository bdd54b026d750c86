"""Which parameters learn at which rate, and which are decayed."""

from __future__ import annotations

from typing import Any

from torch import nn

from src.errors import UserError


def parameter_groups(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    encoder_lr_factor: float = 1.0,
    decay_norm_and_bias: bool = True,
) -> list[dict[str, Any]]:
    """A torch optimizer's parameter groups: every trainable parameter of `network` once, in its order.

    Args:
        network: its `encoder`, a module or None, is the pre-trained part; everything else is the head.
        lr: learning rate of the head.
        weight_decay: of whatever is decayed.
        encoder_lr_factor: the encoder's learning rate is `lr` times this.
        decay_norm_and_bias: if false, one-dimensional parameters (biases, normalisation layers) do not decay.

    Returns:
        Groups with the keys `name`, `params`, `lr`, `weight_decay`; those of `encoder`, `encoder_no_decay`,
        `head` and `head_no_decay`, in this order, that are not empty.

    Raises:
        UserError: no parameter is trainable.
    """
    encoder = getattr(network, "encoder", None)
    in_encoder = {id(p) for p in encoder.parameters()} if isinstance(encoder, nn.Module) else set()
    groups: dict[str, dict[str, Any]] = {}
    for part, rate in (("encoder", lr * encoder_lr_factor), ("head", lr)):
        groups[part] = {"name": part, "params": [], "lr": rate, "weight_decay": weight_decay}
        bare = f"{part}_no_decay"
        groups[bare] = {"name": bare, "params": [], "lr": rate, "weight_decay": 0.0}
    for parameter in network.parameters():
        if parameter.requires_grad:
            part = "encoder" if id(parameter) in in_encoder else "head"
            decayed = decay_norm_and_bias or parameter.ndim > 1
            groups[part if decayed else f"{part}_no_decay"]["params"].append(parameter)
    filled = [group for group in groups.values() if group["params"]]
    if not filled:
        raise UserError("network: every parameter is frozen, there is nothing to train; unfreeze some")
    return filled
