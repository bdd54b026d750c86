"""Exported files give the checkpoint's logits for images of any size, and know their classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from src.cli.command import compose
from src.errors import UserError
from src.export import export
from src.storage.checkpoints import find
from src.train import train
from src.training.build import model_from_checkpoint
from tests.conftest import settings


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


def test_onnx(run_dir: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "ü/model.onnx"
    assert export(exporting(f"ckpt={run_dir}", f"output='{file}'")) < 1e-4
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
@pytest.mark.parametrize("network", ["small", "fpn", "segformer", "fcn", "deeplabv3plus", "ddrnet"])
def test_networks_with_a_stride(tmp_path: Path, network: str) -> None:
    pytest.importorskip("onnxruntime")
    run_dir = trained(tmp_path / "run", f"network={network}", "data.dataset.width=64", "data.crop=null")
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
def test_one_size_where_any_does_not_go(tmp_path: Path) -> None:
    """UPerNet pools to fixed grids, which ONNX cannot for sizes unknown."""
    pytest.importorskip("onnxruntime")
    run_dir = trained(tmp_path / "run", "network=upernet", "data.dataset.width=64", "data.crop=null")
    file = tmp_path / "model.onnx"
    with pytest.raises(UserError, match=r"cannot be exported .*; try it for one size, e\.g\. size=\[512,512\]"):
        export(exporting(f"ckpt={run_dir}", f"output={file}"))
    assert not file.exists()
    assert export(exporting(f"ckpt={run_dir}", f"output={file}", "size=[64,96]")) < 1
    assert file.is_file()


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    run_dir = trained(tmp_path / "noisy", "model=gan", "model.noise.channels=2")
    with pytest.raises(UserError, match="predicts by drawing noise"):
        export(exporting(f"ckpt={run_dir}", f"output={tmp_path}/model.pt2", "format=pt2"))
    assert not (tmp_path / "model.pt2").exists()
    with pytest.raises(UserError, match="format: should be 'onnx' or 'pt2'"):
        export(exporting("ckpt=x", "output=y", "format=tflite"))
