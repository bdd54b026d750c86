"""What encoders there are by name, and which of their parameters anything reaches."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from src.errors import UserError
from src.networks.swin import take_any_size

STRIDE = 32  # of the encoders that have stages
# timm's files of Vision Transformers (Dosovitskiy et al. 2021) whose blocks all have tokens of one size.
_PLAIN = ("vision_transformer", "deit", "eva", "beit", "vision_transformer_sam")


def encoder_name(given: str) -> str:
    """smp's name of an encoder: its own, or a timm model's behind `tu-`.

    Raises:
        UserError: neither library knows it.
    """
    name = given.removeprefix("tu-")
    if given == name and name in smp.encoders.encoders:
        return name
    if timm.is_model(name):
        return f"tu-{name}"
    known = dict.fromkeys([*smp.encoders.get_encoder_names(), *timm.list_models()])
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists them"
    raise UserError(f"network.encoder: neither smp nor timm knows an encoder {given!r}; {hint}")


def is_plain_vit(name: str) -> bool:
    """Whether smp's name of an encoder is that of a plain Vision Transformer of timm."""
    if not name.startswith("tu-"):
        return False
    module = timm.models.model_entrypoint(name.removeprefix("tu-")).__module__
    return module in {f"timm.models.{file}" for file in _PLAIN}


def freeze_unused(core: nn.Module, in_channels: int, height: int, width: int) -> None:
    """Freezes what no gradient reaches, as stages beyond the depth: plain DDP fails where a gradient never comes.

    Args:
        core: takes images float [1, in_channels, height, width].
    """
    core.eval()
    core(torch.zeros(1, in_channels, height, width)).sum().backward()
    for parameter in core.parameters():
        parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
        parameter.grad = None
    core.train()


def of_any_size(build: Callable[..., nn.Module], encoder: str, in_channels: int) -> nn.Module:
    """A network over an encoder that has stages, without weights, tried on a small image; what nothing reaches is frozen.

    Args:
        build: makes it, with keys for the encoder.

    Raises:
        UserError: the network cannot be built over this encoder, or takes images of one size only.
    """
    first: Exception | None = None
    for sizes in ({}, {"strict_img_size": False}):  # timm's window transformers take any size on request only
        try:
            with torch.inference_mode(False), torch.enable_grad():
                core = build(**sizes)
                take_any_size(core)
                freeze_unused(core, in_channels, 5 * STRIDE, 4 * STRIDE)
        except (ValueError, RuntimeError, AssertionError, LookupError, AttributeError, TypeError) as error:
            first = first or error
        else:
            return core
    raise UserError(
        f"network.encoder: {encoder!r} cannot serve this network ({first}); take another encoder"
    ) from first
