"""mmsegmentation's checkpoints. Its parts in C++ do not build here, so its layers are written down as its sources name them."""

from __future__ import annotations

import os
import pickle
import re
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from src.errors import UserError
from src.training.init_from import start_from
from tests.networks.foreign.test_huggingface import check_same, shaken
from tests.training.test_init_from import model_of

NAMES = ("road", "building", "traffic light")
META: dict[str, Any] = {"dataset_meta": {"classes": NAMES, "palette": [[1, 2, 3]] * 3}, "cfg": "model = …"}


class MixFFN(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        first, last = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)
        depthwise = nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width)
        self.layers = nn.Sequential(first, depthwise, nn.GELU(), nn.Dropout(0), last, nn.Dropout(0))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        if reduction > 1:
            self.sr, self.norm = nn.Conv2d(width, width, reduction, reduction), nn.LayerNorm(width, eps=1e-6)


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.ffn = Attention(width, heads, reduction), MixFFN(width)

    def forward(self, image: Tensor) -> Tensor:
        size = image.shape[-2:]
        x = image.flatten(2).transpose(1, 2)
        queries = self.norm1(x)
        keys = queries
        if hasattr(self.attn, "sr"):
            smaller = self.attn.sr(queries.transpose(1, 2).unflatten(2, size))
            keys = self.attn.norm(smaller.flatten(2).transpose(1, 2))
        x = x + self.attn.attn(queries, keys, keys, need_weights=False)[0]
        x = x + self.ffn.layers(self.norm2(x).transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)
        result: Tensor = x.transpose(1, 2).unflatten(2, size)
        return result


class PatchEmbed(nn.Module):
    def __init__(self, before: int, width: int, size: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(before, width, size, stride, size // 2)
        self.norm = nn.LayerNorm(width, eps=1e-6)


class MixVisionTransformer(nn.Module):
    """mit_b0; `layers[i]` is [the embedding of patches, the blocks, the norm]."""

    def __init__(self) -> None:
        super().__init__()
        widths, heads = (3, 32, 64, 160, 256), (1, 2, 5, 8)
        self.layers = nn.ModuleList()
        for i in range(4):
            width = widths[i + 1]
            embed = PatchEmbed(widths[i], width, 7 if i == 0 else 3, 4 if i == 0 else 2)
            blocks = nn.ModuleList(Layer(width, heads[i], 8 >> i) for _ in range(2))
            self.layers.append(nn.ModuleList([embed, blocks, nn.LayerNorm(width, eps=1e-6)]))

    def forward(self, image: Tensor) -> list[Tensor]:
        features = []
        stages: Any = self.layers
        for embed, blocks, norm in stages:
            image = embed.projection(image)
            image = embed.norm(image.movedim(1, -1)).movedim(-1, 1)
            for block in blocks:
                image = block(image)
            image = norm(image.movedim(1, -1)).movedim(-1, 1)
            features.append(image)
        return features


class Conv(nn.Sequential):
    """mmcv's ConvModule."""

    def __init__(self, before: int, after: int, size: int = 1) -> None:
        conv = nn.Conv2d(before, after, size, padding=size // 2, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(after), activate=nn.ReLU()))


class Head(nn.Module):
    """SegformerHead."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv(width, 256) for width in (32, 64, 160, 256))
        self.fusion_conv, self.conv_seg = Conv(1024, 256), nn.Conv2d(256, len(NAMES), 1)


def written(file: Path, parts: dict[str, nn.Module], **more: object) -> Path:
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    torch.save({"state_dict": OrderedDict(state), "meta": META, **more}, file)
    return file


def test_the_encoder_of_segformer(tmp_path: Path) -> None:
    backbone = shaken(MixVisionTransformer())
    file = written(tmp_path / "iter_1.pth", {"backbone": backbone, "decode_head": Head()})
    model, given = model_of(NAMES, "network=segformer")
    told = start_from(f"mmseg:{file}", model, given)
    image = torch.randn(2, 3, 64, 96)
    encoder = model.network.get_submodule("core.encoder")
    with torch.inference_mode():
        ours, theirs = encoder.eval()(image)[2:], backbone(image)
    for here, there in zip(ours, theirs, strict=True):
        check_same(here, there)
    assert any(line.startswith("start anew: network.core.decoder.mlp_stage.0.linear.weight") for line in told)
    assert any(line.startswith("not used: decode_head.convs.0.conv.weight") for line in told)
    assert told[-1].endswith("the decoder and the last layer start anew")
    unet, given = model_of(NAMES, "network=unet", "network.encoder=mit_b0")  # an encoder is an encoder
    start_from(f"mmseg:{file}", unet, given)
    state = unet.network.state_dict()
    assert torch.equal(state["core.encoder.norm4.weight"], backbone.state_dict()["layers.3.2.weight"])


def test_the_authors_whole_segformer(tmp_path: Path) -> None:
    peer = shaken(smp.Segformer("mit_b0", encoder_weights=None, classes=3))
    state = {}
    for key, value in peer.state_dict().items():
        key = re.sub(r"^encoder\.", "backbone.", key).replace("segmentation_head.0.", "decode_head.linear_pred.")
        key = re.sub(r"decoder\.mlp_stage\.(\d)\.linear", lambda m: f"decode_head.linear_c{4 - int(m[1])}.proj", key)
        key = key.replace("decoder.fuse_stage.0", "decode_head.linear_fuse.conv")
        state[key.replace("decoder.fuse_stage.1", "decode_head.linear_fuse.bn")] = value
    file = tmp_path / "segformer.pth"
    torch.save({"state_dict": state, "meta": {"CLASSES": NAMES}}, file)
    model, given = model_of(tuple(reversed(NAMES)), "network=segformer")
    told = start_from(f"mmseg:{file}", model, given)
    image = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        check_same(model.network.eval()(image)["logits"].flip(1), peer(image))
    assert "100% of the network's values" in told[0] and len(told) == 2


class ResNetV1c(nn.Module):
    """A stem of three convolutions before torchvision's stages, of which mmsegmentation's are the same."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)):
            conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.stem = nn.Sequential(*layers)
        for i in range(1, 5):
            self.add_module(f"layer{i}", body.get_submodule(f"layer{i}"))

    def forward(self, image: Tensor) -> list[Tensor]:
        image = F.max_pool2d(self.stem(image), 3, 2, 1)
        features = []
        for i in range(1, 5):
            image = self.get_submodule(f"layer{i}")(image)
            features.append(image)
        return features


class FCNHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs, self.conv_seg = nn.ModuleList([Conv(1024, 256, 3)]), nn.Conv2d(256, len(NAMES), 1)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, nn.Module]:
    body = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    backbone, head = ResNetV1c(body).eval(), FCNHead()
    file = written(
        tmp_path_factory.mktemp("mmseg") / "deeplabv3plus.pth", {"backbone": backbone, "auxiliary_head": head}
    )
    return file, backbone, head


def test_a_resnet_with_its_deep_stem(resnet: tuple[Path, nn.Module, nn.Module]) -> None:
    file, backbone, _ = resnet
    model, given = model_of(
        NAMES, "network=deeplabv3plus", "network.encoder=resnet50c", "network.output_stride=8"
    )  # fmt: skip
    told = start_from(f"mmseg:{file}", model, given)
    image = torch.randn(1, 3, 64, 64)
    encoder = model.network.get_submodule("core.encoder")
    with torch.inference_mode():
        for here, there in zip(encoder.eval()(image)[2:], backbone(image), strict=True):
            check_same(here, there)
    assert any(line.startswith("start anew: network.core.decoder") for line in told)
    assert any("the decoder starts anew" in line for line in told)


@pytest.mark.slow
def test_a_resnet_without_its_deep_stem(resnet: tuple[Path, nn.Module, nn.Module]) -> None:
    file, backbone, head = resnet
    model, given = model_of(NAMES, "network=fcn")
    told = start_from(f"mmseg:{file}", model, given)
    state, theirs = model.network.state_dict(), head.state_dict()
    key = "layer3.5.conv2.weight"
    assert torch.equal(state[f"core.model.backbone.{key}"], backbone.state_dict()[key])
    for ours, there in (("0", "convs.0.conv"), ("1", "convs.0.bn"), ("4", "conv_seg")):
        assert torch.equal(state[f"core.model.aux_classifier.{ours}.weight"], theirs[f"{there}.weight"])
    assert any(line.startswith("start anew: network.core.model.backbone.conv1.weight") for line in told)
    assert told[-1].endswith("starts anew; network=deeplabv3plus network.encoder=resnet50c has them")
    other, given = model_of(NAMES, "network=unet")
    with pytest.raises(UserError, match=r"is of another network; take network\.encoder=resnet50c$"):
        start_from(f"mmseg:{file}", other, given)


class HistoryBuffer:
    """mmengine's: losses of a training, with methods that it pickles by name."""

    def __init__(self) -> None:
        self.values = np.arange(3.0)
        self.methods = {"mean": HistoryBuffer.mean}

    def mean(self) -> float:
        return float(self.values.mean())


def test_what_a_training_keeps_beside_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    monkeypatch.setattr(HistoryBuffer, "__module__", module.__name__)
    monkeypatch.setattr(HistoryBuffer.mean, "__module__", module.__name__)
    parts = {"backbone": shaken(MixVisionTransformer())}
    with monkeypatch.context() as patched:
        for name in ("mmengine", "mmengine.logging", module.__name__):
            patched.setitem(sys.modules, name, module)
        beside = {"log_scalars": {"loss": HistoryBuffer()}, "best": np.float64(0.5), "seeds": np.arange(4)}
        file = written(tmp_path / "iter_1.pth", parts, message_hub=beside)
    with pytest.raises(pickle.UnpicklingError, match=r"mmengine\.logging\.history_buffer\.HistoryBuffer"):
        torch.load(file, weights_only=True)
    model, given = model_of(NAMES, "network=segformer")
    assert "tensors taken" in start_from(f"mmseg:{file}", model, given)[0]
    with pytest.raises(pickle.UnpicklingError):  # nothing of it is allowed from now on
        torch.load(file, weights_only=True)


class Runs:
    def __init__(self, call: Any, *arguments: object) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("how", ["system", "through getattr", "eval"])
def test_code_is_not_run(tmp_path: Path, how: str) -> None:
    mark = tmp_path / "mark"
    beside = {
        "system": Runs(os.system, f"touch {mark}"),
        "through getattr": Runs(getattr, Path(mark), "touch"),
        "eval": Runs(eval, f"open({str(mark)!r}, 'w')"),
    }[how]
    file = written(tmp_path / "evil.pth", {"backbone": MixVisionTransformer()}, message_hub=beside)
    model, given = model_of(NAMES, "network=segformer")
    with pytest.raises(UserError, match=r"cannot be read as plain tensors .* save its state_dict alone"):
        start_from(f"mmseg:{file}", model, given)
    assert not mark.exists()


def test_what_is_none_of_its_models(tmp_path: Path) -> None:
    model, given = model_of(NAMES, "network=segformer")
    with pytest.raises(UserError, match="there is no such file"):
        start_from(f"mmseg:{tmp_path}/none.pth", model, given)
    swin = tmp_path / "swin.pth"
    torch.save({"state_dict": {"backbone.stages.0.blocks.0.norm1.weight": torch.ones(3)}}, swin)
    with pytest.raises(UserError, match="none of the backbones that are known of mmsegmentation"):
        start_from(f"mmseg:{swin}", model, given)
    larger, given = model_of(NAMES, "network=segformer", "network.encoder=mit_b1")
    file = written(tmp_path / "b0.pth", {"backbone": MixVisionTransformer()})
    with pytest.raises(UserError, match=r"take network\.encoder=mit_b0$"):
        start_from(f"mmseg:{file}", larger, given)
