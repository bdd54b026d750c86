"""A run starts from another's weights as far as they fit: the last layer by the names of its outputs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from src.cli.command import compose
from src.config.settings import Settings
from src.data.labels import LabelSet
from src.errors import UserError
from src.models.base import Segmenter
from src.storage import run_folder
from src.train import train
from src.training import build
from src.training.init_from import outputs_of, start_from
from tests.conftest import settings

OLD, NEW = ("background", "car", "road"), ("tree", "road", "background", "lake")
COLORS = tuple((9 * i, 5 * i, i) for i in range(24))


def model_of(names: tuple[str, ...], *overrides: str, seed: int = 1) -> tuple[Segmenter, Settings]:
    """A model with weights of its own."""
    composed = Settings.of(compose("train", ["network=tiny", "trainer=cpu", f"seed={seed}", *overrides]))
    model = build.build_model(composed, LabelSet(names, COLORS[: len(names)]), 3, (0.0, 255.0))
    torch.manual_seed(seed)
    for value in model.network.parameters():  # biases and norms begin alike, whatever the seed
        value.data += 0.1 * torch.randn_like(value)
    return model, composed


def saved(model: Segmenter, file: Path) -> Path:
    content: dict[str, Any] = {"state_dict": model.state_dict(), "optimizer_states": [], "loops": {}}
    model.on_save_checkpoint(content)
    torch.save(content, file)
    return file


def state_of(model: Segmenter) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def check_by_name(new: dict[str, Tensor], before: dict[str, Tensor], old: dict[str, Tensor]) -> None:
    """Rows of outputs that both have are the old ones, others the new model's own; all else is the old."""
    rows = 0
    for key in (key for key in old if key.startswith("network.") and "num_batches" not in key):
        if old[key].shape == before[key].shape:
            assert torch.equal(new[key], old[key]), key
            continue
        (dim,) = (d for d, (a, b) in enumerate(zip(old[key].shape, new[key].shape, strict=True)) if a != b)
        was, now, own = (state[key].movedim(dim, 0) for state in (old, new, before))
        assert len(now) == len(was) + 1, key
        rows += 1
        for row, name in enumerate(NEW):
            expected = was[OLD.index(name)] if name in OLD else own[row]
            assert torch.equal(now[row], expected), (key, name)
        assert torch.equal(now[len(NEW) :], was[len(OLD) :]), key  # queries' "no object"
    assert rows


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["network=small"],
        ["model=gan"],
        *(
            pytest.param([f"network={name}", *more], marks=pytest.mark.slow)
            for name, more in {
                "unet": [], "fpn": [], "deeplabv3plus": [], "segformer": [], "upernet": [],
                "fcn": ["network.encoder_weights=null"], "deeplabv3": ["network.encoder_weights=null"],
                "lraspp": ["network.encoder_weights=null"], "pidnet": [], "bisenetv2": [],
                "pspnet": ["network.encoder=resnet18"],
                "linear": ["network.encoder=test_vit"], "segmenter": ["network.encoder=test_vit"],
                "eomt": [
                    "network.encoder=test_vit", "network.num_queries=5", "network.num_blocks=2", "network.image_size=64",
                    "loss=mask_classification",
                ],
            }.items()
        ),
    ],
    ids=lambda overrides: " ".join(overrides) or "tiny",
)  # fmt: skip
def test_classes_by_their_names(tmp_path: Path, overrides: list[str]) -> None:
    before, _ = model_of(OLD, *overrides)
    file = saved(before, tmp_path / "old.ckpt")
    model, given = model_of(NEW, *overrides, seed=2)
    own = state_of(model)
    told = start_from(str(file), model, given)
    check_by_name(model.state_dict(), own, before.state_dict())
    assert told[0].startswith(f"{file}: ") and "of the network's values" in told[0]
    assert told[1] == (
        "the last layer by the names of its outputs: taken road, background; new tree, lake; left out car"
    )
    if "model=gan" in overrides:  # its input are the classes
        judges = [key for key in own if key.startswith("discriminator.")]
        assert judges and all(torch.equal(model.state_dict()[key], own[key]) for key in judges)
        assert "start anew: discriminator." in told[2]


@pytest.mark.parametrize(
    ("names", "overrides"),
    [
        (OLD, []), (NEW, ["tasks=depth"]),
        pytest.param(OLD, ["network=fcn", "network.encoder_weights=null"], marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_new_head(tmp_path: Path, names: tuple[str, ...], overrides: list[str]) -> None:
    before, _ = model_of(OLD, *overrides)
    file = saved(before, tmp_path / "old.ckpt")
    model, given = model_of(names, "init_from=x", "init_head=new", *overrides, seed=2)
    own, old = state_of(model), before.state_dict()
    told = start_from(str(file), model, given)
    outputs = len(names) + ("tasks=depth" in overrides)
    for key in (key for key in own if key.startswith("network.") and "num_batches" not in key):
        is_head = own[key].shape[:1] == (outputs,) or key.startswith("network.tasks")
        assert torch.equal(model.state_dict()[key], (own if is_head else old)[key]), key
    heads = 4 if "network=fcn" in overrides else 2
    assert told[-1] == f"the last layer ({heads} tensors) starts anew, as init_head says"
    assert not any("by the names" in line or "in this order" in line for line in told)


def test_a_new_head_has_a_new_judge(tmp_path: Path) -> None:
    before, _ = model_of(OLD, "model=gan")
    file = saved(before, tmp_path / "old.ckpt")
    for head in ("match", "new"):
        model, given = model_of(OLD, "model=gan", "init_from=x", f"init_head={head}", seed=2)
        own = state_of(model)
        start_from(str(file), model, given)
        expected = own if head == "new" else before.state_dict()
        judges = [key for key in own if key.startswith("discriminator.")]
        assert judges and all(torch.equal(model.state_dict()[key], expected[key]) for key in judges)


@pytest.mark.slow
def test_classes_that_lie_along_another_dimension(tmp_path: Path) -> None:
    """A Segmenter has a token for each class: as many of them under other names are not taken for the same."""
    network = ["network=segmenter", "network.encoder=test_vit"]
    before, _ = model_of(OLD, *network)
    file = saved(before, tmp_path / "old.ckpt")
    model, given = model_of((OLD[2], "lake", OLD[0]), *network, seed=2)
    own = state_of(model)
    start_from(str(file), model, given)
    tokens = [key for key, value in own.items() if value.ndim == 3 and value.shape[:2] == (1, 3)]
    assert tokens
    for key in tokens:
        old, new = before.state_dict()[key], model.state_dict()[key]
        assert torch.equal(new, torch.stack([old[:, 2], own[key][:, 1], old[:, 0]], dim=1))


def test_the_same_classes_in_another_order(tmp_path: Path) -> None:
    before, _ = model_of(OLD)
    file = saved(before, tmp_path / "old.ckpt")
    model, given = model_of((OLD[2], OLD[0], OLD[1]), seed=2)
    start_from(str(file), model, given)
    (bias,) = (key for key, value in before.state_dict().items() if value.shape == (3,) and key.endswith("bias"))
    assert torch.equal(model.state_dict()[bias], before.state_dict()[bias][[2, 0, 1]])


def test_tasks_and_classes_each_by_name(tmp_path: Path) -> None:
    before, _ = model_of(OLD, "tasks=depth", "++tasks.label=0.5")
    file = saved(before, tmp_path / "old.ckpt")
    model, given = model_of(NEW, "tasks=label", "++tasks.boundary=1", seed=2)
    assert outputs_of(OLD, before.tasks) == [*OLD, "depth: 0", *(f"label: {name}" for name in OLD)]
    own = state_of(model)
    told = start_from(str(file), model, given)
    (bias,) = (key for key, value in own.items() if value.shape == (9,) and key.endswith("bias"))
    old, new = before.state_dict()[bias], model.state_dict()[bias]
    wanted = [own[bias][0], old[2], old[0], own[bias][3], own[bias][4], own[bias][5], old[6], old[4], own[bias][8]]
    assert torch.equal(new, torch.stack(wanted))
    assert "new tree, lake, boundary: 0, label: tree, label: lake; left out car, depth: 0, label: car" in told[1]


def test_the_average_is_what_is_taken_and_begins_anew(tmp_path: Path) -> None:
    before, _ = model_of(OLD, "model.ema_decay=0.9")
    assert before.ema is not None
    for value in before.ema.module.parameters():
        value.data += 1
    before.ema.n_averaged += 7
    file = saved(before, tmp_path / "old.ckpt")
    model, given = model_of(OLD, "model.ema_decay=0.99", seed=2)
    start_from(str(file), model, given)
    assert model.ema is not None and int(model.ema.n_averaged) == 0
    averaged = before.ema.module.state_dict()
    for network in (model.network, model.ema.module):
        assert all(torch.equal(value, averaged[key]) for key, value in network.state_dict().items())
    without, given = model_of(OLD, seed=2)
    start_from(str(file), without, given)
    assert torch.equal(next(without.network.parameters()), next(before.ema.module.parameters()))


def test_the_new_datas_normalising_stays(tmp_path: Path) -> None:
    before, composed = model_of(OLD)
    file = saved(before, tmp_path / "old.ckpt")
    model = build.build_model(composed, LabelSet(OLD, COLORS[:3]), 3, (0.0, 65535.0))
    own = state_of(model)
    start_from(str(file), model, composed)
    keys = [key for key in own if key.startswith("normalization.")]
    assert keys and all(torch.equal(model.state_dict()[key], own[key]) for key in keys)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("wrapper", "prefix", "cut"),
    [
        (None, "", "network."),
        (None, "module.", "network."),
        ("state_dict", "model.", "network."),
        ("model", "module.model.", "network.core."),
        (None, "_orig_mod.", ""),
        ("state_dict", "net._orig_mod.", "network.core."),
    ],
)
def test_bare_tensors_however_they_are_called(
    tmp_path: Path, wrapper: str | None, prefix: str, cut: str, suffix: str
) -> None:
    if suffix == ".safetensors" and wrapper:
        pytest.skip("safetensors holds tensors alone")
    before, _ = model_of(OLD)
    state = {
        f"{prefix}{key.removeprefix(cut)}": value
        for key, value in before.state_dict().items()
        if key.startswith("network.")
    }
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({wrapper: state, "epoch": 3} if wrapper else state, file)
    else:
        from safetensors.torch import save_file

        save_file({key: value.contiguous() for key, value in state.items()}, file)
    model, given = model_of(OLD, seed=2)
    told = start_from(str(file), model, given)
    assert all(torch.equal(v, before.network.state_dict()[k]) for k, v in model.network.state_dict().items())
    assert "100% of the network's values" in told[0]
    assert "the file does not name its classes; they are taken to be, in this order, background, car, road" in told[1]
    other, given = model_of(NEW, seed=2)
    own = state_of(other)
    told = start_from(str(file), other, given)
    assert "start anew: " in told[1] and "[4" in told[1]
    assert any(torch.equal(other.state_dict()[key], own[key]) and len(own[key]) == 4 for key in own if own[key].ndim)


def test_another_network_is_refused(tmp_path: Path) -> None:
    file = saved(model_of(OLD)[0], tmp_path / "old.ckpt")
    model, given = model_of(OLD, "network=small", seed=2)
    own = state_of(model)
    with pytest.raises(
        UserError, match=r"init_from: the weights in .* do not fit this network \(\d+ of its \d+ tensors"
    ):
        start_from(str(file), model, given)
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("content", [b"no weights", None])
def test_what_holds_no_weights(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "weights.pth"
    if content is None:
        torch.save({"a": 1}, file)
    else:
        file.write_bytes(content)
    model, given = model_of(OLD)
    with pytest.raises(UserError, match=r"init_from: .*weights\.pth"):
        start_from(str(file), model, given)


@pytest.mark.parametrize("name", ["hf:model.ckpt", "zoo:model.ckpt"])
def test_a_file_with_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before, _ = model_of(OLD)
    saved(before, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    model, given = model_of(OLD, f"init_from={name}", seed=2)
    start_from(name, model, given)
    assert torch.equal(next(model.network.parameters()), next(before.network.parameters()))


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (["network=unet", "network.encoder=tf_efficientnet_lite0"], "core.encoder"),
        (["network=lraspp"], "core.model.backbone"),
    ],
)
def test_an_encoder_alone(tmp_path: Path, overrides: list[str], place: str) -> None:
    if "network=lraspp" in overrides:
        peer = torchvision.models.mobilenet_v3_large(weights=None)
    else:
        peer = timm.create_model("tf_efficientnet_lite0")
    for value in peer.parameters():
        value.data += 0.1 * torch.randn_like(value)
    file = tmp_path / "classifier.pth"
    torch.save(peer.state_dict(), file)
    model, given = model_of(OLD, *overrides)
    own = state_of(model)
    told = start_from(f"timm-encoder:{file}", model, given)
    fresh = build.make({**given.network.node, "encoder_weights": str(file)}, "network", num_classes=3, in_channels=3)
    expected = fresh.get_submodule(place).state_dict()
    for key, value in model.network.get_submodule(place).state_dict().items():
        assert torch.equal(value, expected[key]), key
    rest = [key for key in own if key.startswith("network.") and not key.startswith(f"network.{place}.")]
    assert rest and all(torch.equal(model.state_dict()[key], own[key]) for key in rest)
    assert told[0].startswith(f"timm-encoder:{file}: ") and told[1].startswith("start anew: network.core.")


@pytest.mark.parametrize(
    ("overrides", "name", "said"),
    [
        (["network=tiny"], "FILE", "init_from: tiny has no encoder for timm-encoder:"),
        (["network=unet"], "none.pth", "there is no such file"),
        (["network=unet"], "FILE", "^init_from: .* does not fit the encoder"),
    ],
)
def test_an_encoder_that_does_not_fit(tmp_path: Path, overrides: list[str], name: str, said: str) -> None:
    file = tmp_path / "FILE"
    torch.save({"conv.weight": torch.ones(3, 3)}, file)
    model, given = model_of(OLD, *overrides)
    with pytest.raises(UserError, match=said):
        start_from(f"timm-encoder:{tmp_path / name}", model, given)


def test_a_run_that_starts_so_trains(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before, _ = model_of(("background", "disk", "tree"))
    file = saved(before, tmp_path / "old.ckpt")
    outcome = train(settings(tmp_path / "run", f"init_from={file}", "optimizer.lr=1e-9", "debug=fast", "test=false"))
    said = [line for line in caplog.messages if line.startswith("init_from: ")]
    assert "taken background, disk; new rectangle, ring, line, cross; left out tree" in said[1]
    assert outcome.status == "completed" and (tmp_path / "run" / run_folder.BEST).is_file()
    key = "network.core.0.weight"
    assert torch.allclose(outcome.model.state_dict()[key], before.state_dict()[key], atol=1e-6)
