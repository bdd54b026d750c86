"""Networks over plain ViTs: which encoders and blocks they take, what is frozen, dropped or refused, and exported graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.networks.base import SegmentationNetwork
from src.networks.lora import LoRA
from src.networks.smp_models import unet, upernet
from src.networks.torchvision_models import lraspp
from src.networks.vit_models import dpt, linear, segmenter

OVER_VITS: dict[str, Callable[..., SegmentationNetwork]] = {
    "linear": linear, "dpt": dpt, "segmenter": segmenter, "upernet": upernet,
}  # fmt: skip


@pytest.mark.parametrize("name", OVER_VITS)
@pytest.mark.parametrize("encoder", ["test_vit", "eva02_tiny_patch14_224"])
def test_logits_of_any_size_in_bf16_too(name: str, encoder: str) -> None:
    network = OVER_VITS[name](5, encoder=encoder).eval()
    assert network.size_divisor == (16 if encoder == "test_vit" else 14)
    with torch.inference_mode():
        for size in ((75, 101), (16, 14), (1, 1)):
            assert network(torch.randn(1, 3, *size))["logits"].shape == (1, 5, *size)
        with torch.autocast("cpu", torch.bfloat16):
            assert network(torch.randn(2, 3, 40, 33))["logits"].isfinite().all()


@pytest.mark.parametrize("name", OVER_VITS)
def test_every_parameter_learns(name: str) -> None:
    network = OVER_VITS[name](5, encoder="test_vit3", gradient_checkpointing=True).train()
    network(torch.randn(2, 3, 65, 70))["logits"].square().mean().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


def test_dpt_fuses_maps_of_odd_grids() -> None:
    network = dpt(5, encoder="test_vit", decoder_channels=16).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 5 * 16, 7 * 16))["logits"].shape == (1, 5, 80, 112)


def test_blocks_that_are_there() -> None:
    encoder: Any = upernet(5, encoder="test_vit", layers=[0, 1, 2, 3]).encoder
    assert encoder.depth == 4
    with pytest.raises(
        UserError, match=r"network\.layers: should be four rising numbers from 0 to 5, not \[0, 1, 2, 6\]"
    ):
        dpt(5, encoder="test_vit", layers=[0, 1, 2, 6])
    with pytest.raises(UserError, match=r"network\.layers: test_vit has 6 blocks; take 6 or fewer"):
        linear(5, encoder="test_vit", layers=7)


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "mit_b0"])
def test_linear_over_encoders_that_have_stages(encoder: str) -> None:
    network = linear(5, encoder=encoder, layers=2)
    with torch.inference_mode():
        assert network.eval()(torch.randn(1, 3, 75, 101))["logits"].shape == (1, 5, 75, 101)
    with pytest.raises(UserError, match=rf"network\.layers: {encoder} has \d stages"):
        linear(5, encoder=encoder, layers=6)


def test_what_is_refused_and_what_to_take() -> None:
    with pytest.raises(UserError, match=r"network\.encoder: 'resnet18' is no plain ViT of timm.*network=upernet"):
        dpt(5, encoder="resnet18")
    with pytest.raises(UserError, match=r"network\.encoder: .* did you mean"):
        segmenter(5, encoder="vit_small_patch14_dino2")
    keys: tuple[dict[str, Any], ...] = (
        {"drop_path": 0.1}, {"gradient_checkpointing": True}, {"lora": LoRA(4)}, {"layers": [0, 1, 2, 3]},
    )  # fmt: skip
    for key in keys:
        with pytest.raises(UserError, match=rf"network\.{next(iter(key))}: is for plain ViTs, and 'resnet18' is none"):
            upernet(5, encoder="resnet18", **key)
    with pytest.raises(UserError, match=r"network\.decoder_heads: the width 64 cannot be split among 5 heads"):
        segmenter(5, encoder="test_vit", decoder_heads=5)
    with pytest.raises(UserError, match=r"network\.freeze: .* set it to null"):
        linear(5, encoder="test_vit", freeze="encoder", lora=LoRA(4))
    with pytest.raises(UserError, match=r"network\.freeze: this network has no encoder"):
        SegmentationNetwork(nn.Conv2d(3, 2, 1), freeze="encoder")


@pytest.mark.parametrize(
    "build",
    [
        lambda: linear(5, encoder="test_vit", freeze="encoder", drop_path=0.5),
        lambda: unet(5, encoder="resnet18", freeze="encoder"),
        lambda: lraspp(5, freeze="encoder"),
    ],
)
def test_a_frozen_encoder_keeps_no_activations_and_stays_in_evaluation_mode(
    build: Callable[[], SegmentationNetwork],
) -> None:
    network = build().train()
    encoder = network.encoder
    assert encoder is not None
    assert not any(module.training for module in encoder.modules())
    assert network.core.training
    seen: list[Any] = []
    encoder.register_forward_hook(lambda _, inputs, output: seen.append(output))
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    network(torch.randn(2, 3, 64, 64))["logits"].square().mean().backward()
    features = list(seen[0].values() if isinstance(seen[0], dict) else seen[0])
    assert features and all(one.grad_fn is None for one in features)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    learns = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert learns
    assert learns == {key for key, parameter in network.named_parameters() if parameter.grad is not None}
    network.eval().train()
    assert not encoder.training


def test_pretrained_files_fill_encoders_with_stages_under_linear(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("convnext_atto").state_dict()
    torch.save(source, tmp_path / "weights.pth")
    network = linear(5, encoder="convnext_atto", encoder_weights=str(tmp_path / "weights.pth"))
    assert network.encoder is not None
    assert torch.equal(network.encoder.state_dict()["model.stem_0.weight"], source["stem.0.weight"])
