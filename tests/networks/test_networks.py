"""Every network of conf/network goes through the same tests."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from src.errors import UserError
from src.networks.base import SegmentationNetwork
from src.training.build import make
from tests.conftest import ROOT

CLASSES = 5
# Small encoders, so that all of it takes seconds.
LIGHT: dict[str, dict[str, Any]] = {
    "tiny": {"width": 8},
    "fcn": {},
    "deeplabv3": {"encoder": "mobilenet_v3_large"},
    "lraspp": {},
    "small": {},
    "unet": {"encoder": "resnet18", "decoder_channels": [32, 16, 16, 8, 8]},
    "fpn": {"encoder": "tf_efficientnet_lite0", "pyramid_channels": 32, "segmentation_channels": 32},
    "deeplabv3plus": {"encoder": "resnet18", "decoder_channels": 32},
    "segformer": {"decoder_channels": 32},
    "upernet": {"encoder": "resnet18", "decoder_channels": 32},
    "mask2former": {
        "encoder": "test_resnet",
        "num_queries": 10,
        "channels": 32,
        "heads": 2,
        "pixel_decoder_layers": 1,
        "decoder_layers": 3,
        "feedforward": 64,
    },
    "eomt": {"encoder": "test_vit", "num_queries": 10, "num_blocks": 2, "image_size": 64},
    "linear": {"encoder": "test_vit", "layers": 2},
    "dpt": {"encoder": "test_vit", "decoder_channels": 16},
    "segmenter": {"encoder": "test_vit"},
    "unetplusplus": {"encoder": "resnet18", "decoder_channels": [32, 16, 16, 8, 8]},
    "manet": {"encoder": "resnet18", "decoder_channels": [32, 16, 16, 8, 8]},
    "linknet": {"encoder": "resnet18"},
    "pspnet": {"encoder": "resnet18", "decoder_channels": 32},
    "pan": {"encoder": "resnet18"},
    "pidnet": {},
    "ddrnet": {},
    "bisenetv2": {"head_channels": 32, "booster_channels": 16},
    "stdc": {},
}
WITH_AUX = {"fcn", "deeplabv3", "pspnet", "pidnet", "ddrnet", "bisenetv2", "stdc"}
FROM_NOTHING = {"tiny", "bisenetv2"}  # no part of them is pre-trained


def build(name: str, in_channels: int = 3, **own: Any) -> SegmentationNetwork:
    node = yaml.safe_load((ROOT / "conf/network" / f"{name}.yaml").read_text())
    torch.manual_seed(0)
    network = make({**node, **LIGHT[name], **own}, "network", num_classes=CLASSES, in_channels=in_channels)
    assert isinstance(network, SegmentationNetwork)
    return network


def test_every_network_is_tested() -> None:
    of_images = {"spade"}  # tests/models/test_synthesis.py
    assert {file.stem for file in (ROOT / "conf/network").glob("*.yaml")} == LIGHT.keys() | of_images


# Built like one that is always tested: smp's decoders, a real-time network of the same parts, a head on the same ViT.
LIKE_OTHERS = {
    "unetplusplus", "manet", "linknet", "pan", "pspnet", "fcn", "deeplabv3", "ddrnet", "bisenetv2", "dpt", "segmenter", "unet",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LIKE_OTHERS else ()) for name in LIGHT]
)
class TestNetwork:
    def test_logits_have_the_size_of_any_image(self, name: str) -> None:
        network = build(name).eval()
        with torch.inference_mode():
            for height, width in ((97, 65), (64, 64), (33, 120)):
                outputs = network(torch.randn(1, 3, height, width))
                assert outputs.keys() == {"logits"}
                assert outputs["logits"].shape == (1, CLASSES, height, width)

    def test_gradients_reach_every_parameter(self, name: str) -> None:
        network = build(name).train()
        outputs = network(torch.randn(2, 3, 65, 70))
        assert ("aux" in outputs) == (name in WITH_AUX)
        sum(logits.float().square().mean() for logits in outputs.values()).backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key

    def test_a_state_dict_and_a_copy_give_the_same_logits(self, name: str) -> None:
        first, second = build(name).eval(), build(name)
        for parameter in second.parameters():
            torch.nn.init.normal_(parameter)
        second.load_state_dict(first.state_dict())
        image = torch.randn(1, 3, 64, 64)
        with torch.inference_mode():
            expected = first(image)["logits"]
            assert torch.equal(second.eval()(image)["logits"], expected)
            assert torch.equal(copy.deepcopy(first)(image)["logits"], expected)
            assert torch.equal(pickle.loads(pickle.dumps(first))(image)["logits"], expected)

    def test_channels_last_and_bf16(self, name: str) -> None:
        network = build(name).eval()
        image = torch.randn(1, 3, 64, 64)
        with torch.inference_mode():
            expected = network(image)["logits"]
            network.to(memory_format=torch.channels_last)
            last = network(image.contiguous(memory_format=torch.channels_last))["logits"]
            torch.testing.assert_close(last, expected, rtol=1e-3, atol=1e-3)
            with torch.autocast("cpu", torch.bfloat16):
                low = network(image)["logits"]
        assert low.isfinite().all()
        assert (low.float() - expected).abs().mean() < 0.1 * expected.abs().mean() + 0.05

    def test_other_channel_counts(self, name: str) -> None:
        for channels in (1, 5):
            outputs = build(name, in_channels=channels).eval()(torch.randn(1, channels, 64, 64))
            assert outputs["logits"].shape == (1, CLASSES, 64, 64)

    def test_the_encoder_is_part_of_the_network(self, name: str) -> None:
        network = build(name)
        own = {id(p) for p in network.parameters()}
        if name in FROM_NOTHING:
            assert network.encoder is None
        else:
            assert network.encoder is not None
            encoder = {id(p) for p in network.encoder.parameters()}
            assert encoder
            assert encoder < own


def test_an_image_of_a_usual_odd_size() -> None:
    with torch.inference_mode():
        assert build("unet").eval()(torch.randn(1, 3, 321, 481))["logits"].shape == (1, CLASSES, 321, 481)


@pytest.mark.parametrize(
    ("encoder", "depth"),
    [("resnet18", 4), ("tf_efficientnet_lite0", 4), ("mit_b0", 3), ("efficientnet-b0", 5)],
)
def test_every_trainable_parameter_of_a_cut_encoder_gets_a_gradient(encoder: str, depth: int) -> None:
    """What is left over is frozen: plain DDP fails where a gradient never comes."""
    network = build("unet", encoder=encoder, encoder_depth=depth, decoder_channels=[8] * depth)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    network(torch.randn(2, 3, 64, 64))["logits"].square().mean().backward()
    trainable = {key: parameter for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert [key for key, parameter in trainable.items() if parameter.grad is None] == []
    assert len(trainable) < len(list(network.parameters()))


def test_a_whole_encoder_is_trainable() -> None:
    assert all(parameter.requires_grad for parameter in build("unet").parameters())


def test_a_window_transformer_takes_any_size() -> None:
    network = build("upernet", encoder="swin_tiny_patch4_window7_224").eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 97, 65))["logits"].shape == (1, CLASSES, 97, 65)


def test_an_encoder_for_one_size_only_is_refused() -> None:
    with pytest.raises(UserError, match=r"network\.encoder: 'coat_tiny' cannot serve this network"):
        build("unet", encoder="coat_tiny")


def test_padding_does_not_shift_the_logits(tmp_path: Path) -> None:
    """Whether or not the image is a multiple of the divisor, the same content gives about the same answer."""
    network = build("unet").eval()
    image = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        whole, cut = network(image)["logits"], network(image[..., :100, :100])["logits"]
    inner = (slice(None), slice(None), slice(0, 40), slice(0, 40))
    correlation = torch.corrcoef(torch.stack([whole[inner].flatten(), cut[inner].flatten()]))[0, 1]
    assert correlation > 0.9
