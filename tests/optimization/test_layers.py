"""Layers of encoders by the names of their parameters: blocks from the embedding up, each with its factor."""

from __future__ import annotations

import itertools

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from timm.optim._param_groups import param_groups_layer_decay
from torch import nn

from src.errors import UserError
from src.networks.encoders import encoder_name
from src.networks.torchvision_models import lraspp
from src.networks.vit_models import linear
from src.optimization.layers import layer_factors

# Names that tell a layer: of the first one, of the first block, of the last one and, if there is such, of what comes after.
ENCODERS = {
    "convnext_atto": (12, "stem_0", "stages_0.blocks.0", "stages_3.blocks.1"),
    "swin_tiny_patch4_window7_224": (12, "patch_embed", "layers_0.blocks.0", "layers_3.blocks.1"),
    "mit_b0": (8, "patch_embed1", "block1.0", "block4.1"),
    "resnet18": (8, "conv1", "layer1.0", "layer4.1"),
    "tf_efficientnet_lite0": (16, "conv_stem", "blocks.0.0", "blocks.6.0"),
}


def named(encoder: nn.Module, decay: float) -> tuple[list[list[str]], list[float]]:
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    layers = layer_factors(encoder, decay)
    return [[names[each] for each in ids] for ids, _ in layers], [factor for _, factor in layers]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_blocks_of_encoders_with_stages(encoder: str) -> None:
    depth, first, second, last = ENCODERS[encoder]
    sizes = {"strict_img_size": False} if "swin" in encoder else {}
    body = smp.encoders.get_encoder(encoder_name(encoder), weights=None, **sizes)
    names, factors = named(body, 0.5)
    assert factors == pytest.approx([0.5 ** (depth + 1 - i) for i in range(depth + 2)])
    assert sorted(itertools.chain.from_iterable(names)) == sorted(name for name, _ in body.named_parameters())
    assert all(names[:-1])
    assert any(first in name for name in names[0])
    assert any(second in name for name in names[1])
    assert any(last in name for name in names[depth])


def test_what_is_between_stages_goes_with_the_next_one_and_norms_with_theirs() -> None:
    body = smp.encoders.get_encoder("mit_b0", weights=None)
    names, _ = named(body, 0.5)
    of = {name: i for i, layer in enumerate(names) for name in layer}
    assert of["patch_embed2.proj.weight"] == of["block2.0.norm1.weight"] == 3
    assert of["norm1.weight"] == of["block1.1.norm1.weight"] == 2
    body = smp.encoders.get_encoder("tu-convnext_atto", weights=None)
    of = {name: i for i, layer in enumerate(named(body, 0.5)[0]) for name in layer}
    assert of["model.stages_1.downsample.0.weight"] == of["model.stages_1.blocks.0.mlp.fc1.weight"] == 3


def test_a_vit_is_numbered_as_timm_and_beit_do() -> None:
    """With a head above it; the last norm counts to the head in BEiT and MAE, and to the last block in timm."""
    model = timm.create_model("test_vit")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    expected = {
        names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(model, 0.0, layer_decay=0.8)
        for parameter in group["params"]
    }
    encoder = linear(3, encoder="test_vit").encoder
    assert encoder is not None
    layers, factors = named(encoder, 0.8)
    found = {
        name.removeprefix("model."): factor for layer, factor in zip(layers, factors, strict=True) for name in layer
    }
    assert {name for name in expected if not name.startswith(("head", "fc_norm"))} == found.keys()
    assert {name for name, value in found.items() if value != pytest.approx(expected[name])} == {
        "norm.weight",
        "norm.bias",
    }
    assert found["norm.weight"] == 1


def test_torchvisions_mobilenet() -> None:
    encoder = lraspp(3).encoder
    assert encoder is not None
    names, factors = named(encoder, 0.9)
    assert len(factors) == 17 + 2
    assert all(name.startswith("16.") for name in names[17])


def test_what_has_no_such_layers_is_refused() -> None:
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    for encoder in (None, frozen):
        with pytest.raises(UserError, match=r"optimizer\.layer_decay: this network has no encoder that learns"):
            layer_factors(encoder, 0.8)
    with pytest.raises(UserError, match=r"optimizer\.layer_decay: the blocks of this encoder are not known"):
        layer_factors(smp.encoders.get_encoder("densenet121", weights=None), 0.8)
