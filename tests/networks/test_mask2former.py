"""Mask2Former beside transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

from src.errors import UserError
from src.networks.base import SegmentationNetwork
from src.networks.mask2former import as_now, mask2former

CLASSES = 5
TINY: dict[str, Any] = {
    "num_queries": 9, "channels": 32, "heads": 2, "pixel_decoder_layers": 2, "decoder_layers": 4, "feedforward": 64,
}  # fmt: skip


def build(encoder: str = "test_resnet", in_channels: int = 3, **own: Any) -> SegmentationNetwork:
    torch.manual_seed(0)
    return mask2former(CLASSES, in_channels, encoder, **{**TINY, **own})


def theirs(encoder: str) -> Any:
    """Their model of the same shape with weights of its own, all of which matter."""
    if encoder.startswith("swin"):
        backbone: Any = transformers.SwinConfig(drop_path_rate=0.3, out_features=[f"stage{i}" for i in range(1, 5)])
    else:
        backbone = transformers.TimmBackboneConfig(backbone=encoder, out_indices=[1, 2, 3, 4])
    torch.manual_seed(1)
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
            num_queries=9,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
        num_attention_heads=2,
            encoder_layers=2,
            decoder_layers=5,
            dim_feedforward=64,
            num_labels=CLASSES,
    )  # fmt: skip
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def load_theirs(network: SegmentationNetwork, folder: Path) -> None:
    """Loads all of the tensors that they saved."""
    state = {as_now(key): value for key, value in load_file(folder / "model.safetensors").items()}
    theirs_here: Any = network.core.model
    result = theirs_here.load_state_dict(state, strict=False)
    assert [key for key in result.missing_keys if "relative_position_index" not in key] == []
    assert result.unexpected_keys == ["criterion.empty_weight"]


@pytest.mark.parametrize("encoder", ["test_resnet", "swin-tiny"])
def test_their_weights_give_their_logits(encoder: str, tmp_path: Path) -> None:
    model = theirs(encoder)
    model.save_pretrained(tmp_path)
    network = build(encoder).eval()
    load_theirs(network, tmp_path)
    image = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        expected = model(pixel_values=image, output_auxiliary_logits=True)
        core: Any = network.core
        *earlier, (classes, masks) = core.layers(image)
        torch.testing.assert_close(classes, expected.class_queries_logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(masks, expected.masks_queries_logits, rtol=1e-4, atol=1e-4)
        for own, their in zip(earlier, expected.auxiliary_logits, strict=True):
            torch.testing.assert_close(own[1], their["masks_queries_logits"], rtol=1e-4, atol=1e-4)


def test_every_layer_and_the_queries_before_the_first_are_supervised() -> None:
    outputs = build().train()(torch.randn(2, 3, 65, 70))
    assert outputs["mask_classes"].shape == (2, 5, 9, CLASSES + 1)
    assert outputs["mask_logits"].shape == (2, 5, 9, 24, 24)
    assert outputs["extent"].tolist() == [[pytest.approx(65 / 96), pytest.approx(70 / 96)]] * 2


def test_weights_of_a_timm_encoder_reach_it(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    encoder = build(encoder_weights=str(tmp_path / "model.safetensors")).encoder
    assert encoder is not None
    own = encoder.state_dict()
    assert len(own) > 20
    for key, value in own.items():
        assert torch.equal(value, state[key.removeprefix("_backbone.")]), key


def test_weights_of_transformers_swin_classifier_reach_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = transformers.SwinForImageClassification(transformers.SwinConfig())
    model.save_pretrained(tmp_path)
    encoder = build("swin-tiny", encoder_weights=str(tmp_path / "model.safetensors")).encoder
    assert encoder is not None
    own = encoder.get_submodule("swin").state_dict()
    assert len(own) > 100
    assert all(torch.equal(value, model.swin.state_dict()[key]) for key, value in own.items())
    with pytest.raises(UserError, match="SwinForImageClassification"):
        build("swin-tiny", encoder_weights="imagenet")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"encoder": "resnet5"}, "network.encoder: timm knows no 'resnet5'"),
        ({"encoder": "test_vit"}, "network.encoder: 'test_vit' cannot serve mask2former"),
        ({"encoder": "swin_tiny_patch4_window7_224"}, "cannot serve mask2former"),
        ({"heads": 3}, "network.heads: 3 do not divide network.channels=32"),
        ({"encoder_weights": "nowhere.pth"}, "there is no file nowhere.pth"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        build(**given)
    assert said in str(error.value)
