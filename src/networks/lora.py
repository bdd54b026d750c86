"""Low-rank adapters of an encoder's attention (LoRA, Hu et al. 2022): few weights learn, the pretrained ones stay."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from src.errors import UserError

_ADAPTED = ("qkv", "q_proj", "k_proj", "v_proj", "proj")  # timm's names of an attention's projections


class LoRA:
    """How an encoder is adapted.

    Args:
        rank: of each adapter; 0 adapts nothing.
        alpha: an adapter's share is multiplied by alpha / rank; None takes the rank.
    """

    def __init__(self, rank: NonNegativeInt = 0, alpha: PositiveFloat | None = None) -> None:
        self.rank, self.alpha = rank, alpha

    def adapt(self, encoder: nn.Module) -> None:
        """Freezes the encoder, and gives every projection of its attention an adapter that learns.

        Raises:
            UserError: the encoder has no such projections.
        """
        if self.rank == 0:
            return
        encoder.requires_grad_(False)
        found = [
            (block, name, layer)
            for path, block in encoder.named_modules()
            if path.rpartition(".")[2] == "attn"
            for name, layer in block.named_children()
            if name in _ADAPTED and isinstance(layer, nn.Linear)
        ]
        if not found:
            raise UserError("network.lora: this encoder has no attention to adapt; set network.lora.rank to 0")
        for block, name, layer in found:
            setattr(block, name, AdaptedLinear(layer, self.rank, (self.alpha or self.rank) / self.rank))
            if hasattr(block, "qkv_bias_separate"):
                block.qkv_bias_separate = True  # else EVA and BEiT read the layer's weight and never call it


class AdaptedLinear(nn.Linear):
    """A linear layer W x + b whose weight stays, plus a low-rank change: scale B A x. B starts at zero.

    Args:
        layer: what is adapted; its parameters are taken over under their names.
        rank: rows of A [rank, in] and columns of B [out, rank].
        scale: of the change.
    """

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_a = nn.Parameter(torch.empty(rank, layer.in_features))
        self.lora_b = nn.Parameter(torch.zeros(layer.out_features, rank))
        self.scale = scale
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        """Features float [..., out] of features float [..., in]."""
        change = F.linear(F.linear(input, self.lora_a), self.lora_b)
        return super().forward(input) + self.scale * change

    def merged(self) -> nn.Linear:
        """One linear layer that does the same."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        layer.weight = nn.Parameter(self.weight.detach() + self.scale * (self.lora_b @ self.lora_a).detach())
        layer.bias = self.bias
        return layer


def merge(network: nn.Module) -> int:
    """Puts plain linear layers in the place of all adapted ones; returns their number."""
    found = [
        (parent, name, layer)
        for parent in network.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, AdaptedLinear)
    ]
    for parent, name, layer in found:
        setattr(parent, name, layer.merged())
    return len(found)
