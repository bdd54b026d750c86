"""Exported files give the checkpoint's logits or labels for images of any size, and know their classes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from timm.layers.conv2d_same import Conv2dSame

from src import load
from src.cli.command import compose
from src.errors import UserError
from src.export import export
from src.sharing.graph import largest_difference, pooled, random_images, traced
from src.storage.checkpoints import find
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import ROOT, settings

PAGE = ROOT / "docs/sharing.md"


def trained(folder: Path, *overrides: str) -> Path:
    train(settings(folder, "debug=fast", "test=false", "~logger", *overrides))
    return folder


def exporting(*overrides: str) -> dict[str, Any]:
    return compose("export", list(overrides))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("trained"), "model.ema_decay=0.5")


def expected(run_dir: Path, image: torch.Tensor) -> torch.Tensor:
    model, _ = model_from_checkpoint(find(str(run_dir)))
    with torch.no_grad():
        return model.logits(image)


@pytest.fixture(scope="module")
def onnx_file(run_dir: Path) -> Path:
    pytest.importorskip("onnxruntime")
    file = run_dir / "ü/model.onnx"
    assert export(exporting(f"ckpt={run_dir}", f"output='{file}'")) < 1e-4
    return file


def test_onnx(run_dir: Path, onnx_file: Path) -> None:
    onnxruntime, file = pytest.importorskip("onnxruntime"), onnx_file
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    image = torch.randint(0, 256, (3, 3, 45, 87), dtype=torch.uint8)
    (logits,) = session.run(None, {"image": image.numpy()})
    assert torch.allclose(torch.from_numpy(logits), expected(run_dir, image), atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["label_set"])["names"][:2] == ["background", "disk"]
    assert [f.name for f in file.parent.iterdir()] == ["model.onnx"]


def test_pt2(run_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    assert export(exporting(f"ckpt={run_dir}", f"output={file}", "format=pt2")) < 1e-5
    extra = {"label_set": ""}
    program = torch.export.load(file, extra_files=extra)
    image = torch.randint(0, 256, (1, 3, 45, 87), dtype=torch.uint8)
    assert torch.allclose(program.module(check_guards=False)(image), expected(run_dir, image), atol=1e-5)
    assert json.loads(extra["label_set"])["ignore_index"] == 255
    assert not any("ema" in key for key in program.state_dict)  # the averaged weights stand for the others


@pytest.mark.slow
@pytest.mark.parametrize("network", ["linear", "dpt", "segmenter"])
def test_networks_over_a_plain_vit(tmp_path: Path, network: str) -> None:
    """Position embeddings are resampled within the graph, and adapters are merged into the weights."""
    pytest.importorskip("onnxruntime")
    options = [f"network={network}", "network.encoder=test_vit", "network.lora.rank=4", "data.crop=null"]
    run_dir = trained(tmp_path / "run", *options)
    file = tmp_path / "model.pt2"
    export(exporting(f"ckpt={run_dir}", f"output={file}", "format=pt2"))  # tries the file against the checkpoint
    assert not any("lora" in key for key in torch.export.load(file).state_dict)
    export(exporting(f"ckpt={run_dir}", f"output={tmp_path}/model.onnx"))
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    ["small", "fpn", "fpn network.encoder=tu-tf_efficientnet_lite0", "segformer", "fcn", "deeplabv3plus", "ddrnet"],
)
def test_networks_with_a_stride(tmp_path: Path, network: str) -> None:
    pytest.importorskip("onnxruntime")
    options = f"network={network} data.dataset.width=64 data.crop=null".split()
    run_dir = trained(tmp_path / "run", *options)
    export(exporting(f"ckpt={run_dir}", f"output={tmp_path}/model.onnx"))  # tries the file against the checkpoint
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.slow
def test_a_network_whose_further_heads_only_train(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    given = ["network=pidnet", "network.boundary=true", "loss=pidnet", "data.dataset.width=64", "data.crop=null"]
    run_dir = trained(tmp_path / "run", *given)
    export(exporting(f"ckpt={run_dir}", f"output={tmp_path}/model.onnx"))
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("network", ["upernet", "pspnet"])
def test_networks_that_pool_to_grids(tmp_path: Path, network: str) -> None:
    """Torch's exporter freezes adaptive pooling to the cells of the traced size, which another size has not."""
    pytest.importorskip("onnxruntime")
    options = ["network.encoder=resnet18", "data.dataset.width=64", "data.crop=null"]
    run_dir = trained(tmp_path / "run", f"network={network}", *options)
    export(exporting(f"ckpt={run_dir}", f"output={tmp_path}/model.onnx"))  # tries the file against the checkpoint
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (6, 6), (5, 2)])
def test_pooling_as_products(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, 11, 24, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pooled(image, size), F.adaptive_avg_pool2d(image, size), atol=1e-6)


class Halved(torch.nn.Module):
    """Pads to even sizes, convolves as TensorFlow does at a stride of 2, and resizes back."""

    def __init__(self) -> None:
        super().__init__()
        self.size_divisor = 2
        self.halve = Conv2dSame(3, 6, 5, stride=2)
        self.mix = Conv2dSame(6, 6, 3, dilation=2)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        size = image.shape[-2:]
        image = F.pad(image, (0, size[1] % 2, 0, size[0] % 2))
        return {"logits": F.interpolate(self.mix(self.halve(image)), size)}


def test_padding_as_tensorflow_has_it_is_constant(run_dir: Path) -> None:
    """As a formula of the size it costs minutes of tracing in a deep encoder."""
    model, _ = model_from_checkpoint(find(str(run_dir)))
    model.ema, model.network = None, Halved()
    program = traced(model, None)
    pads = [node.args[1] for node in program.graph.nodes if node.target == torch.ops.aten.pad.default]
    assert [1, 2, 1, 2] in pads and [2, 2, 2, 2] in pads
    image = random_images(model, 3, 33, 102)
    with torch.no_grad():
        assert torch.allclose(program.module()(image), model.logits(image), atol=1e-5)


def test_one_size_where_any_does_not_go(run_dir: Path) -> None:
    """What cannot be traced for any size says so."""

    class OfOneSize(torch.nn.Module):
        def __init__(self, height: int, width: int) -> None:
            super().__init__()
            self.positions = torch.nn.Parameter(torch.zeros(1, 3, height, width))

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": image + self.positions}

    model, _ = model_from_checkpoint(find(str(run_dir)))
    model.ema = None
    model.network = OfOneSize(70, 133)
    with pytest.raises(UserError, match=r"cannot be exported .*; try it for one size, e\.g\. size=\[512,512\]"):
        traced(model, None)
    model.network = OfOneSize(64, 96)
    assert traced(model, (64, 96)) is not None


def test_the_lines_of_the_page(run_dir: Path, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are run as they stand; the classes are those of `load`, on 99.9 % of pixels or more."""
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
               if "import onnxruntime" in block)  # fmt: skip
    assert len([line for line in code.splitlines() if line.strip()]) <= 13
    monkeypatch.chdir(tmp_path)
    shutil.copy(onnx_file, "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (75, 110, 3), np.uint8)
    Image.fromarray(pixels).resize((220, 150)).save("photo.jpg")
    found: dict[str, Any] = {}
    exec(code, found)
    expected = load(run_dir, device="cpu").predict("photo.jpg")
    assert (found["mask"] == expected.mask).mean() >= 0.999
    assert tuple(found["names"]) == expected.names
    assert np.array_equal(np.asarray(Image.open("mask.png")), found["colors"][found["mask"]])
    about = {key: json.loads(value) for key, value in found["about"].items()}
    assert about["input"] == {
        "name": "image", "layout": "NCHW", "dtype": "uint8", "channels": 3, "range": [0.0, 255.0], "size": None,
    }  # fmt: skip
    assert about["output"]["name"] == "logits" and about["inference"]["mode"] == "whole"


def test_int8_of_a_size_that_val_has_not(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    given = ["precision=int8", "size=[64,96]", "data.root=null"]
    with pytest.raises(UserError, match=r"size: \[64, 96\] is none that .* or take size=\[32,48\]"):
        export(exporting(f"ckpt={run_dir}", f"output={tmp_path}/model.onnx", *given))


@pytest.mark.slow
@pytest.mark.parametrize("given", [
    ["argmax=true"], ["argmax=true", "opset=20"], ["precision=fp16"], ["precision=fp16", "argmax=true"],
    ["precision=int8", "calibration_images=4"], ["precision=int8", "argmax=true", "size=[32,48]"],
], ids=" ".join)  # fmt: skip
def test_ways_of_onnx(run_dir: Path, tmp_path: Path, given: list[str]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "model.onnx"
    sizes = ["data.root=null"] if "precision=int8" in given else []
    export(exporting(f"ckpt={run_dir}", f"output={file}", *given, *sizes))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    height, width = (32, 48) if "size=[32,48]" in given else (64, 96)
    image = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    (answer,) = session.run(None, {"image": image.numpy()})
    labels = answer if "argmax=true" in given else answer.argmax(1)
    told = json.loads(session.get_modelmeta().custom_metadata_map["output"])
    assert (str(answer.dtype), session.get_outputs()[0].name) == (told["dtype"], told["name"])
    wanted = expected(run_dir, image).argmax(1).numpy()
    least = 0.9 if "precision=int8" in given else 0.99 if "precision=fp16" in given else 0.999
    assert labels.shape == wanted.shape and (labels == wanted).mean() >= least
    if "opset=20" in given:
        import onnx

        assert onnx.load(file).opset_import[0].version == 20
    if "precision=int8" in given:
        cost = json.loads((tmp_path / "model.onnx.json").read_text("utf-8"))
        assert cost["miou_lost"] == pytest.approx(cost["checkpoint"]["miou"] - cost["file"]["miou"])
        assert abs(cost["miou_lost"]) < 0.05
        assert any(node.op_type == "QuantizeLinear" for node in __import__("onnx").load(file).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_openvino(run_dir: Path, tmp_path: Path, precision: str) -> None:
    openvino = pytest.importorskip("openvino")
    file = tmp_path / "model.xml"
    export(exporting(f"ckpt={run_dir}", f"output={file}", "format=openvino", "argmax=true", f"precision={precision}"))
    read = openvino.Core().read_model(file)
    image = torch.randint(0, 256, (1, 3, 45, 87), dtype=torch.uint8)
    labels = openvino.compile_model(read, "CPU")({"image": image.numpy()})["labels"]
    wanted = expected(run_dir, image).argmax(1).numpy()
    assert labels.dtype == np.uint8 and (labels == wanted).mean() >= (0.9 if precision == "int8" else 0.999)
    assert json.loads(read.get_rt_info(["pixelwise", "names"]).value)[:2] == ["background", "disk"]
    assert sorted(one.suffix for one in tmp_path.iterdir() if one.suffix != ".json") == [".bin", ".xml"]


def test_labels_of_pt2_in_half_precision(run_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.pt2"
    export(exporting(f"ckpt={run_dir}", f"output={file}", "format=pt2", "argmax=true", "precision=fp16"))
    program = torch.export.load(file)
    assert {value.dtype for key, value in program.state_dict.items() if "network" in key and "weight" in key} == {
        torch.float16
    }
    image = torch.randint(0, 256, (1, 3, 45, 87), dtype=torch.uint8)
    labels = program.module(check_guards=False)(image)
    assert labels.dtype == torch.uint8
    assert (labels == expected(run_dir, image).argmax(1)).float().mean() >= 0.99


def test_a_file_that_gives_something_else_is_not_kept() -> None:
    image, logits = torch.zeros(1, 3, 4, 4), torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 4, 4)
    assert largest_difference(lambda _: logits + 1e-5, [(image, logits)], "fp32", argmax=False) < 2e-5
    assert largest_difference(lambda _: torch.zeros(1, 4, 4), [(image, logits)], "fp32", argmax=True) == 0
    for given, precision, argmax in (
        (logits + 0.01, "fp32", False), (torch.ones(1, 4, 4), "fp32", True), (logits[..., :2], "int8", False),
    ):  # fmt: skip
        with pytest.raises(UserError, match="gives other logits for 4x4"):
            largest_difference(lambda _, given=given: given, [(image, logits)], precision, argmax)  # type: ignore[misc]


def test_what_does_not_go_together() -> None:
    for words, given in (
        ("opset: is ONNX's", ["format=pt2", "opset=20"]), ("precision: int8 is made by ONNX", ["format=pt2", "precision=int8"]),
        ("data: only precision=int8 reads images", ["data.root=x"]), ("end the name in .xml", ["format=openvino"]),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            export(exporting("ckpt=x", "output=y", *given))


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    run_dir = trained(tmp_path / "noisy", "model=gan", "model.noise.channels=2")
    with pytest.raises(UserError, match="predicts by drawing noise"):
        export(exporting(f"ckpt={run_dir}", f"output={tmp_path}/model.pt2", "format=pt2"))
    assert not (tmp_path / "model.pt2").exists()
    with pytest.raises(UserError, match="format: should be 'onnx', 'pt2' or 'openvino'"):
        export(exporting("ckpt=x", "output=y", "format=tflite"))
