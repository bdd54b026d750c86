"""EoMT beside transformers' own, images of any size, and the annealing of its masks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

from src.errors import UserError
from src.networks.base import SegmentationNetwork
from src.networks.eomt import annealed, eomt

CLASSES = 5


def build(encoder: str = "test_vit", in_channels: int = 3, **own: Any) -> SegmentationNetwork:
    torch.manual_seed(0)
    return eomt(CLASSES, in_channels, encoder, **{"num_queries": 9, "num_blocks": 3, "image_size": 64, **own})


def theirs(masked: float) -> Any:
    """Their model of the same shape with weights of its own, all of which matter."""
    torch.manual_seed(1)
    config = transformers.EomtConfig(
        hidden_size=64,
            num_hidden_layers=6,
        num_attention_heads=2,
            mlp_ratio=3,
            num_register_tokens=0,
        image_size=64,
            patch_size=16,
            num_blocks=3,
            num_queries=9,
            num_labels=CLASSES,
            attn_implementation="eager",
    )  # fmt: skip
    model = transformers.EomtForUniversalSegmentation(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.attn_mask_probs.fill_(masked)
    return model.eval()


def with_their_weights(model: Any, folder: Path, **own: Any) -> SegmentationNetwork:
    model.save_pretrained(folder)
    network = build(**own)
    theirs_here: Any = network.core.model
    result = theirs_here.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert result.missing_keys == [] and result.unexpected_keys == ["criterion.empty_weight"]
    return network.eval()


@pytest.mark.parametrize("masked", [0.0, 1.0])
def test_their_weights_give_their_logits_and_their_map(masked: float, tmp_path: Path) -> None:
    model = theirs(masked)
    network = with_their_weights(model, tmp_path)
    image = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(pixel_values=image)
        core: Any = network.core
        layers = core.layers(image)
        assert len(layers) == (4 if masked else 1)
        torch.testing.assert_close(layers[-1][0], expected.class_queries_logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layers[-1][1], expected.masks_queries_logits, rtol=1e-4, atol=1e-4)
        processor = transformers.models.eomt.image_processing_pil_eomt.EomtImageProcessorPil()
        size = {"shortest_edge": 64, "longest_edge": None}
        maps = processor.post_process_semantic_segmentation(expected, [(64, 64)] * 2, size)
        assert torch.equal(network(image)["logits"].argmax(dim=1), torch.stack(maps))


@pytest.mark.parametrize("in_channels", [3, 5])
def test_weights_of_a_timm_vit_give_its_features(in_channels: int, tmp_path: Path) -> None:
    """Without queries and masks the tokens are the ViT's own."""
    torch.manual_seed(3)
    vit = timm.create_model("test_vit", num_classes=7)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    file = tmp_path / "vit.safetensors"
    save_file(vit.state_dict(), file)
    core: Any = build(in_channels=in_channels, encoder_weights=str(file), image_size=160).eval().core
    adapted: Any = timm.create_model("test_vit", num_classes=7, in_chans=in_channels).eval()
    state = vit.state_dict()
    state["patch_embed.proj.weight"] = timm.models.adapt_input_conv(in_channels, state["patch_embed.proj.weight"])
    adapted.load_state_dict(state)
    image = torch.randn(1, in_channels, 160, 160)
    with torch.inference_mode():
        tokens = core.embedded(image, (10, 10))
        for block in core.model.layers:
            tokens = block(tokens, None)
        torch.testing.assert_close(core.model.layernorm(tokens), adapted.forward_features(image), rtol=1e-4, atol=1e-4)


def test_position_embeddings_are_resampled_for_other_sizes() -> None:
    network = build().eval()
    with torch.inference_mode():
        for size in ((64, 64), (48, 80), (100, 33)):
            assert network(torch.randn(1, 3, *size))["logits"].shape == (1, CLASSES, *size)


def test_the_share_of_masked_queries_falls_block_by_block() -> None:
    # of four blocks each has a sixth of the training, the first from a sixth on, as in the authors' ADE20K settings
    assert annealed(0.0, 4, 0.9) == [1, 1, 1, 1]
    assert annealed(1 / 6, 4, 0.9) == [1, 1, 1, 1]
    assert annealed(0.25, 4, 0.9) == pytest.approx([0.5**0.9, 1, 1, 1])
    assert annealed(0.5, 4, 0.9) == pytest.approx([0, 0, 1, 1], abs=1e-9)
    assert annealed(5 / 6, 4, 0.9) == pytest.approx([0, 0, 0, 0], abs=1e-9)
    assert annealed(1.0, 4, 0.9) == [0, 0, 0, 0]


def predictions_of(network: SegmentationNetwork) -> int:
    core: Any = network.core
    return len(core.layers(torch.randn(1, 3, 64, 64)))


def test_annealing_lies_in_the_state_and_evaluation_follows_it() -> None:
    network = build()
    image = torch.randn(1, 3, 64, 64)
    for share, predictions in ((0.0, 4), (0.5, 3), (1.0, 1)):
        network.at_share(share)
        network.eval()
        assert predictions_of(network) == predictions
        other = build().eval()
        other.load_state_dict(network.state_dict())
        assert torch.equal(other(image)["logits"], network(image)["logits"])
        assert torch.equal(copy.deepcopy(network)(image)["logits"], network(image)["logits"])
        assert predictions_of(network.train()) == 4
    kept = build(mask_annealing=False)
    kept.at_share(1.0)
    assert predictions_of(kept.eval()) == 4


def test_evaluation_draws_nothing() -> None:
    network = build()
    network.at_share(0.3)
    network.eval()
    image = torch.randn(1, 3, 64, 64)
    state = torch.get_rng_state()
    assert torch.equal(network(image)["logits"], network(image)["logits"])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"encoder": "vit_smal"}, "network.encoder: timm knows no 'vit_smal'"),
        ({"encoder": "test_resnet"}, "network.encoder: 'test_resnet' is no plain ViT"),
        ({"encoder": "vit_giant_patch14_reg4_dinov2"}, "is no plain ViT"),
        ({"num_blocks": 7}, "network.num_blocks: 7, and test_vit has 6 blocks"),
        ({"image_size": 60}, "network.image_size: 60 is no multiple of network.patch_size=16; take 64"),
        ({"encoder_weights": "nowhere.pth"}, "there is no file nowhere.pth"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        build(**given)
    assert said in str(error.value)


def test_a_file_of_another_vit_is_named(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit2").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="does not fit the encoder"):
        build(encoder_weights=str(tmp_path / "other.safetensors"))
