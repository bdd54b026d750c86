"""A second head beside smp's networks trains what it stands on, and changes nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from src.networks.base import SegmentationNetwork
from src.networks.bisenetv2 import bisenetv2
from src.networks.ddrnet import ddrnet
from src.networks.pidnet import pidnet
from src.networks.smp_models import deeplabv3plus, pspnet, upernet
from src.networks.stdc import stdc
from src.networks.torchvision_models import fcn


@pytest.mark.parametrize("build", [deeplabv3plus, upernet, pspnet])
def test_a_second_head(build: Callable[..., SegmentationNetwork]) -> None:
    given = {"encoder": "resnet18", "decoder_channels": 16}
    torch.manual_seed(0)
    plain = build(4, **given, aux=False)
    torch.manual_seed(0)
    network = build(4, **given, aux=True)
    own, added = plain.state_dict(), network.state_dict()
    assert own.keys() == {key for key in added if not key.startswith("core.auxiliary_head.")} < added.keys()
    assert all(torch.equal(value, added[key]) for key, value in own.items())
    image = torch.randn(2, 3, 75, 101)
    with torch.inference_mode():
        assert torch.equal(network.eval()(image)["logits"], plain.eval()(image)["logits"])
        assert network(image).keys() == plain.train()(image).keys() == {"logits"}
    network.train()(image)["aux"].square().mean().backward()
    reached = {key for key, parameter in network.named_parameters() if parameter.grad is not None}
    assert any(key.startswith("core.encoder.layer3.") for key in reached)
    assert not any(key.startswith(("core.encoder.layer4.", "core.decoder.")) for key in reached)


def test_all_of_it_learns() -> None:
    network = deeplabv3plus(4, encoder="resnet18", decoder_channels=16, aux=True)
    outputs = network(torch.randn(2, 3, 64, 64))
    (outputs["logits"].square().mean() + outputs["aux"].square().mean()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.requires_grad, key
        assert parameter.grad is not None, key


@pytest.mark.parametrize(
    "build",
    [
        lambda: deeplabv3plus(3, encoder="resnet18", aux=True),
        lambda: fcn(3, encoder="resnet50", aux=True),
        lambda: pidnet(3, aux=True, boundary=True),
        lambda: ddrnet(3, aux=True),
        lambda: bisenetv2(3, aux=True),
        lambda: stdc(3, aux=True, boundary=True),
    ],
)
def test_heads_that_only_train_are_those_that_logits_do_not_need(build: Callable[[], SegmentationNetwork]) -> None:
    network = build().eval()
    network(torch.rand(1, 3, 128, 128))["logits"].sum().backward()
    unused = {id(p) for p in network.parameters() if p.requires_grad and p.grad is None}
    assert unused == {id(p) for head in network.only_train for p in head.parameters()} != set()
