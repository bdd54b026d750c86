"""UPerNet over Swin and ConvNeXt as transformers saves it, into the same network here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from src.errors import UserError
from src.training.init_from import start_from
from tests.networks.foreign.test_huggingface import NAMES, OURS, check_same, shaken
from tests.training.test_init_from import model_of

SWIN = ["network=upernet", "network.encoder=swin_tiny_patch4_window7_224", "network.decoder_channels=32"]
CONVNEXT = ["network=upernet", "network.encoder=convnext_tiny", "network.decoder_channels=32"]


def saved(folder: Path, kind: str = "swin") -> Any:
    """A folder that transformers' `save_pretrained` wrote, and the model."""
    transformers = pytest.importorskip("transformers", reason="needs the extra `transformers`")
    stages = [f"stage{i}" for i in range(1, 5)]
    body = transformers.SwinConfig if kind == "swin" else transformers.ConvNextConfig
    names = dict(enumerate(NAMES))
    sizes = {} if kind == "swin" else {"hidden_sizes": [96, 192, 384, 768]}
    of_body = body(out_features=stages, **sizes)
    config = transformers.UperNetConfig(backbone_config=of_body, hidden_size=32, id2label=names)
    peer = shaken(transformers.UperNetForSemanticSegmentation(config))
    peer.save_pretrained(folder)
    return peer


@pytest.mark.parametrize(("kind", "overrides"), [("swin", SWIN), ("convnext", CONVNEXT)])
def test_the_same_logits(tmp_path: Path, kind: str, overrides: list[str]) -> None:
    peer = saved(tmp_path, kind)
    model, given = model_of(NAMES, *overrides)
    told = start_from(f"hf:{tmp_path}", model, given)
    image = torch.randn(1, 3, 288, 320)  # of 9x10 in the last stage: more than a window
    network: Any = model.network.eval().core
    theirs: list[torch.Tensor] = []
    peer.decode_head.register_forward_hook(lambda _, __, output: theirs.append(output))
    with torch.inference_mode():
        enlarged = peer(pixel_values=image).logits
        ours = network.segmentation_head[0](network.decoder(network.encoder(image)))
    check_same(ours, theirs[0])
    check_same(F.interpolate(ours, image.shape[-2:], mode="bilinear", align_corners=False), enlarged)
    assert "100% of the network's values" in told[0]
    assert any("auxiliary_head" in line for line in told)


def test_classes_go_by_name(tmp_path: Path) -> None:
    peer = saved(tmp_path)
    model, given = model_of(OURS, *SWIN)
    told = start_from(f"hf:{tmp_path}", model, given)
    theirs = peer.decode_head.classifier.weight
    network: Any = model.network.core
    ours = network.segmentation_head[0].weight
    assert torch.equal(ours[1:], theirs[[4, 2, 0]])
    assert "taken tree, traffic light, sky; new background; left out road, car" in told[1]


@pytest.mark.parametrize(
    ("overrides", "changes", "said"),
    [
        (
            ["network=unet"],
            {},
            "take network=upernet network.encoder=swin_tiny_patch4_window7_224 network.decoder_channels",
        ),
        (CONVNEXT, {}, "take network=upernet network.encoder=swin_tiny"),
        (SWIN, {"backbone_config": {"model_type": "resnet"}}, "an encoder resnet with stages of None blocks"),
        (SWIN, {"backbone_config": "x"}, "an encoder None"),
        (SWIN, {"pool_scales": [1, 2]}, r"pools to \[1, 2\]"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, overrides: list[str], changes: dict[str, object], said: str) -> None:
    body = {"model_type": "swin", "depths": [2, 2, 6, 2], "embed_dim": 96, "window_size": 7}
    about = {"model_type": "upernet", "backbone_config": body, "hidden_size": 32, "pool_scales": [1, 2, 3, 6]}
    (tmp_path / "config.json").write_text(json.dumps(about | changes))
    model, given = model_of(OURS, *overrides)
    with pytest.raises(UserError, match=f"^init_from: hf:.*{said}"):
        start_from(f"hf:{tmp_path}", model, given)
