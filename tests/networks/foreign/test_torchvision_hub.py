"""torchvision's own segmentation models, from a file and by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import get_model, get_model_weights

from src.errors import UserError
from src.training.init_from import start_from
from tests.networks.foreign.test_huggingface import check_same, shaken
from tests.training.test_init_from import model_of

NAMES = tuple(f"class {i}" for i in range(21))
MOBILE = ["network=deeplabv3", "network.encoder=mobilenet_v3_large"]


@pytest.mark.parametrize(
    ("name", "options", "overrides"),
    [
        ("lraspp_mobilenet_v3_large", {}, ["network=lraspp"]),
        ("deeplabv3_mobilenet_v3_large", {"aux_loss": True}, MOBILE),
        pytest.param("fcn_resnet50", {"aux_loss": True}, ["network=fcn"], marks=pytest.mark.slow),
        pytest.param("deeplabv3_resnet50", {"aux_loss": True}, ["network=deeplabv3"], marks=pytest.mark.slow),
    ],
)
def test_a_file_gives_the_same_logits(
    tmp_path: Path, name: str, options: dict[str, bool], overrides: list[str]
) -> None:
    peer = shaken(get_model(name, weights=None, weights_backbone=None, num_classes=21, **options))
    file = tmp_path / "model.pth"
    torch.save({"model": peer.state_dict(), "epoch": 3}, file)  # as torchvision's references do
    model, given = model_of(NAMES, *overrides)
    told = start_from(f"torchvision:{file}", model, given)
    image = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        check_same(model.network.eval()(image)["logits"], peer(image)["out"])
    assert "100% of the network's values" in told[0] and "they are taken to be, in this order" in told[1]


def test_a_model_of_the_hub_by_the_names_of_its_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = get_model_weights("lraspp_mobilenet_v3_large").DEFAULT
    peer = shaken(get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=21))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kept = tmp_path / "hub/checkpoints" / Path(weights.url).name  # where torch keeps what it once downloaded
    kept.parent.mkdir(parents=True)
    torch.save(peer.state_dict(), kept)
    model, given = model_of(("Background", "lake", "dog"), "network=lraspp")
    told = start_from("torchvision:lraspp_mobilenet_v3_large", model, given)
    assert told[1].startswith("the last layer by the names of its outputs: taken Background, dog; new lake; left out")
    dog = weights.meta["categories"].index("dog")
    bias = model.state_dict()["network.core.model.classifier.low_classifier.bias"]
    theirs = peer.state_dict()["classifier.low_classifier.bias"]
    assert torch.equal(bias[[0, 2]], theirs[[0, dog]])


def test_what_does_not_fit() -> None:
    model, given = model_of(NAMES, "network=lraspp")
    wanted = "take network=deeplabv3 network.encoder=mobilenet_v3_large"
    with pytest.raises(UserError, match=f"torchvision:deeplabv3_mobilenet_v3_large is of another network; {wanted}"):
        start_from("torchvision:deeplabv3_mobilenet_v3_large", model, given)
    with pytest.raises(UserError, match="torchvision:resnet50 is neither a file nor one of torchvision's segmentation"):
        start_from("torchvision:resnet50", model, given)
