"""Which parameters learn at which rate, and which are decayed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from src.config.parts import LayerCount
from src.distributed.library_internals import is_batch_norm
from src.errors import UserError
from src.optimization.layers import layer_factors

NORMS = "norms"  # of `optimizer.no_decay`: the word for all layers that normalise


def parameter_groups(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    encoder_lr_factor: float = 1.0,
    decay_norm_and_bias: bool = True,
    layer_decay: float | None = None,
    layer_decay_counts: LayerCount = "all",
    aux_lr_factor: float = 1.0,
    no_decay: Sequence[str] | None = None,
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
        layer_decay_counts: which layers count; see `src.optimization.layers.layer_factors`.
        aux_lr_factor: the learning rate of heads that only train, `network.only_train`, is `lr` times this.
        no_decay: what does not decay, in the stead of `decay_norm_and_bias`: "norms" are the normalising layers, anything else
            is a regular expression that is searched for in a parameter's name. None leaves it to `decay_norm_and_bias`.

    Returns:
        Groups with the keys `name`, `params`, `lr`, `weight_decay`; those of `encoder`, `encoder_no_decay`, `head`,
        `head_no_decay`, `aux` and `aux_no_decay`, in this order, that are not empty. With layer decay `encoder_layer_00` (the
        embedding), `encoder_layer_01` … stand in the place of `encoder`. `aux` is there where its rate is another.

    Raises:
        UserError: no parameter is trainable, there is no head that only trains and one is to have a rate, the encoder has no
            layers that learn at rates of their own, or a regular expression cannot be read.
    """
    encoder = getattr(network, "encoder", None)
    in_encoder = {id(p) for p in encoder.parameters()} if isinstance(encoder, nn.Module) else set()
    parts: dict[int, str] = dict.fromkeys(in_encoder, "encoder")
    rates = {"encoder": lr * encoder_lr_factor}
    if layer_decay is not None and layer_decay != 1 and hasattr(network, "encoder"):
        for number, (ids, factor) in enumerate(layer_factors(encoder, layer_decay, layer_decay_counts)):
            parts |= dict.fromkeys(ids, part := f"encoder_layer_{number:02d}")
            rates[part] = lr * encoder_lr_factor * factor
    if aux_lr_factor != 1:
        heads = getattr(network, "only_train", ())
        if not heads:
            raise UserError(
                "optimizer.aux_lr_factor: the network has no head that only trains; set network.aux=true where it takes that, "
                "or the factor to 1"
            )
        parts |= {id(p): "aux" for head in heads for p in head.parameters()}
    groups: dict[str, dict[str, Any]] = {}
    for part, rate in (*rates.items(), ("head", lr), ("aux", lr * aux_lr_factor)):
        groups[part] = {"name": part, "params": [], "lr": rate, "weight_decay": weight_decay}
        bare = f"{part}_no_decay"
        groups[bare] = {"name": bare, "params": [], "lr": rate, "weight_decay": 0.0}
    spared = None if no_decay is None else _spared(network, no_decay)
    for parameter in network.parameters():
        if parameter.requires_grad:
            part = parts.get(id(parameter), "head")
            decayed = decay_norm_and_bias or parameter.ndim > 1 if spared is None else id(parameter) not in spared
            groups[part if decayed else f"{part}_no_decay"]["params"].append(parameter)
    filled = [group for group in groups.values() if group["params"]]
    if not filled:
        raise UserError("network: every parameter is frozen, there is nothing to train; unfreeze some")
    return filled


def _spared(network: nn.Module, no_decay: Sequence[str]) -> set[int]:
    """The ids of the parameters that do not decay."""
    patterns = []
    for text in no_decay:
        try:
            patterns.append(re.compile(text))
        except re.error as error:
            raise UserError(f"optimizer.no_decay: {text!r} is no regular expression ({error})") from error
    spared = {id(p) for name, p in network.named_parameters() if any(each.search(name) for each in patterns)}
    if NORMS in no_decay:
        norms = [module for module in network.modules() if _normalizes(module)]
        spared |= {id(p) for module in norms for p in module.parameters(recurse=False)}
    return spared


def _normalizes(module: nn.Module) -> bool:
    instance = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    return is_batch_norm(module) or isinstance(module, (nn.LayerNorm, nn.GroupNorm, *instance))
