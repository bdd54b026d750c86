"""Models that smp's `save_pretrained` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch

from src.errors import UserError
from src.training.init_from import start_from
from tests.networks.foreign.test_huggingface import check_same, shaken
from tests.training.test_init_from import model_of

NAMES = ("background", "car", "road")


@pytest.mark.parametrize(
    ("build", "overrides"),
    [
        (
            lambda: smp.Unet(
                "resnet18", 4, None, decoder_channels=[128, 64, 32, 16], decoder_attention_type="scse", classes=3
            ),
            [
                "network=unet", "network.encoder=resnet18", "network.encoder_depth=4",
                "network.decoder_channels=[128,64,32,16]", "network.decoder_attention=scse",
            ],
        ),
        (lambda: smp.Unet("resnet18", encoder_weights=None, classes=3), ["network=unet", "network.encoder=resnet18"]),
        (
            lambda: smp.FPN("tu-tf_efficientnet_lite0", encoder_weights=None, decoder_pyramid_channels=64, classes=3),
            ["network=fpn", "network.encoder=tf_efficientnet_lite0", "network.pyramid_channels=64"],
        ),
        pytest.param(
            lambda: smp.DeepLabV3Plus("resnet18", encoder_weights=None, encoder_output_stride=8, classes=3),
            ["network=deeplabv3plus", "network.encoder=resnet18", "network.output_stride=8"],
            marks=pytest.mark.slow,
        ),
        (
            lambda: smp.Segformer("mit_b0", encoder_weights=None, decoder_segmentation_channels=64, classes=3),
            ["network=segformer", "network.decoder_channels=64"],
        ),
        (
            lambda: smp.UnetPlusPlus("resnet18", 3, None, decoder_channels=[64, 32, 16], classes=3),
            [
                "network=unetplusplus", "network.encoder=resnet18", "network.encoder_depth=3",
                "network.decoder_channels=[64,32,16]",
            ],
        ),
        (
            lambda: smp.MAnet("resnet18", encoder_weights=None, decoder_pab_channels=32, classes=3),
            ["network=manet", "network.encoder=resnet18", "network.attention_channels=32"],
        ),
        (lambda: smp.Linknet("resnet18", encoder_weights=None, classes=3), ["network=linknet", "network.encoder=resnet18"]),
        (
            lambda: smp.PSPNet("resnet18", encoder_weights=None, psp_out_channels=64, classes=3),
            [
                "network=pspnet", "network.encoder=resnet18", "network.encoder_depth=3", "network.decoder_channels=64",
                "network.aux=false",
            ],
        ),
        (lambda: smp.PAN("resnet18", encoder_weights=None, classes=3), ["network=pan", "network.encoder=resnet18"]),
        pytest.param(
            lambda: smp.UPerNet("resnet18", encoder_weights=None, classes=3), ["network=upernet", "network.encoder=resnet18"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=[
        "unet", "unet, defaults", "fpn over timm", "deeplabv3plus", "segformer",
        "unetplusplus", "manet", "linknet", "pspnet", "pan", "upernet",
    ],
)  # fmt: skip
def test_the_same_logits(tmp_path: Path, build: Callable[[], Any], overrides: list[str]) -> None:
    torch.manual_seed(0)
    peer = shaken(build())
    peer.save_pretrained(tmp_path)
    model, given = model_of(NAMES, *overrides)
    told = start_from(f"smp-hub:{tmp_path}", model, given)
    sides = (128, 128) if isinstance(peer, smp.PAN) else (64, 96)  # its pyramid takes multiples of 128
    image = torch.randn(2, 3, *sides)
    with torch.inference_mode():
        check_same(model.network.eval()(image)["logits"], peer(image))
    assert "100% of the network's values" in told[0] and len(told) == 2
    assert "the file does not name its classes; they are taken to be, in this order, background, car, road" in told[1]


def test_another_number_of_classes(tmp_path: Path) -> None:
    smp.Unet("resnet18", encoder_weights=None, classes=1).save_pretrained(tmp_path)
    model, given = model_of(NAMES, "network=unet", "network.encoder=resnet18")
    told = start_from(f"smp-hub:{tmp_path}", model, given)
    assert told[1].startswith("start anew: network.core.segmentation_head.0.weight [3, 16, 3, 3]")


def test_what_does_not_fit_is_said_with_the_overrides_that_do(tmp_path: Path) -> None:
    smp.Unet("resnet18", 4, None, decoder_channels=[64, 32, 16, 8]).save_pretrained(tmp_path)
    right = "take network=unet network.encoder=resnet18 network.encoder_depth=4 network.decoder_channels=[64,32,16,8]"
    for overrides in (["network=fpn"], ["network=unet", "network.encoder=mit_b0"]):
        model, given = model_of(NAMES, *overrides)
        with pytest.raises(UserError) as error:
            start_from(f"smp-hub:{tmp_path}", model, given)
        assert str(error.value) == f"init_from: smp-hub:{tmp_path} is of another network; {right}"
    model, given = model_of(NAMES, "network=unet", "network.encoder=resnet18")
    told = start_from(f"smp-hub:{tmp_path}", model, given)  # the encoder is the same
    assert told[-1].endswith(
        "was made with network.encoder_depth=4 network.decoder_channels=[64,32,16,8]; here they are others"
    )
    about = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(about | {"_model_class": "DeepLabV3"}))
    with pytest.raises(UserError, match="is a DeepLabV3, and of smp's models there are Unet, UnetPlusPlus, MAnet"):
        start_from(f"smp-hub:{tmp_path}", model, given)
