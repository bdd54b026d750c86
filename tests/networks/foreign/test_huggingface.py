"""SegFormer as transformers saves it, into the same network here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from src.errors import UserError
from src.training.init_from import start_from
from tests.training.test_init_from import model_of, state_of

NAMES = ("Sky", "road", "traffic_light", "car", "tree")
OURS = ("background", "tree", "traffic light", "sky")
# transformers' names of a block's layers, by smp's
BLOCK = {
    "norm1": "layer_norm_1", "norm2": "layer_norm_2", "attn.q": "attention.self.query", "attn.sr": "attention.self.sr",
    "attn.norm": "attention.self.layer_norm", "attn.proj": "attention.output.dense", "mlp.fc1": "mlp.dense1",
    "mlp.dwconv.dwconv": "mlp.dwconv.dwconv", "mlp.fc2": "mlp.dense2",
}  # fmt: skip


def shaken(model: Any) -> Any:
    """With weights that no two layers share, and averages of batch norms that are not the first ones."""
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.add_(torch.rand_like(value))
        elif value.is_floating_point():
            value.add_(0.1 * torch.randn_like(value))
    return model.eval()


def check_same(ours: Tensor, theirs: Tensor, within: float = 1e-4) -> None:
    """That logits or features are the same but for rounding, and are no zeros."""
    assert ours.shape == theirs.shape and theirs.std() > 0.01
    assert float((ours - theirs).abs().max()) < within * float(theirs.std())


def as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """smp's SegFormer by transformers' names."""
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        name, _, kind = rest.rpartition(".")
        if part == "segmentation_head":
            result[f"decode_head.classifier.{kind}"] = value
        elif name.startswith("mlp_stage"):
            result[f"decode_head.linear_c.{3 - int(name.split('.')[1])}.proj.{kind}"] = value
        elif name.startswith("fuse_stage"):
            result[f"decode_head.{'linear_fuse' if name.endswith('0') else 'batch_norm'}.{kind}"] = value
        elif name.startswith("patch_embed"):
            layer = {"proj": "proj", "norm": "layer_norm"}[name.split(".")[1]]
            result[f"segformer.encoder.patch_embeddings.{int(name[11]) - 1}.{layer}.{kind}"] = value
        elif name.startswith("norm"):
            result[f"segformer.encoder.layer_norm.{int(name[4]) - 1}.{kind}"] = value
        else:
            block, number, layer = name.split(".", 2)
            where = f"segformer.encoder.block.{int(block[5]) - 1}.{number}"
            if layer == "attn.kv":
                half = len(value) // 2
                result[f"{where}.attention.self.key.{kind}"] = value[:half].clone()
                result[f"{where}.attention.self.value.{kind}"] = value[half:].clone()
            else:
                result[f"{where}.{BLOCK[layer]}.{kind}"] = value
    return result


def saved(folder: Path, names: tuple[str, ...] = NAMES, changes: dict[str, object] | None = None) -> Any:
    """A folder as `save_pretrained` writes it, of smp's network; and the network."""
    peer = shaken(smp.Segformer("mit_b0", encoder_weights=None, classes=len(names)))
    folder.mkdir(exist_ok=True)
    save_file(as_transformers(peer.state_dict()), folder / "model.safetensors")
    about = {
        "model_type": "segformer", "depths": [2, 2, 2, 2], "hidden_sizes": [32, 64, 160, 256],
        "decoder_hidden_size": 256, "id2label": {str(i): name for i, name in enumerate(names)},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(about | (changes or {})))
    return peer


def test_every_tensor_goes_to_its_place_and_the_head_by_name(tmp_path: Path) -> None:
    peer = saved(tmp_path / "peer")
    model, given = model_of(OURS, "network=segformer")
    own = state_of(model)
    told = start_from(f"hf:{tmp_path / 'peer'}", model, given)
    state = model.network.state_dict()
    for key, value in peer.state_dict().items():
        if not key.startswith("segmentation_head"):
            assert torch.equal(state[f"core.{key}"], value), key
    for kind in ("weight", "bias"):
        new, theirs = state[f"core.segmentation_head.0.{kind}"], peer.state_dict()[f"segmentation_head.0.{kind}"]
        before = own[f"network.core.segmentation_head.0.{kind}"]
        assert torch.equal(new, torch.stack([before[0], theirs[4], theirs[2], theirs[0]]))
    assert "100% of the network's values" in told[0]
    assert told[1] == (
        "the last layer by the names of its outputs: taken tree, traffic light, sky; new background; left out road, car"
    )
    assert len(told) == 2


def test_a_bin_file_and_names_that_nobody_gave(tmp_path: Path) -> None:
    peer = saved(tmp_path, tuple(f"LABEL_{i}" for i in range(4)))
    torch.save(as_transformers(peer.state_dict()), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    model, given = model_of(OURS, "network=segformer")
    told = start_from(f"hf:{tmp_path}", model, given)
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        check_same(model.network.eval()(image)["logits"], peer(image))
    assert "taken to be, in this order, background, tree, traffic light, sky" in told[1]


@pytest.mark.parametrize(
    ("overrides", "changes", "said"),
    [
        (["network=unet"], {}, "of another network; take network=segformer network.encoder=mit_b0 network.decoder_ch"),
        (["network=segformer", "network.encoder=mit_b1"], {}, "take network=segformer network.encoder=mit_b0"),
        (["network=segformer"], {"decoder_hidden_size": 768}, "network.encoder=mit_b0 network.decoder_channels=768"),
        (["network=segformer"], {"model_type": "beit"}, "is a beit, and of transformers' models SegFormer and UPerNet"),
        (["network=segformer"], {"depths": [1, 1, 1, 1]}, r"stages of \[1, 1, 1, 1\] blocks"),
        (["network=segformer"], {"depths": "x"}, "stages of x blocks"),
        (["network=segformer"], {"hidden_sizes": [[]]}, r"\[\[\]\] channels"),
        (["network=segformer"], {"hidden_sizes": None}, "None channels"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, overrides: list[str], changes: dict[str, object], said: str) -> None:
    saved(tmp_path, changes=changes)
    model, given = model_of(OURS, *overrides)
    with pytest.raises(UserError, match=f"^init_from: hf:.*{said}"):
        start_from(f"hf:{tmp_path}", model, given)


def test_where_there_is_no_model(tmp_path: Path) -> None:
    model, given = model_of(OURS, "network=segformer")
    with pytest.raises(UserError, match=r"is a folder without config\.json"):
        start_from(f"hf:{tmp_path}", model, given)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="is no description of a model"):
        start_from(f"hf:{tmp_path}", model, given)
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"is a folder without model\.safetensors or pytorch_model\.bin"):
        start_from(f"hf:{tmp_path}", model, given)
    for name in ("/no/folder", "./name", "name", "a/b/c", "a/"):
        with pytest.raises(UserError, match="is neither a folder nor a model of the hub, which is called OWNER/NAME"):
            start_from(f"hf:{name}", model, given)


def test_offline_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model, given = model_of(OURS, "network=segformer")
    with pytest.raises(UserError, match=r"^init_from: hf:nobody/nothing could not be loaded \(.*and give the folder$"):
        start_from("hf:nobody/nothing", model, given)


def test_the_peers_own_model_gives_the_same_logits(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    names = dict(enumerate(OURS))
    peer = shaken(transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(id2label=names)))
    peer.save_pretrained(tmp_path)
    model, given = model_of(OURS, "network=segformer")
    told = start_from(f"hf:{tmp_path}", model, given)
    assert "100% of the network's values" in told[0] and len(told) == 1
    image = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        theirs = peer(image).logits
        ours = model.network.eval()(image)["logits"]
    # smp brings them to the image's size with corners aligned, which transformers leaves to the caller
    check_same(ours, F.interpolate(theirs, scale_factor=4, mode="bilinear", align_corners=True))
