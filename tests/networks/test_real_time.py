"""Real-time networks have the parameters and multiplications that are published, and the outputs that their losses ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from src.errors import UserError
from src.losses.pidnet import PIDNetLoss
from src.losses.stdc import STDCLoss
from src.networks.base import SegmentationNetwork
from src.networks.bisenetv2 import bisenetv2
from src.networks.ddrnet import ddrnet
from src.networks.pidnet import pidnet
from src.networks.stdc import stdc
from src.networks.torchvision_models import lraspp

Build = Callable[..., SegmentationNetwork]
CITYSCAPES = (1024, 2048)


def size_of(network: nn.Module, height: int, width: int, channels: int = 3) -> tuple[float, float]:
    """Millions of parameters, and billions of multiplications for one image, in evaluation."""
    network = network.eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, channels, height, width, device="meta"))
    return sum(p.numel() for p in network.parameters()) / 1e6, counter.get_total_flops() / 2e9


# Parameters are exactly those of the authors' code (models/pidnet.py of XuJiacong/PIDNet, segmentation/DDRNet_23*.py of
# ydhongHIT/DDRNet, lib/models/bisenetv2.py of CoinCheung/BiSeNet, models/model_stages.py of MichaelFan01/STDC-Seg without what
# only trains). Multiplications are those of the papers' tables to 1 %, for some counters add norms and pooling: 47.6, 275.8;
# 36.3, 143.1. Of PIDNet-M the authors' code is 28.5 M, and their table says 34.4 M, so that its multiplications are ours.
@pytest.mark.parametrize(
    ("build", "size", "parameters", "multiplications"),
    [
        (pidnet, "s", 7_625_715, 47.6),
        (pidnet, "m", 28_538_515, 177.3),
        (pidnet, "l", 36_939_571, 275.8),
        (ddrnet, "ddrnet23_slim", 5_695_987, 36.3),
        (ddrnet, "ddrnet23", 20_148_947, 143.1),
    ],
)
def test_as_published(build: Build, size: str, parameters: int, multiplications: float) -> None:
    found = size_of(build(19, size=size, aux=False), *CITYSCAPES)
    assert found[0] == pytest.approx(parameters / 1e6, abs=1e-9)
    assert found[1] == pytest.approx(multiplications, rel=0.01)


def test_bisenetv2_has_the_size_of_its_best_known_code() -> None:
    """The paper counts 21.15 billion and no parameters, and leaves the head's width open; CoinCheung's has 1024."""
    found = size_of(bisenetv2(19, aux=False), 512, 1024)
    assert found[0] == pytest.approx(3.358627, abs=1e-9)
    assert found[1] == pytest.approx(24.603, rel=0.001)


def test_lraspp_as_published() -> None:
    """torchvision's card of lraspp_mobilenet_v3_large: 3,221,538 parameters and 2.086 billion operations at 520."""
    found = size_of(lraspp(21).core, 520, 520)
    assert found[0] == pytest.approx(3.221538, abs=1e-9)
    assert found[1] == pytest.approx(2.086, rel=0.01)


@pytest.mark.parametrize(("size", "parameters", "multiplications"), [("stdc1", 8.44, 0.813), ("stdc2", 12.47, 1.446)])
def test_encoders_of_stdc_as_published(
    size: Literal["stdc1", "stdc2"], parameters: float, multiplications: float
) -> None:
    """Table 2 of the paper counts classifiers at 224: with a 1x1 convolution and two layers of 1024 and 1000 outputs."""
    encoder = stdc(19, size=size).encoder
    assert encoder is not None
    found = size_of(encoder, 224, 224)
    convolution, layers = 1024 * 1024, 1024 * 1024 + 1024 * 1000
    norms = 2 * 2 * 1024
    assert found[0] + (convolution + layers + norms) / 1e6 == pytest.approx(parameters, abs=0.006)
    assert found[1] + (49 * convolution + layers) / 1e9 == pytest.approx(multiplications, rel=0.01)


@pytest.mark.parametrize(
    ("build", "own", "loss"),
    [
        (pidnet, {"boundary": True}, PIDNetLoss()),
        (pidnet, {"boundary": True, "aux": False}, PIDNetLoss()),
        (stdc, {"boundary": True}, STDCLoss()),
        (stdc, {"boundary": True, "aux": False}, STDCLoss()),
    ],
)
def test_their_loss_trains_every_parameter(build: Build, own: dict[str, Any], loss: PIDNetLoss | STDCLoss) -> None:
    torch.manual_seed(0)
    network = build(5, **own).train()
    outputs = network(torch.randn(2, 3, 75, 101))
    assert outputs["edges"].shape == (2, 1, 75, 101)
    loss.of_outputs(outputs, torch.randint(0, 5, (2, 75, 101))).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key


def test_what_only_trains_is_not_computed_in_evaluation() -> None:
    for build, aux in ((pidnet, {"aux", "edges"}), (stdc, {"aux", "aux2", "edges"})):
        network = build(3, boundary=True)
        image = torch.randn(2, 3, 64, 64)
        assert network(image).keys() == {"logits", *aux}
        assert network.eval()(image).keys() == {"logits"}
    assert bisenetv2(3)(torch.randn(2, 3, 64, 64)).keys() == {"logits", "aux", "aux2", "aux3", "aux4"}


@pytest.mark.parametrize(
    ("build", "of_imagenet"), [(pidnet, ("conv1", "layer", "spp")), (ddrnet, ("conv1", "layer", "comp", "down"))]
)
@pytest.mark.parametrize("in_channels", [3, 4])
def test_a_file_of_the_authors_fills_what_it_has(
    build: Build, of_imagenet: tuple[str, ...], in_channels: int, tmp_path: Path
) -> None:
    source = build(19).encoder
    assert source is not None
    known = {key: value for key, value in source.state_dict().items() if key.startswith(of_imagenet)}
    torch.save({"state_dict": {f"model.{key}": value for key, value in known.items()}}, tmp_path / "weights.pth")
    network = build(4, in_channels=in_channels, encoder_weights=str(tmp_path / "weights.pth"))
    assert network.encoder is not None
    own = network.encoder.state_dict()
    if in_channels == 3:
        assert all(torch.equal(own[key], value) for key, value in known.items())
    else:
        assert own["conv1.0.weight"].shape[1] == in_channels
        torch.testing.assert_close(own["conv1.0.weight"][:, 0] / own["conv1.0.weight"][:, 3], torch.ones(32, 3, 3))


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    source = ddrnet(19, size="ddrnet23").encoder
    assert source is not None
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"does not fit: \d+ of \d+ tensors are missing or of another shape"):
        ddrnet(19, encoder_weights=str(tmp_path / "weights.pth"))
    with pytest.raises(UserError, match="there is no file"):
        stdc(19, encoder_weights=str(tmp_path / "none.pth"))


def test_lraspp_over_another_encoder() -> None:
    network = lraspp(3, encoder="mobilenetv3_small_050").eval()
    with torch.inference_mode():
        features = network.core.get_submodule("encoder")(torch.randn(1, 3, 64, 96))
        assert features[-1].shape[-2:] == (4, 6)  # dilated: 16, not 32
        assert network(torch.randn(1, 3, 75, 101))["logits"].shape == (1, 3, 75, 101)
