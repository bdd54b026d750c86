"""Adapters: nothing changes at first, they alone learn, and merged the network does the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.networks.lora import AdaptedLinear, LoRA, merge
from src.networks.vit_models import linear


# A fused projection, one whose biases are apart (EVA02 and BEiT), and three projections (DINOv3 has no biases).
@pytest.mark.parametrize("encoder", ["test_vit", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3"])
def test_adapters_alone_learn_and_merge(encoder: str) -> None:
    torch.manual_seed(0)
    plain = linear(5, encoder=encoder).eval()
    torch.manual_seed(0)
    network = linear(5, encoder=encoder, lora=LoRA(4, 8.0)).eval()
    image = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        expected = plain(image)["logits"]
        torch.testing.assert_close(network(image)["logits"], expected, rtol=1e-4, atol=1e-4)
    assert network.encoder is not None
    network.train()(image)["logits"].square().mean().backward()
    learns = {key for key, parameter in network.encoder.named_parameters() if parameter.grad is not None}
    assert learns == {key for key, parameter in network.encoder.named_parameters() if parameter.requires_grad}
    assert learns and all(".lora_" in key for key in learns)
    blocks = len(network.encoder.model.blocks)  # type: ignore[arg-type, union-attr]
    assert len(learns) % (2 * blocks) == 0

    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if key.endswith("lora_b"):
                parameter.normal_(std=0.1)
        adapted = network.eval()(image)["logits"]
        assert not torch.allclose(adapted, expected, atol=1e-2)
        merged = copy.deepcopy(network)
        assert merge(merged) == len(learns) // 2
        torch.testing.assert_close(merged(image)["logits"], adapted, rtol=1e-3, atol=1e-3)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert not any(isinstance(module, AdaptedLinear) for module in merged.modules())


def test_one_layer() -> None:
    layer = AdaptedLinear(nn.Linear(6, 3), 2, 0.5)
    nn.init.normal_(layer.lora_b)
    x = torch.randn(4, 6)
    change = x @ (layer.lora_b @ layer.lora_a).T
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias + 0.5 * change)
    torch.testing.assert_close(layer.merged()(x), layer(x))
    without_bias = AdaptedLinear(nn.Linear(6, 3, bias=False), 2, 0.5)
    assert without_bias.merged().bias is None
    assert without_bias(x).shape == (4, 3)


def test_rank_0_is_none_and_what_has_no_attention_is_refused() -> None:
    network = linear(5, encoder="test_vit", lora=LoRA())
    assert all(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(UserError, match=r"network\.lora: this encoder has no attention"):
        LoRA(2).adapt(nn.Sequential(nn.Linear(2, 2)))
